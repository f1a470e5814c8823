"""The other ways in which a network could be read: what it predicts, over which noise and range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import get_args

from torch import Tensor

from els.adapters import Adapted, Continuous, Noise, Range, Shape, Sigmas, Steps
from els.models.adapted import AdaptedNetwork, RereadNetwork
from els.models.blocks import Network
from els.models.denoiser import NetworkDenoiser
from els.models.edm import Preconditioned
from els.models.formats.loaded import RANGES, SCHEDULES, Prediction, RangeName, ScheduleName
from els.models.steps import StepNetwork, alphas_cumprod
from els.schedule import COSINE, CosineSchedule

_PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
_SIGNED = RANGES["signed"]


@dataclass(frozen=True)
class Reading:
    """One way to read a network.

    Attributes:
        prediction: what it predicts.
        schedule: the noise of its steps by name; None: its own.
        image_range: the values of black and white.
    """

    prediction: Prediction
    schedule: ScheduleName | None = None
    image_range: Range = _SIGNED

    @property
    def range_name(self) -> RangeName:
        """The image range by its name."""
        return next(name for name, one in RANGES.items() if one == self.image_range)

    @property
    def flags(self) -> str:
        """The options that ask for it."""
        noise = "" if self.schedule is None else f" --schedule {self.schedule}"
        shade = "" if self.image_range == _SIGNED else f" --image_range {self.range_name}"
        return f"--prediction {self.prediction}{noise}{shade}"

    def __str__(self) -> str:
        noise = "" if self.schedule is None else f" over {self.schedule} noise"
        shown = "" if self.image_range == _SIGNED else " of images in [0, 1]"
        return f"{self.prediction}{noise}{shown}"


@dataclass(frozen=True)
class _Raw:
    """A network as somebody else would call it."""

    function: Callable[..., Tensor]
    noise: Noise


def readings(network: NetworkDenoiser) -> Iterator[tuple[Reading, Adapted]]:
    """Every way to read a network, as a denoiser; the one that is declared is among them."""
    raw = _raw(network.net, network.schedule)
    noises: dict[ScheduleName | None, Noise] = {None: raw.noise}
    if isinstance(raw.noise, Steps):
        count = len(raw.noise.alpha_bar)
        noises |= {name: Steps(alphas_cumprod(name, count)) for name in SCHEDULES}
    # A denoiser of sigma answers with the clean image by its definition.
    predictions = ("x0",) if isinstance(raw.noise, Sigmas) else _PREDICTIONS
    for prediction, name, image_range in product(predictions, noises, RANGES.values()):
        adapted = Adapted(
            raw.function,
            prediction=prediction,
            noise=noises[name],
            image_range=image_range,
            num_classes=network.num_classes,
            image_shape=network.image_shape,
        )
        yield Reading(prediction, name, image_range), adapted


def reread(
    net: Network, image_shape: Shape, *, prediction: Prediction | None, image_range: Range
) -> RereadNetwork:
    """A network that is read otherwise than as it stands.

    Args:
        net: the network.
        image_shape: (c, h, w) of its images.
        prediction: what it predicts; None: as it is.
        image_range: the values of black and white that it was trained on.
    """
    raw = _raw(net, COSINE)
    usual = "x0" if isinstance(raw.noise, Sigmas) else getattr(net, "prediction", "eps")
    adapted = Adapted(
        raw.function,
        prediction=prediction or usual,
        noise=raw.noise,
        image_range=image_range,
        num_classes=net.num_classes,
        image_shape=image_shape,
    )
    return RereadNetwork(net, adapted)


def _raw(net: Network, schedule: CosineSchedule) -> _Raw:
    if isinstance(net, AdaptedNetwork):
        return _Raw(net.adapted.function, net.adapted.noise)
    if isinstance(net, Preconditioned):
        return _Raw(net.denoised, Sigmas())
    if isinstance(net, StepNetwork):

        def answer(y: Tensor, step: Tensor, label: Tensor | None = None) -> Tensor:
            return net.answer(y, step if net.whole_steps else step.float(), label)

        return _Raw(answer, Steps(net.schedule.alpha(net.times) ** 2))
    return _Raw(net, Continuous(schedule.alpha, schedule.sigma))
