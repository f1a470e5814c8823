"""Deterministic sampling (DDIM) of any denoiser, and the noise that sampling starts from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from els.denoiser import (
    Denoiser,
    Labels,
    as_labels,
    at_time,
    coefficients,
    eps_from_x0,
    identity_of,
    schedule_of,
    within_range,
)
from els.engines.subsample import Estimate
from els.errors import InputError
from els.schedule import COSINE, CosineSchedule
from els.work import IN_MEMORY, Advance, Tensors, Work

_BATCH = 16  # images that are sampled together, as in an analysis


@dataclass(frozen=True)
class Step:
    """One step of a sampling path, from time t to time s < t.

    Attributes:
        i: index of the step, 0 .. steps - 1.
        t: the time of x.
        s: the time of x_next.
        x: noisy images at t (b c h w).
        x0_hat: the denoiser's answer at x (b c h w), clamped where the schedule does.
        x_next: images at s (b c h w); at the last step s = 0 and these are the samples.
        answer: the denoiser's answer as it was (b c h w).
    """

    i: int
    t: float
    s: float
    x: Tensor
    x0_hat: Tensor
    x_next: Tensor
    answer: Tensor

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.x.shape))
        return f"Step({self.i}, t = {self.t:g} to {self.s:g}, {shape})"


@torch.no_grad()
def ddim_steps(
    denoiser: Denoiser,
    x: Tensor,
    *,
    steps: int = 20,
    label: Labels = None,
    schedule: CosineSchedule = COSINE,
) -> Iterator[Step]:
    """Walk the DDIM path of Song et al. (2021) from pure noise, eta = 0.

    x_s = alpha(s) x0_hat + sigma(s) eps_hat on the schedule's grid: t = 1, (n-1)/n, ..., 1/n, 0 of
    the paper's. Where a schedule `clamps`, x0_hat is clamped to the data's range while eps_hat
    stays that of the answer as it was, as in diffusers' DDIMScheduler.

    Args:
        denoiser: see `els.denoiser.Denoiser`.
        x: noise (b c h w), the images at t = 1.
        steps: number of steps n.
        label: class indices (b,), one for all images, or None.
        schedule: the schedule that the denoiser was made for.

    Yields:
        every `Step` in order.
    """
    label = as_labels(label, x)
    grid = schedule.timesteps(steps).tolist()
    for i, (t, s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        at_t, at_s = at_time(x, t), at_time(x, s)
        answer = denoiser(x, at_t, label)
        x0_hat = within_range(answer) if schedule.clamps else answer
        alpha, sigma = coefficients(at_s, x, schedule)
        x_next = alpha * x0_hat + sigma * eps_from_x0(x, answer, at_t, schedule)
        yield Step(i=i, t=t, s=s, x=x, x0_hat=x0_hat, x_next=x_next, answer=answer)
        x = x_next


def ddim(
    denoiser: Denoiser,
    x: Tensor,
    *,
    steps: int = 20,
    label: Labels = None,
    schedule: CosineSchedule = COSINE,
) -> Tensor:
    """The samples (b c h w) at the end of `ddim_steps`.

    Example:
        >>> ddim(lambda x, t, label: 0 * x, seeded_noise([0], (1, 4, 4)), steps=3).abs().max()
        tensor(0.)
    """
    for step in ddim_steps(denoiser, x, steps=steps, label=label, schedule=schedule):
        x = step.x_next
    return x


@dataclass(frozen=True)
class Starts:
    """Where sampling starts: the noise and the class of every seed.

    Attributes:
        image_shape: (c, h, w).
        num_classes: number of classes of a conditional denoiser, or None.
        label: the class of every seed; None draws one for each of them, where there are classes.
        device: where the noise is wanted.
    """

    image_shape: tuple[int, int, int]
    num_classes: int | None = None
    label: int | None = None
    device: torch.device | str = "cpu"

    def __call__(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Noise (n c h w) and class indices (n,), or None, of the seeds."""
        noise = seeded_noise(seeds, self.image_shape).to(self.device)
        if self.label is not None:
            return noise, torch.full((len(seeds),), self.label, device=self.device)
        if self.num_classes is None:
            return noise, None
        return noise, seeded_labels(seeds, self.num_classes).to(self.device)

    @classmethod
    def of(cls, denoiser: Denoiser, *, label: int | None = None) -> Starts:
        """Where the sampling of a network or a machine starts, on the device of its weights.

        A machine has no classes of its own: asked for no label, it takes all its images.

        Raises:
            InputError: when it does not say what its images are like, as a bare function.
        """
        image_shape = getattr(denoiser, "image_shape", None)
        if image_shape is None:
            raise InputError(
                f"{denoiser!r} has no image_shape: give it one, or call ddim(denoiser, noise)"
            )
        num_classes = getattr(denoiser, "num_classes", None)
        return cls(image_shape, num_classes, label, getattr(denoiser, "device", "cpu"))

    @property
    def identity(self) -> object:
        """Plain data that tells these starts from others."""
        return [list(self.image_shape), self.num_classes, self.label]


