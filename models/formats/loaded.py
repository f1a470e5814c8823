"""What every reader of checkpoints is asked, and what it answers with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from els.errors import InputError, reason
from els.images import DataSpec
from els.models.blocks import Network, Trained, check_choice

Which = Literal["ema", "online"]
Prediction = Literal["eps", "v", "x0"]
ScheduleName = Literal["linear", "scaled_linear", "cosine"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)
RangeName = Literal["signed", "unit"]
RANGES: dict[RangeName, tuple[float, float]] = {"signed": (-1.0, 1.0), "unit": (0.0, 1.0)}
# How any network at all is brought in, which every refusal of an unknown one names.
WAY_IN = "Any other network comes in by --checkpoint python:my_net.py:load (docs/checkpoints.md)"


@dataclass(frozen=True)
class Asked:
    """What the user says of a checkpoint that does not say it itself; None: nothing.

    Attributes:
        padding: "zeros" or "circular", of a state dict.
        image_size: height and width in pixels.
        weights: "ema" (averaged) or "online" (the last), where a file has both; default: averaged.
        prediction: what the network predicts: "eps", "v" or "x0".
        schedule: which noise each of its 1,000 steps has: "linear", "scaled_linear" or "cosine".
        image_range: the values of black and white that it was trained on: "signed" (-1 and 1) or
            "unit" (0 and 1).
    """

    padding: str | None = None
    image_size: int | None = None
    weights: Which | None = None
    prediction: Prediction | None = None
    schedule: ScheduleName | None = None
    image_range: RangeName | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise InputError(f"image_size is {self.image_size}; give height and width in pixels")
        for what, kind in (
            ("weights", Which),
            ("prediction", Prediction),
            ("schedule", ScheduleName),
            ("image_range", RangeName),
        ):
            if (value := getattr(self, what)) is not None:
                check_choice(what, value, get_args(kind))


@dataclass(frozen=True)
class Declared:
    """How a network is to be understood, as its file says or as is assumed.

    Attributes:
        format: what the file is, such as "EDM pickle".
        prediction: "eps", "v", "x0" or, for EDM, "D(y; sigma)".
        schedule: of the noise that it was trained with, in words.
        image_range: the values of black and white.
        weights: "ema" or "online", or None where the file does not say.
        assumed: which of these the file does not say, so that a check may propose another.
    """

    format: str
    prediction: str
    schedule: str
    image_range: tuple[float, float] = (-1.0, 1.0)
    weights: Which | None = None
    assumed: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """For people, such as "eps over linear noise"."""
        noise = " noise" if self.schedule in SCHEDULES else ""
        shade = "" if self.image_range == RANGES["signed"] else " of images in [0, 1]"
        return f"{self.prediction} over {self.schedule}{noise}{shade}"

    @property
    def options(self) -> dict[str, str]:
        """The options that have the same file understood so again, as far as there are any.

        Averaged weights are taken unless said otherwise.
        """
        found = {
            "weights": (self.weights, ("online",)),
            "prediction": (self.prediction, get_args(Prediction)),
            "schedule": (self.schedule, SCHEDULES),
        }
        ranges = {limits: name for name, limits in RANGES.items()}
        return {
            **{name: value for name, (value, known) in found.items() if value and value in known},
            "image_range": ranges[self.image_range],
        }


@dataclass(frozen=True)
class Loaded:
    """A network that a reader brought in.

    Attributes:
        net: the network, with its weights.
        image_shape: (c, h, w).
        declared: how it is to be understood.
        data: where its training images come from, or None when the file does not say.
        trained: how long and how well it was trained, or None when the file does not say.
        notes: what the user should know of a choice that was made, a line each.
    """

    net: Network
    image_shape: tuple[int, int, int]
    declared: Declared
    data: DataSpec | None = None
    trained: Trained | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def explained(what: str, way_out: str = "") -> Iterator[None]:
    """Turn whatever a damaged or hostile file makes the code within raise into an `InputError`.

    Args:
        what: the beginning of its message, before the reason.
        way_out: its end.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what}: {reason(error, named=True)}{way_out}") from error


def choose(has_ema: bool, has_online: bool, asked: Which | None) -> Which:
    """Which weights of a file are taken: the averaged ones where there are any.

    Raises:
        InputError: when the file does not have those that are asked for.
    """
    if asked is None:
        return "ema" if has_ema else "online"
    if not (has_ema if asked == "ema" else has_online):
        other = "online" if asked == "ema" else "ema"
        raise InputError(
            f"--weights {asked} was given, but it holds {other} weights alone; leave --weights out"
        )
    return asked


def note_of(chosen: Which, where: str, *, others: bool) -> str:
    """The line that says which weights were taken."""
    names = {"ema": "the averaged weights (EMA)", "online": "the online weights"}
    other = "online" if chosen == "ema" else "ema"
    more = f"; --weights {other} takes the others" if others else ""
    return f"{names[chosen]} were taken, {where}{more}"
