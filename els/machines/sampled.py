"""Posterior means from a random part of the images, with a standard error, instead of all of them.

The mean is a ratio of sums over images, and images are what is sampled: in random order, in blocks,
without replacement. The delta method gives the variance of the ratio from how the blocks differ.
Where few blocks carry a pixel's weight it cannot be trusted; such a query is scanned to the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from els.machines.posterior import Posterior

# Blocks that the images are cut into: many for the statistics, few for the calls of the engine.
_BLOCKS = 400
_LEAST_BLOCK = 16
# The delta method needs the weight spread over this many blocks.
_LEAST_EFFECTIVE = 20.0

# (queries (m,), images (k,)) -> the posterior of those queries over those images.
Scan = Callable[[Tensor, Tensor], Posterior]


@dataclass(frozen=True)
class Estimate:
    """A posterior mean and how well it is known.

    Attributes:
        mean: x0_hat (b c h w).
        standard_error: of each pixel of it (b c h w), in pixel units; 0 where it is exact.
        seen: the share of the images that each query was compared with (b,), in (0, 1].
    """

    mean: Tensor
    standard_error: Tensor
    seen: Tensor


@dataclass
class _Sums:
    """Sums over blocks of D = sum of weights and N = sum of weights times centres.

    All are float64 and relative to exp(peak), the squares to exp(2 peak).
    """

    peak: Tensor  # (b 1 h w)
    d: Tensor  # (b 1 h w)
    dd: Tensor  # (b 1 h w)
    n: Tensor  # (b c h w)
    nn: Tensor  # (b c h w)
    nd: Tensor  # (b c h w)

    @classmethod
    def zero(cls, b: int, shape: tuple[int, int, int], device: torch.device) -> _Sums:
        c, h, w = shape
        one, all_channels = (
            torch.zeros(b, channels, h, w, dtype=torch.float64, device=device)
            for channels in (1, c)
        )
        return cls(one - torch.inf, one.clone(), one.clone(),
                   all_channels.clone(), all_channels.clone(), all_channels.clone())  # fmt: skip

    def add(self, block: Posterior, queries: Tensor) -> None:
        """Take in one block for some of the queries."""
        new, old = block.peak.double(), self.peak[queries]
        peak = torch.maximum(new, old)
        mine, theirs = ((part - peak).exp().nan_to_num(0) for part in (old, new))
        d, n = block.mass.double() * theirs, block.moment.double() * theirs
        self.peak[queries] = peak
        for total, value, scale in (
            (self.d, d, mine), (self.n, n, mine), (self.dd, d * d, mine**2),
            (self.nd, n * d, mine**2), (self.nn, n * n, mine**2),
        ):  # fmt: skip
            total[queries] = total[queries] * scale + value

    def mean(self) -> Tensor:
        return self.n / self.d

    def effective_blocks(self) -> Tensor:
        """Blocks that the weight is spread over (b 1 h w)."""
        return (self.d**2 / self.dd).nan_to_num(0)

    def standard_error(self, blocks: Tensor, seen: Tensor) -> Tensor:
        """Of the mean (b c h w), from `blocks` (b,) that are a share `seen` (b,) of all."""
        mean = self.mean()
        spread = (self.nn - 2 * mean * self.nd + mean**2 * self.dd).clamp(min=0)
        left = ((1 - seen) * blocks / (blocks - 1).clamp(min=1)).view(-1, 1, 1, 1)
        return (left * spread).sqrt() / self.d


def sampled_mean(
    scan: Scan,
    *,
    queries: int,
    images: int,
    shape: tuple[int, int, int],
    tolerance: float,
    seed: int = 0,
    device: torch.device | None = None,
) -> Estimate:
    """Estimate posterior means to a root mean squared standard error of `tolerance`.

    Args:
        scan: the posterior of some queries over some images.
        queries: number of queries b.
        images: number of images n.
        shape: (c, h, w) of a query.
        tolerance: in pixel units, above 0; the mean is over the pixels of a query.
        seed: seed of the order in which images are visited.
        device: where the sums are kept.
    """
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    sums = _Sums.zero(queries, shape, device or torch.device("cpu"))
    blocks = torch.zeros(queries, dtype=torch.float64, device=sums.d.device)
    seen = torch.zeros_like(blocks)
    active = torch.arange(queries, device=sums.d.device)
    next_check = _LEAST_EFFECTIVE
    size = max(_LEAST_BLOCK, images // _BLOCKS)
    for i, block in enumerate(order.split(size), start=1):
        sums.add(scan(active, block), active)
        blocks[active] += 1
        seen[active] += len(block) / images
        if i >= next_check and i * size < images:
            next_check = i * 1.15  # checks are not free, and a later one finds little new
            error, effective = sums.standard_error(blocks, seen), sums.effective_blocks()
            active = active[~_good_enough(error, effective, tolerance)[active]]
            if not len(active):
                break
    error = sums.standard_error(blocks, seen)
    error[seen > 1 - 1e-9] = 0
    return Estimate(mean=sums.mean(), standard_error=error, seen=seen.clamp(max=1))


def _good_enough(error: Tensor, effective: Tensor, tolerance: float) -> Tensor:
    """Which queries (b,) may stop: every pixel can be judged, and on average is known well."""
    judged = (effective >= _LEAST_EFFECTIVE).flatten(1).all(dim=1)
    return judged & (error.square().mean(dim=(1, 2, 3)).sqrt() <= tolerance)
