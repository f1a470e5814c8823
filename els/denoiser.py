"""The one contract of this project, and the three equivalent forms of what a denoiser says.

Networks and machines alike are called as ``denoiser(x, t, label) -> x0_hat``: the posterior mean
of the clean image given the noisy one. Samplers, calibration, metrics and plots see nothing else.
"""

from __future__ import annotations

from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from els.errors import InputError
from els.schedule import COSINE, CosineSchedule

Times = Tensor | float  # of each image (b,), or one for all of them
Labels = Tensor | int | None  # likewise; None is the unconditional answer


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


def as_times(t: Times, x: Tensor) -> Tensor:
    """The times of the images x, from one for all of them or one for each.

    Every denoiser of this project takes its t through here.

    Args:
        t: a number, a tensor without dimensions, or (b,); in (0, 1].
        x: images (b c h w).

    Returns:
        (b,) on the device of x, of the dtype of a tensor of floats, else float64.

    Raises:
        InputError: when t has another shape, or a time is not in (0, 1].

    Example:
        >>> as_times(0.5, torch.zeros(3, 1, 8, 8)).tolist()
        [0.5, 0.5, 0.5]
    """
    times = _for_each(t, x, "t")
    if outside := [time for time in times.tolist() if not 0 < time <= 1]:
        raise InputError(f"t is {outside[0]:g}; times are above 0 (no noise) and at most 1 (noise)")
    return times


def as_labels(label: Labels, x: Tensor) -> Tensor | None:
    """The class indices (b,) of the images x (b c h w), as `as_times`; None where there are none.

    Raises:
        InputError: when `label` has another shape, or is not of whole numbers.
    """
    if label is None:
        return None
    found = _for_each(label, x, "label", whole=True)
    return found.long()


def _for_each(value: Tensor | float, x: Tensor, what: str, *, whole: bool = False) -> Tensor:
    """A number for each of the images x (b c h w), as (b,) on their device."""
    dtype = None if isinstance(value, Tensor) or whole else torch.float64
    try:
        found = torch.as_tensor(value, dtype=dtype, device=x.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is {value!r}; it must be a number or a tensor") from error
    if whole and (found.is_floating_point() or found.is_complex()):
        raise InputError(f"{what} is of {found.dtype}; classes are whole numbers")
    if not whole and not found.is_floating_point():
        found = found.double()
    if found.ndim and found.shape != x.shape[:1]:
        raise InputError(
            f"{what} has shape {tuple(found.shape)} for {len(x)} images; give one number for all "
            "of them, or one for each"
        )
    return found.expand(len(x))


def coefficients(t: Times, like: Tensor, schedule: CosineSchedule) -> tuple[Tensor, Tensor]:
    """Alpha and sigma at times t, as (b 1 1 1) in the dtype and on the device of `like` (b ...)."""
    t = rearrange(_for_each(t, like, "t").double(), "b -> b 1 1 1")
    return schedule.alpha(t).to(like), schedule.sigma(t).to(like)


def add_noise(x0: Tensor, eps: Tensor, t: Times, schedule: CosineSchedule) -> Tensor:
    """x_t = alpha x_0 + sigma eps, all (b c h w), t as `as_times` takes it."""
    alpha, sigma = coefficients(t, x0, schedule)
    return alpha * x0 + sigma * eps


def eps_from_x0(x: Tensor, x0_hat: Tensor, t: Times, schedule: CosineSchedule) -> Tensor:
    """eps_hat = (x - alpha x0_hat) / sigma; undefined at t = 0, where there is no noise."""
    alpha, sigma = coefficients(t, x, schedule)
    return (x - alpha * x0_hat) / sigma


def x0_from_eps(x: Tensor, eps_hat: Tensor, t: Times, schedule: CosineSchedule) -> Tensor:
    """x0_hat = (x - sigma eps_hat) / alpha."""
    alpha, sigma = coefficients(t, x, schedule)
    return (x - sigma * eps_hat) / alpha


def within_range(x0_hat: Tensor) -> Tensor:
    """x0_hat (b c h w) clamped to the data's range [-1, 1]; its gradient stays that of x0_hat.

    Example:
        >>> within_range(torch.tensor([-7.0, 0.5])).tolist()
        [-1.0, 0.5]
    """
    clamped = x0_hat.detach().clamp(-1, 1)
    # What is added is zero; it hands on the gradient, which a clamp would take away.
    return clamped + (x0_hat - x0_hat.detach()) if x0_hat.requires_grad else clamped


def score_from_x0(x: Tensor, x0_hat: Tensor, t: Times, schedule: CosineSchedule) -> Tensor:
    """grad_x log p_t(x) = (alpha x0_hat - x) / sigma^2 (Tweedie's formula)."""
    alpha, sigma = coefficients(t, x, schedule)
    return (alpha * x0_hat - x) / sigma**2
