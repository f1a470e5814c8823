"""Deterministic sampling (DDIM) of any denoiser, and the noise that sampling starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from els.denoiser import Denoiser, coefficients, eps_from_x0
from els.schedule import CosineSchedule


@dataclass(frozen=True)
class Step:
    """One step of a sampling path, from time t to time s < t.

    Attributes:
        i: index of the step, 0 .. steps - 1.
        t: the time of x.
        s: the time of x_next.
        x: noisy images at t (b c h w).
        x0_hat: the denoiser's answer at x (b c h w).
        x_next: images at s (b c h w); at the last step s = 0 and these are the samples.
    """

    i: int
    t: float
    s: float
    x: Tensor
    x0_hat: Tensor
    x_next: Tensor


@torch.no_grad()
def ddim_steps(
    denoiser: Denoiser,
    x: Tensor,
    *,
    steps: int = 20,
    label: Tensor | None = None,
    schedule: CosineSchedule | None = None,
) -> Iterator[Step]:
    """Walk the DDIM path of Song et al. (2021) from pure noise, eta = 0.

    x_s = alpha(s) x0_hat + sigma(s) eps_hat on the grid t = 1, (n-1)/n, ..., 1/n, 0.

    Args:
        denoiser: see `els.denoiser.Denoiser`.
        x: noise (b c h w), the images at t = 1.
        steps: number of steps n.
        label: class indices (b,) or None.
        schedule: the schedule that the denoiser was made for.

    Yields:
        every `Step` in order.
    """
    schedule = schedule or CosineSchedule()
    grid = schedule.timesteps(steps).tolist()
    for i, (t, s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        at_t, at_s = (x.new_full((len(x),), time, dtype=torch.float64) for time in (t, s))
        x0_hat = denoiser(x, at_t, label)
        alpha, sigma = coefficients(at_s, x, schedule)
        x_next = alpha * x0_hat + sigma * eps_from_x0(x, x0_hat, at_t, schedule)
        yield Step(i=i, t=t, s=s, x=x, x0_hat=x0_hat, x_next=x_next)
        x = x_next


def ddim(
    denoiser: Denoiser,
    x: Tensor,
    *,
    steps: int = 20,
    label: Tensor | None = None,
    schedule: CosineSchedule | None = None,
) -> Tensor:
    """The samples (b c h w) at the end of `ddim_steps`."""
    for step in ddim_steps(denoiser, x, steps=steps, label=label, schedule=schedule):
        x = step.x_next
    return x


@dataclass(frozen=True)
class Paths:
    """Where sampling led for n seeds, and what the denoiser said on the way.

    Attributes:
        samples: the images at t = 0 (n c h w).
        x0_hats: the denoiser's answer at every step (steps n c h w), t = 1 first.
    """

    samples: Tensor
    x0_hats: Tensor


def ddim_paths(
    denoiser: Denoiser,
    noise: Tensor,
    *,
    steps: int = 20,
    label: Tensor | None = None,
    schedule: CosineSchedule | None = None,
    batch: int = 16,
    on_step: Callable[[int], None] = lambda images: None,
) -> Paths:
    """The whole DDIM path from each of n noises (n c h w), a batch of seeds at a time.

    Args:
        batch: seeds denoised at once; the answer does not depend on it.
        on_step: called with the number of images after each step, for a progress bar.
        steps, label, schedule: see `ddim_steps`.
    """
    samples, x0_hats = [], []
    for x, some_labels in batches(noise, label, batch):
        path = []
        for step in ddim_steps(denoiser, x, steps=steps, label=some_labels, schedule=schedule):
            path.append(step)
            on_step(len(x))
        samples.append(path[-1].x_next)
        x0_hats.append(torch.stack([step.x0_hat for step in path]))
    return Paths(samples=torch.cat(samples), x0_hats=torch.cat(x0_hats, dim=1))


def batches(
    noise: Tensor, label: Tensor | None, size: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Noise (n c h w) with its labels (n,) or None, at most `size` seeds at a time."""
    for start in range(0, len(noise), size):
        part = slice(start, start + size)
        yield noise[part], None if label is None else label[part]


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal images (b c h w), image i from a generator of its own seeded with seeds[i].

    A seed's noise is therefore the same in every batch, process and device.
    """
    images = [torch.randn(*shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(images)


def seeded_labels(seeds: Sequence[int], num_classes: int) -> Tensor:
    """Class indices (b,), each drawn from its own seed like `seeded_noise`."""
    labels = [
        torch.randint(num_classes, (), generator=torch.Generator().manual_seed(s)) for s in seeds
    ]
    return torch.stack(labels)
