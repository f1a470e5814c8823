"""Fitting the one number per timestep: the scale at which a machine answers like a network.

Or, with no network at all, the scale at which it denoises images that it has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import t as student
from torch import Tensor

from els.audit import Audit
from els.criterion import Criterion, Point, best_of, compare, data_points, part_of
from els.denoiser import Denoiser, at_time, identity_of
from els.errors import InputError, reason
from els.files import as_plain, as_record, write_json
from els.images import ImageSet
from els.machines import Machine
from els.machines.base import Number
from els.machines.local import PatchMachine
from els.reading import read_bytes, read_json
from els.sampling import Starts, ddim_steps
from els.schedule import CosineSchedule
from els.search import Search
from els.work import IN_MEMORY, Advance, Tensors, Work

SAME = 0.01  # a share of the loss that makes no difference
_WORD = r"^\w*$"  # names of machines and scales
_NAME = Field(pattern=_WORD)


@dataclass(frozen=True)
class Scales:
    """The values of a machine's scale by time, and everything they were chosen from.

    Attributes:
        machine: the kind of machine that was fitted.
        criterion: "cosine" (between eps_hats, larger is better), "l2" (root mean squared difference
            of the eps_hats, smaller is better) or "mse" (mean squared error of x0_hat against clean
            images, smaller is better).
        seeds: the calibration seeds, or the indices of the clean images.
        candidates: the values tried, ascending where they were fitted here.
        t: the times, from 1 downwards.
        values: the value at each t: the median over seeds of the best one or, with "mse", the one
            that is best on average.
        by_seed: the best value for each t and seed.
        table: the criterion for each t, candidate and seed; None where it was not tried, which
            cannot be the best (`els.search`).
        audit: where answers were estimated, how far some at `values` and beside them were off.
        source: the file that they were read from, where they were not fitted here.
        scale: what the values are: "size" in pixels, "width", "threshold", ...
    """

    machine: Annotated[str, _NAME]
    criterion: Criterion
    seeds: tuple[int, ...]
    candidates: tuple[Number, ...]
    t: tuple[float, ...]
    values: Annotated[tuple[Number, ...], Field(alias="sizes")]  # as files have called it always
    by_seed: tuple[tuple[Number, ...], ...]
    table: tuple[tuple[tuple[float | None, ...], ...], ...]
    audit: Audit | None = None
    source: str = ""
    scale: Annotated[str, Field(alias="dial", pattern=_WORD)] = "size"

    def __repr__(self) -> str:
        ends = [f"{self.values[i]:g} at t = {self.t[i]:g}" for i in (0, -1) if self.t]
        return f"{self.scale}s of {self.machine or self.source}: {' to '.join(ends)}"

    @property
    def identity(self) -> object:
        """Plain data that tells these values from others."""
        return [list(self.t), list(self.values)]

    def at(self, t: float) -> Number:
        """The value at time t: that of the nearest fitted time."""
        nearest = min(range(len(self.t)), key=lambda i: abs(self.t[i] - t))
        return self.values[nearest]

    def mean_table(self) -> list[list[float]]:
        """The criterion for each t and candidate, averaged over seeds; NaN where not tried."""
        return np.array(self.table, dtype=np.float64).mean(axis=-1).tolist()

    def standard_errors(self) -> list[list[float | None]]:
        """For each t and candidate: of what it loses to the chosen value, over seeds, paired.

        None where it was not tried, or on a single seed.
        """
        found = []
        for value, rows in zip(self.values, self.table, strict=bool(self.table)):
            table = np.array(rows, dtype=np.float64)
            lost = table - table[self.candidates.index(value)]
            count = lost.shape[1]
            error = lost.std(axis=1, ddof=min(1, count - 1)) / np.sqrt(count)
            found.append([float(one) if count > 1 and np.isfinite(one) else None for one in error])
        return found

    @property
    def at_edge(self) -> tuple[bool, ...]:
        """At each t: whether the value is the largest tried, so that a larger might be better."""
        return tuple(value == max(self.candidates) for value in self.values)

    @cached_property
    def band(self) -> tuple[tuple[Number, Number], ...]:
        """At each t: the lowest and the highest value of those around the chosen one as good as it.

        A value is as good when over the calibration seeds the criterion is not worse than that of
        the chosen one: the 95 % interval (Student's t, paired by seed) of what it loses holds zero,
        or what it loses is less than `SAME` of the loss itself. Where scales were not fitted here,
        or on one seed alone, the band is the value.
        """
        ranked = sorted(range(len(self.candidates)), key=self.candidates.__getitem__)
        ordered = [self.candidates[i] for i in ranked]
        found = []
        for i, value in enumerate(self.values):
            low = high = ordered.index(value)
            if self.table:
                table = np.array(self.table[i], dtype=np.float64)
                good = self._as_good(table[ranked], low)
                while low > 0 and good[low - 1]:
                    low -= 1
                while high < len(good) - 1 and good[high + 1]:
                    high += 1
            found.append((ordered[low], ordered[high]))
        return tuple(found)

    def _as_good(self, table: NDArray[np.float64], chosen: int) -> list[bool]:
        """For the criterion of each value and seed (k n): whether it is as good as the chosen."""
        loss = 1 - table if self.criterion == "cosine" else table
        lost = loss - loss[chosen]
        mean, count = lost.mean(axis=1), lost.shape[1]
        margin = np.zeros(len(mean))
        if count > 1:
            margin = student.ppf(0.975, count - 1) * lost.std(axis=1, ddof=1) / np.sqrt(count)
        good: list[bool] = (mean <= np.maximum(margin, SAME * loss[chosen].mean())).tolist()
        return good

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all; what follows from the table is there for readers."""
        content = as_plain(self)
        content |= {"band": self.band, "at_edge": self.at_edge}
        content |= {"standard_errors": self.standard_errors()}
        write_json(Path(path), content)

    @classmethod
    def load(cls, path: str | Path, *, name: str | None = None) -> Scales:
        """Read what `save` wrote, or patch sizes as the paper's code releases them.

        The latter are n sizes of which number i = 0, 1, ... is for t = (i + 1) / n: a list in JSON,
        or a list or a tensor in a `.pt` file. They say nothing of how they were found: `machine`,
        `seeds` and `table` are empty.

        Args:
            path: the file.
            name: which list, where a JSON file holds several as {"scales": {name: list}}.

        Raises:
            InputError: when the file is missing or something else.
        """
        path = Path(path)
        try:
            content = _read(path)
            if isinstance(content, dict) and "scales" in content:
                content = _named(content["scales"], name, path)
            if isinstance(content, list):
                return cls._of_sizes(content, source=str(path))
            found = as_record(cls, content)
            found._check()
            return found
        except FileNotFoundError as error:
            raise InputError(f"there is no file '{path}'") from error
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"'{path}' holds no fitted scales: {error}") from error

    def _check(self) -> None:
        """Make sure that the parts fit together.

        Raises:
            ValueError: when they do not.
        """
        if not len(self.t) == len(self.values) > 0:
            raise ValueError(f"it has {len(self.values)} values for {len(self.t)} times")
        if not set(self.values) <= set(self.candidates):
            raise ValueError("a value is none of those that were tried")
        if not all(map(math.isfinite, (*self.t, *self.values, *self.candidates))):
            raise ValueError("a value is not finite")
        if self.table and np.array(self.table, dtype=float).shape != (
            len(self.t),
            len(self.candidates),
            len(self.seeds),
        ):
            raise ValueError("its table is not of its times, values and seeds")

    @classmethod
    def _of_sizes(cls, sizes: list[object], *, source: str) -> Scales:
        """Scales from patch sizes for t = 1/n, 2/n, ..., 1."""
        good = [size for size in sizes if type(size) is int and size > 0 and size % 2]
        if not sizes or len(good) < len(sizes):
            raise ValueError(f"patch sizes must be odd whole numbers, not {sizes!r}"[:200])
        n = len(good)
        return cls(
            machine="", criterion="cosine", seeds=(), candidates=tuple(sorted(set(good))),
            t=tuple((i + 1) / n for i in reversed(range(n))), values=tuple(reversed(good)),
            by_seed=(), table=(), source=source,
        )  # fmt: skip


