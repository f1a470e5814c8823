"""Posteriors over training images in which every pixel looks at a set of cells of its own."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from els.engines.posterior import RunningSum
from els.engines.torch_engine import full_precision, working_dtype
from els.images import to_float

# Numbers of a chunk of images held at a time: 64 MiB of float32.
_BUDGET = 1 << 24
# Masks of many pixels, each of which looks at few cells, are multiplied as sparse matrices.
_MANY, _FEW = 1024, 0.03


def masked_posterior(
    x: Tensor,
    pixels: Tensor,
    mask: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    *,
    chunk: int | None = None,
) -> RunningSum:
    """Weights over training images (n c h w) for every pixel of one query x (1 c h w).

    w_i(u) = exp(-sum over the cells v of u's mask of |x(v) - alpha y_i(v)|^2 / (2 sigma^2)).

    Args:
        mask: which cells each pixel looks at, bool ((h w), (h w)), a row for every pixel.
        alpha, sigma: the schedule at the query's time (1,).
        chunk: training images at a time; default: chosen by memory.

    Returns:
        sums with `mass` ((h w), 1) and `moment` ((h w), c).
    """
    dtype = working_dtype(x, alpha, sigma, x[0].numel())
    cells = _cells(mask.to(x.device), dtype)
    query = rearrange(x.to(dtype), "1 c h w -> c (h w)")
    moment = query.new_zeros(len(mask), x.shape[1])
    total = RunningSum.empty(moment[:, :1], moment)
    with full_precision():
        for some in pixels.split(chunk or max(1, _BUDGET // x[0].numel())):
            y = rearrange(to_float(some.to(x.device)).to(dtype), "n c h w -> n c (h w)")
            squares = (query - alpha.to(dtype) * y).square().sum(dim=1)
            logits = cells @ squares.T.contiguous() / (-2 * sigma.to(dtype) ** 2)  # (pixels, n)
            total = total.raised(logits.amax(dim=1, keepdim=True))
            weights = (logits - total.peak).exp()
            found = torch.einsum("pn,ncp->pc", weights, y)
            total = total.plus(weights.sum(dim=1, keepdim=True), found)
    return total


def _cells(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as a matrix, sparse where that is the faster way."""
    cells = mask.to(dtype)
    sparse = mask.device.type in ("cpu", "cuda") and len(mask) > _MANY
    return cells.to_sparse() if sparse and cells.mean() < _FEW else cells
