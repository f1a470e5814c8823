"""What all machines share: checking queries, and sorting a batch by scale and label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from els.denoiser import coefficients
from els.engines.posterior import Posterior
from els.errors import InputError
from els.images import ImageSet
from els.schedule import CosineSchedule


class ByTime(Protocol):
    """A scale's value for every time, such as `els.calibration.Scales`."""

    def at(self, t: float) -> float:
        """The value at time t."""
        ...


@dataclass(frozen=True)
class Scale:
    """The one number that is fitted per timestep.

    Attributes:
        name: what the number is, such as "size".
        candidates: the values that calibration tries unless told, in order.
    """

    name: str
    candidates: tuple[float, ...]


class Machine(ABC):
    """A closed-form denoiser made from training images.

    Attributes:
        kind: its name in `els.machines.make_machine`.
        images: the training images.
        value: of the scale (a size, width, threshold, ...), one for all times or one for each;
            None without a scale.
        schedule: the noise schedule that x_t comes from.
        chunk: training images at a time; None chooses by memory.
    """

    scale: Scale | None = None

    def __init__(
        self,
        kind: str,
        images: ImageSet,
        *,
        size: float | ByTime | None,
        schedule: CosineSchedule,
        chunk: int | None = None,
    ) -> None:
        self.kind = kind
        self.images = images
        self.value = size if self.scale else None
        self.schedule = schedule
        self.chunk = chunk
        self._by_label: dict[int, ImageSet] = {}
        if isinstance(size, int | float) and self.scale:
            self.check(size)

    def __call__(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, size: float | None = None
    ) -> Tensor:
        """x0_hat (b c h w) at noisy images x (b c h w) and times t (b,) in (0, 1].

        Args:
            label: class indices (b,): each query sees only the images of its class.
            size: a value of the scale for this call, in place of the machine's own.

        Raises:
            InputError: when x does not have the shape of the images or is not finite, or a label
                or a size is out of range.
        """
        return self.at_values(x, t, None if size is None else [size], label)[0]

    @torch.no_grad()
    def at_values(
        self, x: Tensor, t: Tensor, values: Sequence[float] | None, label: Tensor | None = None
    ) -> Tensor:
        """x0_hat (k b c h w) for every one of k scale values, or (1 b c h w) for the machine's own.

        Calibration asks for many values at the same x; a machine can then share work between them.

        Raises:
            InputError: as `__call__`.
        """
        self.check_query(x)
        if values is not None and not len(values):
            raise InputError(f"the {self.kind} machine was asked at no value of its scale")
        out = x.new_empty(1 if values is None else len(values), *x.shape)
        for (some_values, one_label), indices in self.alike(t, label, values).items():
            images = self.images if one_label is None else self.of_class(one_label)
            answers = self.answers(x[indices], t[indices], images, some_values)
            for row, answer in zip(out, answers, strict=True):
                row[indices] = answer.to(x)
        return out

    @abstractmethod
    def answers(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[float | None, ...]
    ) -> Sequence[Tensor]:
        """x0_hat (b c h w) at each of the scale's values (None without a scale), from some images.

        Args:
            x: queries (b c h w), checked.
            t: times (b,).
            images: those of the queries' class.
            values: checked values of the scale.
        """

    def fitted(self, size: float | ByTime | None) -> Machine:
        """The same machine at another setting of its scale; both share what they know."""
        other = copy(self)
        other.value = size
        return other

    def check(self, value: float) -> None:
        """Refuse a value that the scale has no meaning for.

        Raises:
            InputError: when it does not.
        """
        if not value >= 0:
            raise InputError(f"{self.scale.name} {value} of the {self.kind} machine is below 0")

    def allowed(self, values: Iterable[float]) -> list[float]:
        """Those of the values that the scale has a meaning for."""
        found = []
        for value in values:
            with suppress(InputError):
                self.check(value)
                found.append(value)
        return found

    def check_query(self, x: Tensor) -> None:
        """Refuse images that are not of the machine's shape, or not finite.

        Raises:
            InputError: when they are not.
        """
        if tuple(x.shape[1:]) != self.images.image_shape:
            raise InputError(
                f"the images to denoise have shape {tuple(x.shape[1:])}, the training images "
                f"{self.images.image_shape}; they must be the same"
            )
        if not x.isfinite().all():
            raise InputError("the images to denoise hold NaN or infinite pixels")

    def alike(
        self, t: Tensor, label: Tensor | None, values: Sequence[float] | None
    ) -> dict[tuple[tuple[float | None, ...], int | None], list[int]]:
        """The batch's indices by scale values and label, which each take a scan of their own."""
        groups = defaultdict(list)
        labels = [None] * len(t) if label is None else label.tolist()
        for i, (time, one_label) in enumerate(zip(t.tolist(), labels, strict=True)):
            groups[self._values_at(time, values), one_label].append(i)
        return groups

    def of_class(self, label: int) -> ImageSet:
        """The images of one class, kept for the next call."""
        if label not in self._by_label:
            self._by_label[label] = self.images.of_class(label)
        return self._by_label[label]

    def at_times(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma (b,), float64 on the device of x."""
        alpha, sigma = coefficients(t, x.double(), self.schedule)
        return alpha.flatten(), sigma.flatten()

    def value_at(self, t: float) -> float:
        """The scale's value at time t.

        Raises:
            InputError: when it was given none.
        """
        if self.value is None:
            raise InputError(
                f"the {self.kind} machine needs a {self.scale.name}: one, or fitted scales"
            )
        return self.value if isinstance(self.value, int | float) else self.value.at(t)

    def _values_at(self, t: float, values: Sequence[float] | None) -> tuple[float | None, ...]:
        if self.scale is None:
            return (None,) if values is None else (None,) * len(values)
        if values is None:
            values = [self.value_at(t)]
        for value in values:
            self.check(value)
        return tuple(values)


class PosteriorMachine(Machine):
    """A machine whose answer is the mean of a posterior over places in the training images."""

    @abstractmethod
    def posteriors(
        self,
        x: Tensor,
        t: Tensor,
        pixels: Tensor,
        values: Sequence[float | None],
        *,
        details: bool = False,
    ) -> list[Posterior]:
        """The posterior at every value of the scale.

        Args:
            x, t, values: as in `answers`.
            pixels: training images, uint8 (n c h w).
            details: also find what `Posterior` has only with details.
        """

    def answers(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[float | None, ...]
    ) -> list[Tensor]:
        """See `Machine.answers`."""
        return [part.mean for part in self.posteriors(x, t, images.pixels, values)]

    @torch.no_grad()
    def posterior(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, size: float | None = None
    ) -> Posterior:
        """All that the dictionary says about x (b c h w), with details; arguments as `__call__`.

        `Posterior.best` and `second` hold indices into `self.images`, whatever the label. With
        symmetries they name the place in the image as it is, which the query met mirrored or
        turned.

        Raises:
            InputError: as `__call__`.
        """
        self.check_query(x)
        asked = None if size is None else [size]
        parts, order = [Posterior.empty(x[:0], x.dtype, details=True)], []
        for (values, one_label), i in self.alike(t, label, asked).items():
            images = self.images if one_label is None else self.of_class(one_label)
            (part,) = self.posteriors(x[i], t[i], images.pixels, values, details=True)
            if one_label is not None:
                of_class = (self.images.labels == one_label).nonzero().flatten().to(x.device)
                part = part.with_images(of_class.__getitem__)
            parts.append(part)
            order += i
        return Posterior.cat(parts).take(torch.tensor(order, dtype=torch.int64).argsort())
