"""The paper's ResNet: local and, with circular padding, exactly equivariant."""

from __future__ import annotations

from torch import Tensor, nn

from els.errors import check_whole
from els.models.blocks import (
    MOST_DEPTH,
    Embedding,
    Network,
    as_map,
    check_width,
    conv,
    conv_norm_relu,
    group_norm,
)


class ResNet(Network):
    """Convolutions at full resolution with residual sums (Kamb & Ganguli, appendix C).

    Args:
        channels: image channels c.
        num_classes: number of classes, or None for an unconditional network.
        width: feature channels, a multiple of 8 from 16.
        depth: number of hidden convolutions.
        kernel: size of the first and the hidden convolutions, odd.
        last_kernel: size of the last convolution, odd.
        padding: "zeros" tells the network where the borders are, "circular" does not.
        norm: "none" (the paper's) or "group"; a group norm sees the whole image, so a network
            with it is not local.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int | None = None,
        width: int = 256,
        depth: int = 6,
        kernel: int = 3,
        last_kernel: int = 3,
        padding: str = "zeros",
        norm: str = "none",
    ) -> None:
        super().__init__(
            {
                "channels": channels,
                "num_classes": num_classes,
                "width": width,
                "depth": depth,
                "kernel": kernel,
                "last_kernel": last_kernel,
                "padding": padding,
                "norm": norm,
            }
        )
        check_width("width", width)
        check_whole("depth", depth, 0, MOST_DEPTH)
        self.embedding = Embedding(width, num_classes)
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), group_norm(width), nn.ReLU())
            for _ in range(depth + 1)
        )
        self.first = conv(channels, width, kernel, padding)
        self.hidden = nn.ModuleList(
            nn.Sequential(*conv_norm_relu(width, width, kernel, padding, norm))
            for _ in range(depth)
        )
        self.last: nn.Module = conv(width, channels, last_kernel, padding)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Network.forward`."""
        embedding = self.embedding(t, label)
        h = self.first(x)
        for projection, layer in zip(self.projections, self.hidden, strict=False):
            h = h + layer(h + as_map(projection(embedding)))
        return self.last(h + as_map(self.projections[-1](embedding)))

    @property
    def receptive_field(self) -> int | None:
        """See `Network.receptive_field`."""
        if self.config["norm"] == "group":
            return None
        kernel, depth, last = (self.config[k] for k in ("kernel", "depth", "last_kernel"))
        return 1 + (kernel - 1) * (depth + 1) + (last - 1)
