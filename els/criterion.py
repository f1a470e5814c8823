"""How alike a machine's answer is to what it ought to be: what calibration goes by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from els.denoiser import add_noise, at_time, eps_from_x0
from els.images import ImageSet, to_float
from els.sampling import seeded_noise
from els.schedule import CosineSchedule

Criterion = Literal["cosine", "l2", "mse"]


@dataclass(frozen=True)
class Point:
    """Noisy images at one time, and what a machine ought to answer there.

    Attributes:
        t: the time.
        x: noisy images (b c h w).
        x0_hat: a network's answer to them, or the clean images themselves (b c h w).
    """

    t: float
    x: Tensor
    x0_hat: Tensor

    def of(self, index: int) -> Point:
        """The same for one image."""
        some = slice(index, index + 1)
        return Point(self.t, self.x[some], self.x0_hat[some])


def data_points(
    clean: Tensor, *, seeds: Sequence[int], t: Sequence[float], schedule: CosineSchedule
) -> Iterator[Point]:
    """Clean images (n c h w) under the noise of `seeds` at each of the times."""
    eps = seeded_noise(seeds, clean.shape[1:]).to(clean)
    for time in t:
        x = add_noise(clean, eps, at_time(clean, time), schedule)
        yield Point(t=time, x=x, x0_hat=clean)


def part_of(
    images: ImageSet, some: Sequence[int], *, conditional: bool, device: torch.device | str
) -> tuple[Tensor, Tensor | None]:
    """Some of the images as floats (b c h w), and their labels where a denoiser is told them."""
    part = images.take(torch.tensor(some))
    label = part.labels.to(device) if conditional and part.labels is not None else None
    return to_float(part.pixels).to(device), label


def compare(
    point: Point,
    answer: Tensor,
    criterion: Criterion,
    schedule: CosineSchedule,
    *,
    wanted: Tensor | None = None,
) -> Tensor:
    """The criterion for each image (b,), float64 on the CPU.

    Args:
        point: what ought to be answered.
        answer: x0_hat (b c h w).
        criterion: see `els.calibration.Scales`.
        schedule: that of the images' noise.
        wanted: the pixels that are compared, bool (h w); None for all.
    """
    target, found = point.x0_hat, answer
    if criterion != "mse":
        t = at_time(point.x, point.t)
        target, found = (eps_from_x0(point.x, one, t, schedule) for one in (target, answer))
    target, found = (_values(one, wanted) for one in (target, found))
    if criterion == "cosine":
        return F.cosine_similarity(target, found, dim=1)
    mean = (target - found).square().mean(dim=1)
    return mean.sqrt() if criterion == "l2" else mean


def _values(images: Tensor, wanted: Tensor | None) -> Tensor:
    """The pixels that are compared (b m)."""
    chosen = images.flatten(2) if wanted is None else images[..., wanted]
    return chosen.flatten(1).double().cpu()


def best_of(table: Tensor, criterion: Criterion) -> tuple[list[int], int]:
    """Which value is best for each image, and which is chosen for all of them.

    Args:
        table: the criterion for each value and image (k n); NaN where a value was not tried.
        criterion: of "mse" the value wins that is best on average, else the lower median.
    """
    worst = -torch.inf if criterion == "cosine" else torch.inf
    table = table.nan_to_num(nan=worst)
    pick = torch.argmax if criterion == "cosine" else torch.argmin
    votes = pick(table, dim=0).tolist()
    chosen = int(pick(table.mean(dim=1))) if criterion == "mse" else median_low(votes)
    return votes, chosen
