"""The smoothed closed-form score of Scarvelis, Borde & Solomon (arXiv 2310.12395)."""

from __future__ import annotations

from functools import cached_property

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from els.engines.torch_engine import image_posterior
from els.images import ImageSet
from els.machines.base import Number, Scale
from els.machines.ideal import Ideal

SMOOTHING = Scale("smoothing", (0.0, 0.1, 0.3, 0.5, 1.0, 1.5, 2.5, 4.0))

# Perturbed queries that are averaged: pairs of opposite sign, the same for every query.
_PAIRS = 8


class Smoothed(Ideal):
    """x0_hat(x) = mean over v of ideal(x + smoothing sigma v), v standard normal.

    The score is averaged over 16 perturbed queries, the same for every query, which stand in for
    the expectation. As they come in pairs of opposite sign, that is the average of x0_hat.
    """

    scale = SMOOTHING

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        alpha, sigma = self.at_times(t, x)
        out = []
        for value in values:
            noise = self._noise.to(x) if value else self._noise[:1].to(x)
            moved = x + value * sigma.view(-1, 1, 1, 1).to(x) * noise[:, None]  # (m b c h w)
            asked = rearrange(moved, "m b c h w -> (m b) c h w")
            times = (repeat(one, "b -> (m b)", m=len(noise)) for one in (alpha, sigma))
            found = image_posterior(asked, images.pixels, *times, chunk=self.options.chunk).mean
            out.append(reduce(found, "(m b) c h w -> b c h w", "mean", m=len(noise)))
        return out

    @cached_property
    def _noise(self) -> Tensor:
        """(2 pairs, c h w)."""
        generator = torch.Generator().manual_seed(0)
        half = torch.randn(_PAIRS, *self.images.image_shape, generator=generator)
        return torch.cat([half, -half])
