"""The networks of the paper's released code: its whole modules, and state dicts alone.

Their architecture is read off the shapes of the weights. What shapes do not show, the padding,
stands in a whole module but not in a state dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from els.errors import InputError, shown
from els.models.blocks import PADDINGS, Network
from els.models.formats.containers import Weights
from els.models.formats.loaded import Asked, Declared, Loaded, explained
from els.models.formats.pickled import Module, Reference
from els.models.networks import fill, listed, numbered, restore_network
from els.models.paper import PaperResNet, PaperUNet

IMAGE_SIZE = 32  # of all the paper's networks; a convolutional network's weights do not say
_SCHEDULE = "cosine_noise_schedule"
# The paper's name for a part, and ours. What is not listed has the same name.
_RENAMED = (
    ("embedding.class_embeddings", "embedding.classes"),
    # ResNet
    ("up_projection", "first"),
    ("embs", "projections"),
    ("convs", "hidden"),
    ("down_projection", "last"),
    # UNet
    ("feature_blocks", "down"),
    ("bottleneck", "middle"),
    ("output_blocks", "up"),
    ("upsamples", "upsample"),
    ("last_emb", "projection"),
    ("output_conv", "last"),
)
_LAST_NORM = (("last_normalizer", "last.0"), ("output_conv", "last.1"))
_IN_BLOCK = (("emb", "projection"), ("model", "layers"))
_BLOCK = re.compile(r"((?:down|up)\.\d+|middle)\.(\w+)\.(.*)")


# Classes that the paper's modules are made of, and those of its UNet alone.
_CLASSES = re.compile(
    r"models\.(DDIM|MinimalResNet|MinimalUNet|EmbeddingModule|UBlock)|torch\.nn\.modules\."
    r"(activation\.ReLU|container\.ModuleList|container\.Sequential|conv\.Conv2d|"
    r"conv\.ConvTranspose2d|linear\.Linear|normalization\.GroupNorm|pooling\.MaxPool2d|"
    r"sparse\.Embedding)"
)
_BATCH_NORM = "torch.nn.modules.batchnorm.BatchNorm2d"
_GROUP_NORM = "torch.nn.modules.normalization.GroupNorm"


def claims(content: object) -> bool:
    """Whether these are weights, or a whole module: nobody else reads any."""
    return isinstance(content, Weights | Module)


def load(content: Weights | Module, asked: Asked) -> Loaded:
    """A network of the paper's code: its whole module, or a state dict under its names or ours.

    Args:
        content: the module or the weights.
        asked: the padding of a state dict (default: zeros) and the size of the images (default:
            what the module says, or 32 pixels).

    Raises:
        InputError: when it is another network.
    """
    if isinstance(content, Module):
        net, size = network_from_module(content)
        declared = Declared("module of the paper's code", "eps", "cosine")
    else:
        net = network_from_weights(content.table, padding=asked.padding or "zeros")
        size = IMAGE_SIZE
        assumed = ("prediction", "schedule", "image_range")
        declared = Declared("state dict", "eps", "cosine", weights=content.which, assumed=assumed)
    size = asked.image_size or size
    note = content.note if isinstance(content, Weights) else ""
    return Loaded(net, (net.channels, size, size), declared, notes=(note,) if note else ())


def our_name(name: str, *, last_norm: bool = False) -> str:
    """The name in this project's networks of a weight of the paper's; our own names stay.

    Args:
        name: of the weight.
        last_norm: it is of a UNet with a norm before its last layer, which are one part here.
    """
    renamed = _LAST_NORM + _RENAMED if last_norm else _RENAMED
    for theirs, ours in renamed:
        if name.startswith(f"{theirs}."):
            name = ours + name.removeprefix(theirs)
            break
    if match := _BLOCK.fullmatch(name):
        block, part, rest = match.groups()
        name = f"{block}.{dict(_IN_BLOCK).get(part, part)}.{rest}"
    return name


def network_from_module(module: Module) -> tuple[Network, int]:
    """The network in a whole module of the paper's code, and the image size that it names.

    Raises:
        InputError: when its noise schedule or its layers are not those of this project's networks.
    """
    size, backbone = IMAGE_SIZE, module
    for _, part in module.walk():
        if not (_CLASSES.fullmatch(part.kind) or (part.kind == _BATCH_NORM and _is_unet(module))):
            raise InputError(
                f"it names {shown(part.kind)}, which is no part of the paper's networks; nothing "
                "in it was run"
            )
    if module.kind == "models.DDIM":
        schedule = module.attributes.get("noise_schedule")
        if not isinstance(schedule, Reference) or schedule.name.split(".")[-1] != _SCHEDULE:
            name = shown(schedule.name if isinstance(schedule, Reference) else schedule)
            raise InputError(f"its noise schedule is {name}; only '{_SCHEDULE}' can be read")
        size = module.attributes.get("default_imsize", IMAGE_SIZE)
        backbone = module.children.get("backbone", module)
    if backbone.kind not in ("models.MinimalResNet", "models.MinimalUNet"):
        raise InputError(f"it holds a {shown(backbone.kind)}, not a models.MinimalResNet or "
                         "models.MinimalUNet")  # fmt: skip
    if type(size) is not int or size < 1:
        raise InputError(f"its image size is {shown(size)}, not a number of pixels")
    return network_from_weights(backbone.state_dict(), padding=_padding(backbone)), size


def network_from_weights(weights: Mapping[str, Tensor], *, padding: str = "zeros") -> Network:
    """The network that a state dict belongs to, under the paper's names or ours.

    Args:
        weights: the state dict.
        padding: "zeros" or "circular", which weights do not show.

    Raises:
        InputError: when these are not the weights of a `ResNet` or a `UNet`.
    """
    theirs = any(name.startswith("bottleneck.") for name in weights)
    normed = any(name.startswith("last_normalizer.") for name in weights)
    ours = {our_name(name, last_norm=normed): value for name, value in weights.items()}
    if len(ours) < len(weights):
        raise InputError("two of its weights have one name here: it is no network of the paper's")
    with explained("its weights are not those of a ResNet or a UNet"):
        if "first.weight" in ours:
            return _resnet(ours, padding)
        if "middle.layers.0.weight" in ours:
            return _unet(ours, padding, theirs=theirs)
    raise InputError("it does not hold the weights of a ResNet or a UNet")


def _is_unet(module: Module) -> bool:
    return any(part.kind == "models.MinimalUNet" for _, part in module.walk())


def _padding(module: Module) -> str:
    """How the convolutions of a module pad, all of them alike."""
    convs = [m.attributes for _, m in module.walk() if m.kind == "torch.nn.modules.conv.Conv2d"]
    said = (conv.get("padding_mode") for conv in convs)
    modes = list({mode if type(mode) is str else shown(mode) for mode in said})
    if len(modes) != 1 or modes[0] not in PADDINGS:
        raise InputError(
            f"its convolutions pad with {listed(sorted(modes)) or 'nothing'}; a network here pads "
            f"with {' or '.join(PADDINGS)}"
        )
    for conv in convs:
        usual = {"stride": (1, 1), "dilation": (1, 1)}
        odd = [name for name, value in usual.items() if conv.get(name) != value]
        if conv.get("padding") not in ("same", tuple(k // 2 for k in conv["kernel_size"])):
            odd.append("padding")
        if odd:
            raise InputError(
                f"a convolution does not keep the image's size, by its {' and '.join(odd)}"
            )
    _check_norms(module)
    return modes[0]


def _classes(weights: Mapping[str, Tensor]) -> int | None:
    table = weights.get("embedding.classes.weight")
    return None if table is None else len(table)


def _check_norms(module: Module) -> None:
    """Refuse norms that are others than those that the paper's code makes."""
    most = 32 if _is_unet(module) else 8
    for _, part in module.walk():
        said = part.attributes
        if part.kind == _BATCH_NORM and (said.get("eps"), said.get("track_running_stats")) != (
            1e-5,
            True,
        ):
            raise InputError("its batch norms are not those of the paper's code")
        if part.kind == _GROUP_NORM:
            groups = min(most, said["num_channels"])
            if (said.get("num_groups"), said.get("eps")) != (groups, 1e-5):
                raise InputError(
                    f"its group norms are not over {groups} groups with eps 1e-5, as "
                    "those of the paper's code"
                )


