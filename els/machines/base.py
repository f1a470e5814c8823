"""What all machines share: options, checking queries, and sorting a batch by scale and label."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, Self, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from els.denoiser import Labels, Times, as_labels, as_times, coefficients, within_range
from els.engines.dispatch import ENGINES, EngineName
from els.engines.posterior import Posterior
from els.engines.windows import WindowName
from els.errors import InputError
from els.images import ImageSet
from els.sampling import Sampler
from els.schedule import COSINE, CosineSchedule

Number = int | float  # a patch size is a whole number, and stays one on disk
NO_VALUE = 0  # stands for the value of a scale where a machine has none
Symmetry = Literal["flip", "turns"]
Around = Literal["boundary", "equivariant"]
Known = TypeVar("Known")


class ByTime(Protocol):
    """A scale's value for every time, such as `els.calibration.Scales`."""

    def at(self, t: float) -> Number:
        """The value at time t."""
        ...


@dataclass(frozen=True)
class MachineOptions:
    """How a machine answers, beside its scale; see `els.machines.make_machine` for each of them."""

    engine: EngineName = "auto"
    chunk: int | None = None
    tolerance: float = 0.0
    window: WindowName | None = None
    shift: int | None = None
    symmetries: tuple[Symmetry, ...] = ()
    temperature: float = 1.0
    around: Around = "boundary"
    clip: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise InputError(f"unknown engine '{self.engine}'; known are {', '.join(ENGINES)}")
        if self.chunk is not None and self.chunk < 1:
            raise InputError(f"chunk is {self.chunk}; it must be at least 1 image")
        if not 0 <= self.tolerance < math.inf:
            raise InputError(f"tolerance is {self.tolerance}; it must be an error of at least 0")
        if unknown := set(self.symmetries) - set(get_args(Symmetry)):
            raise InputError(f"unknown symmetries {sorted(unknown)}; there are flip and turns")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature is {self.temperature}; it must be above 0")
        if self.around not in get_args(Around):
            raise InputError(f"around is '{self.around}'; it must be boundary or equivariant")


DEFAULT_OPTIONS = MachineOptions()


@dataclass(frozen=True)
class Scale:
    """The one number that is fitted per timestep.

    Attributes:
        name: what the number is, such as "size".
        candidates: the default values that calibration tries, in order.
    """

    name: str
    candidates: tuple[Number, ...]


