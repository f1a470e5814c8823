"""Calibration of a machine that estimates: minutes where trying everything would take hours.

Every value of the scale is tried at every time where an estimate is cheaper than all patches, value
by value, so that the patches of each are sorted once. Where it is not, which is so of large values
at little noise, answers are exact, and values are tried up to the one past that which a few of the
training images suggest, and farther as long as the largest is the best. What is chosen is checked:
some pixels are computed exactly, and where estimates prove wrong, all answers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from els.audit import band, look
from els.criterion import Criterion, Point, best_of, compare
from els.denoiser import at_time
from els.machines.base import Number
from els.machines.local import PatchMachine
from els.work import Advance

# With which it is found how far to go; of pixels those in every so many rows and columns.
_FEW_IMAGES, _FEW_SEEDS, _APART = 1000, 4, 3
_BANDS_APART = 7  # of looks at neighbouring times, so that the rows are not those of the time


@dataclass(frozen=True)
class Searched:
    """What was found at one time.

    Attributes:
        table: the criterion for each candidate and image (k n); NaN where one was not tried.
        look: at some pixels of the chosen value's answers (3,), see `els.audit.look`, or where
            these are exact, of those of the largest value that was estimated; NaN if none was.
        refused: whether they were off by too much, so that all of `table` is exact.
    """

    table: Tensor
    look: Tensor
    refused: bool


def lattice(height: int, width: int) -> Tensor:
    """The pixels that are looked at to find how far to go, bool (h w)."""
    wanted = torch.zeros(height, width, dtype=torch.bool)
    wanted[min(1, height - 1) :: _APART, min(1, width - 1) :: _APART] = True
    return wanted


def estimated(
    points: Sequence[Point],
    machine: PatchMachine,
    value: Number,
    label: Tensor | None,
    criterion: Criterion,
    advance: Advance,
) -> Tensor:
    """The criterion at one value for each time and image (t n); NaN where all patches cost less.

    Args:
        points: what ought to be answered, at each time.
        machine: one with a tolerance.
        value: of its scale.
        label: class indices (n,) or None.
        criterion: see `els.calibration.Scales`.
        advance: called with the number of images after each time.
    """
    rows = []
    for point in points:
        t = at_time(point.x, point.t)
        found = machine.estimate(point.x, t, label, value, in_full=False)
        rows.append(compare(point, found.mean, criterion, machine.schedule))
        advance(len(point.x))
    return torch.stack(rows)


def searched(
    point: Point,
    table: Tensor,
    machine: PatchMachine,
    candidates: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
    *,
    place: tuple[int, int],
) -> Searched:
    """Find the best of the candidates at one time, and check it.

    Args:
        point: what ought to be answered.
        table: what estimates say for each candidate and image (k n); NaN where there is none.
        machine: one with a tolerance.
        candidates: values of its scale, ascending.
        label: class indices (n,) or None.
        criterion: see `els.calibration.Scales`.
        place: which time it is, and of how many: each looks at another image and other rows.
    """
    table, last = table.clone(), len(candidates) - 1
    tried = ~table.isnan().any(dim=1)
    table[~tried] = torch.nan
    by_estimates = tried.clone()

    def answer(places: range) -> None:
        values = [candidates[i] for i in places]
        t = at_time(point.x, point.t)
        answers = machine.estimating(0).at_values(point.x, t, values, label)
        for i, one in zip(places, answers, strict=True):
            table[i] = compare(point, one, criterion, machine.schedule)
            tried[i], by_estimates[i] = True, False

    high = int(tried.int().cumprod(dim=0).sum()) - 1  # up to which all were tried
    if high < last:
        least = min(_suggested(point, machine, candidates, label, criterion) + 1, last)
        if high < least:
            answer(range(high + 1, least + 1))
            high = least
    while (best := best_of(table, criterion)[1]) == high < last:
        answer(range(high + 1, high + 2))
        high += 1
    found = torch.full((3,), torch.nan)
    if by_estimates.any():
        which = best if by_estimates[best] else int(by_estimates.nonzero().max())
        found = _looked_at(point, machine, candidates[which], label, place)
    error, claimed, _ = found.tolist()
    # Rows may be harder than their image is, and say so.
    refused = error > max(machine.tolerance, claimed)
    if refused:
        answer(range(len(candidates)))
    return Searched(table, found, refused)


def _suggested(
    point: Point,
    machine: PatchMachine,
    candidates: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
) -> int:
    """Which candidate is best with few training images, for the first few images."""
    rows, wanted = [], lattice(*point.x.shape[2:])
    for i in range(min(_FEW_SEEDS, len(point.x))):
        one = point.of(i)
        images = machine.of_class(None if label is None else int(label[i]))
        pixels = images.pixels[:: max(1, len(images) // _FEW_IMAGES)].contiguous()
        t = at_time(one.x, point.t)
        parts = machine.posteriors(one.x, t, pixels, candidates, wanted=wanted[None])
        rows.append(
            torch.cat(
                [compare(one, machine.kept(part.mean), criterion, machine.schedule, wanted=wanted)
                 for part in parts]
            )
        )  # fmt: skip
    return best_of(torch.stack(rows, dim=1), criterion)[1]


def _looked_at(
    point: Point,
    machine: PatchMachine,
    value: Number,
    label: Tensor | None,
    place: tuple[int, int],
) -> Tensor:
    """A look at some rows of one image, see `els.audit.look`; arguments as of `searched`."""
    i, count = place
    which = i % len(point.x)
    one = point.of(which)
    return look(
        machine,
        one.x,
        at_time(one.x, one.t),
        None if label is None else label[which : which + 1],
        value,
        rows=band(one.x.shape[2], _BANDS_APART * i % count, count),
    )
