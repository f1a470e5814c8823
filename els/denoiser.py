"""The one contract of this project, and the three equivalent forms of what a denoiser says.

Networks and machines alike are called as ``denoiser(x, t, label) -> x0_hat``: the posterior mean
of the clean image given the noisy one. Samplers, calibration, metrics and plots see nothing else.
"""

from __future__ import annotations

from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from els.schedule import COSINE, CosineSchedule


class Denoiser(Protocol):
    """Anything that maps noisy images to estimates of the clean ones."""

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Estimate the clean image.

        Args:
            x: noisy images (b c h w).
            t: times (b,) in (0, 1].
            label: class indices (b,), or None for the unconditional answer.

        Returns:
            x0_hat (b c h w), in the data's range [-1, 1] up to the denoiser's error.
        """
        ...


class _Unknown:
    """What a denoiser without an identity depends on: nothing that could be written down."""


def identity_of(denoiser: object) -> object:
    """Plain data that tells a denoiser from others, where it has an `identity`.

    A bare function has none. What it answers cannot be kept on disk, as nothing would tell its
    results from those of another; `els.work.Work` refuses it there.
    """
    try:
        return getattr(denoiser, "identity", _Unknown())
    except TypeError:  # parts of it have none
        return _Unknown()


def schedule_of(denoiser: object) -> CosineSchedule:
    """The noise schedule that a denoiser was made for: its own, or the paper's."""
    return getattr(denoiser, "schedule", COSINE)


def at_time(x: Tensor, t: float) -> Tensor:
    """The same time for all images x (b c h w): (b,), float64 on their device."""
    return x.new_full((len(x),), t, dtype=torch.float64)


def coefficients(t: Tensor, like: Tensor, schedule: CosineSchedule) -> tuple[Tensor, Tensor]:
    """Alpha and sigma at times t (b,), as (b 1 1 1) in the dtype and on the device of `like`."""
    t = rearrange(t.double(), "b -> b 1 1 1")
    return schedule.alpha(t).to(like), schedule.sigma(t).to(like)


def add_noise(x0: Tensor, eps: Tensor, t: Tensor, schedule: CosineSchedule) -> Tensor:
    """x_t = alpha x_0 + sigma eps, all (b c h w), t (b,)."""
    alpha, sigma = coefficients(t, x0, schedule)
    return alpha * x0 + sigma * eps


def eps_from_x0(x: Tensor, x0_hat: Tensor, t: Tensor, schedule: CosineSchedule) -> Tensor:
    """eps_hat = (x - alpha x0_hat) / sigma; undefined at t = 0, where there is no noise."""
    alpha, sigma = coefficients(t, x, schedule)
    return (x - alpha * x0_hat) / sigma


def x0_from_eps(x: Tensor, eps_hat: Tensor, t: Tensor, schedule: CosineSchedule) -> Tensor:
    """x0_hat = (x - sigma eps_hat) / alpha."""
    alpha, sigma = coefficients(t, x, schedule)
    return (x - sigma * eps_hat) / alpha


def score_from_x0(x: Tensor, x0_hat: Tensor, t: Tensor, schedule: CosineSchedule) -> Tensor:
    """grad_x log p_t(x) = (alpha x0_hat - x) / sigma^2 (Tweedie's formula)."""
    alpha, sigma = coefficients(t, x, schedule)
    return (alpha * x0_hat - x) / sigma**2
