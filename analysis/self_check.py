"""The self-check: whether a network was understood, by how well it denoises its training images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from els.denoiser import Denoiser, within_range
from els.denoising import FewImages, beyond_range, denoising_errors
from els.errors import InputError
from els.images import ImageSet, to_float
from els.models.denoiser import NetworkDenoiser
from els.models.formats.loaded import SCHEDULES, Declared
from els.models.readings import Reading, readings

Mode = Literal["error", "warn", "off"]
Load = Callable[[Reading], NetworkDenoiser]
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
_IMAGES, _FEW, _OTHERS = 64, 16, 1024
_MOST = len(TIMES) // 2 + 1
# How much lower the error of another reading is, over all times, where it is clearly better: of a
# network that is declared, and of one that is not.
_DECLARED, _ASSUMED = 2.0, 1.25
_NEAR = 1.25  # of the Wiener filter's error: what a network reaches that is read rightly
_FAR = 0.5  # root mean square of what samples have outside of [-1, 1]
_SAMPLES, _STEPS = 4, 20


@dataclass(frozen=True)
class SelfCheck:
    """How well a network denoises as it is read, beside what takes no network.

    Attributes:
        images: how many training images were denoised.
        t: the times; the errors below are mean squared errors of x0_hat at each.
        error: of the network as it is declared.
        mean_image: of answering with the mean image.
        wiener: of a Wiener filter of at most 1,024 other training images.
        readings: of the network read in other ways, on 16 of the images; empty where it denoises
            as it should and nothing was assumed.
        beyond: root mean square of what samples of the network have outside of [-1, 1].
        declared: how it was declared.
        taken: the reading that was taken where nothing was declared, or "".
        proposal: a reading that does clearly better than the declared one, or "".
        clip: whether clamping x0_hat (`--clip`) is proposed.
    """

    images: int
    t: tuple[float, ...]
    error: tuple[float, ...]
    mean_image: tuple[float, ...]
    wiener: tuple[float, ...]
    readings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    beyond: float = 0.0
    declared: str = ""
    taken: str = ""
    proposal: str = ""
    clip: bool = False

    @property
    def worse(self) -> int:
        """At how many times the Wiener filter does better."""
        return sum(one > other for one, other in zip(self.error, self.wiener, strict=True))

    @property
    def line(self) -> str:
        """What was found, for people."""
        error, wiener = (f"{one[0]:.3f} to {one[-1]:.3f}" for one in (self.error, self.wiener))
        taken = f"read as {self.taken}, which nothing declares; " if self.taken else ""
        found = f"{taken}denoises {self.images} images with an error of {error} (Wiener {wiener})"
        if self.worse >= _MOST:
            times = f"{self.worse} of {len(self.t)} noise levels"
            found = f"{taken}denoises worse than the Wiener filter at {times} ({error}, {wiener})"
            other = f"{self.proposal} does clearly better" if self.proposal else ""
            found += f"; {other or 'no other reading does clearly better'}"
        if self.clip:
            found += f"; what it draws is {self.beyond:.1f} outside of [-1, 1]: --clip clamps it"
        return found


def self_check(
    network: NetworkDenoiser, images: ImageSet, mode: Mode, load: Load
) -> tuple[NetworkDenoiser, SelfCheck | None]:
    """Check how a network was understood, and read it better where nothing was declared.

    Args:
        network: the network, as it is declared or assumed.
        images: its training images.
        mode: "error" stops where another reading does clearly better; "warn" goes on with it said;
            "off" checks nothing.
        load: the same network with another prediction, schedule and image range, as far as those
            were not declared.

    Returns:
        the network as it is read in the end, and what was found.

    Raises:
        InputError: where the network answers NaN; or a declared one denoises worse than the Wiener
            filter at most levels, and another reading does clearly better.
    """
    if mode == "off":
        return network, None
    found, others = _examine(network, images)
    told = network.declared
    if told is not None and told.assumed:
        named = any(one.schedule is not None for one in others)
        allowed = {one: others[one] for one in others if _is_open(one, told, named=named)}
        if best := _best(found, allowed, _ASSUMED):
            network = load(best)
            again, _ = _examine(network, images, others=False)
            return network, replace(again, readings=found.readings, taken=str(best))
    best = _best(found, others, _DECLARED) if found.worse >= _MOST else None
    if best is None:
        return network, found
    found = replace(found, proposal=str(best))
    if mode == "error":
        raise InputError(
            f"self-check: the network {found.line} (error {_levels(found.readings[str(best)])} "
            f"against {_levels(found.error)} as {found.declared}). Declare that ({best.flags}, "
            "where its file leaves it open), or go on as it is with --self_check warn"
        )
    return network, found


def _levels(errors: Sequence[float]) -> str:
    return ", ".join(f"{one:.2g}" for one in errors)


def _examine(
    network: NetworkDenoiser, images: ImageSet, *, others: bool = True
) -> tuple[SelfCheck, dict[Reading, tuple[float, ...]]]:
    """What is found of a network, and the errors of its other readings where they are asked."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    chosen, rest = order[:_IMAGES], order[_IMAGES : _IMAGES + _OTHERS]
    some, known = (
        images.take(chosen),
        to_float(images.take(rest if len(rest) > 1 else order).pixels),
    )
    clean = to_float(some.pixels).to(network.device)
    label = _labels(network, some)
    wiener = FewImages(known, network.schedule)
    mean = known.mean(dim=0)
    found = SelfCheck(
        images=len(clean),
        t=TIMES,
        error=denoising_errors(network, clean, TIMES, label),
        mean_image=denoising_errors(lambda x, t, label=None: mean.expand_as(x), clean.cpu(), TIMES),
        wiener=denoising_errors(wiener, clean.cpu(), TIMES),
        beyond=beyond_range(network.sample(_SAMPLES, steps=_STEPS)),
        declared=_declared(network),
    )
    if not all(map(math.isfinite, (*found.error, found.beyond))):
        raise InputError(
            f"self-check: the network answers with NaN or infinite numbers (errors "
            f"{_levels(found.error)}); look at how it is made, or give --self_check off"
        )
    found = replace(found, clip=not network.clip and found.beyond > _FAR)
    assumed = network.declared is not None and network.declared.assumed
    if not others or not (assumed or found.worse >= _MOST):
        return found, {}
    few = None if label is None else label[:_FEW]
    read = {
        reading: denoising_errors(_clamped(one) if network.clip else one, clean[:_FEW], TIMES, few)
        for reading, one in readings(network)
    }
    read = {one: errors for one, errors in read.items() if all(map(math.isfinite, errors))}
    return replace(found, readings={str(one): errors for one, errors in read.items()}), read


