"""Estimated answers held against exact ones, at some pixels of the paths they were asked on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from els.denoiser import schedule_of
from els.engines.subsample import Estimate
from els.machines.base import Number
from els.machines.local import PatchMachine
from els.sampling import Paths, Starts, retraced
from els.work import IN_MEMORY, Advance, Tensors, Work

# Of all answers so many are looked at again, a band of rows each: an exact answer costs up to 20
# estimated ones, so that this is about 3 % of the time.
_SHARE = 1 / 128
_LEAST, _MOST = 4, 16
_BAND = 1 / 4  # of the rows of an image


@dataclass(frozen=True)
class Audit:
    """How far estimates were off, beside how far they said that they could be.

    Attributes:
        tolerance: that was asked for.
        t: the time of each answer that was looked at.
        error: its root mean square error over the pixels that were computed exactly.
        claimed: the root mean square of the standard errors that it came with, of those pixels.
        beyond: the share of these that were off by more than two of their standard errors.
        pixels: how many of each.
        refused: the times whose answers were off by too much and gave way to exact ones; they are
            not among `t`.
    """

    tolerance: float
    t: tuple[float, ...]
    error: tuple[float, ...]
    claimed: tuple[float, ...]
    beyond: tuple[float, ...]
    pixels: int
    refused: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, machine: PatchMachine, t: Sequence[float], looks: Tensor, refused: Sequence[float] = ()
    ) -> Audit:
        """What looks (m 3) at answers of a machine say, each at its time; see `look`."""
        error, claimed, beyond = (tuple(column) for column in looks.T.tolist())
        _, height, width = machine.image_shape
        pixels = _rows(height) * width
        return cls(machine.tolerance, tuple(t), error, claimed, beyond, pixels, tuple(refused))

    @property
    def found(self) -> float:
        """The root mean square error of all, of none 0."""
        return _root_mean_square(self.error)

    @property
    def promised(self) -> float:
        """The root mean square of all standard errors."""
        return _root_mean_square(self.claimed)

    @property
    def holds(self) -> bool:
        """Whether the error found is at most the tolerance."""
        return self.found <= self.tolerance

    def __str__(self) -> str:
        times = ", ".join(f"{t:g}" for t in self.refused)
        if not self.t:
            return f"an error above {self.tolerance:g}; exact in the end at t = {times}"
        beyond = sum(self.beyond) / len(self.beyond)
        more = f"; exact in the end at t = {times}" if times else ""
        return (
            f"an error of {self.found:.4f} at {len(self.t) * self.pixels:,} pixels that were "
            f"computed exactly too (tolerance {self.tolerance:g}, expected {self.promised:.4f}; "
            f"{beyond:.1%} beyond two standard errors{more})"
        )


def audit_paths(
    machine: PatchMachine,
    paths: Paths,
    starts: Starts,
    seeds: Sequence[int],
    *,
    work: Work = IN_MEMORY,
) -> Audit:
    """Compute some of the answers on a machine's paths exactly.

    Args:
        machine: one that estimates, at its fitted scale.
        paths: those that it was sampled on.
        starts: where they start.
        seeds: of the paths.
        work: where results are kept, and how they are computed.
    """
    steps, height = len(paths.t), starts.image_shape[1]
    count = min(max(_LEAST, round(_SHARE * steps * len(seeds))), _MOST, steps * len(seeds))
    chosen = [_chosen(i, count, steps, len(seeds)) for i in range(count)]

    def compute(some: list[int], advance: Advance) -> Tensors:
        found = []
        for i in some:
            seed, step = chosen[i]
            x, t, label = _point(machine, paths, starts, seeds, seed, step)
            estimate, value = machine.estimate(x, t, label), machine.value_at(float(t))
            rows = band(height, i / max(count - 1, 1))
            found.append(look(machine, estimate, x, t, label, value, rows=rows))
            advance(1)
        return {"found": torch.stack(found)}

    depends = ["audit", machine.identity, starts.identity, steps, list(seeds)]
    name = f"checking {machine.kind} exactly"
    table = work.map(name, range(count), compute, depends=depends, batch=1)["found"]
    return Audit.of(machine, [paths.t[step] for _, step in chosen], table)


def _chosen(i: int, count: int, steps: int, seeds: int) -> tuple[int, int]:
    """Which path and which step the i-th look is at: all times alike, no path twice before all."""
    return i % seeds, int((i + 0.5) / count * steps)


def _point(
    machine: PatchMachine,
    paths: Paths,
    starts: Starts,
    seeds: Sequence[int],
    seed: int,
    step: int,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """X (1 c h w), t (1,) and label (1,) of a step, by walking the path with its own answers."""
    noise, label = starts([seeds[seed]])
    walk = retraced(paths.answers[:, seed, None], noise, schedule=schedule_of(machine))
    point = next(one for one in walk if one.i == step)
    return point.x, torch.full((1,), point.t, dtype=torch.float64, device=noise.device), label


def band(height: int, where: float) -> slice:
    """The rows of an image that a look is at, from the first (0) to the last (1)."""
    rows = _rows(height)
    first = round(where * (height - rows))
    return slice(first, first + rows)


def _rows(height: int) -> int:
    return max(1, math.ceil(_BAND * height))


def look(
    machine: PatchMachine,
    estimate: Estimate,
    x: Tensor,
    t: Tensor,
    label: Tensor | None,
    value: Number,
    *,
    rows: slice,
) -> Tensor:
    """How far an estimate is off over some rows: error, claimed error, share beyond two of them.

    Args:
        machine: the one that made it.
        estimate: the answer to x (1 c h w).
        x: a query (1 c h w).
        t: its time (1,).
        label: its class (1,) or None.
        value: of the machine's scale.
        rows: where the answer is computed exactly, too.

    Returns:
        (3,), see `Audit`.
    """
    wanted = torch.zeros(1, *x.shape[2:], dtype=torch.bool, device=x.device)
    wanted[:, rows] = True
    images = machine.of_class(None if label is None else int(label))
    (exact,) = machine.posteriors(x, t, images.pixels, [value], wanted=wanted)
    difference = estimate.mean - machine.kept(exact.mean.to(x))
    off = difference[..., rows, :].double().square().mean(dim=1)
    claimed = estimate.standard_error[:, 0, rows].double().square()
    beyond = off > 4 * claimed + 1e-12  # an exact pixel is off by its rounding
    return torch.stack([off.mean().sqrt(), claimed.mean().sqrt(), beyond.double().mean()]).float()


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / max(1, len(values)))
