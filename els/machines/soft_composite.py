"""Whole-patch posteriors with soft patches and augmented sources (after arXiv 2605.24192)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from els.engines.posterior import RunningSum
from els.engines.torch_engine import full_precision, working_dtype
from els.errors import InputError
from els.images import ImageSet, to_float
from els.machines.base import Machine, Number, Scale, Symmetry
from els.machines.local import Move, moves

COMPOSITE_WIDTH = Scale("width", (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0))
_BUDGET = 1 << 24  # numbers of a chunk of images held at a time: 64 MiB of float32
_SHIFT = 1  # pixels by which sources are moved


class SoftPatchComposite(Machine):
    """`patch_composite` with soft patches, and with sources that are moved and mirrored.

    A patch around u is compared by weights q(v - u) and answers for v by weights r(v - u):
    x0_hat(v) is the mean of m_u(v) over u by these weights, m_u the posterior mean of whole images
    under q. Squares for both make `patch_composite`; here both are exp(-d^2 / (2 width^2)). Every
    training image is there moved by up to `shift` pixels too (by default 1; 0 for none), its
    edge repeated, and in its symmetries.
    """

    scale = COMPOSITE_WIDTH

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        alpha, sigma = self.at_times(t, x)
        h, w = x.shape[2:]
        out = torch.empty(len(values), *x.shape, dtype=x.dtype, device=x.device)
        for answer, value in zip(out, values, strict=True):
            soft = gaussians(h, w, value).to(x)
            share = soft / soft.sum(dim=0)
            for b in range(len(x)):
                said = self._said(x[b], images.pixels, soft, alpha[b], sigma[b])
                total = torch.einsum("ucv,uv->cv", said, share.to(said))
                answer[b] = rearrange(total, "c (h w) -> c h w", h=h).to(x)
        return list(out)

    def _said(
        self, x: Tensor, pixels: Tensor, soft: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        """The posterior mean of whole images around every pixel u ((h w) c (h w)) of x (c h w)."""
        dtype = working_dtype(x[None], alpha, sigma, x.numel())
        query, cells = rearrange(x.to(dtype), "c h w -> c (h w)"), soft.to(dtype)
        moment = query.new_zeros(len(cells), x.numel())
        total = RunningSum.empty(moment[:, :1], moment)
        with full_precision():
            parts = pixels.split(self.options.chunk or max(1, _BUDGET // x.numel()))
            for some, move in product(parts, self.sources):
                y = rearrange(move(to_float(some.to(x.device)).to(dtype)), "n c h w -> n c (h w)")
                squares = (query - alpha.to(dtype) * y).square().sum(dim=1)
                logits = cells @ squares.T / (-2 * sigma.to(dtype) ** 2)  # (u, n)
                total = total.raised(logits.amax(dim=1, keepdim=True))
                weights = (logits - total.peak).exp()
                found = weights @ rearrange(y, "n c v -> n (c v)")
                total = total.plus(weights.sum(dim=1, keepdim=True), found)
        return rearrange(total.mean, "u (c v) -> u c v", c=len(x))

    @property
    def identity(self) -> list[object]:
        """See `Machine.identity`."""
        return [*super().identity, self.shift, list(self.options.symmetries)]

    @property
    def shift(self) -> int:
        """Pixels by which sources are moved at most, in each direction."""
        return _SHIFT if self.options.shift is None else self.options.shift

    @property
    def sources(self) -> list[Move]:
        """The ways in which a training image is there."""
        return source_moves(self.shift, self.options.symmetries)

    def check(self, value: Number) -> None:
        """See `Machine.check`."""
        if not value > 0:
            raise InputError(f"width {value} of the {self.kind} machine is not above 0")


def source_moves(shift: int, symmetries: Sequence[Symmetry] = ()) -> list[Move]:
    """Every translation by at most `shift` rows and columns, of every symmetry."""
    by = range(-shift, shift + 1)

    def moved(images: Tensor, *, there: Move, rows: int, columns: int) -> Tensor:
        h, w = images.shape[2:]
        padded = F.pad(there(images), [shift] * 4, mode="replicate")
        return padded[..., shift - rows :, shift - columns :][..., :h, :w]

    return [
        partial(moved, there=there, rows=rows, columns=columns)
        for (there, _), rows, columns in product(moves(symmetries), by, by)
    ]


def gaussians(h: int, w: int, width: float) -> Tensor:
    """exp(-d^2 / (2 width^2)) of the distance d between two pixels ((h w), (h w)), float64."""
    rows, columns = (
        torch.exp(-((torch.arange(n)[:, None] - torch.arange(n)).double() ** 2) / (2 * width**2))
        for n in (h, w)
    )
    both = rows[:, None, :, None] * columns[None, :, None, :]
    return rearrange(both, "h w i j -> (h w) (i j)")