def _read(path: Path) -> object:
    """The content of a JSON file, or of a list or tensor that torch saved."""
    try:
        if path.suffix not in (".pt", ".pth"):
            return read_json(path)
        data = read_bytes(path)
    except InputError as error:
        raise ValueError(str(error)) from error
    try:
        content = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    # Bytes that torch did not save can make its parser raise anything.
    except Exception as error:
        raise ValueError(reason(error)) from error
    if isinstance(content, Tensor):
        content = content.tolist()
    if not isinstance(content, list):
        raise ValueError(f"a {type(content).__name__} where a list or a tensor was expected")
    # The paper's code computes medians, which makes whole numbers of any type.
    items = [item.item() if isinstance(item, Tensor) else item for item in content]
    return [int(item) if isinstance(item, float) and item.is_integer() else item for item in items]


def _named(scales: Any, name: str | None, path: Path) -> object:
    """One of several lists of patch sizes."""
    known = list(scales)
    if name not in known:
        what = "it holds several" if name is None else f"it has none called '{name}'"
        raise InputError(f"'{path}' has patch sizes by name and {what}: give one of "
                         f"{', '.join(map(str, known))}")  # fmt: skip
    return scales[name]


def _as_tuples(value: Any) -> Any:
    """Lists as tuples, and NaN, which JSON does not know, as None."""
    if isinstance(value, list):
        return tuple(_as_tuples(one) for one in value)
    return None if isinstance(value, float) and math.isnan(value) else value