def sample(
    denoiser: Denoiser, seeds: Iterable[int], *, steps: int = 20, label: Labels = None
) -> Tensor:
    """What a network or a machine draws from the noise of each seed.

    The same seeds give any denoiser the same noise, that of `seeded_noise`.

    Args:
        denoiser: one that knows its `image_shape`; for a bare function, see `ddim`.
        seeds: the n seeds, such as range(8).
        steps: number of DDIM steps.
        label: class indices (n,), or one for all. Default: of a conditional network, a class drawn
            from each seed (`seeded_labels`); of a machine, none, which is all its images.

    Returns:
        the samples (n c h w), on the CPU.

    Raises:
        InputError: when there is no seed, or the denoiser refuses its input.

    Example:
        >>> from els.images import load_images
        >>> from els.machines import make_machine
        >>> machine = make_machine("local", load_images("digits", limit=20, size=8), size=3)
        >>> sample(machine, range(2), steps=3).shape
        torch.Size([2, 1, 8, 8])
    """
    try:
        chosen = [int(seed) for seed in seeds]
    except TypeError:
        chosen = []
    if not chosen:
        raise InputError(f"seeds are {seeds!r}; give at least one, such as range(8)")
    noise, drawn = Starts.of(denoiser)(chosen)
    labels = drawn if label is None else as_labels(label, noise)
    parts = [
        ddim(
            denoiser,
            noise[some],
            steps=steps,
            label=None if labels is None else labels[some],
            schedule=schedule_of(denoiser),
        ).cpu()
        for some in torch.arange(len(noise), device=noise.device).split(_BATCH)
    ]
    return torch.cat(parts)


class Sampler:
    """What gives a denoiser that knows its `image_shape` a method to sample it."""

    def sample(
        self: Denoiser, n: int, seed: int = 0, steps: int = 20, label: Labels = None
    ) -> Tensor:
        """Samples (n c h w): those of the seeds seed, ..., seed + n - 1; see `els.sample`.

        Raises:
            InputError: as `els.sample`.
        """
        return sample(self, range(seed, seed + n), steps=steps, label=label)


class Tracer(Protocol):
    """Something that answers and tells where its answers come from, as `els.mosaic.Tracer`."""

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None) -> tuple[Tensor, Tensors]:
        """x0_hat (b c h w), and what is known of it, each (b ...)."""
        ...


@dataclass(frozen=True)
class Paths:
    """Where sampling led for n seeds, and what the denoiser said on the way.

    Attributes:
        t: the times of the steps, t = 1 first.
        samples: the images at t = 0 (n c h w).
        x0_hats: the denoiser's answer at every step (steps n c h w), clamped where the schedule
            does.
        last: the noisy images of the last step (n c h w), whose answer the samples are.
        seen: the share of the training patches that each answer took (steps n); 1 but for machines
            that estimate.
        traces: what a tracer told at every step, each (steps n ...); empty without one.
        unclamped: the answers as they were, where the schedule clamps them.
    """

    t: tuple[float, ...]
    samples: Tensor
    x0_hats: Tensor
    last: Tensor
    seen: Tensor
    traces: Tensors = field(default_factory=dict)
    unclamped: Tensor | None = None

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.samples.shape))
        return f"Paths({len(self.t)} steps, {shape})"

    @property
    def answers(self) -> Tensor:
        """The answers as they were (steps n c h w), by which paths can be walked again."""
        return self.x0_hats if self.unclamped is None else self.unclamped

    def first(self, count: int) -> Paths:
        """The paths of the first so many seeds."""
        return Paths(
            t=self.t,
            samples=self.samples[:count],
            x0_hats=self.x0_hats[:, :count],
            last=self.last[:count],
            seen=self.seen[:, :count],
            traces={name: values[:, :count] for name, values in self.traces.items()},
            unclamped=None if self.unclamped is None else self.unclamped[:, :count],
        )


