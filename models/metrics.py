"""The denoising loss over held-out images, as a whole and by noise level."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class LossByNoise(Metric):
    """Mean loss in equal bins of t over (0, 1], from sums, so that it is exact over processes.

    Args:
        bins: number of bins.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, bins: int = 5) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, t: Tensor) -> None:
        """Add the losses (b,) of images at times t (b,)."""
        bins = len(self.total)
        index = (t * bins).ceil().long().clamp(1, bins) - 1
        self.total.index_add_(0, index, loss.to(self.total))
        self.count.index_add_(0, index, torch.ones_like(loss).to(self.count))

    def compute(self) -> dict[str, Tensor]:
        """`loss`, and `loss_t<low>-<high>` for every bin that an image fell into."""
        result = {"loss": (self.total.sum() / self.count.sum()).float()}
        bins = len(self.total)
        for i, (total, count) in enumerate(zip(self.total, self.count, strict=True)):
            if count > 0:
                result[f"loss_t{i / bins:.1f}-{(i + 1) / bins:.1f}"] = (total / count).float()
        return result
