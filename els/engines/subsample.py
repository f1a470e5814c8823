"""Posterior means from a part of the training patches, with an error that holds.

Patches are drawn by strata of alike ones (`els.engines.strata`), most where the model of a stratum
expects most of the variance; strata.cpp is the estimator. The tolerance is on the root mean square
of the error over an image's pixels. Windows that cross a border are compared with all they may be
compared with, and whatever is cheaper in full is done in full.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from els.engines import native_engine
from els.engines.dispatch import choose, posteriors
from els.engines.query import PatchQuery
from els.engines.strata import MIDDLE, Strata
from els.engines.strata_code import LANES, estimate

_IMAGES_AT_A_TIME = 16  # bounds memory; strata are read once for all of them
_LEAST_PATCHES = 1 << 20  # of a dictionary for which strata can pay
_MOST_DRAWS = 1 / 8  # share of all patches at which a pixel is given up
# Core-nanoseconds, as measured with AVX2: a pair in full, and a draw by floats of a patch.
_PAIR, _DRAW, _DRAW_BY_FLOAT = 1.5, 8.0, 0.06


@dataclass(frozen=True)
class Estimate:
    """A posterior mean and how well it is known.

    Attributes:
        mean: x0_hat (b c h w).
        standard_error: of each pixel of it, the same for all channels (b c h w), in pixel units; 0
            where it is exact.
        seen: the share of the training patches that a query's pixels were compared with (b,), on
            average, in (0, 1].
    """

    mean: Tensor
    standard_error: Tensor
    seen: Tensor

    @classmethod
    def exact(cls, mean: Tensor) -> Estimate:
        """A mean over all patches."""
        return cls(mean, torch.zeros_like(mean), torch.ones(len(mean)))


def can_sample(query: PatchQuery, engine: str) -> bool:
    """Whether a query of one size has a dictionary that strata can be made of, and is worth it."""
    n, _, h, w = query.pixels.shape
    (size,) = query.sizes
    places = (h - size + 1) * (w - size + 1)
    return (
        query.plain
        and query.rule != "local"  # which asks little
        and size <= min(h, w)
        and n * places >= _LEAST_PATCHES
        and choose(query, engine) == "native"  # type: ignore[arg-type]
    )


def sampled_mean(query: PatchQuery, strata: Strata, *, tolerance: float, seed: int = 0) -> Estimate:
    """Posterior means to a root mean square error of `tolerance` over each image's pixels.

    An answer depends on the query's image, time and seed, not on its batch or the threads.

    Args:
        query: of one size, such as `can_sample` allows.
        strata: those of its images and size.
        tolerance: in pixel units, above 0.
        seed: of the draws.
    """
    by_time = defaultdict(list)
    for i, time in enumerate(zip(query.alpha.tolist(), query.sigma.tolist(), strict=True)):
        by_time[time].append(i)
    mean = torch.empty_like(query.x)
    error, seen = torch.zeros_like(query.x), torch.ones(len(query.x))
    for indices in by_time.values():
        for first in range(0, len(indices), _IMAGES_AT_A_TIME):
            some = torch.tensor(indices[first : first + _IMAGES_AT_A_TIME])
            part = replace(query, x=query.x[some], alpha=query.alpha[some], sigma=query.sigma[some])
            found = _at_one_time(part, strata, tolerance, seed) or Estimate.exact(_mean(part))
            mean[some], error[some], seen[some] = found.mean, found.standard_error, found.seen
    return Estimate(mean, error, seen)


def _mean(query: PatchQuery) -> Tensor:
    (found,) = posteriors(query)
    return found.mean.to(query.x)


def _at_one_time(query: PatchQuery, strata: Strata, tolerance: float, seed: int) -> Estimate | None:
    """The answers to queries at the same time; None where all patches cost less."""
    b, c, h, w = query.x.shape
    r = strata.size // 2
    alpha, sigma = float(query.alpha[0]), float(query.sigma[0])
    wraps = query.rule == "equivariant"
    inside = (slice(None), slice(None), slice(r, h - r), slice(r, w - r))
    x = F.pad(query.x, (r, r, r, r), mode="circular") if wraps else query.x
    rows, columns = x.shape[2] - 2 * r, x.shape[3] - 2 * r
    # Image by image: a product's rounding may depend on how many rows it has.
    windows = [_windows(one[None] * MIDDLE, strata.size) for one in x]
    features = torch.cat([strata.features(one, alpha) for one in windows])
    unit = 1 / (2 * math.log(2) * (sigma * MIDDLE) ** 2)
    stride = -(-windows[0].shape[1] // LANES) * LANES
    queries = F.pad(torch.cat(windows) * (2 * alpha * unit), (0, stride - windows[0].shape[1]))
    places, count = rows * columns, len(queries)
    found = {
        "mean": torch.zeros(count, c, dtype=torch.float64),
        "variance": torch.zeros(count, dtype=torch.float64),
        "draws": torch.zeros(count, dtype=torch.float64),
    }
    full = _PAIR * count * strata.patches
    done = estimate(
        {
            "images": strata.images,
            "order": strata.order,
            "start": strata.start,
            "queries": queries.contiguous(),
            "features": features,
            "terms_of": strata.terms(alpha, sigma),
            "means": (alpha * strata.mean.T).contiguous(),
            "centre": strata.centre,
            "spread": strata.spread,
            "keys": torch.arange(places).repeat(b) + _key(seed, sigma),
            **found,
        },
        count=count,
        group=places,
        seed=_key(seed, sigma),
        terms=features.shape[1],
        components=strata.components.shape[1],
        strata=len(strata.rest),
        channels=c,
        height=h,
        width=w,
        window_rows=strata.size,
        window_columns=strata.size,
        centre_row=r,
        centre_column=r,
        stride=stride,
        unit=alpha**2 * unit,
        tolerance=tolerance * MIDDLE,
        most=_MOST_DRAWS * strata.patches,
        dear=full / (_DRAW + _DRAW_BY_FLOAT * stride),
    )
    if not done:
        return None
    estimated = rearrange(found["mean"], "(b i j) c -> b c i j", b=b, i=rows) / MIDDLE
    deviation = rearrange(found["variance"], "(b i j) -> b 1 i j", b=b, i=rows).sqrt() / MIDDLE
    seen = (rearrange(found["draws"], "(b p) -> b p", b=b).mean(dim=1) / strata.patches).float()
    if wraps:
        mean, error = estimated.to(query.x), deviation.expand_as(estimated).to(query.x)
        return Estimate(mean, error.contiguous(), seen)
    mean, error = _border(query, r), torch.zeros_like(query.x)
    mean[inside] = estimated.to(query.x)
    error[inside] = deviation.to(query.x).expand_as(mean[inside])
    return Estimate(mean, error, seen)


def _border(query: PatchQuery, r: int) -> Tensor:
    """The exact answers (b c h w) where windows cross a border, zero elsewhere.

    Such a window moves along its border alone, so that one of its displacements is always 0.
    """
    b, _, h, w = query.x.shape
    rows = torch.zeros(b, h, w, dtype=torch.bool)
    rows[:, :r] = rows[:, h - r :] = True
    columns = torch.zeros_like(rows)
    columns[:, r : h - r, :r] = columns[:, r : h - r, w - r :] = True
    mean = torch.zeros_like(query.x)
    for wanted, shifts in ((rows, (0, w)), (columns, (h, 0))):
        (found,) = native_engine.posteriors(replace(query, wanted=wanted), shifts=shifts)
        mean = torch.where(wanted[:, None], found.mean.to(mean), mean)
    return mean


def _windows(x: Tensor, size: int) -> Tensor:
    """The windows of an image (1 c h w) that lie inside, as (places, k k c)."""
    return rearrange(F.unfold(x, size), "1 (c k) p -> p (k c)", k=size**2).contiguous()


def _key(seed: int, sigma: float) -> int:
    """A number for a seed and a time, the same on every machine."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", sigma))
    mixed: int = (seed * 0x9E3779B97F4A7C15 + bits * 0xBF58476D1CE4E5B9) & (2**62 - 1)
    return mixed
