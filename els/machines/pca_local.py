"""Locality from the data's covariance (Lukoianov et al., arXiv 2509.09672)."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor

from els.engines.masked import masked_posterior
from els.errors import InputError
from els.images import ImageSet
from els.machines.base import Number, Scale
from els.machines.wiener import GaussianMachine

THRESHOLD = Scale("threshold", (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0))


class PcaLocal(GaussianMachine):
    """The local machine whose windows are what the Wiener filter looks at.

    Pixel u looks at the cells where the row of the Wiener filter that answers for u, summed over
    channels in absolute value, reaches a share `threshold` of its largest entry; at 0 it looks at
    the whole image and the machine is `ideal`. The softmax over images is streamed and exact.
    """

    scale = THRESHOLD

    def check(self, value: Number) -> None:
        """See `Machine.check`."""
        if not 0 <= value <= 1:
            raise InputError(f"threshold {value} is not a share between 0 and 1")

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        alpha, sigma = self.at_times(t, x)
        out = torch.empty(len(values), *x.shape, dtype=x.dtype, device=x.device)
        for b in range(len(x)):
            one = slice(b, b + 1)
            reach = self._reach(images, alpha[one], sigma[one])
            for answer, value in zip(out, values, strict=True):
                asked = (x[one], images.pixels, reach >= value, alpha[one], sigma[one])
                found = masked_posterior(*asked, whole=False, chunk=self.options.chunk)
                answer[b] = rearrange(found.mean, "(h w) c -> c h w", h=x.shape[2]).to(x)
        return list(out)

    def _reach(self, images: ImageSet, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The filter's rows by pixel, relative to each one's largest entry ((h w), (h w))."""
        reaches: dict[tuple[int, float], Tensor] = self.once("reaches", dict)
        key = (id(images), float(sigma))
        if any(at != key[1] for _, at in reaches):
            reaches.clear()  # one time is enough: every class has a map of (h w)^2 numbers
        if key not in reaches:
            c = images.image_shape[0]
            matrix = self.moments(images).filter(alpha, sigma).abs()
            rows = reduce(matrix, "(c p) (d q) -> p q", "sum", c=c, d=c)
            reaches[key] = rows / rows.amax(dim=1, keepdim=True)
        return reaches[key]
