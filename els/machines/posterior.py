"""Sums of exponentially weighted training pixels that never overflow and can be merged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Posterior:
    """What a part of the dictionary says about every pixel of b queries.

    With log-weights l_j and centre pixels c_j, kept relative to the largest log-weight:

    Attributes:
        peak: max_j l_j (b 1 h w); -inf where there is no patch.
        mass: sum_j exp(l_j - peak) (b 1 h w).
        moment: sum_j exp(l_j - peak) c_j (b c h w).
    """

    peak: Tensor
    mass: Tensor
    moment: Tensor

    @classmethod
    def empty(cls, x: Tensor, dtype: torch.dtype) -> Posterior:
        """The posterior of an empty dictionary for queries x (b c h w)."""
        zero = torch.zeros_like(x[:, :1], dtype=dtype)
        return cls(zero - torch.inf, zero, torch.zeros_like(x, dtype=dtype))

    def merge(self, other: Posterior) -> Posterior:
        """The posterior of both parts together (log-sum-exp)."""
        peak = torch.maximum(self.peak, other.peak)
        mine, theirs = ((part.peak - peak).exp().nan_to_num(0) for part in (self, other))
        return Posterior(
            peak=peak,
            mass=self.mass * mine + other.mass * theirs,
            moment=self.moment * mine + other.moment * theirs,
        )

    @property
    def mean(self) -> Tensor:
        """x0_hat = sum_j w_j c_j / sum_j w_j (b c h w)."""
        return self.moment / self.mass

    @property
    def log_normaliser(self) -> Tensor:
        """Log sum_j exp(l_j) (b 1 h w)."""
        return self.peak + self.mass.log()
