"""Posterior means from a part of the training patches, with an error that holds.

Patches are drawn by strata of alike ones (`els.engines.strata`), most where the model of a stratum
expects most of the variance, and then by what a few coordinates promise of each; strata.cpp is the
estimator. The tolerance is on the root mean square of the error over an image's pixels. Windows
that cross a border have strata of their own, and whatever is cheaper in full is done in full.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from els.engines import native_engine
from els.engines.dictionary import Region, along_borders, inside
from els.engines.dispatch import choose, posteriors
from els.engines.query import PatchQuery
from els.engines.strata import MIDDLE, Strata
from els.engines.strata_code import estimate

_IMAGES_AT_A_TIME = 16  # bounds memory; strata are read once for all of them
_LEAST_PATCHES = 1 << 20  # of a dictionary for which strata can pay
_MOST_PIXELS = 1 << 31  # whose index is an int32
_LEAST_AT_BORDER = 1 << 18  # and of one that a border leaves
_MOST_DRAWS = 1 / 2  # share of all patches above which a pixel takes all of them
_MOST_CLAIMED = 1.5  # times the tolerance; an image that claims more has its worst pixels in full
_SPARE = 64  # numbers past the last that the compiled code may read
# Core-nanoseconds a pair in full, inside and at a border, where displacements share less.
_PAIR, _BORDER_PAIR = 1.3, 5.0
_ALONE = 0.05  # and of a pixel by itself, for each number of a patch


@dataclass(frozen=True)
class Estimate:
    """A posterior mean and how well it is known.

    Attributes:
        mean: x0_hat (b c h w).
        standard_error: of each pixel of it, the same for all channels (b c h w), in pixel units; 0
            where it is exact.
        seen: the share of the training patches that a query's pixels were compared with (b,), on
            average, in [0, 1].
    """

    mean: Tensor
    standard_error: Tensor
    seen: Tensor

    @classmethod
    def exact(cls, mean: Tensor) -> Estimate:
        """A mean over all patches."""
        return cls(mean, torch.zeros_like(mean), torch.ones(len(mean)))

    @classmethod
    def nothing(cls, x: Tensor) -> Estimate:
        """No answer to queries x: their means are NaN, and nothing was seen."""
        return cls(torch.full_like(x, torch.nan), torch.zeros_like(x), torch.zeros(len(x)))


def can_sample(query: PatchQuery, engine: str) -> bool:
    """Whether a query of one size has a dictionary that strata can be made of, and is worth it."""
    n, _, h, w = query.pixels.shape
    (size,) = query.sizes
    return (
        n * h * w < _MOST_PIXELS
        and query.plain
        and query.rule != "local"  # which asks little
        and size <= min(h, w)
        and n * inside(size, h, w).places >= _LEAST_PATCHES
        and choose(query, engine) == "native"  # type: ignore[arg-type]
    )


def sampled_mean(
    query: PatchQuery,
    strata_of: Callable[[Region], Strata],
    *,
    tolerance: float,
    seed: int = 0,
    in_full: bool = True,
) -> Estimate:
    """Posterior means to a root mean square error of `tolerance` over each image's pixels.

    An answer depends on the query's image, time and seed, not on its batch or the threads.

    Args:
        query: of one size, such as `can_sample` allows; of each image the same pixels are wanted,
            over which the tolerance holds on average.
        strata_of: finds those of a region of the query's training images.
        tolerance: in pixel units, above 0.
        seed: of the draws.
        in_full: whether images to which all patches are the better way everywhere are answered so;
            else their means are NaN.
    """
    by_time = defaultdict(list)
    for i, time in enumerate(zip(query.alpha.tolist(), query.sigma.tolist(), strict=True)):
        by_time[time].append(i)
    mean = torch.empty_like(query.x)
    error, seen = torch.zeros_like(query.x), torch.ones(len(query.x))
    for indices in by_time.values():
        for first in range(0, len(indices), _IMAGES_AT_A_TIME):
            some = torch.tensor(indices[first : first + _IMAGES_AT_A_TIME])
            part = _part(query, some)
            found = _at_one_time(part, strata_of, tolerance, seed)
            found = _within(found, part, _MOST_CLAIMED * tolerance)
            found = _completed(found, part, in_full=in_full)
            mean[some], error[some], seen[some] = found.mean, found.standard_error, found.seen
    return Estimate(mean, error, seen)


def _at_one_time(
    query: PatchQuery, strata_of: Callable[[Region], Strata], tolerance: float, seed: int
) -> Estimate:
    """The answers to queries at one time, region by region; NaN where all patches are better."""
    h, w = query.x.shape[2:]
    (size,) = query.sizes
    whole = inside(size, h, w)
    if query.rule == "equivariant":
        r = size // 2
        around = F.pad(query.x, (r, r, r, r), mode="circular")
        wanted = None if query.wanted is None else F.pad(query.wanted, (r, r, r, r))
        places = inside(size, h + 2 * r, w + 2 * r)
        moved = replace(query, x=around, wanted=wanted)
        return _sample(moved, places, strata_of(whole), tolerance, seed)
    inner = _sample(query, whole, strata_of(whole), tolerance, seed)
    given_up = _given_up(inner.mean, _wanted(query)[(..., *whole.pixels)])
    if given_up.all():  # strata of the borders would be of no use
        return Estimate.nothing(query.x)

    def at_border(region: Region) -> Estimate | None:
        few = region.places * len(query.pixels) < _LEAST_AT_BORDER
        if few or not _wanted_places(query, region).numel():
            return None
        return _sample(query, region, strata_of(region), tolerance, seed)

    parts = [(whole, inner), *((one, at_border(one)) for one in along_borders(size, h, w))]
    mean, error = torch.zeros_like(query.x), torch.zeros_like(query.x)
    seen = torch.ones(len(mean), h, w)
    all_wanted = _wanted(query)[0]
    left = all_wanted.clone()
    for region, part in parts:
        if part is not None:
            place = (..., *region.pixels)
            mean[place], error[place] = part.mean, part.standard_error
            seen[place] = part.seen[:, None, None]
            left[region.pixels] = False
    _fill(query, mean, left, whole)
    mean[given_up] = torch.nan
    return Estimate(mean, error, seen[:, all_wanted].mean(dim=1))


def _wanted(query: PatchQuery) -> Tensor:
    """Which places are, bool (b h w)."""
    b, _, h, w = query.x.shape
    return torch.ones(b, h, w, dtype=torch.bool) if query.wanted is None else query.wanted


def _given_up(mean: Tensor, wanted: Tensor) -> Tensor:
    """Which images have no answer (b c h w) at any of the places that are wanted (b h w)."""
    without = mean.isnan().any(dim=1) | ~wanted
    return without.all(dim=(1, 2)) & wanted.any(dim=(1, 2))


def _part(query: PatchQuery, some: Tensor) -> PatchQuery:
    """The query for some of its images, by their indices or a mask, at the same pixels."""
    wanted = None if query.wanted is None else query.wanted[some]
    return replace(query.some(some), wanted=wanted)


def _within(found: Estimate, query: PatchQuery, most: float) -> Estimate:
    """The estimate, but for the pixels by which an image's claim is beyond `most`: NaN.

    Where a few patches that no draw saw could carry the weight, no number of draws helps.
    """
    wanted = _wanted(query)
    variance = found.standard_error[:, 0].double().square().masked_fill(~wanted, 0).flatten(1)
    ordered, pixel = variance.sort(dim=1)
    count = wanted.flatten(1).sum(dim=1, keepdim=True)
    beyond = ordered.cumsum(dim=1) > most**2 * count
    left = torch.zeros_like(beyond).scatter(1, pixel, beyond).view_as(wanted)
    found.mean.masked_fill_(left[:, None], torch.nan)
    share = (beyond.sum(dim=1) / count[:, 0]).to(found.seen)
    return replace(found, seen=found.seen + share * (1 - found.seen))


def _completed(found: Estimate, query: PatchQuery, *, in_full: bool) -> Estimate:
    """The estimate, with exact answers to the pixels that have none: NaN.

    They claim too large an error or, far from all patches, would cost more than all of these.
    Images that have none anywhere are left so but for `in_full`.
    """
    wanted = _wanted(query)
    given_up = _given_up(found.mean, wanted)
    found.seen[given_up] = float(in_full)
    left = found.mean.isnan().any(dim=1) & wanted
    found.standard_error.masked_fill_(left[:, None], 0)
    if not in_full:
        left[given_up] = False
    images = left.any(dim=(1, 2))
    if images.any():
        exact = _mean(replace(_part(query, images), wanted=left[images]))
        found.mean[images] = torch.where(left[images, None], exact, found.mean[images])
    found.mean.masked_fill_(~wanted[:, None], 0)
    return found


def _wanted_places(query: PatchQuery, places: Region) -> Tensor:
    """Those of the places that are wanted, by their index."""
    if query.wanted is None:
        return torch.arange(places.places)
    return query.wanted[0][places.pixels].flatten().nonzero().flatten()


def _mean(query: PatchQuery) -> Tensor:
    (found,) = posteriors(query)
    return found.mean.to(query.x)


def _fill(query: PatchQuery, mean: Tensor, left: Tensor, whole: Region) -> None:
    """Write the exact answers where they are left, all of which cross a border, to `mean`.

    A window that crosses a border moves along it alone, one that crosses two not at all.
    """
    h, w = left.shape
    rows, columns = torch.ones(h, 1, dtype=torch.bool), torch.ones(1, w, dtype=torch.bool)
    rows[whole.rows.pixels] = columns[:, whole.columns.pixels] = False
    cut = ((rows & ~columns, (0, w)), (~rows & columns, (h, 0)), (rows & columns, (0, 0)))
    for across, shifts in cut:
        wanted = (left & across).expand(len(mean), h, w)
        if wanted.any():
            (found,) = native_engine.posteriors(replace(query, wanted=wanted), shifts=shifts)
            mean.copy_(torch.where(wanted[:, None], found.mean.to(mean), mean))


def _sample(
    query: PatchQuery, places: Region, strata: Strata, tolerance: float, seed: int
) -> Estimate:
    """The answers at some places of queries at the same time; NaN where all patches cost less.

    Returns:
        mean and errors of those places alone (b c rows columns).
    """
    b, c, height, width = query.x.shape
    rows, columns = places.rows.places, places.columns.places
    alpha, sigma = float(query.alpha[0]), float(query.sigma[0])
    some = _wanted_places(query, places)
    if not len(some):
        nothing = torch.zeros(b, c, rows, columns).to(query.x)
        return Estimate.exact(nothing)
    # Image by image: a product's rounding may depend on how many rows it has.
    windows = [_windows(one[None] * MIDDLE, places)[some] for one in query.x]
    features = torch.cat([strata.features(one, alpha) for one in windows])
    unit = 1 / (2 * math.log(2) * (sigma * MIDDLE) ** 2)
    count = len(features)
    corner = _pixels(places.rows.first, places.columns.first, places, width)[some]
    down, across = places.pixels
    pixel = _pixels(down.start, across.start, places, width)[some]
    image = torch.arange(b).repeat_interleave(len(pixel))
    levels = rearrange(query.x * MIDDLE, "b c h w -> (b h w c)").float()
    found = {
        "mean": torch.zeros(count, c, dtype=torch.float64),
        "variance": torch.zeros(count, dtype=torch.float64),
        "draws": torch.zeros(count, dtype=torch.float64),
    }
    pair = _BORDER_PAIR if places.is_cut else _PAIR
    estimate(
        {
            "images": strata.images,
            "order": strata.order,
            "start": strata.start,
            "codes": strata.codes,
            "centres": strata.centres,
            "steps": strata.steps,
            "x": F.pad(levels, (0, _SPARE)),
            "at": (image * (height * width) + corner.repeat(b)) * c,
            "features": features,
            "terms_of": strata.terms(alpha, sigma),
            "means": (alpha * strata.mean.T).contiguous(),
            "variances": (alpha**2 * strata.variance.T).contiguous(),
            "lowest": (alpha * strata.lowest.T).contiguous(),
            "highest": (alpha * strata.highest.T).contiguous(),
            "reach": alpha * strata.reach,
            "centre": strata.centre,
            "spread": strata.spread,
            "keys": pixel.repeat(b) + _key(seed, sigma),
            **found,
        },
        count=count,
        group=len(some),
        seed=_key(seed, sigma),
        terms=features.shape[1],
        components=strata.components.shape[1],
        strata=len(strata.rest),
        channels=c,
        height=strata.image_shape[1],
        width=strata.image_shape[2],
        window_rows=places.rows.cells,
        window_columns=places.columns.cells,
        x_width=width,
        alpha=alpha,
        unit=alpha**2 * unit,
        scale=unit,
        tolerance=tolerance * MIDDLE,
        most=_MOST_DRAWS * strata.patches,
        dear=pair * len(some) * strata.patches,
        alone=_ALONE * windows[0].shape[1] * strata.patches,
    )
    left = found["draws"] < 0
    found["mean"][left], found["draws"][left] = torch.nan, strata.patches
    mean, error = (torch.zeros(b, c, rows * columns).to(query.x) for _ in range(2))
    mean[..., some] = (rearrange(found["mean"], "(b p) c -> b c p", b=b) / MIDDLE).to(mean)
    deviation = rearrange(found["variance"], "(b p) -> b 1 p", b=b).sqrt() / MIDDLE
    error[..., some] = deviation.expand(b, c, len(some)).to(error)
    seen = rearrange(found["draws"], "(b p) -> b p", b=b).mean(dim=1) / strata.patches
    mean, error = (one.unflatten(-1, (rows, columns)) for one in (mean, error))
    return Estimate(mean, error, seen.float())


def _pixels(row: int, column: int, places: Region, width: int) -> Tensor:
    """The index of the pixel at some row and column, and of those as many places farther."""
    rows = torch.arange(row, row + places.rows.places)
    return (rows[:, None] * width + torch.arange(column, column + places.columns.places)).flatten()


def _windows(x: Tensor, places: Region) -> Tensor:
    """The windows of an image (1 c h w) at some places, as (places, m c)."""
    shape = places.rows.cells, places.columns.cells
    found = F.unfold(x[(..., *places.rectangle)], shape)
    return rearrange(found, "1 (c m) p -> p (m c)", m=math.prod(shape)).contiguous()


def _key(seed: int, sigma: float) -> int:
    """A number for a seed and a time, the same on every machine."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", sigma))
    mixed: int = (seed * 0x9E3779B97F4A7C15 + bits * 0xBF58476D1CE4E5B9) & (2**62 - 1)
    return mixed
