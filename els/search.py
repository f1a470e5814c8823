"""Calibration of a machine that estimates: minutes where trying everything would take hours.

At each time only those values of the scale are tried that lie around the best: the criterion rises
to it from both sides. Where to begin is found exactly, with a few of the training images at a
ninth of the pixels. To choose takes all pixels: images vote, and where values are nearly as good,
what a ninth of its pixels says is noise enough to turn an image's vote. What is chosen is checked:
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
from els.engines.subsample import Estimate
from els.machines.base import Number
from els.machines.local import PatchMachine

# With which it is found where to begin; of pixels those in every so many rows and columns.
_FEW_IMAGES, _FEW_SEEDS, _APART = 1000, 4, 3
_BANDS_APART = 7  # of looks at neighbouring times, so that the rows are not those of the time


def lattice(height: int, width: int) -> Tensor:
    """The pixels that are looked at to find where to begin, bool (h w)."""
    wanted = torch.zeros(height, width, dtype=torch.bool)
    wanted[min(1, height - 1) :: _APART, min(1, width - 1) :: _APART] = True
    return wanted


@dataclass(frozen=True)
class Searched:
    """What was found at one time.

    Attributes:
        table: the criterion for each candidate and image (k n); NaN where one was not tried.
        look: at some pixels of the chosen value's answers (3,), see `els.audit.look`; NaN where
            these were exact anyway.
        refused: whether they were off by too much, so that all of `table` is exact.
    """

    table: Tensor
    look: Tensor
    refused: bool


def searched(
    point: Point,
    machine: PatchMachine,
    candidates: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
    *,
    place: tuple[int, int] = (0, 1),
) -> Searched:
    """Find the best of the candidates at one time, and check it.

    Args:
        point: what ought to be answered.
        machine: one with a tolerance.
        candidates: values of its scale.
        label: class indices (n,) or None.
        criterion: see `els.calibration.Scales`.
        place: which time it is, and of how many: each looks at another image and other rows.
    """
    order = sorted(range(len(candidates)), key=lambda i: candidates[i])
    values, last = [candidates[i] for i in order], len(candidates) - 1
    table = torch.full((len(candidates), len(point.x)), torch.nan, dtype=torch.float64)
    seen = torch.ones_like(table)

    def attempt(*places: int) -> None:
        answers = _answers(point, machine, [values[i] for i in places], label)
        for place, answer in zip(places, answers, strict=True):
            table[place] = compare(point, answer.mean, criterion, machine.schedule)
            seen[place] = answer.seen.double()

    begin = _begin(point, machine, values, label, criterion)
    low, high = max(begin - 1, 0), min(begin + 1, last)
    attempt(*range(low, high + 1))
    while True:
        _, best = best_of(table, criterion)
        if best == low > 0:
            attempt(low := low - 1)
        elif best == high < last:
            attempt(high := high + 1)
        else:
            break
    found = _looked_at(point, machine, values[best], label, seen[best] < 1, place)
    error, claimed, _ = found.tolist()
    # Rows may be harder than their image is, and say so.
    refused = error > max(machine.tolerance, claimed)
    if refused:
        exact = machine.estimating(0).at_values(
            point.x, at_time(point.x, point.t), list(candidates), label
        )
        rows = [compare(point, answer, criterion, machine.schedule) for answer in exact]
        return Searched(torch.stack(rows), found, refused)
    ordered = torch.empty_like(table)
    ordered[order] = table
    return Searched(ordered, found, refused)


def _looked_at(
    point: Point,
    machine: PatchMachine,
    size: Number,
    label: Tensor | None,
    estimated: Tensor,
    place: tuple[int, int],
) -> Tensor:
    """A look at one of the images that were estimated; NaN (3,) where none was.

    Args:
        point, machine, label, place: as for `searched`.
        size: value of the scale.
        estimated: of which images (n,).
    """
    i, count = place
    those = estimated.nonzero().flatten()
    if not len(those):
        return torch.full((3,), torch.nan)
    which = int(those[i % len(those)])
    one = point.of(which)
    return look(
        machine,
        one.x,
        at_time(one.x, one.t),
        None if label is None else label[which : which + 1],
        size,
        rows=band(one.x.shape[2], _BANDS_APART * i % count, count),
    )


def _answers(
    point: Point, machine: PatchMachine, values: Sequence[Number], label: Tensor | None
) -> list[Estimate]:
    """The answers at ascending values of the scale.

    Where an estimate would take all patches, those of larger ones would, too: these are answered
    exactly, all in one pass.
    """
    t, found = at_time(point.x, point.t), list[Estimate]()
    for i, value in enumerate(values, start=1):
        found.append(machine.estimate(point.x, t, label, value))
        if i < len(values) and (found[-1].seen == 1).all():
            larger = machine.estimating(0).at_values(point.x, t, values[i:], label)
            return [*found, *map(Estimate.exact, larger)]
    return found


def _begin(
    point: Point,
    machine: PatchMachine,
    values: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
) -> int:
    """Which of the values is best with few training images, for the first few images."""
    rows, wanted = [], lattice(*point.x.shape[2:])
    for i in range(min(_FEW_SEEDS, len(point.x))):
        one = point.of(i)
        images = machine.of_class(None if label is None else int(label[i]))
        pixels = images.pixels[:: max(1, len(images) // _FEW_IMAGES)].contiguous()
        t = at_time(one.x, point.t)
        parts = machine.posteriors(one.x, t, pixels, values, wanted=wanted[None])
        rows.append(
            torch.cat(
                [compare(one, machine.kept(part.mean), criterion, machine.schedule, wanted=wanted)
                 for part in parts]
            )
        )  # fmt: skip
    return best_of(torch.stack(rows, dim=1), criterion)[1]