def sample_paths(
    denoiser: Denoiser,
    starts: Starts,
    seeds: Sequence[int],
    *,
    steps: int = 20,
    name: str = "sampling",
    tracer: Tracer | None = None,
    work: Work = IN_MEMORY,
) -> Paths:
    """The whole DDIM path from the noise of every seed.

    Args:
        denoiser: see `els.denoiser.Denoiser`.
        starts: noise and classes by seed.
        seeds: the seeds.
        steps: number of steps.
        name: of the computation, for its progress.
        tracer: answers in the denoiser's place, as it would, and tells where answers come from.
        work: where results are kept, and how they are computed.
    """
    schedule = schedule_of(denoiser)

    def compute(some: list[int], advance: Advance) -> Tensors:
        x, label = starts(some)
        recorder = _Recorder(denoiser, tracer)
        x0_hats: list[Tensor] = []
        answers: list[Tensor] = []
        for step in ddim_steps(recorder, x, steps=steps, label=label, schedule=schedule):
            x0_hats.append(step.x0_hat)
            answers.append(step.answer)
            advance(len(x))
        return {
            "samples": step.x_next,
            "last": step.x,
            "x0_hats": torch.stack(x0_hats, dim=1),
            **({"unclamped": torch.stack(answers, dim=1)} if schedule.clamps else {}),
            "seen": torch.stack(recorder.seen, dim=1),
            **recorder.traces(),
        }

    traced = tracer is not None
    depends = ["paths", identity_of(denoiser), traced, steps, starts.identity]
    found = work.map(name, seeds, compute, depends=depends, steps=steps)
    own = {key: found.pop(key) for key in ("samples", "last")}
    by_step = {key: value.transpose(0, 1).contiguous() for key, value in found.items()}
    return Paths(
        t=tuple(schedule.timesteps(steps)[:-1].tolist()),
        **own,
        x0_hats=by_step.pop("x0_hats"),
        seen=by_step.pop("seen"),
        unclamped=by_step.pop("unclamped", None),
        traces=by_step,
    )


def retraced(
    x0_hats: Tensor, noise: Tensor, *, schedule: CosineSchedule = COSINE
) -> Iterator[Step]:
    """The steps of paths again, by what was answered on them: nothing is asked.

    Args:
        x0_hats: the answers at every step as they were (steps n c h w), `Paths.answers`.
        noise: where the paths started (n c h w).
        schedule: that of the denoiser that answered.
    """
    answers = iter(x0_hats.to(noise))

    def answer(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return next(answers)

    return ddim_steps(answer, noise, steps=len(x0_hats), schedule=schedule)


@runtime_checkable
class Estimating(Denoiser, Protocol):
    """A denoiser that can answer from a part of its patches, as the patch machines."""

    @property
    def tolerance(self) -> float:
        """Root mean square error that is good enough; 0 is exact."""
        ...

    def estimate(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """x0_hat with its standard error."""
        ...


class _Recorder:
    """A denoiser that keeps what is to be known of each of its answers."""

    def __init__(self, denoiser: Denoiser, tracer: Tracer | None) -> None:
        self.denoiser = denoiser
        self.tracer = tracer
        self.seen: list[Tensor] = []
        self._traces: list[Tensors] = []

    def traces(self) -> Tensors:
        """What the tracer told, each (b steps ...)."""
        names = self._traces[0] if self._traces else {}
        return {name: torch.stack([one[name] for one in self._traces], dim=1) for name in names}

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `els.denoiser.Denoiser`."""
        if isinstance(self.denoiser, Estimating) and self.denoiser.tolerance:
            estimate = self.denoiser.estimate(x, t, label)
            self.seen.append(estimate.seen)
            return estimate.mean
        self.seen.append(torch.ones(len(x)))
        if self.tracer is None:
            return self.denoiser(x, t, label)
        x0_hat, trace = self.tracer(x, t, label)
        self._traces.append(trace)
        return x0_hat


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
