"""Pieces that the networks share."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from els.errors import InputError, check_whole
from els.files import sha256_of_tensor

PADDINGS = ("zeros", "circular")
NORMS = ("none", "group")
_GROUPS = 8
# Beyond any network that is known; a width that no memory holds is refused before it is built.
MOST_WIDTH, MOST_DEPTH, MOST_KERNEL, MOST_CLASSES = 16_384, 1000, 255, 1_000_000


@dataclass(frozen=True)
class NetworkFacts:
    """What is known of a network beside its weights, as plain data.

    Attributes:
        name: of its architecture, such as "ResNet".
        padding: "zeros" or "circular".
        num_classes: number of classes, or None for an unconditional network.
        parameters: number of trained numbers.
        receptive_field: width in pixels of the largest window that an output pixel can depend on;
            None where it is the whole image.
        details: what else tells it from others of its architecture.
    """

    name: str
    padding: str
    num_classes: int | None
    parameters: int
    receptive_field: int | None
    details: str = ""

    @property
    def field_text(self) -> str:
        """The largest window that the network could look at, for people."""
        return "the whole image" if self.receptive_field is None else f"{self.receptive_field} px"

    @property
    def description(self) -> str:
        """One line for people, never read by code."""
        labels = "unconditional" if self.num_classes is None else f"{self.num_classes} classes"
        parts = [
            self.name,
            f"{self.padding} padding",
            labels,
            f"{self.parameters / 1e6:.2f} M parameters",
            self.details,
            f"receptive field {self.field_text}",
        ]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Trained:
    """How long a network was trained, and how well, as its checkpoint says.

    Attributes:
        steps: optimizer steps.
        epochs: finished passes over the images.
        val_loss: the last held-out loss before the checkpoint was written, or None: answering zero
            has a loss of 1.
    """

    steps: int
    epochs: int
    val_loss: float | None = None


class Network(nn.Module):
    """A backbone: net(x, t, label) -> eps_hat, and what it takes to build the same one again.

    Attributes:
        config: the constructor's arguments, as plain data.
        channels: image channels c.
        num_classes: number of classes, or None for an unconditional network.
        padding: "zeros" or "circular".
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.channels: int = config["channels"]
        self.num_classes: int | None = config["num_classes"]
        self.padding: str = config["padding"]
        check_choice("padding", self.padding, PADDINGS)
        check_choice("norm", config["norm"], NORMS)
        check_whole("channels", self.channels, 1, MOST_WIDTH)
        if self.num_classes is not None:
            check_whole("num_classes", self.num_classes, 1, MOST_CLASSES)
        for name in {"kernel", "last_kernel"} & config.keys():
            check_kernel(name, config[name])

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """eps_hat (b c h w) from noisy images x (b c h w), times t (b,) and labels (b,)."""
        raise NotImplementedError

    @property
    def cell(self) -> int:
        """Height and width of its images must be multiples of so many pixels."""
        return 1

    @property
    def facts(self) -> NetworkFacts:
        """What is known of the network beside its weights."""
        return NetworkFacts(
            name=type(self).__name__, padding=self.padding, num_classes=self.num_classes,
            parameters=self.parameter_count, receptive_field=self.receptive_field,
        )  # fmt: skip

    @property
    def identity(self) -> object:
        """Plain data that tells its weights from others: a digest of them."""
        digest = hashlib.sha256()
        for name, value in self.state_dict().items():
            digest.update(name.encode() + sha256_of_tensor(value).encode())
        return digest.hexdigest()

    @property
    def parameter_count(self) -> int:
        """Number of trained numbers."""
        return sum(p.numel() for p in self.parameters())

    @property
    def receptive_field(self) -> int | None:
        """Width in pixels of the largest window that an output pixel can depend on.

        None when it is the whole image whatever its size, as with attention or a group norm.
        """
        raise NotImplementedError


