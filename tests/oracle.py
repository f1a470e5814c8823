"""The machines as plain loops in float64, written from the definitions and nothing else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

KINDS = ("ideal", "local", "equivariant", "boundary")


def posterior_mean(
    x: np.ndarray, images: np.ndarray, alpha: float, sigma: float, kind: str, size: int | None
) -> np.ndarray:
    """x0_hat (c h w) of one query x (c h w) over training images (n c h w) in [-1, 1]."""
    c, h, w = x.shape
    out = np.zeros_like(x, dtype=np.float64)
    for uy in range(h):
        for ux in range(w):
            logs = log_weights(x, images, alpha, sigma, kind, size, (uy, ux))
            centres = np.array([images[i][:, vy, vx] for i, vy, vx in logs])
            weights = np.exp(np.array(list(logs.values())) - max(logs.values()))
            out[:, uy, ux] = weights @ centres / weights.sum()
    return out


def log_weights(
    x: np.ndarray,
    images: np.ndarray,
    alpha: float,
    sigma: float,
    kind: str,
    size: int | None,
    u: tuple[int, int],
    *,
    shift: int | None = None,
    profile: Sequence[float] | None = None,
) -> dict[tuple[int, int, int], float]:
    """log w_j of every patch that pixel u may use, by its image, row and column."""
    return {
        (i, *v): -_distance(x, alpha * y, u, v, kind, size, profile) / (2 * sigma**2)
        for i, y in enumerate(images)
        for v in _places(kind, size, *u, *x.shape[1:])
        if shift is None or max(abs(v[0] - u[0]), abs(v[1] - u[1])) <= shift
    }


class Details(NamedTuple):
    """What `Posterior` says about images: see there."""

    top: float
    top_share: float
    second: tuple[int, int, int] | None
    second_peak: float


def details(
    logs: dict[tuple[int, int, int], float], best_image: int, images: int | None = None
) -> Details:
    """Top and second among patches by their log-weights, where the best one's image is known.

    With `images`, the image numbered i is the image i % images in another position.
    """
    peak = max(logs.values())
    masses = defaultdict(float)
    second, second_peak = None, -math.inf
    for patch, log in logs.items():
        masses[patch[0]] += math.exp(log - peak)
        image = patch[0] if images is None else patch[0] % images
        if image != best_image and log > second_peak:
            second, second_peak = patch, log
    top = max(masses.values())
    return Details(top, top / sum(masses.values()), second, second_peak)


def _places(kind: str, size: int | None, uy: int, ux: int, h: int, w: int) -> list[tuple[int, int]]:
    if kind in ("ideal", "local"):
        return [(uy, ux)]
    everywhere = [(vy, vx) for vy in range(h) for vx in range(w)]
    r = size // 2
    if kind == "equivariant":
        return [(vy, vx) for vy, vx in everywhere if r <= vy < h - r and r <= vx < w - r]
    here = _crossings(uy, ux, h, w, r)
    return [v for v in everywhere if _crossings(*v, h, w, r) == here]


def _crossings(y: int, x: int, h: int, w: int, r: int) -> tuple[int, ...]:
    """How far a window reaches over each of the four borders."""
    return tuple(max(0, over) for over in (r - y, y + r - (h - 1), r - x, x + r - (w - 1)))


def _distance(
    x: np.ndarray,
    y: np.ndarray,
    u: tuple[int, int],
    v: tuple[int, int],
    kind: str,
    size: int | None,
    profile: Sequence[float] | None = None,
) -> float:
    if kind == "ideal":
        return float(((x - y) ** 2).sum())
    _, h, w = x.shape
    total, r = 0.0, size // 2
    for dy in range(-r, r + 1):
        for dx in range(-r, r + 1):
            a = _pixel(x, u[0] + dy, u[1] + dx, wrap=kind == "equivariant")
            b = _pixel(y, v[0] + dy, v[1] + dx, wrap=False)
            weight = 1 if profile is None else profile[abs(dy)] * profile[abs(dx)]
            total += weight * float(((a - b) ** 2).sum())
    return total


def _pixel(image: np.ndarray, y: int, x: int, *, wrap: bool) -> np.ndarray:
    _, h, w = image.shape
    if wrap:
        return image[:, y % h, x % w]
    if 0 <= y < h and 0 <= x < w:
        return image[:, y, x]
    return np.zeros(len(image))
