"""The other ways in which a network could be read: what it predicts, over which noise and range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import get_args

from torch import Tensor

from els.adapters import Adapted, Continuous, Noise, Range, Sigmas, Steps
from els.models.adapted import AdaptedNetwork
from els.models.denoiser import NetworkDenoiser
from els.models.edm import Preconditioned
from els.models.formats.loaded import Prediction, ScheduleName
from els.models.steps import StepNetwork, alphas_cumprod

_PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
_SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)
_SIGNED, _UNIT = (-1.0, 1.0), (0.0, 1.0)


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
    raw = _raw(network)
    noises: dict[ScheduleName | None, Noise] = {None: raw.noise}
    if isinstance(raw.noise, Steps):
        count = len(raw.noise.alpha_bar)
        noises |= {name: Steps(alphas_cumprod(name, count)) for name in _SCHEDULES}
    # A denoiser of sigma answers with the clean image by its definition.
    predictions = ("x0",) if isinstance(raw.noise, Sigmas) else _PREDICTIONS
    for prediction, name, image_range in product(predictions, noises, (_SIGNED, _UNIT)):
        adapted = Adapted(
            raw.function,
            prediction=prediction,
            noise=noises[name],
            image_range=image_range,
            num_classes=network.num_classes,
            image_shape=network.image_shape,
        )
        yield Reading(prediction, name, image_range), adapted


def _raw(network: NetworkDenoiser) -> _Raw:
    net = network.net
    if isinstance(net, AdaptedNetwork):
        return _Raw(net.adapted.function, net.adapted.noise)
    if isinstance(net, Preconditioned):
        return _Raw(net.denoised, Sigmas())
    if isinstance(net, StepNetwork):

        def answer(y: Tensor, step: Tensor, label: Tensor | None = None) -> Tensor:
            return net.answer(y, step if net.whole_steps else step.float(), label)

        return _Raw(answer, Steps(net.schedule.alpha(net.times) ** 2))
    return _Raw(net, Continuous(network.schedule.alpha, network.schedule.sigma))
