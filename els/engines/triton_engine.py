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
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from els.engines import torch_engine
from els.engines.dictionary import Rule
from els.engines.posterior import Details, Posterior, named
from els.engines.query import PatchQuery, refuses_numbers

MOST_CHANNELS = 4

# The sides of a tile: below 16 there are no matrix products, above 32 registers run out.
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
    query = PatchQuery(x, pixels, alpha, sigma, rule="boundary", sizes=(3,))
    (want,) = torch_engine.posteriors(query)
    try:
        (got,) = posteriors(replace(query, x=x.to(device)))
        worst = float((got.mean.cpu() - want.mean).abs().max())
    except Exception as error:  # a missing compiler, an old GPU, a driver: each has its own class
        return f"Triton does not run here ({type(error).__name__}: {error})"
    return None if worst < 1e-4 else f"Triton computes wrongly here (by {worst:.2g})"


@functools.cache
def missing() -> str | None:
    """`available`, looked up once."""
    return available()


def refuses(query: PatchQuery) -> str | None:
    """Why this engine cannot take a query here; None when it can."""
    if not query.plain:
        return "it has hard windows and any displacement only"
    if query.x.device.type != "cuda" and not interpreted():
        return f"the queries are on {query.x.device}"
    return refuses_numbers(query.x, MOST_CHANNELS) or missing()


def posteriors(query: PatchQuery) -> list[Posterior]:
    """A float32 posterior for each size, in the order given, on x's device; see `PatchQuery`.

    Its partition into programs changes nothing beyond rounding.

    Raises:
        InputError: see `PatchQuery.check`.
    """
    query.check("triton", most_channels=MOST_CHANNELS)
    x = query.x
    grids = {size: _Grid.of(query.rule, size, x.shape[2], x.shape[3]) for size in query.sizes}
    alpha, sigma = (value.to(x.device, torch.float64) for value in (query.alpha, query.sigma))
    query = replace(query, alpha=alpha, sigma=sigma)
    most = max(1, _BUDGET // (_LEAST_PARTS * _numbers(x, query.details)))
    parts = [_stream(query.some(slice(i, i + most)), grids) for i in range(0, max(1, len(x)), most)]
    found = [_in_float32(Posterior.cat([part[size] for part in parts])) for size in query.sizes]
    return found if query.wanted is None else [part.masked(query.wanted) for part in found]


def _in_float32(total: Posterior) -> Posterior:
    return total.transformed(lambda value: value.float() if value.is_floating_point() else value)


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
    def of(cls, rule: Rule, size: int, length: int) -> _Axis:
        inside = 1 if rule == "local" else max(1, length - size // 2 * 2)
        wraps = rule == "equivariant"
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
    def of(cls, rule: Rule, size: int, h: int, w: int) -> _Grid:
        wraps = rule == "equivariant"
        return cls(size, wraps, y=_Axis.of(rule, size, h), x=_Axis.of(rule, size, w))

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
    return (c + 2 + 6 * details) * h * w


def _stream(query: PatchQuery, grids: dict[int, _Grid]) -> dict[int, Posterior]:
    """The posterior at every size, in float64."""
    x, pixels, details = query.x, query.pixels, query.details
    totals = {size: Posterior.empty(x, torch.float64, details=details) for size in grids}
    if not len(x) or not len(pixels):
        return totals
    unit = 1 / (query.sigma * math.sqrt(2 * _LN2))
    queries = (x.detach().double() * unit.view(-1, 1, 1, 1)).float().contiguous()
    steps = (query.alpha * unit / 127.5).float()
    most_parts = max(1, _BUDGET // (len(x) * _numbers(x, details)))
    shifts = max(grid.shifts for grid in grids.values())
    chunk = max(1, min(_IMAGE_BYTES // x[0].numel(), most_parts * _TERMS // shifts))
    for i, some in enumerate(pixels.split(chunk)):
        images = some.to(x.device).contiguous()
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
    partials = queries.new_empty(parts, b, c + 2 + 4 * details, h, w)
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
        [channels, 1, 1] + ([1, 1, 1, 1] if best is not None else []), dim=2
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
    square, top, second_least, energy = seen
    nearest_patch, second_patch = best.long().split(1, dim=2)
    # Parts have images of their own: all but the nearest one's offer their best as the second.
    offers, offered = (
        theirs.scatter(0, part, own.gather(0, part))
        for theirs, own in ((least, second_least), (nearest_patch, second_patch))
    )
    second_least, other = offers.min(dim=0, keepdim=True)
    nothing = second_least[0] >= _NOTHING
    energies = energy + torch.where(mass > 0, least - nearest, 0) * mass
    details = Details(
        square=(square * share**2).sum(dim=0, dtype=torch.float64),
        best=named(nearest_patch.gather(0, part)[0]),
        top=(top * share).amax(dim=0).double(),
        second=named(offered.gather(0, other)[0]),
        second_peak=(-_LN2 * second_least[0].double()).masked_fill(nothing, -torch.inf),
        energy=_LN2 * (energies * share).sum(dim=0, dtype=torch.float64),
    )
    return replace(total, details=details)
