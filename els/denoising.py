"""How well a denoiser denoises real images, beside what takes no network at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from els.criterion import Point, compare, data_points, part_of
from els.denoiser import Denoiser, at_time, identity_of, schedule_of
from els.files import sha256_of_tensor
from els.images import ImageSet
from els.machines.gaussian import gaussian_of
from els.schedule import COSINE, CosineSchedule
from els.work import IN_MEMORY, Advance, Tensors, Work

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
    seeds = range(len(clean))
    points = data_points(clean, seeds=seeds, t=t, schedule=schedule_of(denoiser))
    return tuple(float(_squared_error(denoiser, point, label).mean()) for point in points)


def _squared_error(denoiser: Denoiser, point: Point, label: Tensor | None) -> Tensor:
    """The mean squared error of x0_hat for each image (n,), float64 on the CPU."""
    x0_hat = denoiser(point.x, at_time(point.x, point.t), label)
    return compare(point, x0_hat, "mse", schedule_of(denoiser))


@torch.no_grad()
def image_errors(
    denoiser: Denoiser,
    images: ImageSet,
    *,
    steps: int = 20,
    conditional: bool = False,
    device: torch.device | str = "cpu",
    name: str = "denoising",
    work: Work = IN_MEMORY,
) -> Tensor:
    """Mean squared error of x0_hat per pixel, by time and image (steps n), float64.

    Args:
        denoiser: see `els.denoiser.Denoiser`.
        images: clean images; image i gets the noise of seed i at every t.
        steps: number of times, t = 1, (n-1)/n, ..., 1/n.
        conditional: give the denoiser the images' labels.
        device: where it is asked.
        name: of the computation, for its progress.
        work: where results are kept, and how they are computed.

    Example:
        >>> white = ImageSet(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8))
        >>> image_errors(lambda x, t, label: 0 * x, white, steps=2).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    schedule = schedule_of(denoiser)
    t = schedule.timesteps(steps)[:-1].tolist()

    def compute(some: list[int], advance: Advance) -> Tensors:
        found = []
        clean, label = part_of(images, some, conditional=conditional, device=device)
        for point in data_points(clean, seeds=some, t=t, schedule=schedule):
            found.append(_squared_error(denoiser, point, label))
            advance(len(some))
        return {"error": torch.stack(found, dim=1)}

    depends = ["denoising", identity_of(denoiser), steps, conditional]
    keys = image_keys(images, conditional=conditional)
    found = work.map(name, range(len(images)), compute, depends=depends, keys=keys, steps=steps)
    return found["error"].T.contiguous()


def image_keys(images: ImageSet, *, conditional: bool) -> list[object]:
    """What tells each image under its noise from others, whichever images come after it."""
    labels = images.labels if conditional and images.labels is not None else [None] * len(images)
    return [
        [i, sha256_of_tensor(pixels), None if label is None else int(label)]
        for i, (pixels, label) in enumerate(zip(images.pixels, labels, strict=True))
    ]


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

    Args:
        images: images (n c h w) in [-1, 1], at least 2.
        schedule: the noise schedule.
    """

    def __init__(self, images: Tensor, schedule: CosineSchedule = COSINE) -> None:
        self.schedule = schedule
        flat = rearrange(images.cpu(), "n c h w -> n (c h w)")
        n, d = flat.shape
        rank = d if n >= _SHARE * d else max(1, n // _SHARE)
        self.gaussian = gaussian_of(flat).leading(rank)

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `els.denoiser.Denoiser`."""
        alpha, sigma = (of(t.double().cpu()) for of in (self.schedule.alpha, self.schedule.sigma))
        flat = rearrange(x.double().cpu(), "b c h w -> b (c h w)")
        answer = self.gaussian.denoise(flat, alpha, sigma)
        return answer.reshape(x.shape).to(x)
