"""Locality from the data's covariance (Lukoianov et al., arXiv 2509.09672)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from els.engines.masked import masked_posterior
from els.errors import InputError
from els.images import ImageSet
from els.machines.base import Machine, Number, Scale
from els.machines.gaussian import Cost, gaussian_of_set, rank_of

# Bytes of all maps of which cells pixels look at that are kept.
_MOST_BYTES = 1 << 30
THRESHOLD = Scale("threshold", (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0))


class PcaLocal(Machine):
    """The local machine whose windows are what the Wiener filter looks at.

    Pixel u looks at the cells where the row of the Wiener filter that answers for u, summed over
    channels in absolute value, reaches a share `threshold` of its largest entry; at 0 it looks at
    the whole image and the machine is `ideal`. The softmax over images is streamed and exact.
    """

    scale = THRESHOLD
    uses_moments = True

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
                found = masked_posterior(*asked, chunk=self.options.chunk)
                answer[b] = rearrange(found.mean, "(h w) c -> c h w", h=x.shape[2]).to(x)
        return list(out)

    def _reach(self, images: ImageSet, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The filter's rows by pixel, relative to each one's largest entry ((h w), (h w))."""
        reaches: dict[tuple[str, float], Tensor] = self.once("reaches", dict)
        key = (images.fingerprint(), float(sigma))
        if key not in reaches:
            # One time is enough; of many large classes, few.
            room = _MOST_BYTES - sum(one.nbytes for one in reaches.values())
            if any(at != key[1] for _, at in reaches) or room < 0:
                reaches.clear()
            reaches[key] = filter_reach(images, alpha.cpu(), sigma.cpu())
        return reaches[key]


def reach_cost(n: int, shape: tuple[int, int, int]) -> Cost:
    """What `filter_reach` takes for n images of a shape (c h w), their moments being known."""
    c, h, w = shape
    blocks = c * (c + 1) / 2
    return Cost(blocks * (h * w) ** 2 * rank_of(n, c * h * w), 3 * (h * w) ** 2, (h * w) ** 2)


def filter_reach(images: ImageSet, alpha: Tensor, sigma: Tensor) -> Tensor:
    """How much each row of the Wiener filter looks at each pixel ((h w), (h w)), at one time.

    Entries are summed over channels in absolute value, and relative to the row's largest.
    """
    c, h, w = images.image_shape
    gaussian, rows = gaussian_of_set(images), torch.zeros(h * w, h * w, dtype=torch.float64)
    channels = [slice(i * h * w, (i + 1) * h * w) for i in range(c)]
    for i, one in enumerate(channels):
        for other in channels[i:]:
            block = gaussian.filter(alpha, sigma, one, other).abs_()
            rows += block
            if other != one:  # the filter is symmetric
                rows += block.T
    return rows.div_(rows.amax(dim=1, keepdim=True))
