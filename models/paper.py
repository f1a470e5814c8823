"""The networks of the paper's code with flags of its constructors that training here has not.

They are the `ResNet` and the `UNet` of this project but for a norm before the last layer, other
norms, or the end of the ResNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from els.errors import InputError
from els.models.blocks import Network, NetworkFacts, as_map, conv, group_norm
from els.models.resnet import ResNet
from els.models.unet import Block, UNet

NORMALIZATIONS = ("none", "group", "batch")


class PaperResNet(ResNet):
    """A ResNet whose last layer has a norm, or whose end is told no time.

    Args:
        channels: as of `ResNet`, and so are the others.
        num_classes: number of classes, or None for an unconditional network.
        width: feature channels.
        depth: number of hidden convolutions.
        kernel: size of the first and the hidden convolutions.
        last_kernel: size of the last convolution.
        padding: "zeros" or "circular".
        norm: "none" or "group", after the hidden convolutions.
        last_norm: whether there is a norm before the last convolution.
        told_last: the time is added before the last layer, too (`add_one` in the paper's code);
            else the features are doubled there.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int | None,
        width: int,
        depth: int,
        kernel: int,
        last_kernel: int,
        padding: str,
        norm: str,
        last_norm: bool,
        told_last: bool,
    ) -> None:
        super().__init__(channels, num_classes, width, depth, kernel, last_kernel, padding, norm)
        self.config |= {"last_norm": last_norm, "told_last": told_last}
        if last_norm:
            self.last = nn.Sequential(group_norm(width), self.last)
        if not told_last:
            self.projections = self.projections[:-1]

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Network.forward`."""
        if self.config["told_last"]:
            return super().forward(x, t, label)
        embedding = self.embedding(t, label)
        h = self.first(x)
        for projection, layer in zip(self.projections, self.hidden, strict=True):
            h = h + layer(h + as_map(projection(embedding)))
        return self.last(2 * h)

    @property
    def facts(self) -> NetworkFacts:
        """See `Network.facts`."""
        return replace(super().facts, name="ResNet", details=_told(self))

    @property
    def receptive_field(self) -> int | None:
        """See `Network.receptive_field`."""
        return None if self.config["last_norm"] else super().receptive_field


class PaperUNet(UNet):
    """A UNet with the norms of the paper's code: over up to 32 groups, or of the batch.

    Args:
        channels: as of `UNet`, and so are the others.
        num_classes: number of classes, or None for an unconditional network.
        widths: feature channels of each level, finest first.
        embedding: features of the time and class embedding.
        kernel: size of the convolutions on the way down.
        up_kernel: size of those on the way up, which are 3 in the paper's code.
        last_kernel: size of the last convolution.
        padding: "zeros" or "circular".
        normalization: one of `NORMALIZATIONS`, after every convolution of the blocks.
        last_norm: whether there is one before the last convolution.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int | None,
        widths: Sequence[int],
        embedding: int,
        kernel: int,
        up_kernel: int,
        last_kernel: int,
        padding: str,
        normalization: str,
        last_norm: bool,
    ) -> None:
        super().__init__(channels, num_classes, widths, embedding, kernel, last_kernel, padding)
        if normalization not in NORMALIZATIONS:
            raise InputError(
                f"normalization is '{normalization}'; it must be one of {', '.join(NORMALIZATIONS)}"
            )
        self.config |= {"normalization": normalization, "last_norm": last_norm}
        self.config |= {"up_kernel": up_kernel}
        for block in [*self.down, self.middle]:
            _renew(block, kernel, padding, normalization)
        for block in self.up:
            _renew(block, up_kernel, padding, normalization)
        if last_norm:
            self.last = nn.Sequential(*_norm(widths[0], normalization), self.last)

    @property
    def facts(self) -> NetworkFacts:
        """See `Network.facts`."""
        return replace(super().facts, name="UNet", details=_told(self))

    @property
    def receptive_field(self) -> int | None:
        """See `Network.receptive_field`; the norms of a trained batch look at no other place."""
        if self.config["normalization"] == "group":
            return None
        field, wider = super().receptive_field, self.config["up_kernel"] - self.config["kernel"]
        assert field is not None
        return field + 2 * wider * (2 ** len(self.up) - 1)


def _renew(block: nn.Module, kernel: int, padding: str, normalization: str) -> None:
    """Give a block the convolutions and norms of the paper's."""
    assert isinstance(block, Block)
    first, *_ = (layer for layer in block.layers if isinstance(layer, nn.Conv2d))
    inputs, outputs = first.in_channels, first.out_channels
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [conv(width, outputs, kernel, padding), *_norm(outputs, normalization), nn.ReLU()]
    block.layers = nn.Sequential(*layers)


def _norm(width: int, normalization: str) -> list[nn.Module]:
    if normalization == "group":
        return [nn.GroupNorm(min(32, width), width)]
    return [nn.BatchNorm2d(width)] if normalization == "batch" else []


def _told(net: Network) -> str:
    """The flags that are not as usual, for people."""
    config = net.config
    words = {"last_norm": "a norm before the last layer", "normalization": "{} norms"}
    found = [
        words[key].format(config[key])
        for key in words
        if config.get(key) not in (None, False, "none")
    ]
    if config.get("told_last") is False:
        found.append("no time before the last layer")
    return ", ".join(found)