def check_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        InputError: with their names.
    """
    if value not in choices:
        raise InputError(f"{what} is '{value}'; it must be one of {', '.join(choices)}")


def check_width(name: str, width: object) -> None:
    """Refuse numbers of channels that cannot be divided in 8 groups of several.

    Raises:
        InputError: with the name.
    """
    check_whole(name, width, 2 * _GROUPS, MOST_WIDTH)
    if cast(int, width) % _GROUPS:
        raise InputError(f"{name} is {width}; it must be a multiple of {_GROUPS}, such as 32")


def check_kernel(name: str, kernel: object) -> None:
    """Refuse sizes of convolutions that are not odd.

    Raises:
        InputError: with the name.
    """
    check_whole(name, kernel, 1, MOST_KERNEL)
    if not cast(int, kernel) % 2:
        raise InputError(f"{name} is {kernel}; it must be odd, such as 3")


class Embedding(nn.Module):
    """Sinusoidal embedding of the time, plus a learned one of the class.

    Frequencies fall geometrically from 1 to 1e-4 per unit of t, as in the paper's released code.

    Args:
        width: number of features, even.
        num_classes: number of classes, or None for an unconditional network.
    """

    def __init__(self, width: int, num_classes: int | None) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise InputError(f"the embedding has {width} features; it needs an even number from 4")
        self.classes = None if num_classes is None else nn.Embedding(num_classes, width)
        self.width = width

    def forward(self, t: Tensor, label: Tensor | None) -> Tensor:
        """Features (b, width) of times t (b,) and labels (b,).

        Raises:
            InputError: when a label is given to an unconditional network, missing for a
                conditional one, or out of range.
        """
        # Made anew each time: a buffer would be broadcast by DDP before every validation batch,
        # and hang where processes have unequal numbers of batches.
        half = self.width // 2
        exponent = torch.arange(half, device=t.device) / (half - 1)
        angle = t.float()[:, None] * torch.exp(-math.log(10_000) * exponent)
        embedding = torch.cat([angle.sin(), angle.cos()], dim=1)
        if self.classes is None:
            if label is not None:
                raise InputError("a label was given, but this network is not class-conditional")
            return embedding
        if label is None:
            raise InputError(
                "this network is class-conditional: give labels "
                f"0..{self.classes.num_embeddings - 1}"
            )
        return embedding + self.classes(label)


class CircularConv2d(nn.Conv2d):
    """A convolution on the torus.

    PyTorch's own circular padding gives up the channels-last layout, and with it two thirds of the
    speed of training in bf16 on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features (b outputs h w) from features (b inputs h w)."""
        assert isinstance(self.padding, tuple)
        top, left = self.padding
        if left:
            x = torch.cat([x[..., -left:], x, x[..., :left]], dim=3)
        if top:
            x = torch.cat([x[..., -top:, :], x, x[..., :top, :]], dim=2)
        return F.conv2d(x, self.weight, self.bias, self.stride, dilation=self.dilation)


def conv(inputs: int, outputs: int, kernel: int, padding: str) -> nn.Conv2d:
    """A convolution that keeps the size of the image."""
    check_kernel("kernel", kernel)
    kind = CircularConv2d if padding == "circular" else nn.Conv2d
    return kind(inputs, outputs, kernel, padding=kernel // 2)


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int, padding: str, norm: str
) -> list[nn.Module]:
    """A convolution, a group normalisation if `norm` is "group", and a ReLU."""
    layers: list[nn.Module] = [conv(inputs, outputs, kernel, padding)]
    if norm == "group":
        layers.append(group_norm(outputs))
    return [*layers, nn.ReLU()]


def group_norm(width: int) -> nn.GroupNorm:
    """Normalisation over 8 groups of channels."""
    check_width("width", width)  # a group of a single channel would always be zero
    return nn.GroupNorm(_GROUPS, width)


class SelfAttention(nn.Module):
    """Every place looks at every other: multi-head attention without places, plus its input.

    Normalised before and summed after, as in DDPM (Ho et al. 2020); the output projection starts
    at zero, so that an untrained network is the one without attention. There is no embedding of
    the place: on a torus it is equivariant.

    Args:
        width: feature channels, a multiple of 8 from 16, and of `heads`.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"{width} channels cannot be divided among {heads} attention heads")
        self.heads = heads
        self.norm = group_norm(width)
        self.inputs = nn.Conv2d(width, 3 * width, 1)
        self.output = nn.Conv2d(width, width, 1)
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor) -> Tensor:
        """Features (b d h w) from features (b d h w)."""
        query, key, value = rearrange(
            self.inputs(self.norm(h)), "b (three n d) y x -> three b n (y x) d",
            three=3, n=self.heads,
        )  # fmt: skip
        seen = F.scaled_dot_product_attention(query, key, value)
        return h + self.output(rearrange(seen, "b n (y x) d -> b (n d) y x", y=h.shape[2]))


def as_map(features: Tensor) -> Tensor:
    """Features (b d) as (b d 1 1), to be added to a feature map."""
    return rearrange(features, "b d -> b d 1 1")
