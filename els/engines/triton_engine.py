"""Posteriors over training patches on a GPU, with a kernel in Triton.

The kernel (`els.engines.triton_kernel`) is launched once for each patch size and chunk of images.
A program takes one tile of one query, at most 32 x 32 places, and one part of the images and
displacements; its sums stay in registers under a running maximum for each place. The parts of a
launch, at most some thousands, are then merged by log-sum-exp in float64, in a fixed order.

This was tested in Triton's interpreter, which runs the kernel on the CPU in NumPy, and compiled for
an H100, but was not run on a GPU: its numerics are tested, its speed is not measured. Where it
first runs on a GPU, `available` compares a small answer with the torch engine's.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from els.engines.posterior import Posterior, named
from els.engines.query import check_inputs
from els.engines.torch_engine import patch_posterior

MOST_CHANNELS = 4

# The sides of a tile: below 16 matrix products are not to be had, above 32 registers run out.
_LEAST_TILE, _MOST_TILE = 16, 32
_PLACES_PER_WARP = 256
# Programs wanted in a launch, several for each of a large GPU's 100 to 150 processors.
_PROGRAMS = 1024
# Patches that a program may add up for one place: in float32, so that small weights still count.
_TERMS = 4096
# Images of a part, where there are enough of them: they are to stay in the first-level cache.
_IMAGES = 16
# Numbers in the parts of a launch, 64 MiB, or up to four times as many. Queries are split so that
# each can have this many parts.
_BUDGET = 1 << 24
_LEAST_PARTS = 64
_IMAGE_BYTES = 1 << 26
_LN2 = math.log(2)
# From here on a -log2 weight is that of no patch: see the kernel.
_NOTHING = 1e38


def interpreted() -> bool:
    """Whether Triton was told to run kernels on CPU tensors, in its interpreter."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def available() -> str | None:
    """None if the Triton engine works here, else the reason why not. Compiles it at first use."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    return _failure("cuda")


@functools.cache
def _failure(device: str) -> str | None:
    """What goes wrong with a small case there; None when the answer is right."""
    pixels = torch.arange(3 * 2 * 5 * 6).mul(89).remainder(256).to(torch.uint8).view(3, 2, 5, 6)
    x = torch.linspace(-1, 1, 2 * 5 * 6).view(1, 2, 5, 6)
    alpha, sigma = (torch.tensor([value], dtype=torch.float64) for value in (0.8, 0.6))
    want = patch_posterior(x, pixels, alpha, sigma, kind="boundary", size=3)
    try:
        (got,) = patch_posteriors(x.to(device), pixels, alpha, sigma, kind="boundary", sizes=[3])
        worst = float((got.mean.cpu() - want.mean).abs().max())
    except Exception as error:  # a missing compiler, an old GPU, a driver: each has its own class
        return f"Triton does not run here ({type(error).__name__}: {error})"
    return None if worst < 1e-4 else f"Triton computes wrongly here (by {worst:.2g})"


def patch_posteriors(
    x: Tensor,
    pixels: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    *,
    kind: str,
    sizes: Sequence[int],
    details: bool = False,
) -> list[Posterior]:
    """The posterior of the clean centre pixel over k x k training patches, for every size k.

    The same as `els.engines.torch_engine.patch_posterior` at each size. Memory on the device is
    bounded, whatever the number of images, queries and sizes, but for the answer itself.

    Args:
        x: queries (b c h w), finite, with 1 to 4 channels, on the device that does the work.
        pixels: training images, uint8 (n c h w); they may be elsewhere, and mapped from a file.
        alpha, sigma: the schedule at each query's time (b,), sigma > 0.
        kind: one of `els.engines.dictionary.PATCH_MACHINES`.
        sizes: patch sizes, odd, such as `els.engines.dictionary.check_size` allows.
        details: also find what `Posterior` has only with details.

    Returns:
        A float32 posterior for each size, in the order given, on x's device. Its partition into
        programs changes nothing beyond rounding.

    Raises:
        InputError: for other than 1 to 4 channels, images of another shape than the queries, or
            queries that are not finite.
    """
    check_inputs(x, pixels, engine="triton", most_channels=MOST_CHANNELS)
    grids = {size: _Grid.of(kind, size, x.shape[2], x.shape[3]) for size in sizes}
    alpha, sigma = (value.to(x.device, torch.float64) for value in (alpha, sigma))
    most = max(1, _BUDGET // (_LEAST_PARTS * _numbers(x, details)))
    parts = [
        _stream(x[i : i + most], pixels, alpha[i : i + most], sigma[i : i + most], grids, details)
        for i in range(0, max(1, len(x)), most)
    ]
    return [_in_float32(Posterior.cat([part[size] for part in parts])) for size in sizes]


def _in_float32(total: Posterior) -> Posterior:
    sums = {name: value.float()
            for name in ("peak", "mass", "moment", "square", "top", "second_peak")
            if (value := getattr(total, name)) is not None}  # fmt: skip
    return replace(total, **sums)


@dataclass(frozen=True)
class _Axis:
    """Displacements and tiles along one axis.

    Attributes:
        first: the first displacement.
        shifts: how many there are from there on; they wrap round, so that there are never more
            than places.
        tile: places of a tile.
        near: tiles with all cells of the windows of a tile, itself in the middle.
    """

    first: int
    shifts: int
    tile: int
    near: int

    @classmethod
    def of(cls, kind: str, size: int, length: int) -> _Axis:
        inside = 1 if kind == "local" else max(1, length - size // 2 * 2)
        wraps = kind == "equivariant"
        tile = min(max(_LEAST_TILE, 1 << (length - 1).bit_length()), _MOST_TILE)
        tiles = math.ceil(length / tile)
        reach = size // 2 + (tiles * tile - length if wraps else 0)
        return cls(
            first=1 - inside,
            shifts=length if wraps else min(2 * inside - 1, length),
            tile=tile,
            near=min(tiles, 2 * math.ceil(reach / tile) + 1),
        )


@dataclass(frozen=True)
class _Grid:
    """What is worked through at one patch size."""

    size: int
    wraps: bool
    y: _Axis
    x: _Axis

    @classmethod
    def of(cls, kind: str, size: int, h: int, w: int) -> _Grid:
        wraps = kind == "equivariant"
        return cls(size, wraps, y=_Axis.of(kind, size, h), x=_Axis.of(kind, size, w))

    @property
    def shifts(self) -> int:
        return self.y.shifts * self.x.shifts

    def shares(self, images: int, *, others: int, most_parts: int, whole: bool) -> tuple[int, int]:
        """Displacements and images of a part, when there are `others` programs for each part.

        With `whole`, a part has all displacements of its images. There are at most `most_parts`
        parts, or four times as many where nothing divides evenly.
        """
        pairs = self.shifts * images
        terms = max(min(pairs * others // _PROGRAMS, _TERMS), math.ceil(pairs / most_parts))
        shifts = self.shifts if whole else max(1, terms // min(images, _IMAGES))
        shifts = min(self.shifts, shifts)
        return shifts, min(images, max(1, terms // shifts))


def _numbers(x: Tensor, details: bool) -> int:
    """Numbers in what one part says about one of the queries x (b c h w)."""
    _, c, h, w = x.shape
    return (c + 2 + 5 * details) * h * w


def _stream(
    x: Tensor,
    pixels: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    grids: dict[int, _Grid],
    details: bool,
) -> dict[int, Posterior]:
    """The posterior at every size, in float64."""
    totals = {size: Posterior.empty(x, torch.float64, details=details) for size in grids}
    if not len(x) or not len(pixels):
        return totals
    unit = 1 / (sigma * math.sqrt(2 * _LN2))
    queries = (x.detach().double() * unit.view(-1, 1, 1, 1)).float().contiguous()
    steps = (alpha * unit / 127.5).float()
    most_parts = max(1, _BUDGET // (len(x) * _numbers(x, details)))
    shifts = max(grid.shifts for grid in grids.values())
    chunk = max(1, min(_IMAGE_BYTES // x[0].numel(), most_parts * _TERMS // shifts))
    for i, images in enumerate(pixels.split(chunk)):
        images = images.to(x.device).contiguous()
        for size, grid in grids.items():
            part = _launch(queries, images, steps, grid, most_parts, details)
            totals[size] = totals[size].merge(part.shifted(i * chunk))
    return totals


def _launch(
    queries: Tensor, images: Tensor, steps: Tensor, grid: _Grid, most_parts: int, details: bool
) -> Posterior:
    """The posterior over a chunk of images at one size, in float64."""
    from els.engines.triton_kernel import patch_sums  # there may be no Triton to import

    b, c, h, w = queries.shape
    tiles = math.ceil(h / grid.y.tile) * math.ceil(w / grid.x.tile)
    shifts_per_part, images_per_part = grid.shares(
        len(images), others=b * tiles, most_parts=most_parts, whole=details
    )
    parts = math.ceil(grid.shifts / shifts_per_part) * math.ceil(len(images) / images_per_part)
    partials = queries.new_empty(parts, b, c + 2 + 3 * details, h, w)
    best = partials.new_empty((parts, b, 2, h, w) if details else 1, dtype=torch.int32)
    with torch.cuda.device_of(queries):
        patch_sums[parts * tiles, b](
            queries, images, steps, partials, best,
            len(images), images_per_part, shifts_per_part,
            grid.y.shifts, grid.x.shifts, grid.y.first, grid.x.first, grid.size // 2,
            CHANNELS=c, HEIGHT=h, WIDTH=w, WRAPS=grid.wraps,
            ROWS=grid.y.tile, COLUMNS=grid.x.tile, NEAR_Y=grid.y.near, NEAR_X=grid.x.near,
            DETAILS=details, SUMS=1 << c.bit_length(),
            num_warps=grid.y.tile * grid.x.tile // _PLACES_PER_WARP,
        )  # fmt: skip
    return _merged(partials, best if details else None, channels=c)


def _merged(partials: Tensor, best: Tensor | None, *, channels: int) -> Posterior:
    """What the parts of a launch say together: see `partials` and `best` in the kernel."""
    moment, mass, least, *seen = partials.split(
        [channels, 1, 1] + ([1, 1, 1] if best is not None else []), dim=2
    )
    nearest, part = least.min(dim=0, keepdim=True)
    share = torch.exp2(nearest - least)
    total = Posterior(
        peak=-_LN2 * nearest[0].double(),
        mass=(mass * share).sum(dim=0, dtype=torch.float64),
        moment=(moment * share).sum(dim=0, dtype=torch.float64) / 127.5,
    )
    if best is None:
        return total
    square, top, second_least = seen
    best, second = best.long().split(1, dim=2)
    # Parts have images of their own: all but the nearest one's offer their best as the second.
    offers, offered = (
        theirs.scatter(0, part, own.gather(0, part))
        for theirs, own in ((least, second_least), (best, second))
    )
    second_least, other = offers.min(dim=0, keepdim=True)
    nothing = second_least[0] >= _NOTHING
    return replace(
        total,
        square=(square * share**2).sum(dim=0, dtype=torch.float64),
        best=named(best.gather(0, part)[0]),
        top=(top * share).amax(dim=0).double(),
        second=named(offered.gather(0, other)[0]),
        second_peak=(-_LN2 * second_least[0].double()).masked_fill(nothing, -torch.inf),
    )