def fit_scales(
    network: Denoiser,
    machine: Machine,
    starts: Starts,
    seeds: Sequence[int],
    *,
    steps: int = 20,
    candidates: Sequence[Number] | None = None,
    criterion: Criterion = "cosine",
    work: Work = IN_MEMORY,
) -> Scales:
    """Choose the scale for each timestep on the network's own DDIM path (the paper, section 5).

    At every t the machine is asked, at each candidate, at the x that the network has reached. Each
    seed votes for the value whose eps_hat is most like the network's; the median wins (the lower
    one of two).

    Args:
        network: the denoiser to be explained.
        machine: a machine with a scale.
        starts: where the paths start.
        seeds: the calibration seeds.
        steps: number of steps of the path.
        candidates: values of the scale; default: those of `machine.scale`.
        criterion: see `Scales`.
        work: where results are kept, and how they are computed.

    Raises:
        InputError: when there is no seed or no candidate.

    Example:
        >>> from els.images import load_images
        >>> from els.machines import make_machine
        >>> images = load_images("digits", limit=20, size=8)
        >>> network = make_machine("local", images, size=5)
        >>> scales = fit_scales(
        ...     network, make_machine("local", images), Starts(images.image_shape), range(2),
        ...     steps=3, candidates=(3, 5, 7),
        ... )
        >>> scales.values
        (5, 5, 5)
    """
    values, schedule = _candidates(machine, candidates, len(seeds)), machine.schedule
    if isinstance(machine, PatchMachine) and _estimates(machine, values, starts.device):

        def path() -> tuple[list[Point], Tensor | None]:
            x, label = starts(seeds)
            return list(path_points(network, x, steps=steps, label=label, schedule=schedule)), label

        of = [identity_of(network), starts.identity]
        return _search(machine, path, seeds, steps, values, criterion, of, work)

    def compute(some: list[int], advance: Advance) -> Tensors:
        x, label = starts(some)
        points = path_points(network, x, steps=steps, label=label, schedule=schedule)
        return {"table": criterion_table(points, machine, values, label, criterion, advance)}

    depends = ["scales", identity_of(network), machine.identity, list(values), steps, criterion,
               starts.identity]  # fmt: skip
    found = work.map(f"calibrating {machine.kind}", seeds, compute, depends=depends, steps=steps)
    t = schedule.timesteps(steps)[:-1].tolist()
    return choose_scales(found["table"], machine, criterion, seeds=seeds, candidates=values, t=t)


def fit_scales_to_data(
    machine: Machine,
    held_out: ImageSet,
    *,
    steps: int = 20,
    candidates: Sequence[Number] | None = None,
    conditional: bool = False,
    device: torch.device | str = "cpu",
    work: Work = IN_MEMORY,
) -> Scales:
    """Choose the scale for each timestep without any network: the one that denoises best.

    Noise is added to images that are not in the machine's dictionary; the value with the smallest
    mean squared error of x0_hat wins.

    Args:
        machine: a machine with a scale.
        held_out: clean images from where the machine's come from; image i gets the noise of seed i
            at every t.
        steps: number of times, t = 1, (n-1)/n, ..., 1/n.
        candidates: values of the scale; default: those of `machine.scale`.
        conditional: give the machine the images' labels.
        device: where the machine is asked.
        work: where results are kept, and how they are computed.

    Raises:
        InputError: when there is no image or no candidate.
    """
    values = _candidates(machine, candidates, len(held_out))
    t = machine.schedule.timesteps(steps)[:-1].tolist()
    indices = range(len(held_out))

    def noised(some: Sequence[int]) -> tuple[Iterator[Point], Tensor | None]:
        clean, label = part_of(held_out, some, conditional=conditional, device=device)
        return data_points(clean, seeds=some, t=t, schedule=machine.schedule), label

    if isinstance(machine, PatchMachine) and _estimates(machine, values, device):

        def path() -> tuple[list[Point], Tensor | None]:
            points, label = noised(indices)
            return list(points), label

        of = [held_out.fingerprint(), conditional]
        return _search(machine, path, indices, steps, values, "mse", of, work)

    def compute(some: list[int], advance: Advance) -> Tensors:
        points, label = noised(some)
        return {"table": criterion_table(points, machine, values, label, "mse", advance)}

    depends = ["scales of data", machine.identity, list(values), steps, held_out.fingerprint(),
               conditional]  # fmt: skip
    name = f"calibrating {machine.kind} on held-out images"
    found = work.map(name, indices, compute, depends=depends, steps=steps)
    return choose_scales(found["table"], machine, "mse", seeds=indices, candidates=values, t=t)


