"""Noise schedules: how much image and how much noise there is in x_t."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from els.errors import InputError, check_whole

MOST_STEPS = 10_000

_BETAS = 1000


@dataclass(frozen=True)
class CosineSchedule:
    """Cosine schedule of Nichol & Dhariwal (2021) as the paper's released code has it.

    x_t = alpha(t) x_0 + sigma(t) eps with alpha(t) = cos(pi t / (2 (1 + offset))) and
    alpha^2 + sigma^2 = 1. Time t lies in [0, 1]; t = 1 is (almost) pure noise.

    Args:
        offset: keeps alpha(1) above zero, so that x0 can be read off eps at t = 1 too.
    """

    offset: float = 0.008
    # Whether samplers clamp x0_hat to the data's range in every step, see `ddim_steps`.
    clamps: ClassVar[bool] = False

    @property
    def identity(self) -> object:
        """Plain data that tells it from other schedules."""
        return ["cosine", self.offset]

    def alpha(self, t: Tensor | float) -> Tensor:
        """Weight of the image at time t, of t's shape, in (0, 1]."""
        return torch.cos(self._angle(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        """Standard deviation of the noise at time t, of t's shape, in [0, 1)."""
        return torch.sin(self._angle(t))

    def time(self, alpha: Tensor) -> Tensor:
        """The time at which the image has weight `alpha` in [0, 1]: the inverse of `alpha`."""
        return torch.acos(alpha) / (math.pi / 2 / (1 + self.offset))

    def timesteps(self, n: int) -> Tensor:
        """The grid 1, (n-1)/n, ..., 1/n, 0 of n sampling steps: shape (n + 1,), float64.

        Raises:
            InputError: when n is not in 1, ..., `MOST_STEPS`.
        """
        check_whole("the number of sampling steps", n, 1, MOST_STEPS)
        return torch.arange(n, -1, -1, dtype=torch.float64) / n

    def _angle(self, t: Tensor | float) -> Tensor:
        t = torch.as_tensor(t)
        if not t.is_floating_point():
            t = t.double()
        return t * (math.pi / 2 / (1 + self.offset))


@dataclass(frozen=True)
class LinearSteps(CosineSchedule):
    """The sampling steps of diffusers' DDIMScheduler with its defaults, on the same noise.

    1,000 linear betas from 1e-4 to 0.02, of which n sampling steps visit 1,000 // n apart, the last
    at step 0 and from there to no noise at all; x0_hat is clamped. Noisy images are the same in
    every variance-preserving schedule wherever alpha is: times stay those of the cosine schedule,
    at which alpha^2 is the product of 1 - beta. The protocol of locality-in-diffusion-models
    (Lukoianov et al., arXiv 2509.09672) takes ten steps: 900, 800, ..., 0.
    """

    clamps: ClassVar[bool] = True

    @property
    def identity(self) -> object:
        """See `CosineSchedule.identity`."""
        return [
            "linear steps",
            self.offset,
            "answers kept",
        ]  # what was computed without is not used

    def timesteps(self, n: int) -> Tensor:
        """The grid of n sampling steps, ending at 0: shape (n + 1,), float64.

        Raises:
            InputError: when n is not between 1 and 1,000.
        """
        if not 1 <= n <= _BETAS:
            raise InputError(f"the number of sampling steps is {n}; it must be 1 to {_BETAS}")
        kept = (1 - torch.linspace(1e-4, 0.02, _BETAS, dtype=torch.float64)).cumprod(dim=0)
        steps = torch.arange(n - 1, -1, -1) * (_BETAS // n)
        # A step of more noise than there is at t = 1, as with 20 of them, is taken at t = 1.
        times = self.time(kept[steps].sqrt()).clamp(max=1)
        return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


COSINE = CosineSchedule()