def _clamped(denoiser: Denoiser) -> Denoiser:
    """A reading as `--clip` has it."""

    def answer(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return within_range(denoiser(x, t, label))

    return answer


def _labels(network: NetworkDenoiser, images: ImageSet) -> Tensor | None:
    """The images' classes, as far as the network knows them."""
    if network.num_classes is None:
        return None
    labels = torch.zeros(len(images)) if images.labels is None else images.labels
    return labels.long().clamp(0, network.num_classes - 1).to(network.device)


def _declared(network: NetworkDenoiser) -> str:
    return "" if network.declared is None else network.declared.words


def _best(
    found: SelfCheck, others: Mapping[Reading, tuple[float, ...]], factor: float
) -> Reading | None:
    """The reading whose error is lower by a factor than that of the network as it is read.

    It must come near the Wiener filter at most times: an untrained network does best read as
    something that ignores it.
    """
    good = [one for one in others if _near(others[one], found.wiener)]
    best = min(good, key=lambda one: _geometric(others[one]), default=None)
    if best is None or _geometric(others[best]) * factor > _geometric(found.error):
        return None
    return best


def _is_open(reading: Reading, told: Declared, *, named: bool) -> bool:
    """Whether a reading contradicts nothing that is known.

    Args:
        reading: the reading.
        told: what is known, and what of it is assumed.
        named: whether there are readings over schedules by name, which can be asked for.
    """
    by_name = named and ("schedule" in told.assumed or told.schedule in SCHEDULES)
    known = None if not by_name or "schedule" in told.assumed else told.schedule
    return (
        (reading.schedule is not None) == by_name
        and known in (None, reading.schedule)
        and ("image_range" in told.assumed or reading.image_range == told.image_range)
        and ("prediction" in told.assumed or reading.prediction == told.prediction)
    )


def _near(errors: Sequence[float], wiener: Sequence[float]) -> bool:
    near = sum(one <= _NEAR * other for one, other in zip(errors, wiener, strict=True))
    return near >= _MOST


def _geometric(errors: Sequence[float]) -> float:
    """The geometric mean, to which every noise level counts alike."""
    return math.exp(sum(math.log(max(one, 1e-12)) for one in errors) / len(errors))
