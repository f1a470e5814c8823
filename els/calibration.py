"""Fitting the one number per timestep: the scale at which a machine answers like a network.

Or, with no network at all, the scale at which it denoises images that it has not seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median_low
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from pydantic import Field
from torch import Tensor

from els.denoiser import Denoiser, add_noise, eps_from_x0
from els.errors import InputError, reason
from els.files import as_record, write_record
from els.images import ImageSet, to_float
from els.machines import Machine
from els.sampling import batches, ddim_steps, seeded_noise
from els.schedule import CosineSchedule

Criterion = Literal["cosine", "l2", "mse"]
Number = int | float  # a patch size is a whole number, and stays one on disk


@dataclass(frozen=True)
class Point:
    """Noisy images at one time, and what a machine ought to answer there.

    Attributes:
        t: the time.
        x: noisy images (b c h w).
        x0_hat: a network's answer to them, or the clean images themselves (b c h w).
    """

    t: float
    x: Tensor
    x0_hat: Tensor


@dataclass(frozen=True)
class Scales:
    """The values of a machine's scale by time, and everything they were chosen from.

    Attributes:
        machine: the kind of machine that was fitted.
        criterion: "cosine" (between eps_hats, larger is better), "l2" (root mean squared difference
            of the eps_hats, smaller is better) or "mse" (mean squared error of x0_hat against clean
            images, smaller is better).
        seeds: the calibration seeds, or the indices of the clean images.
        candidates: the values tried.
        t: the times, from 1 downwards.
        values: the value at each t: the median over seeds of the best one or, with "mse", the one
            that is best on average.
        by_seed: the best value for each t and seed.
        table: the criterion for each t, candidate and seed.
        source: what the scales were fitted to, in the caller's words.
        scale: what the values are: "size" in pixels, "width", "threshold", ...
    """

    machine: str
    criterion: Criterion
    seeds: tuple[int, ...]
    candidates: tuple[Number, ...]
    t: tuple[float, ...]
    values: Annotated[tuple[Number, ...], Field(alias="sizes")]  # as files have called it always
    by_seed: tuple[tuple[Number, ...], ...]
    table: tuple[tuple[tuple[float, ...], ...], ...]
    source: str = ""
    scale: Annotated[str, Field(alias="dial")] = "size"

    def at(self, t: float) -> float:
        """The value at time t: that of the nearest fitted time."""
        nearest = min(range(len(self.t)), key=lambda i: abs(self.t[i] - t))
        return self.values[nearest]

    def mean_table(self) -> list[list[float]]:
        """The criterion for each t and candidate, averaged over seeds."""
        return torch.tensor(self.table, dtype=torch.float64).mean(dim=-1).tolist()

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_record(Path(path), self)

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
            return as_record(cls, content)
        except FileNotFoundError as error:
            raise InputError(f"there is no file '{path}'") from error
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"'{path}' holds no fitted scales: {error}") from error

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
    with open(path, "rb") as file:
        data = file.read()
    if path.suffix not in (".pt", ".pth"):
        return json.loads(data)
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


def _named(scales: object, name: str | None, path: Path) -> object:
    """One of several lists of patch sizes."""
    known = list(scales)
    if name not in known:
        what = "it holds several" if name is None else f"it has none called '{name}'"
        raise InputError(f"'{path}' has patch sizes by name and {what}: give one of "
                         f"{', '.join(map(str, known))}")  # fmt: skip
    return scales[name]


def _as_tuples(value: object) -> object:
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list) else value


def fit_scales(
    network: Denoiser,
    machine: Machine,
    noise: Tensor,
    *,
    seeds: Sequence[int],
    candidates: Sequence[float] | None = None,
    steps: int = 20,
    label: Tensor | None = None,
    criterion: Criterion = "cosine",
    schedule: CosineSchedule | None = None,
    batch: int = 8,
    on_step: Callable[[int], None] = lambda images: None,
) -> Scales:
    """Choose the scale for each timestep on the network's own DDIM path (the paper, section 5).

    At every t the machine is asked, at each candidate, at the x that the network has reached. Each
    seed votes for the value whose eps_hat is most like the network's; the median wins (the lower
    one of two).

    Args:
        network: the denoiser to be explained.
        machine: a machine with a scale.
        noise: where the paths start (n c h w), one for each seed.
        seeds: the seeds of that noise, kept for the record.
        candidates: values of the scale; those of `machine.scale` when None.
        steps: number of steps of the path.
        label: class indices (n,) or None.
        criterion: see `Scales`.
        schedule: the schedule that both denoisers were made for.
        batch: seeds at a time; the answer does not depend on it.
        on_step: called with the number of images after each step, for a progress bar.

    Raises:
        InputError: when there is no seed or no candidate.
    """
    schedule = schedule or CosineSchedule()
    candidates = _candidates(machine, candidates, len(noise))
    tables = [
        criterion_table(
            path_points(network, x, steps=steps, label=some_labels, schedule=schedule), machine,
            candidates=candidates, label=some_labels, criterion=criterion, schedule=schedule,
            on_step=on_step,
        )
        for x, some_labels in batches(noise, label, batch)
    ]  # fmt: skip
    return choose_scales(
        torch.cat(tables, dim=-1), machine=machine, criterion=criterion, seeds=seeds,
        candidates=candidates, t=schedule.timesteps(steps)[:-1].tolist(),
    )  # fmt: skip


def fit_scales_to_data(
    machine: Machine,
    held_out: ImageSet,
    *,
    candidates: Sequence[float] | None = None,
    steps: int = 20,
    count: int = 64,
    conditional: bool = False,
    schedule: CosineSchedule | None = None,
    batch: int = 8,
    on_step: Callable[[int], None] = lambda images: None,
) -> Scales:
    """Choose the scale for each timestep without any network: the one that denoises best.

    Noise is added to images that are not in the machine's dictionary; the value with the smallest
    mean squared error of x0_hat wins.

    Args:
        machine: a machine with a scale.
        held_out: clean images from where the machine's come from; the first `count` are used.
        candidates, schedule, batch, on_step: see `fit_scales`.
        steps: number of times, t = 1, (n-1)/n, ..., 1/n.
        count: number of images; image i gets the noise of seed i at every t.
        conditional: give the machine the images' labels.

    Raises:
        InputError: when there is no image or no candidate.
    """
    schedule = schedule or CosineSchedule()
    count = min(count, len(held_out))
    candidates = _candidates(machine, candidates, count)
    clean = to_float(held_out.pixels[:count])
    labels = held_out.labels[:count] if conditional else None
    t = schedule.timesteps(steps)[:-1].tolist()
    tables = []
    for seeds in torch.arange(count).split(batch):
        some_labels = None if labels is None else labels[seeds]
        points = data_points(clean[seeds], seeds=seeds.tolist(), t=t, schedule=schedule)
        tables.append(criterion_table(
            points, machine, candidates=candidates, label=some_labels, criterion="mse",
            schedule=schedule, on_step=on_step,
        ))  # fmt: skip
    return choose_scales(
        torch.cat(tables, dim=-1), machine=machine, criterion="mse", seeds=range(count),
        candidates=candidates, t=t,
    )  # fmt: skip


def _candidates(machine: Machine, given: Sequence[float] | None, count: int) -> Sequence[float]:
    if given is None and machine.scale is None:
        raise InputError(f"the {machine.kind} machine has no scale to calibrate")
    candidates = machine.scale.candidates if given is None else given
    if not count or not candidates:
        raise InputError(
            f"calibration needs seeds and values to try; it was given {count} seeds and "
            f"{len(candidates)} values"
        )
    return candidates


def path_points(
    network: Denoiser,
    noise: Tensor,
    *,
    steps: int,
    label: Tensor | None,
    schedule: CosineSchedule,
) -> Iterator[Point]:
    """The network's own DDIM path from noise (n c h w), and its answers on it."""
    for step in ddim_steps(network, noise, steps=steps, label=label, schedule=schedule):
        yield Point(t=step.t, x=step.x, x0_hat=step.x0_hat)


