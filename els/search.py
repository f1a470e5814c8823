"""Calibration of a machine that estimates: minutes where trying everything would take hours.

Every value of the scale is tried at every time where an estimate is cheaper than all patches, value
by value, so that the patches of each are sorted once. Where it is not, which is so of large values
at little noise, answers are exact, and values are tried up to the one past that which a few of the
training images suggest, and farther as long as the largest is the best. What is chosen is checked,
and the value beside it, value by value again: some pixels are computed exactly, and where an image
proves wrong, all are at that time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from els.audit import band, look
from els.criterion import Criterion, Point, best_of, compare
from els.denoiser import at_time
from els.machines.base import Number
from els.machines.local import PatchMachine
from els.work import Advance, Tensors, Work

# With which it is found how far to go; of pixels those in every so many rows and columns.
_FEW_IMAGES, _FEW_SEEDS, _APART = 1000, 4, 3
_GOLDEN = (math.sqrt(5) - 1) / 2  # of the rows that are looked at, from one time to the next


@dataclass(frozen=True)
class Searched:
    """What was found at T times with k candidates and n images.

    Attributes:
        table: the criterion (T k n); NaN where a candidate was not tried.
        looks: at some pixels of estimates (T 2 3), see `els.audit.look`: of the chosen value and of
            one beside it; NaN where there was no estimate.
        refused: whether one of them was off by too much (T,), so that all of `table` is exact.
    """

    table: Tensor
    looks: Tensor
    refused: Tensor


@dataclass(frozen=True)
class Search:
    """Trying the values of a machine's scale at every time.

    Attributes:
        machine: one with a tolerance.
        path: gives what ought to be answered at every time, and class indices (n,) or None.
        images: how many of them, n.
        times: how many points a path has.
        candidates: values of the machine's scale, ascending.
        criterion: see `els.calibration.Scales`.
        name: of the machine and what it is fitted to, for the progress.
        depends: plain data that tells all of this, but for the candidates.
        work: where results are kept, and how they are computed.
    """

    machine: PatchMachine
    path: Callable[[], tuple[list[Point], Tensor | None]]
    images: int
    times: int
    candidates: Sequence[Number]
    criterion: Criterion
    name: str
    depends: list[object]
    work: Work

    def run(self) -> Searched:
        """Estimate, answer what is left in full, check, and answer all where estimates are off."""
        estimates = self._estimates()
        table = self._map(
            f"calibrating {self.name} where all patches cost less",
            range(self.times),
            lambda i, point, label: completed(
                point, estimates[i], self.machine, self.candidates, label, self.criterion
            ),
            depends="completed scales",
        )
        looks, refused = self._checks(table, estimates)
        if refused.any():
            table[refused] = self._map(
                f"calibrating {self.name} exactly where estimates were off",
                _places(refused),
                lambda _, point, label: exact(
                    point, self.machine, self.candidates, label, self.criterion
                ),
                depends="exact scales",
            )
        return Searched(table, looks, refused)

    def _estimates(self) -> Tensor:
        """By estimates alone (T k n), value by value: so the patches of each are sorted once."""
        order = [(value, i) for value in self.candidates for i in range(self.times)]

        def compute(some: list[int], advance: Advance) -> Tensors:
            points, label = self.path()
            found = []
            for value, i in (order[one] for one in some):
                found.append(estimated(points[i], self.machine, value, label, self.criterion))
                advance(self.images)
            return {"table": torch.stack(found)}

        found = self.work.map(
            f"calibrating {self.name}",
            range(len(order)),
            compute,
            depends=["estimated scales", *self.depends],
            keys=[[value, i] for value, i in order],
            steps=self.images,
            batch=1,
        )
        return rearrange(found["table"], "(k t) n -> t k n", t=self.times)

    def _map(
        self,
        name: str,
        times: Sequence[int],
        table: Callable[[int, Point, Tensor | None], Tensor],
        *,
        depends: str,
    ) -> Tensor:
        """A table of the criterion at each of some times (T k n)."""

        def compute(some: list[int], advance: Advance) -> Tensors:
            points, label = self.path()
            found = []
            for i in some:
                found.append(table(i, points[i], label))
                advance(self.images)
            return {"table": torch.stack(found)}

        found = self.work.map(
            name,
            times,
            compute,
            depends=[depends, *self.depends, list(self.candidates)],
            steps=self.images,
            batch=1,
        )
        return found["table"]

    def _checks(self, table: Tensor, estimates: Tensor) -> tuple[Tensor, Tensor]:
        """`looks` and `refused` of `Searched`, value by value again."""
        checks = sorted(
            (place, i, row)
            for i in range(self.times)
            for row, place in enumerate(to_check(table[i], estimates[i], self.criterion))
        )
        looks = torch.full((self.times, 2, 3), torch.nan)
        refused = torch.zeros(self.times, dtype=torch.bool)
        if not checks:
            return looks, refused

        def compute(some: list[int], advance: Advance) -> Tensors:
            points, label = self.path()
            found = []
            for place, i, _ in (checks[one] for one in some):
                value = self.candidates[place]
                found.append(checked(points[i], self.machine, value, label, turn=i))
                advance(1)
            each, wrong = zip(*found, strict=True)
            return {"look": torch.stack(each), "wrong": torch.tensor(wrong)}

        found = self.work.map(
            f"checking the scale of {self.name}",
            range(len(checks)),
            compute,
            depends=["checked scales", *self.depends],
            keys=[[self.candidates[place], i] for place, i, _ in checks],
            batch=1,
        )
        for (_, i, row), one, wrong in zip(checks, found["look"], found["wrong"], strict=True):
            looks[i, row] = one
            refused[i] |= wrong
        return looks, refused


def lattice(height: int, width: int) -> Tensor:
    """The pixels that are looked at to find how far to go, bool (h w)."""
    wanted = torch.zeros(height, width, dtype=torch.bool)
    wanted[min(1, height - 1) :: _APART, min(1, width - 1) :: _APART] = True
    return wanted


def estimated(
    point: Point, machine: PatchMachine, value: Number, label: Tensor | None, criterion: Criterion
) -> Tensor:
    """The criterion at one value of the scale for each image (n,); NaN where all patches cost less.

    The arguments are those of `completed`.
    """
    t = at_time(point.x, point.t)
    found = machine.estimate(point.x, t, label, value, in_full=False)
    return compare(point, found.mean, criterion, machine.schedule)


def completed(
    point: Point,
    estimates: Tensor,
    machine: PatchMachine,
    candidates: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
) -> Tensor:
    """What is known at one time, with exact answers where there are no estimates.

    Args:
        point: what ought to be answered.
        estimates: what estimates say for each candidate and image (k n); NaN where there is none.
        machine: one with a tolerance.
        candidates: values of its scale, ascending.
        label: class indices (n,) or None.
        criterion: see `els.calibration.Scales`.

    Returns:
        the criterion for each candidate and image (k n); NaN where a candidate was not tried.
    """
    table = estimates.clone()

    def answer(places: Sequence[int], some: slice = slice(None)) -> None:
        if places:
            part = Point(point.t, point.x[some], point.x0_hat[some])
            of = None if label is None else label[some]
            values = [candidates[i] for i in places]
            table[places, some] = exact(part, machine, values, of, criterion)

    def untried() -> list[int]:
        return _places(table.isnan().any(dim=1))

    # What can be estimated for some images alone, such as those of one class, is exact for others.
    by_estimates = ~table.isnan().all(dim=1)
    for image in range(table.shape[1]):
        answer(_places(by_estimates & table[:, image].isnan()), slice(image, image + 1))
    if untried():
        farthest = _suggested(point, machine, candidates, label, criterion) + 1
        answer([i for i in untried() if i <= farthest])
    while near := [i for i in untried() if abs(i - best_of(table, criterion)[1]) <= 1]:
        answer(near)
    return table


def exact(
    point: Point,
    machine: PatchMachine,
    values: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
) -> Tensor:
    """The criterion by exact answers at some values for each image (k n); see `completed`."""
    answers = machine.estimating(0).at_values(point.x, at_time(point.x, point.t), values, label)
    rows = [compare(point, one, criterion, machine.schedule) for one in answers]
    return torch.stack(rows)


def to_check(table: Tensor, estimates: Tensor, criterion: Criterion) -> list[int]:
    """Of the estimated candidates the best and the next larger one, or else the next smaller.

    An estimate that is wrong is seldom the best; one that would be is next to that which took its
    place, and larger values are the harder ones.

    Args:
        table: the criterion for each candidate and image (k n), see `completed`.
        estimates: what it was completed from.
    """
    best, places = best_of(table, criterion)[1], _places(~estimates.isnan().all(dim=1))
    larger, smaller = [i for i in places if i > best], [i for i in places if i < best]
    return [i for i in places if i == best] + (larger[:1] or smaller[-1:])


def checked(
    point: Point, machine: PatchMachine, value: Number, label: Tensor | None, *, turn: int
) -> tuple[Tensor, bool]:
    """A look at some rows of an image whose answer is an estimate also by itself.

    The other arguments are those of `completed`.

    Args:
        turn: the number of the time: each looks at another image and other rows.

    Returns:
        (3,), see `els.audit.look`, NaN where there is no such image; and whether the answer to the
        whole image is off by more than it claims and by more than the tolerance.
    """
    count, t = len(point.x), at_time(point.x[:1], point.t)
    rows = band(point.x.shape[2], turn * _GOLDEN % 1)
    for which in ((turn + i) % count for i in range(count)):
        x, of = point.of(which).x, None if label is None else label[which : which + 1]
        estimate = machine.estimate(x, t, of, value, in_full=False)
        if estimate.mean.isnan().any():
            continue
        found = look(machine, estimate, x, t, of, value, rows=rows)
        # The tolerance is one for images: some of their rows are harder than others.
        wrong = _too_far(found, machine) and _too_far(
            look(machine, estimate, x, t, of, value, rows=slice(None)), machine
        )
        return found, wrong
    return torch.full((3,), torch.nan), False


def _too_far(found: Tensor, machine: PatchMachine) -> bool:
    error, claimed, _ = found.tolist()
    return bool(error > max(claimed, machine.tolerance))


def _places(chosen: Tensor) -> list[int]:
    found: list[int] = chosen.nonzero().flatten().tolist()
    return found


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
