"""The paper's UNet: wider views by pooling, joined to the details by concatenated skips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from els.errors import InputError, check_whole
from els.models.blocks import (
    MOST_WIDTH,
    Embedding,
    Network,
    SelfAttention,
    as_map,
    conv,
    conv_norm_relu,
)

_MOST_LEVELS = 12  # of 4,096 pixels, the coarsest has two


class Block(nn.Module):
    """Two convolutions, then self-attention if there are heads; the embedding is added first."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        kernel: int,
        padding: str,
        norm: str,
        *,
        heads: int,
    ) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.ReLU(), nn.Linear(embedding, inputs))
        self.layers = nn.Sequential(
            *conv_norm_relu(inputs, outputs, kernel, padding, norm),
            *conv_norm_relu(outputs, outputs, kernel, padding, norm),
        )
        self.attention = SelfAttention(outputs, heads) if heads else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Features (b outputs h w) from features (b inputs h w) and the embedding (b d)."""
        return self.attention(self.layers(h + as_map(self.projection(embedding))))


class UNet(Network):
    """Max pooling down, transposed convolutions up, concatenated skips (Kamb & Ganguli, app. C).

    Args:
        channels: image channels c.
        num_classes: number of classes, or None for an unconditional network.
        widths: feature channels of each level, finest first; h and w must be multiples of
            2 ** (levels - 1).
        embedding: features of the time and class embedding.
        kernel: size of the convolutions, odd.
        last_kernel: size of the last convolution, odd.
        padding: "zeros" or "circular". Pooling breaks equivariance either way, except for shifts
            by whole pooling cells.
        norm: "none" (the paper's) or "group".
        attention: levels whose blocks end in self-attention, 0 for the finest; default: none.
        heads: attention heads, of which the widths of those levels must be multiples.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int | None = None,
        widths: Sequence[int] = (64, 128, 256),
        embedding: int = 256,
        kernel: int = 3,
        last_kernel: int = 3,
        padding: str = "zeros",
        norm: str = "none",
        attention: Sequence[int] = (),
        heads: int = 4,
    ) -> None:
        super().__init__(
            {
                "channels": channels,
                "num_classes": num_classes,
                "widths": list(widths),
                "embedding": embedding,
                "kernel": kernel,
                "last_kernel": last_kernel,
                "padding": padding,
                "norm": norm,
                "attention": list(attention),
                "heads": heads,
            }
        )
        if not widths:
            raise InputError("widths is empty; a UNet needs at least one level")
        check_whole("levels of widths", len(widths), 1, _MOST_LEVELS)
        for level, width in enumerate(widths):
            check_whole(f"widths[{level}]", width, 1, MOST_WIDTH)
        check_whole("embedding", embedding, 4, MOST_WIDTH)
        if stray := sorted(set(attention) - set(range(len(widths)))):
            raise InputError(f"there is no level {stray[0]} for attention; this UNet has levels "
                             f"0..{len(widths) - 1}")  # fmt: skip
        inputs, outer = [channels, *widths], range(len(widths) - 1)
        self.embedding = Embedding(embedding, num_classes)

        def block(level: int, features: int) -> Block:
            return Block(features, widths[level], embedding, kernel, padding, norm,
                         heads=heads if level in attention else 0)  # fmt: skip

        self.down = nn.ModuleList(block(level, inputs[level]) for level in outer)
        self.pool = nn.MaxPool2d(2)
        self.middle = block(len(outer), inputs[-2])
        self.upsample, self.up = nn.ModuleList(), nn.ModuleList()
        for level in reversed(outer):
            coarse, fine = widths[level + 1], widths[level]
            self.upsample.append(nn.ConvTranspose2d(coarse, fine, kernel_size=2, stride=2))
            self.up.append(block(level, 2 * fine))
        self.projection = nn.Sequential(nn.ReLU(), nn.Linear(embedding, widths[0]))
        self.last: nn.Module = conv(widths[0], channels, last_kernel, padding)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Network.forward`.

        Raises:
            InputError: when the image cannot be halved as often as there are levels.
        """
        cell = self.cell
        if x.shape[2] % cell or x.shape[3] % cell:
            raise InputError(
                f"a UNet of {len(self.down) + 1} levels needs height and width in multiples of "
                f"{cell}, not {x.shape[2]} x {x.shape[3]}"
            )
        embedding = self.embedding(t, label)
        h, skips = x, []
        for block in self.down:
            h = block(h, embedding)
            skips.append(h)
            h = self.pool(h)
        h = self.middle(h, embedding)
        for upsample, block in zip(self.upsample, self.up, strict=True):
            h = block(torch.cat([skips.pop(), upsample(h)], dim=1), embedding)
        return self.last(h + as_map(self.projection(embedding)))

    @property
    def cell(self) -> int:
        """See `Network.cell`: it is halved as often as there are levels below the finest."""
        return 2 ** len(self.down)

    @property
    def receptive_field(self) -> int | None:
        """See `Network.receptive_field`; exact up to where a pixel lies in its pooling cell."""
        if self.config["attention"] or self.config["norm"] == "group":
            return None
        kernel, last = self.config["kernel"], self.config["last_kernel"]
        levels = len(self.down)
        reach = last - 1
        for level in range(levels):  # two blocks of two convolutions, and the pooling between them
            reach += 2**level * (2 * 2 * (kernel - 1) + 1)
        return 1 + reach + 2**levels * 2 * (kernel - 1)
