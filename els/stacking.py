"""Fitting a mixture of machines to a network: convex least squares, timestep by timestep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from els.calibration import path_points
from els.criterion import Point
from els.denoiser import Denoiser, at_time, identity_of
from els.errors import InputError
from els.files import write_record
from els.machines.mixture import Mixture
from els.reading import read_record
from els.sampling import Starts
from els.work import IN_MEMORY, Advance, Tensors, Work

# How much more a sum of weights other than 1 costs than a wrong answer.
_SUM_TO_ONE = 1e3
# Components with less weight are left out, so that they need not be computed.
_LEAST_WEIGHT = 0.01
# Of cross-validation; the first is none.
PENALTIES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_SMALLEST = 1e-9  # of the square of what is answered
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """The weights of a mixture by time.

    Attributes:
        machine: the kind of the mixture.
        components: their names, in order.
        t: the times, from 1 downwards.
        weights: of each component at each t; those of a t add up to 1.
        seeds: the calibration seeds.
        source: empty; files from before have a digest of what they were fitted to.
        penalty: what the squares of the weights cost, see `solve`.
        tried: the penalties that were tried.
        losses: of each, the squared error on calibration seeds that were left out, relative to that
            without a penalty; empty where there was a single seed.
    """

    machine: str
    components: tuple[str, ...]
    t: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    seeds: tuple[int, ...]
    source: str = ""
    penalty: float = 0.0
    tried: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return (
            f"weights of {self.machine}: {len(self.components)} components at {len(self.t)} times"
        )

    @property
    def identity(self) -> object:
        """Plain data that tells these weights from others."""
        return [list(self.t), [list(row) for row in self.weights]]

    def at(self, t: float) -> tuple[float, ...]:
        """The weights at time t: those of the nearest fitted time."""
        return self.weights[min(range(len(self.t)), key=lambda i: abs(self.t[i] - t))]

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_record(Path(path), self)

    @classmethod
    def load(cls, path: str | Path) -> Weights:
        """Read what `save` wrote.

        Raises:
            InputError: when the file is missing or something else.
        """
        try:
            return read_record(cls, Path(path))
        except (OSError, ValueError) as error:
            raise InputError(f"'{path}' holds no weights of a mixture: {error}") from error


def fit_weights(
    network: Denoiser,
    mixture: Mixture,
    starts: Starts,
    seeds: Sequence[int],
    *,
    steps: int = 20,
    work: Work = IN_MEMORY,
) -> Weights:
    """The convex weights at each t that bring a mixture's x0_hat closest to the network's.

    Least squares over all seeds and pixels, on the network's own path, with a penalty that is
    picked by cross-validation over the seeds; see `solve`.

    Args:
        network: the denoiser to be explained.
        mixture: the mixture, whose components are compared with it.
        starts: where the paths start.
        seeds: the calibration seeds.
        steps: number of steps of the path.
        work: where results are kept, and how they are computed.
    """
    schedule = mixture.schedule

    @cache
    def path() -> tuple[list[Point], Tensor | None]:
        x, label = starts(seeds)
        return list(path_points(network, x, steps=steps, label=label, schedule=schedule)), label

    def compute(some: list[int], advance: Advance) -> Tensors:
        points, label = path()
        return normal_equations([points[i] for i in some], mixture, label, advance)

    depends = [
        "weights by seed",
        identity_of(network),
        mixture.identity,
        steps,
        list(seeds),
        starts.identity,
    ]
    equations = work.map(f"fitting {mixture.kind}", range(steps), compute, depends=depends,
                         steps=len(seeds), batch=1)  # fmt: skip
    return solve(equations, mixture, t=schedule.timesteps(steps)[:-1].tolist(), seeds=seeds)


def normal_equations(
    points: Iterable[Point],
    mixture: Mixture,
    label: Tensor | None,
    advance: Advance = lambda count: None,
) -> Tensors:
    """What least squares needs to know, in sums over pixels.

    Args:
        points: what ought to be answered, at every t.
        mixture: its components are compared with that.
        label: class indices (n,) or None.
        advance: called with the number of images after each point.

    Returns:
        `gram` (t n k k), inner products of the components' answers for each seed, `right` (t n k),
        those with what ought to be answered, and `square` (t n), that of the latter.
    """
    gram, right, square = [], [], []
    for point in points:
        answers = mixture.components(point.x, at_time(point.x, point.t), label).double().cpu()
        flat = rearrange(answers, "k n c h w -> n k (c h w)")
        wanted = point.x0_hat.double().cpu().flatten(1)
        gram.append(flat @ flat.mT)
        right.append(torch.einsum("nkd,nd->nk", flat, wanted))
        square.append(wanted.square().sum(dim=1))
        advance(len(point.x))
    found = {"gram": gram, "right": right, "square": square}
    return {name: torch.stack(values) for name, values in found.items()}


def solve(
    equations: Tensors, mixture: Mixture, *, t: Sequence[float], seeds: Sequence[int]
) -> Weights:
    """The weights, at least 0 and adding up to 1, with the smallest squared error at each t.

    To the squared error is added `penalty` times the mean square of the components' answers times
    the sum of the squared weights, which draws weights of components that are alike together. Of
    `PENALTIES` the one is taken that is best on average over t on seeds that are left out, each in
    turn, relative to no penalty at all.
    """
    gram, right, square = (equations[name].numpy() for name in ("gram", "right", "square"))
    losses: tuple[float, ...] = ()
    penalty = 0.0
    if len(seeds) > 1:
        losses = _cross_validated(gram, right, square)
        penalty = PENALTIES[int(np.argmin(losses))]
    rows = [
        _convex(g.sum(axis=0), r.sum(axis=0), penalty) for g, r in zip(gram, right, strict=True)
    ]
    return Weights(
        machine=mixture.kind,
        components=mixture.names,
        t=tuple(t),
        weights=tuple(tuple(row.tolist()) for row in rows),
        seeds=tuple(seeds),
        penalty=penalty,
        tried=PENALTIES if losses else (),
        losses=losses,
    )


def _cross_validated(gram: Array, right: Array, square: Array) -> tuple[float, ...]:
    """The error of each penalty on seeds that are left out, a mean over t relative to none."""
    errors = np.zeros((len(PENALTIES), len(gram)))
    for at, (g, r, e) in enumerate(zip(gram, right, square, strict=True)):
        for i, penalty in enumerate(PENALTIES):
            for n in range(len(g)):  # the seed that is left out
                w = _convex(g.sum(axis=0) - g[n], r.sum(axis=0) - r[n], penalty)
                errors[i, at] += w @ g[n] @ w - 2 * w @ r[n] + e[n]
    without = np.maximum(errors[0], _SMALLEST * square.sum(axis=1))  # an exact mixture has none
    return tuple((errors / without).mean(axis=1).tolist())


def _convex(gram: Array, right: Array, penalty: float = 0.0) -> Array:
    """Argmin of w G w / 2 - r w over the simplex; components that hardly count are dropped first.

    The problem is solved once, and again with those that have some weight.
    """
    gram = gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = _simplex(gram, right)
    kept = weights >= _LEAST_WEIGHT
    weights[:] = 0
    weights[kept] = _simplex(gram[np.ix_(kept, kept)], right[kept])
    return weights


def _simplex(gram: Array, right: Array) -> Array:
    scale = np.trace(gram) / len(gram)
    values, vectors = np.linalg.eigh(gram / scale)
    root = np.sqrt(np.clip(values, 1e-12, None))
    rows = root[:, None] * vectors.T
    target = (vectors.T @ (right / scale)) / root
    rows = np.vstack([rows, np.full(len(gram), _SUM_TO_ONE)])
    weights, _ = nnls(rows, np.append(target, _SUM_TO_ONE), maxiter=100 * len(gram))
    return weights / weights.sum()
