"""Whole-patch posteriors averaged where they overlap (Niedoba et al., arXiv 2411.19339, PSPC)."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor

from els.engines.dictionary import check_size
from els.engines.masked import masked_posterior
from els.images import ImageSet
from els.machines.base import Machine, Number
from els.machines.local import SIZE


class PatchComposite(Machine):
    """Every k x k patch of the query has a posterior mean over the patches at its own place.

    x0_hat(v) is the mean of what the patches that contain v say about v. Where `local` takes the
    centre of every patch, this takes all of it; at k = 1 they are the same. Windows that cross a
    border are cut off there.
    """

    scale = SIZE

    def check(self, value: Number) -> None:
        """See `Machine.check`."""
        check_size("local", int(value), self.images.image_shape)

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        alpha, sigma = self.at_times(t, x)
        h, w = x.shape[2:]
        out = torch.empty(len(values), *x.shape, dtype=x.dtype, device=x.device)
        for answer, value in zip(out, values, strict=True):
            mask = squares(h, w, int(value)).to(x.device)
            for b in range(len(x)):
                one = slice(b, b + 1)
                asked = (x[one], images.pixels, mask, alpha[one], sigma[one])
                found = masked_posterior(*asked, whole=True, chunk=self.options.chunk)
                seen = rearrange(found.mean, "u (c v) -> u c v", v=h * w) * mask[:, None]
                total = reduce(seen, "u c v -> c v", "sum") / mask.sum(dim=0)
                answer[b] = rearrange(total, "c (h w) -> c h w", h=h).to(x)
        return list(out)


def squares(h: int, w: int, size: int) -> Tensor:
    """The k x k window around every pixel as a mask, bool ((h w), (h w))."""
    rows, columns = (
        (torch.arange(n)[:, None] - torch.arange(n)).abs() <= size // 2 for n in (h, w)
    )
    both = rows[:, None, :, None] & columns[None, :, None, :]
    return rearrange(both, "h w i j -> (h w) (i j)")