class Machine(Sampler, ABC):
    """A closed-form denoiser made from training images.

    Attributes:
        kind: its name in `els.machines.make_machine`.
        images: the training images.
        value: of the scale (a size, width, threshold, ...), one for all times or one for each;
            None without a scale.
        schedule: the noise schedule that x_t comes from.
        options: how it answers.
    """

    scale: Scale | None = None
    # Whether it asks for the moments of the images, which are found once (`machines.gaussian`).
    uses_moments = False

    def __init__(
        self,
        kind: str,
        images: ImageSet,
        *,
        size: Any = None,
        schedule: CosineSchedule = COSINE,
        options: MachineOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.kind = kind
        self.images = images
        self.schedule = schedule
        self.options = options
        self._known: dict[object, Any] = {}
        self.value: Number | ByTime | None = self._checked(size)

    def __repr__(self) -> str:
        count = f"{len(self.images):,} image{'s' * (len(self.images) != 1)}"
        shape = " x ".join(map(str, self.image_shape))
        return ", ".join([self.kind, *self._about(), f"{count} of {shape}", *self._how()])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        return self.images.image_shape

    @property
    def identity(self) -> list[object]:
        """Plain data: all that its answers depend on.

        Raises:
            TypeError: when its values are given by something that cannot be told from others.
        """
        value = value_identity(self.value)
        clipped = ["clip"] * self.options.clip
        return [self.kind, self.images.fingerprint(), self.schedule.identity, value, *clipped]

    def engines_on(self, device: torch.device) -> tuple[str, ...]:
        """The names of the engines that float32 queries on a device go to; none without patches.

        Raises:
            InputError: when the engine of the options cannot take them there.
        """
        return ()

    def estimating(self, tolerance: float) -> Machine:
        """The same machine with a tolerance, if it is one that can estimate."""
        return self

    def __call__(
        self, x: Tensor, t: Times, label: Labels = None, size: Number | None = None
    ) -> Tensor:
        """x0_hat (b c h w) at noisy images x (b c h w) and times t in (0, 1].

        Args:
            t: one for all images, or (b,).
            label: a class index for all images, or (b,): each sees only the images of its class.
            size: a value of the scale for this call, in place of the machine's own.

        Raises:
            InputError: when x does not have the shape of the images or is not finite, or a time, a
                label or a size is out of range.
        """
        return self.at_values(x, t, None if size is None else [size], label)[0]

    @torch.no_grad()
    def at_values(
        self, x: Tensor, t: Times, values: Sequence[Number] | None, label: Labels = None
    ) -> Tensor:
        """x0_hat (k b c h w) for every one of k scale values, or (1 b c h w) for the machine's own.

        Calibration asks for many values at the same x; a machine can then share work between them.

        Raises:
            InputError: as `__call__`.
        """
        t, label = self.check_query(x, t, label)
        if values is not None and not len(values):
            raise InputError(f"the {self.kind} machine was asked at no value of its scale")
        out = x.new_empty(1 if values is None else len(values), *x.shape)
        for (some_values, one_label), indices in self.group_queries(t, label, values).items():
            images = self.of_class(one_label)
            answers = self.x0_hats(x[indices], t[indices], images, some_values)
            for row, answer in zip(out, answers, strict=True):
                row[indices] = answer.to(x)
        return self.kept(out)

    def kept(self, x0_hat: Tensor) -> Tensor:
        """An answer as it is given: within the data's range, where the options say so."""
        return within_range(x0_hat) if self.options.clip else x0_hat

    @abstractmethod
    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> Sequence[Tensor]:
        """x0_hat (b c h w) at each value of the scale (`NO_VALUE` without one), from some images.

        Args:
            x: queries (b c h w), checked.
            t: times (b,).
            images: those of the queries' class.
            values: checked values of the scale.
        """

    def fitted(self, size: Any) -> Self:
        """The same machine at another value of its scale; both share what they know.

        Args:
            size: as in `els.machines.make_machine`: one value, or fitted `els.Scales`.

        Raises:
            InputError: when it is neither, or out of range.
        """
        other = copy(self)
        other.value = self._checked(size)
        return other

    @property
    def scale_name(self) -> str:
        """What its scale is called."""
        return "scale" if self.scale is None else self.scale.name

    def check(self, value: Number) -> None:
        """Refuse a value that the scale has no meaning for.

        Raises:
            InputError: when it does not.
        """
        if not value >= 0:
            raise InputError(f"{self.scale_name} {value} of the {self.kind} machine is below 0")

    def allowed(self, values: Iterable[Number]) -> list[Number]:
        """Those of the values that the scale has a meaning for."""
        found = []
        for value in values:
            with suppress(InputError):
                self.check(value)
                found.append(value)
        return found

    def check_query(self, x: Tensor, t: Times, label: Labels) -> tuple[Tensor, Tensor | None]:
        """The times (b,) and labels (b,) of images that can be answered.

        Raises:
            InputError: when x is not of the machine's shape, of floats and finite, or t or label
                cannot be of these images.
        """
        if tuple(x.shape[1:]) != self.images.image_shape:
            raise InputError(
                f"the images to denoise have shape {tuple(x.shape[1:])}, the training images "
                f"{self.images.image_shape}; they must be the same"
            )
        if not x.is_floating_point():
            raise InputError(f"the images to denoise are {x.dtype}; they must be floats in [-1, 1]")
        if not x.isfinite().all():
            raise InputError("the images to denoise hold NaN or infinite pixels")
        return as_times(t, x), as_labels(label, x)

    def group_queries(
        self, t: Tensor, label: Tensor | None, values: Sequence[Number] | None
    ) -> dict[tuple[tuple[Number, ...], int | None], list[int]]:
        """The batch's indices by scale values and label, which each take a scan of their own."""
        groups = defaultdict(list)
        labels = [None] * len(t) if label is None else label.tolist()
        for i, (time, one_label) in enumerate(zip(t.tolist(), labels, strict=True)):
            groups[self._values_at(time, values), one_label].append(i)
        return groups

    def of_class(self, label: int | None) -> ImageSet:
        """The images of one class, kept for the next call; all of them for None."""
        if label is None:
            return self.images
        return self.once(("class", label), lambda: self.images.of_class(label))

    def once(self, key: object, make: Callable[[], Known]) -> Known:
        """What `make` gives, made once for each key, also for copies of this machine."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def at_times(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma (b,), float64 on the device of x."""
        alpha, sigma = coefficients(t, x.double(), self.schedule)
        return alpha.flatten(), sigma.flatten()

    def value_at(self, t: float) -> Number:
        """The scale's value at time t.

        Raises:
            InputError: when it was given none.
        """
        if self.value is None:
            raise InputError(
                f"the {self.kind} machine needs a {self.scale_name}: one, or fitted scales"
            )
        return self.value if isinstance(self.value, int | float) else self.value.at(t)

    def _checked(self, size: Any) -> Number | ByTime | None:
        """A value of the scale, or values by time, which are checked where they are used."""
        if self.scale is None or size is None:
            return None
        if isinstance(size, Tensor | np.generic):
            size = size.item()
        if isinstance(size, int | float):
            self.check(size)
        elif not hasattr(size, "at"):
            raise InputError(
                f"the {self.scale_name} of the {self.kind} machine is {size!r}; it must be a "
                "number, or fitted scales as of els.fit_scales or els.Scales.load"
            )
        return size

    def _about(self) -> list[str]:
        """The scale, for people."""
        if self.scale is None:
            return []
        if self.value is None:
            return [f"no {self.scale_name} yet"]
        if isinstance(self.value, int | float):
            return [f"{self.scale_name} {self.value:g}"]
        ends = (f"{self.value.at(t):g} at t = {t:g}" for t in (1, 0.05))
        return [f"{self.scale_name} {' to '.join(ends)}"]

    def _how(self) -> list[str]:
        """Those options that are not as they are left, for people."""
        return [
            f"{one.name} {getattr(self.options, one.name)}"
            for one in fields(self.options)
            if getattr(self.options, one.name) != one.default
        ]

    def _values_at(self, t: float, values: Sequence[Number] | None) -> tuple[Number, ...]:
        if self.scale is None:
            return (NO_VALUE,) * (1 if values is None else len(values))
        if values is None:
            values = [self.value_at(t)]
        for value in values:
            self.check(value)
        return tuple(values)


def value_identity(value: object) -> object:
    """Plain data that tells a value, or values by time, from others.

    Raises:
        TypeError: when it cannot be told from others.
    """
    if value is None or isinstance(value, int | float):
        return value
    try:
        return value.identity  # type: ignore[attr-defined]
    except AttributeError as error:
        raise TypeError(f"{value!r} has no identity, as fitted scales and weights do") from error


class PosteriorMachine(Machine):
    """A machine whose answer is the mean of a posterior over places in the training images."""

    @abstractmethod
    def posteriors(
        self,
        x: Tensor,
        t: Tensor,
        pixels: Tensor,
        values: Sequence[Number],
        *,
        details: bool = False,
    ) -> list[Posterior]:
        """The posterior at every value of the scale.

        Args:
            x, t, values: as in `x0_hats`.
            pixels: training images, uint8 (n c h w).
            details: also find the `Details` of each posterior.
        """

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        return [part.mean for part in self.posteriors(x, t, images.pixels, values)]

    @torch.no_grad()
    def posterior(
        self, x: Tensor, t: Times, label: Labels = None, size: Number | None = None
    ) -> Posterior:
        """All that the dictionary says about x (b c h w), with details; arguments as `__call__`.

        `Posterior.best` and `second` hold indices into `self.images`, whatever the label. With
        symmetries they name the place in the image as it is, which the query met mirrored or
        turned.

        Raises:
            InputError: as `__call__`.
        """
        t, label = self.check_query(x, t, label)
        asked = None if size is None else [size]
        parts, order = [Posterior.empty(x[:0], x.dtype, details=True)], []
        for (values, one_label), i in self.group_queries(t, label, asked).items():
            images = self.of_class(one_label)
            (part,) = self.posteriors(x[i], t[i], images.pixels, values, details=True)
            if one_label is not None and self.images.labels is not None:
                of_class = (self.images.labels == one_label).nonzero().flatten().to(x.device)
                part = part.with_images(of_class.__getitem__)
            parts.append(part)
            order += i
        return Posterior.cat(parts).take(torch.tensor(order, dtype=torch.int64).argsort())
