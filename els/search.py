"""Calibration of a machine that estimates: minutes where trying everything would take hours.

At each time only those values of the scale are tried that lie around the best: the criterion rises
to it from both sides. Where to begin is found exactly, with a few of the training images at a
ninth of the pixels. To choose takes all pixels: images vote, and where values are nearly as good,
what a ninth of its pixels says is noise enough to turn an image's vote.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from els.criterion import Criterion, Point, best_of, compare
from els.denoiser import at_time
from els.machines.base import Number
from els.machines.local import PatchMachine

# With which it is found where to begin; of pixels those in every so many rows and columns.
_FEW_IMAGES, _FEW_SEEDS, _APART = 1000, 4, 3


def lattice(height: int, width: int) -> Tensor:
    """The pixels that are looked at to find where to begin, bool (h w)."""
    wanted = torch.zeros(height, width, dtype=torch.bool)
    wanted[min(1, height - 1) :: _APART, min(1, width - 1) :: _APART] = True
    return wanted


def searched(
    point: Point,
    machine: PatchMachine,
    candidates: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
) -> Tensor:
    """The criterion for each candidate and image (k n); NaN where a candidate was not tried.

    Args:
        point: what ought to be answered.
        machine: one with a tolerance.
        candidates: values of its scale.
        label: class indices (n,) or None.
        criterion: see `els.calibration.Scales`.
    """
    order = sorted(range(len(candidates)), key=lambda i: candidates[i])
    values, last = [candidates[i] for i in order], len(candidates) - 1
    table = torch.full((len(candidates), len(point.x)), torch.nan, dtype=torch.float64)

    def attempt(*places: int) -> None:
        answers = _answers(point, machine, [values[i] for i in places], label)
        for place, answer in zip(places, answers, strict=True):
            table[place] = compare(point, answer, criterion, machine.schedule)

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
    found = torch.empty_like(table)
    found[order] = table
    return found


def _answers(
    point: Point, machine: PatchMachine, values: Sequence[Number], label: Tensor | None
) -> list[Tensor]:
    """x0_hat (b c h w) at ascending values of the scale.

    Where an estimate would take all patches, those of larger ones would, too: these are answered
    exactly, all in one pass.
    """
    t, found = at_time(point.x, point.t), []
    for i, value in enumerate(values, start=1):
        one = machine.estimate(point.x, t, label, value)
        found.append(one.mean)
        if i < len(values) and (one.seen == 1).all():
            return [*found, *machine.estimating(0).at_values(point.x, t, values[i:], label)]
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
