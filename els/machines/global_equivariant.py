"""The equivariant score machine: whole training images at every shift (Kamb & Ganguli, 4.2)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from els.images import ImageSet, to_float
from els.machines.base import Machine

# Numbers of a chunk of images held at a time: 32 MiB of float64.
_BUDGET = 1 << 22


class GlobalEquivariant(Machine):
    """The ideal score over the images T_s y_i, y_i shifted circularly by every s.

    All the inner products <x, T_s y> of an image are one circular correlation, and so is the
    weighted sum of its shifts: both go through the FFT, in float64.

    """

    def answers(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[float | None, ...]
    ) -> list[Tensor]:
        """See `Machine.answers`."""
        alpha, sigma = self.at_times(t, x)
        spectra = torch.fft.rfft2(x.double())  # (b c h f)
        peak = x.new_full((len(x),), -torch.inf, dtype=torch.float64)
        mass, moment = torch.zeros_like(peak), torch.zeros_like(spectra)
        for some in images.pixels.split(self.chunk or max(1, _BUDGET // x[0].numel())):
            y = to_float(some.to(x.device)).double()
            shifts, half_norm = torch.fft.rfft2(y), y.square().sum(dim=(1, 2, 3)) / 2
            for i in range(len(x)):
                products = (spectra[i].conj() * shifts).sum(dim=1)
                inner = torch.fft.irfft2(products, s=x.shape[2:])  # <x, T_s y> (n h w)
                logits = alpha[i] * (inner - alpha[i] * half_norm[:, None, None]) / sigma[i] ** 2
                top = torch.maximum(peak[i], logits.max())
                weights = (logits - top).exp()
                shrink = (peak[i] - top).exp()
                mass[i] = mass[i] * shrink + weights.sum()
                found = rearrange(torch.fft.rfft2(weights).conj(), "n h f -> n 1 h f") * shifts
                moment[i] = moment[i] * shrink + found.sum(dim=0)
                peak[i] = top
        mean = torch.fft.irfft2(moment, s=x.shape[2:]) / mass.view(-1, 1, 1, 1)
        return [mean.to(x)] * len(values)
