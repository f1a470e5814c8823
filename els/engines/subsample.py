"""Posterior means from a random part of the images, with a standard error, instead of all of them.

The mean is a ratio of sums over images, and images are what is sampled: in random order, in blocks,
without replacement. The delta method gives the variance of the ratio from how the blocks differ.
A pixel stops when it is known well enough, and the others go on without it. Where few blocks carry
a pixel's weight its error cannot be told, and it is compared with every image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from els.engines.posterior import Posterior, common_peak

# Blocks that the images are cut into: many for the statistics, few for the calls of the engine.
_BLOCKS = 400
_LEAST_BLOCK = 16  # and a multiple of it: the native engine's vectors hold so many images
_BLOCKS_AT_A_TIME = 16  # read at once
# The delta method needs the weight spread over this many blocks.
_LEAST_EFFECTIVE = 30.0
# No pixel's standard error is larger than the tolerance by more than this factor.
_WORST = 2.0

# Queries are taken by index_select and index_copy_: indexing with [] wakes PyTorch's threads, which
# then keep the cores from the engine's for milliseconds.

# (queries (m,), pixels (k c h w), wanted (m h w)) -> the posterior of those queries over those
# images, empty at the places that are not wanted.
Scan = Callable[[Tensor, Tensor, Tensor], Posterior]


@dataclass(frozen=True)
class Estimate:
    """A posterior mean and how well it is known.

    Attributes:
        mean: x0_hat (b c h w).
        standard_error: of each pixel of it (b c h w), in pixel units; 0 where it is exact.
        seen: the share of the images that a query's pixels were compared with (b,), on average,
            in (0, 1].
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
        sums = (like.clone() for like in (one, one, all_channels, all_channels, all_channels))
        return cls(one - torch.inf, *sums)

    def add(self, block: Posterior, queries: Tensor) -> None:
        """Take in one block for some of the queries; empty places change nothing."""
        old, new = self.peak.index_select(0, queries), block.peak.double()
        peak, mine, theirs = common_peak(old, new)
        d, n = block.mass.double() * theirs, block.moment.double() * theirs
        self.peak.index_copy_(0, queries, peak)
        sums = [(self.d, d, mine), (self.n, n, mine)]
        squares = [(self.dd, d * d), (self.nd, n * d), (self.nn, n * n)]
        for total, value, scale in sums + [(*square, mine**2) for square in squares]:
            total.index_copy_(0, queries, total.index_select(0, queries) * scale + value)

    def mean(self) -> Tensor:
        return self.n / self.d

    def effective_blocks(self) -> Tensor:
        """Blocks that the weight is spread over (b 1 h w)."""
        return (self.d**2 / self.dd).nan_to_num(0)

    def variance(self, blocks: Tensor, seen: Tensor) -> Tensor:
        """Of the mean (b c h w), from `blocks` that are a share `seen` of all (b 1 h w)."""
        mean = self.mean()
        spread = (self.nn - 2 * mean * self.nd + mean**2 * self.dd).clamp(min=0)
        return (1 - seen) * blocks / (blocks - 1).clamp(min=1) * spread / self.d**2


def sampled_mean(
    scan: Scan,
    *,
    pixels: Tensor,
    queries: int,
    tolerance: float,
    seed: int = 0,
    device: torch.device | None = None,
) -> Estimate:
    """Estimate posterior means to a root mean squared standard error of `tolerance`.

    Args:
        scan: the posterior of some queries over some images at some places.
        pixels: all images (n c h w).
        queries: number of queries b.
        tolerance: in pixel units, above 0; the mean is over the pixels of a query.
        seed: seed of the order in which images are visited.
        device: where the sums are kept.
    """
    c, h, w = pixels.shape[1:]
    sums = _Sums.zero(queries, (c, h, w), device or torch.device("cpu"))
    blocks, seen = torch.zeros_like(sums.d), torch.zeros_like(sums.d)
    wanted = torch.ones_like(sums.d, dtype=torch.bool)[:, 0]
    next_check = _LEAST_EFFECTIVE
    for i, block in enumerate(_blocks(pixels, seed), start=1):
        active = wanted.flatten(1).any(dim=1).nonzero().flatten()
        if not len(active):
            break
        sums.add(scan(active, block, wanted.index_select(0, active)), active)
        blocks += wanted[:, None]
        seen += wanted[:, None] * (len(block) / len(pixels))
        if i >= next_check:
            next_check = i * 1.15  # checks are not free, and a later one finds little new
            judged = (sums.effective_blocks() >= _LEAST_EFFECTIVE)[:, 0]
            wanted &= ~_known(sums.variance(blocks, seen).mean(1), judged, wanted, tolerance)
    seen = torch.where(wanted[:, None], 1, seen)
    error = sums.variance(blocks, seen).sqrt()
    return Estimate(sums.mean(), standard_error=error, seen=seen.mean(dim=(1, 2, 3)))


def _blocks(pixels: Tensor, seed: int) -> Iterator[Tensor]:
    """All images in random order, block by block."""
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    size = _LEAST_BLOCK * math.ceil(len(pixels) / (_BLOCKS * _LEAST_BLOCK))
    for some in order.split(size * _BLOCKS_AT_A_TIME):
        yield from pixels[some].split(size)


def _known(variance: Tensor, judged: Tensor, wanted: Tensor, tolerance: float) -> Tensor:
    """Which places (b h w) may stop: as many as keep the mean variance of all that have stopped.

    Args:
        variance: of each place's mean (b h w).
        judged: whether it can be relied upon (b h w).
        wanted: the places that have not stopped yet (b h w).
        tolerance: the root of the mean variance to keep.
    """
    spent = torch.where(wanted, 0, variance).flatten(1).sum(dim=1, keepdim=True)
    stopped = (~wanted).flatten(1).sum(dim=1, keepdim=True)
    candidates = torch.where(wanted & judged, variance, torch.inf).flatten(1)
    least, places = candidates.sort(dim=1)
    count = torch.arange(1, places.shape[1] + 1, device=places.device)
    within = spent + least.cumsum(dim=1) <= tolerance**2 * (stopped + count)
    within &= least <= (_WORST * tolerance) ** 2
    chosen = count <= (within * count).amax(dim=1, keepdim=True)
    return torch.zeros_like(within).scatter(1, places, chosen).view_as(wanted)
