"""Noise schedules: how much image and how much noise there is in x_t."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from els.errors import InputError


@dataclass(frozen=True)
class CosineSchedule:
    """Cosine schedule of Nichol & Dhariwal (2021) as the paper's released code has it.

    x_t = alpha(t) x_0 + sigma(t) eps with alpha(t) = cos(pi t / (2 (1 + offset))) and
    alpha^2 + sigma^2 = 1. Time t lies in [0, 1]; t = 1 is (almost) pure noise.

    Args:
        offset: keeps alpha(1) above zero, so that x0 can be read off eps at t = 1 too.
    """

    offset: float = 0.008

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
            InputError: when n is not positive.
        """
        if n < 1:
            raise InputError(f"the number of sampling steps is {n}; it must be at least 1")
        return torch.arange(n, -1, -1, dtype=torch.float64) / n

    def _angle(self, t: Tensor | float) -> Tensor:
        t = torch.as_tensor(t)
        if not t.is_floating_point():
            t = t.double()
        return t * (math.pi / 2 / (1 + self.offset))


COSINE = CosineSchedule()
