"""Calibration of a machine that estimates: minutes where trying everything would take hours.

Every value of the scale is tried at every time where an estimate is cheaper than all patches, value
by value, so that the patches of each are sorted once. Where it is not, which is so of large values
at little noise, answers are exact, and values are tried up to the one past that which a few of the
training images suggest, and farther as long as the largest is the best. What is chosen is checked,
and the value beside it: some pixels are computed exactly, and where estimates prove wrong, all are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from els.audit import band, look
from els.criterion import Criterion, Point, best_of, compare
from els.denoiser import at_time
from els.machines.base import Number
from els.machines.local import PatchMachine

# With which it is found how far to go; of pixels those in every so many rows and columns.
_FEW_IMAGES, _FEW_SEEDS, _APART = 1000, 4, 3
_GOLDEN = (math.sqrt(5) - 1) / 2  # of the rows that are looked at, from one time to the next


@dataclass(frozen=True)
class Searched:
    """What was found at one time.

    Attributes:
        table: the criterion for each candidate and image (k n); NaN where one was not tried.
        looks: at some pixels of estimates (2 3), see `els.audit.look`: of the chosen value and of
            one beside it; NaN where there was no estimate.
        refused: whether one of them was off by too much, so that all of `table` is exact.
    """

    table: Tensor
    looks: Tensor
    refused: bool


def lattice(height: int, width: int) -> Tensor:
    """The pixels that are looked at to find how far to go, bool (h w)."""
    wanted = torch.zeros(height, width, dtype=torch.bool)
    wanted[min(1, height - 1) :: _APART, min(1, width - 1) :: _APART] = True
    return wanted


def estimated(
    point: Point, machine: PatchMachine, value: Number, label: Tensor | None, criterion: Criterion
) -> Tensor:
    """The criterion at one value of the scale for each image (n,); NaN where all patches cost less.

    The arguments are those of `searched`.
    """
    t = at_time(point.x, point.t)
    found = machine.estimate(point.x, t, label, value, in_full=False)
    return compare(point, found.mean, criterion, machine.schedule)


def searched(
    point: Point,
    table: Tensor,
    machine: PatchMachine,
    candidates: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
    *,
    turn: int,
) -> Searched:
    """Find the best of the candidates at one time, and check it.

    Args:
        point: what ought to be answered.
        table: what estimates say for each candidate and image (k n); NaN where there is none.
        machine: one with a tolerance.
        candidates: values of its scale, ascending.
        label: class indices (n,) or None.
        criterion: see `els.calibration.Scales`.
        turn: the number of the time: each looks at another image and other rows.
    """
    table = table.clone()
    by_estimates = ~table.isnan().all(dim=1)  # of some images at least

    def answer(places: Sequence[int], some: slice = slice(None)) -> None:
        if not places:
            return
        part = Point(point.t, point.x[some], point.x0_hat[some])
        of = None if label is None else label[some]
        values = [candidates[i] for i in places]
        answers = machine.estimating(0).at_values(part.x, at_time(part.x, part.t), values, of)
        for i, one in zip(places, answers, strict=True):
            table[i, some] = compare(part, one, criterion, machine.schedule)

    def untried() -> list[int]:
        return _places(table.isnan().any(dim=1))

    # What can be estimated for some images alone, such as those of one class, is exact for others.
    for image in range(table.shape[1]):
        answer(_places(by_estimates & table[:, image].isnan()), slice(image, image + 1))
    if untried():
        farthest = _suggested(point, machine, candidates, label, criterion) + 1
        answer([i for i in untried() if i <= farthest])
    while near := [i for i in untried() if abs(i - best_of(table, criterion)[1]) <= 1]:
        answer(near)
    looks = torch.full((2, 3), torch.nan)
    for row, i in enumerate(_checked(best_of(table, criterion)[1], _places(by_estimates))):
        looks[row] = _looked_at(point, machine, candidates[i], label, turn)
    error, claimed, _ = looks.unbind(dim=1)
    # Rows may be harder than their image is, and say so.
    refused = bool((error > claimed.clamp(min=machine.tolerance)).any())
    if refused:
        answer(range(len(candidates)))
    return Searched(table, looks, refused)


def _places(chosen: Tensor) -> list[int]:
    found: list[int] = chosen.nonzero().flatten().tolist()
    return found


def _checked(best: int, places: Sequence[int]) -> list[int]:
    """The chosen value and the next larger one, or else the next smaller, of the estimated ones.

    An estimate that is wrong is seldom the best; one that would be is next to that which took its
    place, and larger values are the harder ones.
    """
    larger, smaller = [i for i in places if i > best], [i for i in places if i < best]
    return [i for i in places if i == best] + (larger[:1] or smaller[-1:])


def _looked_at(
    point: Point, machine: PatchMachine, value: Number, label: Tensor | None, turn: int
) -> Tensor:
    """A look at some rows of an image whose answer is an estimate also by itself.

    Returns:
        (3,), see `els.audit.look`; NaN where there is no such image.
    """
    count, t = len(point.x), at_time(point.x[:1], point.t)
    rows = band(point.x.shape[2], turn * _GOLDEN % 1)
    for which in ((turn + i) % count for i in range(count)):
        x, of = point.of(which).x, None if label is None else label[which : which + 1]
        estimate = machine.estimate(x, t, of, value, in_full=False)
        if not estimate.mean.isnan().any():
            return look(machine, estimate, x, t, of, value, rows=rows)
    return torch.full((3,), torch.nan)


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