def _estimates(machine: PatchMachine, values: Sequence[Number], device: torch.device | str) -> bool:
    """Whether answers at any of the values would be estimated, so that searching them pays."""
    x, pixels = torch.empty(1, *machine.image_shape, device=device), machine.images.pixels
    return machine.tolerance > 0 and any(machine.can_estimate(x, pixels, one) for one in values)


def _search(
    machine: PatchMachine,
    path: Callable[[], tuple[list[Point], Tensor | None]],
    seeds: Sequence[int],
    steps: int,
    candidates: Sequence[Number],
    criterion: Criterion,
    of: list[object],
    work: Work,
) -> Scales:
    """Scales of a machine that estimates; see `els.search`.

    Args:
        path: gives what ought to be answered at every t, and the labels.
        of: plain data that tells what `path` depends on.
    """
    what = " on held-out images" if criterion == "mse" else ""
    found = Search(
        machine,
        cache(path),
        images=len(seeds),
        times=steps,
        candidates=candidates,
        criterion=criterion,
        name=f"{machine.kind}{what}",
        depends=[of, machine.identity, steps, criterion, list(seeds)],
        work=work,
    ).run()
    t = machine.schedule.timesteps(steps)[:-1].tolist()
    table = rearrange(found.table, "t k n -> n t k")
    scales = choose_scales(table, machine, criterion, seeds=seeds, candidates=candidates, t=t)
    return replace(scales, audit=_audit(machine, t, found.looks, found.refused))


def _audit(
    machine: PatchMachine, t: Sequence[float], looks: Tensor, refused: Tensor
) -> Audit | None:
    """What the looks at each time (t 2 3) say together; None where all answers were exact."""
    looked = ~looks.isnan().any(dim=2)
    if not looked.any():
        return None
    kept = looked & ~refused[:, None]
    times = torch.tensor(t, dtype=torch.float64)
    each = times[:, None].expand_as(kept)[kept]
    return Audit.of(machine, each.tolist(), looks[kept], times[refused].tolist())


def _candidates(machine: Machine, given: Sequence[Number] | None, count: int) -> Sequence[Number]:
    candidates = given
    if candidates is None:
        if machine.scale is None:
            raise InputError(f"the {machine.kind} machine has no scale to calibrate")
        candidates = machine.scale.candidates
    if not count or not candidates:
        raise InputError(
            f"calibration needs seeds and values to try; it was given {count} seeds and "
            f"{len(candidates)} values"
        )
    return sorted(candidates)


def path_points(
    network: Denoiser,
    noise: Tensor,
    *,
    steps: int,
    label: Tensor | None,
    schedule: CosineSchedule,
) -> Iterator[Point]:
    """The network's own DDIM path from noise (n c h w), and its answers on it as they were.

    Where the schedule clamps, neither the network's nor the machine's are clamped: eps_hats, which
    are compared, are those of the answers as they were.
    """
    for step in ddim_steps(network, noise, steps=steps, label=label, schedule=schedule):
        yield Point(t=step.t, x=step.x, x0_hat=step.answer)


def criterion_table(
    points: Iterable[Point],
    machine: Machine,
    candidates: Sequence[Number],
    label: Tensor | None,
    criterion: Criterion,
    advance: Advance = lambda count: None,
) -> Tensor:
    """The criterion for each seed, t and candidate (n t k) at points of the same n seeds.

    Args:
        points: what ought to be answered, at every t.
        machine: it is asked at each of the candidates.
        candidates: values of the machine's scale.
        label: class indices (n,) or None.
        criterion: see `Scales`.
        advance: called with the number of images after each point.
    """
    rows = []
    for point in points:
        t = at_time(point.x, point.t)
        answers = machine.at_values(point.x, t, candidates, label)
        rows.append(
            torch.stack([compare(point, one, criterion, machine.schedule) for one in answers])
        )
        advance(len(point.x))
    return rearrange(torch.stack(rows), "t k n -> n t k")


def choose_scales(
    table: Tensor,
    machine: Machine,
    criterion: Criterion,
    *,
    seeds: Sequence[int],
    candidates: Sequence[Number],
    t: Sequence[float],
) -> Scales:
    """The best value at each t from a table (n t k); see `Scales.values`."""
    table = rearrange(table, "n t k -> t k n").contiguous()
    best = [best_of(row, criterion) for row in table]
    by_seed = [[candidates[i] for i in votes] for votes, _ in best]
    values = [candidates[chosen] for _, chosen in best]
    return Scales(
        machine=machine.kind,
        criterion=criterion,
        seeds=tuple(seeds),
        candidates=tuple(candidates),
        t=tuple(t),
        values=tuple(values),
        by_seed=_as_tuples(by_seed),
        table=_as_tuples(table.tolist()),
        scale=machine.scale.name if machine.scale else "size",
    )
