"""Whole-patch posteriors averaged where they overlap (Niedoba et al., arXiv 2411.19339, PSPC)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from els.engines.dictionary import check_size
from els.engines.posterior import RunningSum
from els.engines.torch_engine import full_precision, working_dtype
from els.images import ImageSet, to_float
from els.machines.base import Machine, Number
from els.machines.local import SIZE

# Numbers of a chunk of images held at a time: 64 MiB of float32.
_BUDGET = 1 << 24


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
        chunk = self.options.chunk or max(1, _BUDGET // x[0].numel())
        out = torch.empty(len(values), *x.shape, dtype=x.dtype, device=x.device)
        for b in range(len(x)):
            one = slice(b, b + 1)
            found = _composites(x[one], images.pixels, alpha[one], sigma[one], values, chunk)
            for answer, mean in zip(out, found, strict=True):
                answer[b] = mean.to(x)
        return list(out)


def _composites(
    x: Tensor,
    pixels: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    values: tuple[Number, ...],
    chunk: int,
) -> list[Tensor]:
    """The answer (c h w) to one query x (1 c h w) for each size of patch.

    The patch around u weighs images by w_i(u), the softmax over i of minus the box sum of the
    squared differences. Pixel v hears of image i from all patches around it: the box sum of w_i.
    """
    dtype = working_dtype(x, alpha, sigma, x[0].numel())
    query, scale = x.to(dtype), -1 / (2 * sigma.to(dtype) ** 2)
    boxes = [_Boxes(int(value), query) for value in values]
    totals = [RunningSum.empty(query[0, 0], query.new_zeros(1)) for _ in values]
    answers = [torch.zeros_like(query[0]) for _ in values]

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        """Some of the images (n c h w), and the squared differences from the query (n h w)."""
        for some in pixels.split(chunk):
            y = to_float(some.to(x.device)).to(dtype)
            yield y, (query - alpha.to(dtype) * y).square().sum(dim=1)

    with full_precision():
        for _, squares in parts():
            for i, box in enumerate(boxes):
                logits = scale * box.sums(squares)
                raised = totals[i].raised(logits.amax(dim=0))
                mass = (logits - raised.peak).exp().sum(dim=0)
                totals[i] = raised.plus(mass, raised.moment)
        for y, squares in parts():
            for answer, total, box in zip(answers, totals, boxes, strict=True):
                weights = (scale * box.sums(squares) - total.peak).exp_().div_(total.mass)
                answer += torch.einsum("nhw,nchw->chw", box.sums(weights), y)
    return [answer / box.cells for answer, box in zip(answers, boxes, strict=True)]


class _Boxes:
    """Sums over the k x k window around every pixel, cut off at the borders.

    Attributes:
        cells: how many pixels are in each window (h w).
    """

    def __init__(self, size: int, like: Tensor) -> None:
        """Prepare windows of size k over maps as large as the last two dimensions of `like`."""
        self._rows, self._columns = (
            ((torch.arange(n)[:, None] - torch.arange(n)).abs() <= size // 2).to(like)
            for n in like.shape[-2:]
        )
        self.cells = torch.outer(self._rows.sum(dim=1), self._columns.sum(dim=1))

    def sums(self, maps: Tensor) -> Tensor:
        """Of maps (n h w)."""
        return self._rows @ maps @ self._columns
