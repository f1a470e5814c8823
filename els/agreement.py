"""How well a machine predicts what a network draws from the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from einops import rearrange
from scipy.stats import bootstrap
from torch import Tensor
from torchmetrics.functional.regression import pearson_corrcoef, r2_score

from els.errors import InputError

METRICS = ("pearson_r", "r2", "R2")
IDEAL = "ideal"  # the machine that memorises, which others are measured against
_RESAMPLES = 9999
_FEW = 6  # a sign test of 5 seeds that all agree has p = 2 / 2^5 > 0.05


@dataclass(frozen=True)
class Summary:
    """A median over seeds.

    Attributes:
        median: the median.
        ci95: its 95 % percentile bootstrap interval over seeds.
    """

    median: float
    ci95: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{self.median:.2f} [{low:.2f}, {high:.2f}]"

    def columns(self, name: str) -> dict[str, float]:
        """The median by the name, and the ends of the interval as `_low` and `_high`."""
        low, high = self.ci95
        return {name: self.median, f"{name}_low": low, f"{name}_high": high}


@dataclass(frozen=True)
class Pair:
    """Two machines that predict the same samples, compared seed by seed.

    Attributes:
        machine: the one.
        other: the other.
        wins: the share of seeds on which the machine's pearson_r is above the other's, in [0, 1].
        difference: of their pearson_r on the same seed, the machine's less the other's.
        seeds: how many seeds there are.
    """

    machine: str
    other: str
    wins: float
    difference: Summary
    seeds: int

    @property
    def distinguishable(self) -> bool:
        """Whether the interval of the difference leaves out zero.

        Never on fewer than `_FEW` seeds, of which no agreement is beyond chance at 95 %.
        """
        low, high = self.difference.ci95
        return self.seeds >= _FEW and (low > 0 or high < 0)


@dataclass(frozen=True)
class MachineSummary:
    """How well a machine predicts a network.

    Attributes:
        metrics: each of `METRICS` over seeds.
        beats_ideal: the share of seeds on which its pearson_r is above that of `ideal`; None for
            `ideal` itself, and where it was not among the machines.
    """

    metrics: Mapping[str, Summary]
    beats_ideal: float | None = None


def agreement(machine: Tensor, network: Tensor) -> dict[str, Tensor]:
    """The three metrics for each of n pairs of images, over all pixels and channels.

    Args:
        machine: the machine's images (n c h w).
        network: the network's images (n c h w).

    Returns:
        `pearson_r`, Pearson's correlation (what the paper's code computes and plots as "r^2");
        `r2`, its square; `R2` = 1 - SSE / SST of the network's image. Each float64 (n,).

    Raises:
        InputError: when an image is constant, so that there is nothing to correlate.

    Example:
        >>> import torch
        >>> network = torch.arange(16.0).view(1, 1, 4, 4)
        >>> {name: float(value) for name, value in agreement(2 * network, network).items()}
        {'pearson_r': 1.0, 'r2': 1.0, 'R2': -2.647...}
    """
    a, b = (rearrange(images.double(), "n c h w -> (c h w) n") for images in (machine, network))
    for name, images in (("machine", a), ("network", b)):
        flat = (images == images[:1]).all(dim=0).nonzero().flatten().tolist()
        if flat:
            raise InputError(
                f"the {name}'s image {flat[0]} of {images.shape[1]} has the same value everywhere, "
                "so its agreement is undefined; train the network longer"
            )
    # torchmetrics drops the last axis for a single image; atleast keeps the shape (n,).
    pearson_r = pearson_corrcoef(a, b).reshape(-1).double()
    explained = r2_score(a, b, multioutput="raw_values").reshape(-1).double()
    return {"pearson_r": pearson_r, "r2": pearson_r**2, "R2": explained}


def agreement_by_t(machine: Tensor, network: Tensor) -> Tensor:
    """pearson_r of what two denoisers take the clean images to be, at every step of their paths.

    Args:
        machine: the machine's x0_hats (steps n c h w).
        network: the network's x0_hats (steps n c h w).

    Returns:
        pearson_r (steps n), float64.
    """
    steps = zip(machine, network, strict=True)
    return torch.stack([agreement(a, b)["pearson_r"] for a, b in steps])


def summarise(values: Tensor, *, seed: int = 0) -> Summary:
    """Median and bootstrap interval of values (n,), the same every time."""
    data = values.double().cpu().numpy()
    median = float(np.median(data))
    if np.ptp(data) == 0:  # one seed, or all alike: nothing to resample
        return Summary(median, (median, median))
    interval = bootstrap(
        (data,), np.median, n_resamples=_RESAMPLES, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Summary(median, (float(interval.low), float(interval.high)))


def compare_pairs(by_seed: Mapping[str, Mapping[str, Tensor]]) -> tuple[Pair, ...]:
    """Every two machines on the same seeds, from what `agreement` found of each.

    A paired test: seeds are predicted well or badly by all machines alike, which cancels in the
    difference on a seed and makes intervals of single machines overlap.

    Example:
        >>> import torch
        >>> scores = {"a": torch.tensor([0.9, 0.8, 0.7]), "b": torch.tensor([0.8, 0.7, 0.6])}
        >>> by_seed = {kind: {"pearson_r": value} for kind, value in scores.items()}
        >>> [(one.machine, one.other, one.wins) for one in compare_pairs(by_seed)]
        [('a', 'b', 1.0)]
    """
    return tuple(
        Pair(
            machine=machine,
            other=other,
            wins=beats(by_seed[machine], by_seed[other]),
            difference=summarise(by_seed[machine]["pearson_r"] - by_seed[other]["pearson_r"]),
            seeds=len(by_seed[machine]["pearson_r"]),
        )
        for machine, other in combinations(by_seed, 2)
    )


def beats(machine: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The share of seeds on which one machine's pearson_r is above another's, in [0, 1]."""
    return float((machine["pearson_r"] > other["pearson_r"]).double().mean())


def summarise_machines(by_seed: Mapping[str, Mapping[str, Tensor]]) -> dict[str, MachineSummary]:
    """The summary of each machine, from what `agreement` found of each."""
    ideal = by_seed.get(IDEAL)
    return {
        kind: MachineSummary(
            metrics={name: summarise(values[name]) for name in METRICS},
            beats_ideal=None if ideal is None or kind == IDEAL else beats(values, ideal),
        )
        for kind, values in by_seed.items()
    }
