"""Calibration of a machine that estimates: minutes where trying everything would take hours.

At each time only a part of the pixels is looked at, and only those values of the scale that lie
around the best: the criterion rises to it from both sides. Where to begin is found exactly, with a
few of the training images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from els.criterion import Criterion, Point, best_of, compare
from els.denoiser import at_time
from els.machines.base import Number
from els.machines.local import PatchMachine

_APART = 3  # every so many rows and columns a pixel is looked at
_FEW_IMAGES, _FEW_SEEDS = 1000, 4  # with which it is found where to begin


def lattice(height: int, width: int) -> Tensor:
    """The pixels that are looked at, bool (h w)."""
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
    wanted, last = lattice(*point.x.shape[2:]), len(candidates) - 1
    order = sorted(range(len(candidates)), key=lambda i: candidates[i])
    table = torch.full((len(candidates), len(point.x)), torch.nan, dtype=torch.float64)

    def attempt(place: int) -> None:
        found = machine.estimate(
            point.x, at_time(point.x, point.t), label, candidates[order[place]], wanted=wanted
        )
        table[place] = compare(point, found.mean, criterion, machine.schedule, wanted=wanted)

    begin = _begin(point, machine, [candidates[i] for i in order], label, criterion, wanted)
    low, high = max(begin - 1, 0), min(begin + 1, last)
    for place in range(low, high + 1):
        attempt(place)
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


def _begin(
    point: Point,
    machine: PatchMachine,
    values: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
    wanted: Tensor,
) -> int:
    """Which of the values is best with few training images, for the first few images."""
    rows = []
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
