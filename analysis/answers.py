"""Single answers, apart from paths: errors on real images, and agreement at the same x."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from els.agreement import METRICS
from els.intervals import ByTime, gap_by_t, mean_by_t, median_by_t, ratio_by_t, relative_gap_by_t

UNSEEN, TRAINING = "held_out", "training"
WIENER = "wiener"  # the machine, and the filter where that is none of the machines
CEILING = "ceiling"  # networks of other seeds, in the place of a machine
ByMetric = Mapping[str, Tensor]


@dataclass(frozen=True)
class Denoising:
    """How far x0_hat is from the true image.

    Attributes:
        t: the times, t = 1 first.
        errors: mean squared error per pixel (steps n) by set of images, "held_out" or "training",
            and by "network", machine and "wiener", the Wiener filter of the training images.
    """

    t: tuple[float, ...]
    errors: Mapping[str, Mapping[str, Tensor]]

    @cached_property
    def mean(self) -> dict[str, dict[str, ByTime]]:
        """The mean over images, by set of images and side."""
        return {
            split: {side: mean_by_t(values) for side, values in of_split.items()}
            for split, of_split in self.errors.items()
        }

    @cached_property
    def over_wiener(self) -> dict[str, dict[str, ByTime]]:
        """The same divided by that of the Wiener filter; below 1 is better."""
        return {
            split: {
                side: ratio_by_t(values, of_split[WIENER])
                for side, values in of_split.items()
                if side != WIENER
            }
            for split, of_split in self.errors.items()
        }

    @cached_property
    def gap(self) -> dict[str, ByTime]:
        """By how much the error on held-out images is above that on training images, by side."""
        if not {UNSEEN, TRAINING} <= set(self.errors):
            return {}
        training = self.errors[TRAINING]
        return {
            side: gap_by_t(values, training[side]) for side, values in self.errors[UNSEEN].items()
        }

    @cached_property
    def relative_gap(self) -> dict[str, ByTime]:
        """The gap as a share of the error on held-out images: 1 where training images are known."""
        if not {UNSEEN, TRAINING} <= set(self.errors):
            return {}
        training = self.errors[TRAINING]
        return {
            side: relative_gap_by_t(values, training[side])
            for side, values in self.errors[UNSEEN].items()
        }

    def images(self, split: str) -> int:
        """How many images a set has."""
        return next(iter(self.errors[split].values())).shape[1]

    def arrays(self) -> dict[str, Tensor]:
        """The errors as they are kept, by set and side."""
        return {
            f"{split}/{side}": values
            for split, of_split in self.errors.items()
            for side, values in of_split.items()
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Tensor], t: tuple[float, ...]) -> Denoising | None:
        """From what `arrays` gave; None of nothing."""
        errors: dict[str, dict[str, Tensor]] = {}
        for name, values in arrays.items():
            split, _, side = name.partition("/")
            errors.setdefault(split, {})[side] = values
        return cls(t, errors) if errors else None


@dataclass(frozen=True)
class SameX:
    """Agreement of machines' x0_hats with the network's where both are asked at the same x.

    Attributes:
        t: the times, t = 1 first.
        metrics: each of `els.agreement.METRICS` (steps n) by place, see `els.same_x.PLACES`, and by
            machine, or "ceiling" of networks of other seeds.
    """

    t: tuple[float, ...]
    metrics: Mapping[str, Mapping[str, ByMetric]]

    @cached_property
    def median(self) -> dict[str, dict[str, dict[str, ByTime]]]:
        """Medians over seeds or images, by place, machine and metric."""
        return {
            place: {
                kind: {name: median_by_t(values[name]) for name in METRICS}
                for kind, values in of_place.items()
            }
            for place, of_place in self.metrics.items()
        }

    def count(self, place: str) -> int:
        """How many seeds or images there are of a place."""
        return next(iter(self.metrics[place].values()))[METRICS[0]].shape[1]

    def arrays(self) -> dict[str, Tensor]:
        """The metrics as they are kept, by place, machine and metric."""
        return {
            f"{place}/{kind}/{name}": values
            for place, of_place in self.metrics.items()
            for kind, of_kind in of_place.items()
            for name, values in of_kind.items()
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Tensor], t: tuple[float, ...]) -> SameX | None:
        """From what `arrays` gave; None of nothing."""
        metrics: dict[str, dict[str, dict[str, Tensor]]] = {}
        for key, values in arrays.items():
            place, kind, name = key.split("/")
            metrics.setdefault(place, {}).setdefault(kind, {})[name] = values
        return cls(t, metrics) if metrics else None