def _resnet(weights: Mapping[str, Tensor], padding: str) -> Network:
    """The ResNet: this project's, or one with other flags of the paper's."""
    depth, told = numbered(weights, "hidden"), numbered(weights, "projections")
    if told not in (depth, depth + 1):
        raise InputError(
            f"it projects the time {told} times for {depth} hidden layers; the ResNet "
            f"here does so {depth + 1} times"
        )
    last_norm = "last.1.weight" in weights
    last = weights["last.1.weight" if last_norm else "last.weight"]
    width, channels, kernel, _ = weights["first.weight"].shape
    config: dict[str, Any] = {
        "channels": channels,
        "num_classes": _classes(weights),
        "width": width,
        "depth": depth,
        "kernel": kernel,
        "last_kernel": last.shape[-1],
        "padding": padding,
        "norm": "group" if "hidden.0.1.weight" in weights else "none",
    }
    if not last_norm and told > depth:
        return restore_network("ResNet", config, weights)
    with torch.device("meta"):
        net = PaperResNet(**config, last_norm=last_norm, told_last=told > depth)
    fill(net, weights)
    return net


def _unet(weights: Mapping[str, Tensor], padding: str, *, theirs: bool) -> Network:
    """The UNet: this project's, or one with other flags of the paper's."""
    inner, _, kernel, _ = weights["middle.layers.0.weight"].shape
    outer = [len(weights[f"down.{i}.layers.0.weight"]) for i in range(numbered(weights, "down"))]
    last_norm = "last.1.weight" in weights
    channels, _, _, last_kernel = weights["last.1.weight" if last_norm else "last.weight"].shape
    config: dict[str, Any] = {
        "channels": channels,
        "num_classes": _classes(weights),
        "widths": [*outer, inner],
        "embedding": weights["projection.1.weight"].shape[1],
        "kernel": kernel,
        "last_kernel": last_kernel,
        "padding": padding,
    }
    normed = "middle.layers.1.weight" in weights
    up_kernel = weights["up.0.layers.0.weight"].shape[-1] if outer else kernel
    if not last_norm and up_kernel == kernel and not (theirs and normed):
        norm = "group" if normed else "none"
        return restore_network("UNet", config | {"norm": norm}, weights)
    kind = "batch" if "middle.layers.1.running_mean" in weights else "group"
    with torch.device("meta"):
        net = PaperUNet(
            **config,
            up_kernel=up_kernel,
            normalization=kind if normed else "none",
            last_norm=last_norm,
        )
    fill(net, weights)
    return net