def data_points(
    clean: Tensor, *, seeds: Sequence[int], t: Sequence[float], schedule: CosineSchedule
) -> Iterator[Point]:
    """Clean images (n c h w) under the noise of `seeds` at each of the times."""
    eps = seeded_noise(seeds, clean.shape[1:]).to(clean)
    for time in t:
        at = clean.new_full((len(clean),), time, dtype=torch.float64)
        yield Point(t=time, x=add_noise(clean, eps, at, schedule), x0_hat=clean)


def criterion_table(
    points: Iterable[Point],
    machine: Machine,
    *,
    candidates: Sequence[float],
    label: Tensor | None,
    criterion: Criterion,
    schedule: CosineSchedule,
    on_step: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """The criterion for each t, candidate and seed (t k n) at points of the same n seeds.

    Other arguments are those of `fit_scales`; tables of parts of the seeds may be joined.
    """
    rows = []
    for point in points:
        t = point.x.new_full((len(point.x),), point.t, dtype=torch.float64)
        answers = machine.at_values(point.x, t, candidates, label)
        rows.append(_compare(point, t, answers, criterion, schedule))
        on_step(len(point.x))
    return torch.stack(rows)


def choose_scales(
    table: Tensor,
    *,
    machine: Machine,
    criterion: Criterion,
    seeds: Sequence[int],
    candidates: Sequence[float],
    t: Sequence[float],
    source: str = "",
) -> Scales:
    """The best value at each t from a table (t k n); see `Scales.values`."""
    pick = torch.argmax if criterion == "cosine" else torch.argmin
    by_seed = [[candidates[i] for i in row] for row in pick(table, dim=1).tolist()]
    if criterion == "mse":
        values = [candidates[i] for i in pick(table.mean(dim=-1), dim=1).tolist()]
    else:
        values = [median_low(row) for row in by_seed]
    return Scales(
        machine=machine.kind,
        criterion=criterion,
        seeds=tuple(seeds),
        candidates=tuple(candidates),
        t=tuple(t),
        values=tuple(values),
        by_seed=_as_tuples(by_seed),
        table=_as_tuples(table.tolist()),
        source=source,
        scale=machine.scale.name if machine.scale else "size",
    )


def _compare(
    point: Point, t: Tensor, answers: Tensor, criterion: Criterion, schedule: CosineSchedule
) -> Tensor:
    """The criterion (k b) between what ought to be answered and answers (k b c h w)."""
    if criterion == "mse":
        errors = (answers.double() - point.x0_hat.double()).square()
        return reduce(errors, "k b c h w -> k b", "mean").cpu()
    target = rearrange(eps_from_x0(point.x, point.x0_hat, t, schedule), "b c h w -> b (c h w)")
    values = []
    for answer in answers:
        eps_hat = rearrange(eps_from_x0(point.x, answer, t, schedule), "b c h w -> b (c h w)")
        if criterion == "cosine":
            values.append(F.cosine_similarity(target.double(), eps_hat.double(), dim=1))
        else:
            values.append((target.double() - eps_hat.double()).square().mean(dim=1).sqrt())
    return torch.stack(values).cpu()
