"""Fitting the one number per timestep: the patch size at which a machine answers like a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from statistics import median_low
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from els.denoiser import Denoiser, eps_from_x0
from els.errors import InputError
from els.files import write_json
from els.machines import Machine
from els.sampling import batches, ddim_steps
from els.schedule import CosineSchedule

Criterion = Literal["cosine", "l2"]


@dataclass(frozen=True)
class Scales:
    """Patch sizes by time, and everything they were chosen from.

    Attributes:
        machine: the kind of machine that was fitted.
        criterion: "cosine" (between eps_hats, larger is better) or "l2" (root mean squared
            difference of the eps_hats, smaller is better).
        seeds: the calibration seeds.
        candidates: the patch sizes tried.
        t: the times, from 1 downwards.
        sizes: the median over seeds of the best patch size at each t.
        by_seed: the best patch size for each t and seed.
        table: the criterion for each t, candidate and seed.
        source: what the scales were fitted to, in the caller's words.
    """

    machine: str
    criterion: Criterion
    seeds: tuple[int, ...]
    candidates: tuple[int, ...]
    t: tuple[float, ...]
    sizes: tuple[int, ...]
    by_seed: tuple[tuple[int, ...], ...]
    table: tuple[tuple[tuple[float, ...], ...], ...]
    source: str = ""

    def at(self, t: float) -> int:
        """The patch size at time t: that of the nearest fitted time."""
        nearest = min(range(len(self.t)), key=lambda i: abs(self.t[i] - t))
        return self.sizes[nearest]

    def mean_table(self) -> list[list[float]]:
        """The criterion for each t and candidate, averaged over seeds."""
        return torch.tensor(self.table, dtype=torch.float64).mean(dim=-1).tolist()

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(Path(path), asdict(self))

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
            return cls(**{key: _as_tuples(value) for key, value in content.items()})
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
            t=tuple((i + 1) / n for i in reversed(range(n))), sizes=tuple(reversed(good)),
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
        raise ValueError(" ".join(str(error).split())[:160]) from error
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
    candidates: Sequence[int] = (3, 5, 7, 9, 11, 13, 15, 17),
    steps: int = 20,
    label: Tensor | None = None,
    criterion: Criterion = "cosine",
    schedule: CosineSchedule | None = None,
    batch: int = 8,
    on_step: Callable[[int], None] = lambda images: None,
) -> Scales:
    """Choose a patch size for each timestep on the network's own DDIM path (the paper, section 5).

    At every t the machine is asked, for each candidate k, at the x that the network has reached.
    Each seed votes for the k whose eps_hat is most like the network's; the median wins (the lower
    one of two).

    Args:
        network: the denoiser to be explained.
        machine: a machine with a patch size.
        noise: where the paths start (n c h w), one for each seed.
        seeds: the seeds of that noise, kept for the record.
        candidates: odd patch sizes.
        steps: number of steps of the path.
        label: class indices (n,) or None.
        criterion: see `Scales`.
        schedule: the schedule that both denoisers were made for.
        batch: seeds at a time; the answer does not depend on it.
        on_step: called with the number of images after each step, for a progress bar.

    Raises:
        InputError: when there is no seed or no candidate.
    """
    if not len(noise) or not candidates:
        raise InputError(
            f"calibration needs seeds and patch sizes; it was given {len(noise)} seeds and "
            f"{len(candidates)} sizes"
        )
    schedule = schedule or CosineSchedule()
    tables = [
        criterion_table(
            network, machine, x, candidates=candidates, steps=steps, label=some_labels,
            criterion=criterion, schedule=schedule, on_step=on_step,
        )
        for x, some_labels in batches(noise, label, batch)
    ]  # fmt: skip
    return choose_scales(
        torch.cat(tables, dim=-1), machine=machine.kind, criterion=criterion, seeds=seeds,
        candidates=candidates, t=schedule.timesteps(steps)[:-1].tolist(),
    )  # fmt: skip


def criterion_table(
    network: Denoiser,
    machine: Machine,
    noise: Tensor,
    *,
    candidates: Sequence[int],
    steps: int,
    label: Tensor | None,
    criterion: Criterion,
    schedule: CosineSchedule,
    on_step: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """The criterion for each t, candidate and seed (t k n), on the network's path.

    Arguments are those of `fit_scales`; tables of parts of the seeds may be joined.
    """
    rows = []
    for step in ddim_steps(network, noise, steps=steps, label=label, schedule=schedule):
        t = noise.new_full((len(noise),), step.t, dtype=torch.float64)
        answers = machine.at_sizes(step.x, t, candidates, label)
        rows.append(_compare(step.x, t, step.x0_hat, answers, criterion, schedule))
        on_step(len(noise))
    return torch.stack(rows)


def choose_scales(
    table: Tensor,
    *,
    machine: str,
    criterion: Criterion,
    seeds: Sequence[int],
    candidates: Sequence[int],
    t: Sequence[float],
    source: str = "",
) -> Scales:
    """Each seed's best patch size at each t, and their median, from a table (t k n)."""
    best = table.argmax(dim=1) if criterion == "cosine" else table.argmin(dim=1)
    by_seed = [[candidates[i] for i in row] for row in best.tolist()]
    return Scales(
        machine=machine,
        criterion=criterion,
        seeds=tuple(seeds),
        candidates=tuple(candidates),
        t=tuple(t),
        sizes=tuple(median_low(row) for row in by_seed),
        by_seed=_as_tuples(by_seed),
        table=_as_tuples(table.tolist()),
        source=source,
    )


def _compare(
    x: Tensor,
    t: Tensor,
    x0_hat: Tensor,
    answers: Tensor,
    criterion: Criterion,
    schedule: CosineSchedule,
) -> Tensor:
    """The criterion (k b) between a network's x0_hat (b c h w) and answers (k b c h w)."""
    network = rearrange(eps_from_x0(x, x0_hat, t, schedule), "b c h w -> b (c h w)")
    values = []
    for answer in answers:
        machine = rearrange(eps_from_x0(x, answer, t, schedule), "b c h w -> b (c h w)")
        if criterion == "cosine":
            values.append(F.cosine_similarity(network.double(), machine.double(), dim=1))
        else:
            values.append((network.double() - machine.double()).square().mean(dim=1).sqrt())
    return torch.stack(values).cpu()
