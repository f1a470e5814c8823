"""What is found along training: the agreement of machines with every snapshot of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, PlainSerializer

from els.agreement import METRICS, Mean, Summary, summarise, summarise_mean, summarise_together
from els.analysis.results import Provenance
from els.errors import InputError
from els.files import write_record
from els.novelty import Share, copied_share
from els.reading import member, read_record
from els.schedule import COSINE

ALONG = "along.json"
OWN, LAST = "own", "last"  # scales fitted to each snapshot, and those of the last one
# JSON knows no NaN: it is null there.
Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else None),
]
Numbers = tuple[Number, ...]
_SHOWN_T = (0.75, 0.5, 0.25)


@dataclass(frozen=True)
class Moment:
    """One snapshot.

    Attributes:
        step: of training.
        sha256: digest of its files.
        val_loss: the last held-out loss that training had measured by then; None where there was
            none, or it diverged.
        agreement: of the scales ("own", "last") and machine, each metric by seed; NaN where an
            image has the same value everywhere.
        by_t: of a machine at its own scales, the median over seeds of pearson_r of the x0_hats at
            each t, every denoiser on its own path; NaN where none is defined.
        scales: of each machine that has one, the fitted value at each t.
        errors: of "held_out" and "training" images, the mean squared error of the network's x0_hat
            by image and t (n T), images in [-1, 1].
        memorised: of the network's samples by seed, the share of the pixels that are those of a
            training image beyond chance (`els.novelty.Novelty`).
        ratios: of the network's samples by seed, d1 / d2 "in_place" and "shifted", up to
            translation; NaN where there is no second training image.
    """

    step: int
    sha256: str
    val_loss: float | None
    agreement: Mapping[str, Mapping[str, Mapping[str, Numbers]]]
    by_t: Mapping[str, Numbers]
    scales: Mapping[str, tuple[float, ...]]
    errors: Mapping[str, tuple[Numbers, ...]] = field(default_factory=dict)
    memorised: tuple[float, ...] = ()
    ratios: Mapping[str, Numbers] = field(default_factory=dict)

    @property
    def copied(self) -> dict[str, Share]:
        """The shares of copies: "in_place", and "shifted", where there are ratios."""
        shares = {name: copied_share(torch.tensor(one)) for name, one in self.ratios.items()}
        return {name: one for name, one in shares.items() if one is not None}

    def error(self, images: str, step: int) -> Mean:
        """The squared error of x0_hat at one of the steps of sampling, averaged over images."""
        return summarise_mean(self._errors(images)[:, step])

    def loss(self, images: str, t: tuple[float, ...]) -> Mean:
        """What training minimises, the squared error of eps_hat, averaged over t and images.

        At each t it is that of x0_hat times (alpha / sigma)^2. Times are those of the cosine
        schedule, whichever of them are visited in sampling.
        """
        times = torch.tensor(t, dtype=torch.float64)
        weight = (COSINE.alpha(times) / COSINE.sigma(times)) ** 2
        return summarise_mean((self._errors(images) * weight).mean(dim=1))

    def _errors(self, images: str) -> torch.Tensor:
        return torch.tensor(self.errors[images], dtype=torch.float64)


@dataclass(frozen=True)
class Along:
    """The machines against every snapshot of one training.

    Attributes:
        provenance: what it was made from; its checkpoint is the folder of the snapshots.
        seeds: the evaluation seeds.
        t: the times of the steps of sampling, t = 1 first.
        moments: the snapshots, in the order of training.
    """

    provenance: Provenance
    seeds: tuple[int, ...]
    t: tuple[float, ...]
    moments: tuple[Moment, ...]

    def __repr__(self) -> str:
        return f"Along({self.provenance.run}, {len(self.moments)} snapshots)"

    @property
    def steps(self) -> tuple[int, ...]:
        """Training steps of the snapshots."""
        return tuple(one.step for one in self.moments)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The machines, the one that is meant to predict the network first."""
        return tuple(self.moments[-1].agreement[LAST])

    @property
    def primary(self) -> str:
        """The machine that is meant to predict the network."""
        return self.kinds[0]

    @property
    def shown_t(self) -> tuple[int, ...]:
        """The steps of sampling whose denoising errors are shown: of three noise levels.

        Averaged over t, the errors at pure noise would hide all others.
        """
        nearest = (
            min(range(len(self.t)), key=lambda i: abs(self.t[i] - time)) for time in _SHOWN_T
        )
        return tuple(dict.fromkeys(nearest))

    @property
    def refitted(self) -> bool:
        """Whether scales were fitted to every snapshot."""
        return OWN in self.moments[0].agreement

    @property
    def scales(self) -> str:
        """Of which scales the main result is: each snapshot's own where they were fitted."""
        return OWN if self.refitted else LAST

    def values(self, moment: int, kind: str, metric: str, *, scales: str = "") -> torch.Tensor:
        """A metric of a machine by seed (n,) at one of the snapshots."""
        found = self.moments[moment].agreement[scales or self.scales][kind][metric]
        return torch.tensor(found, dtype=torch.float64)

    @cached_property
    def summaries(self) -> dict[str, dict[str, dict[str, tuple[Summary, ...]]]]:
        """By scales, machine and metric: the summary over seeds at each snapshot."""
        return {
            scales: {
                kind: {
                    metric: tuple(
                        summarise(self.values(i, kind, metric, scales=scales))
                        for i in range(len(self.moments))
                    )
                    for metric in METRICS
                }
                for kind in self.kinds
            }
            for scales in self.moments[0].agreement
        }

    def best(self, kind: str) -> int:
        """The snapshot that a machine agrees with best, by the median pearson_r."""
        scores = (self.values(i, kind, "pearson_r") for i in range(len(self.moments)))
        medians = [float(one.nanquantile(0.5)) for one in scores]
        return medians.index(max(medians))

    def below_best(self, kind: str, moment: int) -> Summary:
        """By how much pearson_r at a snapshot is below that at the best one, seed by seed.

        The intervals hold for all pairs of snapshots together: the best is chosen by looking at the
        same seeds, and of many that are alike one is always highest.
        """
        best = self.values(self.best(kind), kind, "pearson_r")
        pairs = math.comb(len(self.moments), 2)
        return summarise_together(best - self.values(moment, kind, "pearson_r"), max(1, pairs))

    def as_good(self, kind: str) -> tuple[bool, ...]:
        """At each snapshot: whether it cannot be told from the best, by `below_best`."""
        return tuple(self.below_best(kind, i).ci95[0] <= 0 for i in range(len(self.moments)))

    def undefined(self, kind: str) -> int:
        """How many agreements with snapshots are undefined, of a seed and snapshot each."""
        found = (self.values(i, kind, "pearson_r") for i in range(len(self.moments)))
        return sum(int(one.isnan().sum()) for one in found)

    def save(self, folder: str | Path) -> Path:
        """Write as JSON, whole or not at all; returns the path."""
        path = Path(folder) / ALONG
        write_record(path, self)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Along:
        """Read what `save` wrote.

        Raises:
            InputError: when it is missing or damaged.
        """
        try:
            return read_record(cls, member(Path(folder), ALONG))
        except (OSError, ValueError) as error:
            raise InputError(f"'{folder}' holds no agreement along training: {error}") from error

    def rows(self) -> list[dict[str, Any]]:
        """One row a snapshot: its losses, and every metric of every machine with its interval."""
        return [self._row(i, one) for i, one in enumerate(self.moments)]

    def _row(self, i: int, moment: Moment) -> dict[str, Any]:
        row: dict[str, Any] = {"step": moment.step, "val_loss": moment.val_loss}
        for images in moment.errors:
            row |= moment.loss(images, self.t).columns(f"loss/{images}")
            for at in self.shown_t:
                row |= moment.error(images, at).columns(f"error/{images}/t{self.t[at]:.2g}")
        if moment.memorised:
            row |= summarise(torch.tensor(moment.memorised)).columns("memorised/network")
        for name, share in moment.copied.items():
            row |= share.columns(f"copied/{name}")
        for scales, by_kind in self.summaries.items():
            for kind, by_metric in by_kind.items():
                for metric, found in by_metric.items():
                    row |= found[i].columns(f"{kind}/{metric}/{scales}")
        return row
