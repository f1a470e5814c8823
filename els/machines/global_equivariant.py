"""The equivariant score machine: whole training images at every shift (Kamb & Ganguli, 4.2)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from els.engines.posterior import RunningSum
from els.images import ImageSet, to_float
from els.machines.base import Machine, Number

# Numbers of a chunk of images held at a time: 32 MiB of float64.
_BUDGET = 1 << 22


class GlobalEquivariant(Machine):
    """The ideal score over the images T_s y_i, y_i shifted circularly by every s.

    All the inner products <x, T_s y> of an image are one circular correlation, and so is the
    weighted sum of its shifts: both go through the FFT, in float64.
    """

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        alpha, sigma = self.at_times(t, x)
        spectra = torch.fft.rfft2(x.double())  # (b c h f)
        totals = [RunningSum.empty(alpha[0], torch.zeros_like(spectra[i])) for i in range(len(x))]
        for some in images.pixels.split(self.options.chunk or max(1, _BUDGET // x[0].numel())):
            y = to_float(some.to(x.device)).double()
            shifts, half_norm = torch.fft.rfft2(y), y.square().sum(dim=(1, 2, 3)) / 2
            for i, total in enumerate(totals):
                products = (spectra[i].conj() * shifts).sum(dim=1)
                inner = torch.fft.irfft2(products, s=x.shape[2:])  # <x, T_s y> (n h w)
                logits = alpha[i] * (inner - alpha[i] * half_norm[:, None, None]) / sigma[i] ** 2
                raised = total.raised(logits.max())
                weights = (logits - raised.peak).exp()
                found = rearrange(torch.fft.rfft2(weights).conj(), "n h f -> n 1 h f") * shifts
                totals[i] = raised.plus(weights.sum(), found.sum(dim=0))
        moment, mass = (
            torch.stack([getattr(total, name) for total in totals]) for name in ("moment", "mass")
        )
        mean = torch.fft.irfft2(moment, s=x.shape[2:]) / mass.view(-1, 1, 1, 1)
        return [mean.to(x)] * len(values)
