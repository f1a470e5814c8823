"""How well a denoiser denoises real images, beside what takes no network at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from els.criterion import data_points
from els.denoiser import Denoiser, at_time, schedule_of
from els.schedule import COSINE, CosineSchedule

_SHARE = 4  # images for each direction that the Wiener filter tells from noise in so few


@torch.no_grad()
def denoising_errors(
    denoiser: Denoiser, clean: Tensor, t: Sequence[float], label: Tensor | None = None
) -> tuple[float, ...]:
    """Mean squared error of x0_hat at each of the times.

    Args:
        denoiser: see `els.denoiser.Denoiser`.
        clean: images (n c h w) in [-1, 1]; image i gets the noise of seed i at every t.
        t: times in (0, 1].
        label: class indices (n,), or None.

    Example:
        >>> denoising_errors(lambda x, t, label: 0 * x, torch.ones(2, 1, 4, 4), [0.1, 0.9])
        (1.0, 1.0)
    """
    found = []
    for point in data_points(clean, seeds=range(len(clean)), t=t, schedule=schedule_of(denoiser)):
        x0_hat = denoiser(point.x, at_time(point.x, point.t), label)
        found.append(float((x0_hat.double() - clean.double()).square().mean()))
    return tuple(found)


@torch.no_grad()
def beyond_range(samples: Tensor) -> float:
    """Root mean square of how far images are outside of the data's range [-1, 1].

    Example:
        >>> beyond_range(torch.tensor([-3.0, 3.0, 0.0, 1.0]))
        1.4142135623730951
    """
    return float((samples - samples.clamp(-1, 1)).double().square().mean().sqrt())


class FewImages:
    """The Wiener filter of few images: their leading directions, and one variance for the rest.

    It takes no eigenproblem larger than the number of images.

    Args:
        images: images (n c h w) in [-1, 1], at least 2.
        schedule: the noise schedule.
    """

    def __init__(self, images: Tensor, schedule: CosineSchedule = COSINE) -> None:
        self.schedule = schedule
        flat = rearrange(images.double(), "n c h w -> n (c h w)")
        n, d = flat.shape
        self.mean = flat.mean(dim=0)
        centred = flat - self.mean
        values, vectors = torch.linalg.eigh(centred @ centred.T / n)
        rank = min(d, n if n >= _SHARE * d else max(1, n // _SHARE))
        values, vectors = values.flip(0)[:rank].clamp(min=1e-12), vectors.flip(1)[:, :rank]
        self.variances = values
        self.directions = centred.T @ vectors / (n * values).sqrt()  # (d rank)
        rest = centred.square().sum() / n - values.sum()
        self.rest = float(rest.clamp(min=0)) / max(d - rank, 1)

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `els.denoiser.Denoiser`."""
        alpha, sigma = (
            of(t.double())[:, None] for of in (self.schedule.alpha, self.schedule.sigma)
        )
        centred = rearrange(x.double(), "b c h w -> b (c h w)") - alpha * self.mean
        rest = alpha * self.rest / (alpha**2 * self.rest + sigma**2)
        gains = alpha * self.variances / (alpha**2 * self.variances + sigma**2) - rest
        answer = self.mean + rest * centred
        answer = answer + (gains * (centred @ self.directions)) @ self.directions.T
        return answer.reshape(x.shape).to(x)
