"""How well a machine predicts what a network draws from the same noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from scipy.stats import binom, bootstrap
from torch import Tensor
from torchmetrics.functional.regression import pearson_corrcoef, r2_score

from els.errors import InputError

METRICS = ("pearson_r", "r2", "R2")
IDEAL = "ideal"  # the machine that memorises, which others are measured against
_RESAMPLES = 9999
ENDS = (2.5, 97.5)  # of a 95 % interval, in per cent
FEW = 6  # a sign test of 5 seeds that all agree has p = 2 / 2^5 > 0.05


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
class Mean:
    """A mean over seeds or images.

    Attributes:
        mean: the mean.
        ci95: its 95 % percentile bootstrap interval over them.
    """

    mean: float
    ci95: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{self.mean:.3f} [{low:.3f}, {high:.3f}]"

    def columns(self, name: str) -> dict[str, float]:
        """The mean by the name, and the ends of the interval as `_low` and `_high`."""
        low, high = self.ci95
        return {name: self.mean, f"{name}_low": low, f"{name}_high": high}


@dataclass(frozen=True)
class Pair:
    """Two machines that predict the same samples, compared seed by seed.

    Attributes:
        machine: the one.
        other: the other.
        wins: the share of seeds on which the machine's metric (pearson_r unless something else is
            said) is above the other's, in [0, 1].
        difference: of their metric on the same seed, the machine's less the other's.
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

        Never on fewer than `FEW` seeds, of which no agreement is beyond chance at 95 %.
        """
        low, high = self.difference.ci95
        return self.seeds >= FEW and (low > 0 or high < 0)

    def lead_of(self, name: str) -> Summary:
        """What the metric of one of the two is above that of the other, on the same seed.

        Example:
            >>> print(Pair("a", "b", 1.0, Summary(0.2, (0.1, 0.4)), 6).lead_of("b"))
            -0.20 [-0.40, -0.10]
        """
        if name == self.machine:
            return self.difference
        low, high = self.difference.ci95
        return Summary(-self.difference.median, (-high, -low))


@dataclass(frozen=True)
class MachineSummary:
    """How well a machine predicts a network.

    Attributes:
        metrics: each of `METRICS` over seeds.
        beats_ideal: the share of seeds on which its pearson_r is above that of `ideal`; None for
            `ideal` itself, and where it was not among the machines.
        of_ceiling: the share of what other networks reach, of each metric for which that is above
            zero; see `els.ceiling`.
        undefined: on how many seeds the machine's or the network's image is constant, so that
            nothing correlates; they are in none of the numbers.
    """

    metrics: Mapping[str, Summary]
    beats_ideal: float | None = None
    of_ceiling: Mapping[str, Summary] = field(default_factory=dict)
    undefined: int = 0


def agreement(machine: Tensor, network: Tensor) -> dict[str, Tensor]:
    """The three metrics for each of n pairs of images, over all pixels and channels.

    Args:
        machine: the machine's images (n c h w).
        network: the network's images (n c h w).

    Returns:
        `pearson_r`, Pearson's correlation (what the paper's code computes and plots as "r^2");
        `r2`, its square; `R2` = 1 - SSE / SST of the network's image. Each float64 (n,), NaN where
        an image has the same value everywhere, so that there is nothing to correlate.

    Raises:
        InputError: when that is so of every pair, or an image is not finite.

    Example:
        >>> import torch
        >>> network = torch.arange(16.0).view(1, 1, 4, 4)
        >>> {name: float(value) for name, value in agreement(2 * network, network).items()}
        {'pearson_r': 1.0, 'r2': 1.0, 'R2': -2.647...}
    """
    for name, images in (("machine", machine), ("network", network)):
        if not images.isfinite().all():
            raise InputError(
                f"images of the {name} are NaN or infinite, so their agreement is undefined; use "
                "another checkpoint of the network, or clamp it with --clip"
            )
    found = {name: values[0] for name, values in metrics_by_t(machine[None], network[None]).items()}
    if len(machine) and found["pearson_r"].isnan().all():
        whose = " and ".join(
            f"the {name}'s images"
            for name, images in (("machine", machine), ("network", network))
            if (images.flatten(1) == images.flatten(1)[:, :1]).all()
        )
        raise InputError(
            f"{whose or 'in every pair an image'} have the same value everywhere, so agreement is "
            "undefined; look at the training images (are they constant?), or train the network "
            "longer"
        )
    return found


def _metrics(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """The metrics of columns of values (m n), none of them constant."""
    # torchmetrics drops the last axis for a single image; the shape (n,) is kept here.
    pearson_r = pearson_corrcoef(a, b).reshape(-1).double()
    explained = r2_score(a, b, multioutput="raw_values").reshape(-1).double()
    return {"pearson_r": pearson_r, "r2": pearson_r**2, "R2": explained}


def metrics_by_t(machine: Tensor, network: Tensor) -> dict[str, Tensor]:
    """The three metrics at each of several times, NaN where an image is constant.

    Args:
        machine: the machine's x0_hats (steps n c h w).
        network: the network's x0_hats (steps n c h w).

    Returns:
        each of `METRICS` (steps n), float64 on the CPU; see `agreement`.

    Example:
        >>> network = torch.tensor([[0.0, 1.0], [1.0, 1.0]]).view(1, 2, 1, 1, 2)
        >>> metrics_by_t(network, network)["pearson_r"].tolist()
        [[1.0, nan]]
    """
    steps, n = machine.shape[:2]
    a, b = (
        rearrange(x0_hats.double().cpu(), "t n c h w -> (c h w) (t n)")
        for x0_hats in (machine, network)
    )
    varied = ~((a == a[:1]).all(dim=0) | (b == b[:1]).all(dim=0))
    found = {name: a.new_full((steps * n,), torch.nan) for name in METRICS}
    if varied.any():
        for name, values in _metrics(a[:, varied], b[:, varied]).items():
            found[name][varied] = values
    return {name: values.reshape(steps, n) for name, values in found.items()}


def locality_score(machine: Tensor, network: Tensor) -> Tensor:
    """The score of locality-in-diffusion-models (Lukoianov et al., arXiv 2509.09672).

    1 - SS_res / (m var) for each of n pairs of images, with the unbiased variance of the network's
    image over its m values: a little above `R2`, which divides by (m - 1) var.

    Args:
        machine: the machine's images (n c h w).
        network: the network's images (n c h w).

    Returns:
        scores (n,), float64, at most 1; NaN where the network's image has the same value
        everywhere, of which nothing can be explained.

    Example:
        >>> import torch
        >>> network = torch.arange(4.0).view(1, 1, 2, 2)  # unbiased variance 5 / 3
        >>> locality_score(network + 1, network).tolist()
        [0.4]
    """
    a, b = (images.double().flatten(1) for images in (machine, network))
    scores = 1 - (a - b).square().sum(dim=1) / (b.shape[1] * b.var(dim=1))
    return scores.masked_fill((b == b[:, :1]).all(dim=1), torch.nan)


def agreement_by_t(machine: Tensor, network: Tensor) -> Tensor:
    """pearson_r of what two denoisers take the clean images to be, at every step of their paths.

    Args:
        machine: the machine's x0_hats (steps n c h w).
        network: the network's x0_hats (steps n c h w).

    Returns:
        pearson_r (steps n), float64, NaN where an image is constant.
    """
    return metrics_by_t(machine, network)["pearson_r"]


def summarise(values: Tensor, *, seed: int = 0) -> Summary:
    """Median and bootstrap interval of values (n,) but for NaN, the same every time."""
    return Summary(*_bootstrapped(values, np.median, seed))


def summarise_mean(values: Tensor, *, seed: int = 0) -> Mean:
    """Mean and bootstrap interval of values (n,) but for NaN, the same every time."""
    return Mean(*_bootstrapped(values, np.mean, seed))


def summarise_together(values: Tensor, comparisons: int) -> Summary:
    """Median of values (n,) but for NaN, with the exact interval of the sign test.

    Its ends are order statistics; they hold in so many comparisons together at 95 % (Bonferroni),
    and are infinite where there are too few values for that.

    Example:
        >>> summarise_together(torch.arange(8.0), comparisons=6).ci95  # 2 / 2^8 < 0.05 / 6
        (0.0, 7.0)
        >>> summarise_together(torch.arange(8.0), comparisons=7).ci95
        (-inf, inf)
    """
    data = values[~values.isnan()].double().sort().values
    n, tail = len(data), ENDS[0] / 100 / comparisons
    outside = int((binom.cdf(np.arange(n // 2), n, 0.5) <= tail).sum())  # on either side
    median = float(data.quantile(0.5)) if n else math.nan
    if not outside:
        return Summary(median, (-math.inf, math.inf))
    return Summary(median, (float(data[outside - 1]), float(data[n - outside])))


def _bootstrapped(
    values: Tensor, statistic: Callable[..., Any], seed: int
) -> tuple[float, tuple[float, float]]:
    data = values[~values.isnan()].double().cpu().numpy()
    if not len(data):
        return math.nan, (math.nan, math.nan)
    found = float(statistic(data))
    if np.ptp(data) == 0:  # one seed, or all alike: nothing to resample
        return found, (found, found)
    interval = bootstrap(
        (data,), statistic, n_resamples=_RESAMPLES, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return found, (float(interval.low), float(interval.high))


def share(values: Tensor, reference: Tensor, *, seed: int = 0) -> Summary | None:
    """The ratio of two medians over the same seeds (n,), resampled together.

    None where the reference's own interval reaches zero, of which nothing is a share.

    Example:
        >>> str(share(torch.tensor([0.4, 0.5]), torch.tensor([0.8, 1.0])))
        '0.50 [0.50, 0.50]'
    """
    both = ~(values.isnan() | reference.isnan())
    values, reference = values[both], reference[both]
    if not summarise(reference, seed=seed).ci95[0] > 0:  # nor of no seeds
        return None
    a, b = (one.double().cpu().numpy() for one in (values, reference))
    found = float(np.median(a) / np.median(b))
    drawn = resamples(len(a), seed=seed)
    low, high = np.percentile(np.median(a[drawn], axis=1) / np.median(b[drawn], axis=1), ENDS)
    return Summary(found, (float(low), float(high)))


def shares(values: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Summary]:
    """`share` of each of `METRICS` that has one."""
    found = {name: share(values[name], reference[name]) for name in METRICS}
    return {name: one for name, one in found.items() if one is not None}


def resamples(n: int, *, seed: int = 0) -> NDArray[np.int64]:
    """The bootstrap's choices of n out of n (resamples n), the same every time."""
    return np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n))


def compare_pairs(
    by_seed: Mapping[str, Mapping[str, Tensor]], metric: str = "pearson_r"
) -> tuple[Pair, ...]:
    """Every two machines on the same seeds, by a metric of what `agreement` found of each.

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
            wins=beats(by_seed[machine], by_seed[other], metric),
            difference=summarise(differences),
            seeds=int((~differences.isnan()).sum()),
        )
        for (machine, other), differences in _differences(by_seed, metric).items()
    )


def _differences(
    by_seed: Mapping[str, Mapping[str, Tensor]], metric: str
) -> dict[tuple[str, str], Tensor]:
    """What the metric of the one is above that of the other (n,), of every two machines."""
    pairs = {
        (one, other): by_seed[one][metric] - by_seed[other][metric]
        for one, other in combinations(by_seed, 2)
    }
    return {names: values for names, values in pairs.items() if not values.isnan().all()}


def beats(
    machine: Mapping[str, Tensor], other: Mapping[str, Tensor], metric: str = "pearson_r"
) -> float:
    """The share of seeds on which one machine's metric is above another's, in [0, 1].

    Of the seeds on which both are defined; 0 where there are none.
    """
    difference = machine[metric] - other[metric]
    difference = difference[~difference.isnan()]
    return float((difference > 0).double().mean()) if len(difference) else 0.0


def summarise_machines(
    by_seed: Mapping[str, Mapping[str, Tensor]], ceiling: Mapping[str, Tensor] | None = None
) -> dict[str, MachineSummary]:
    """The summary of each machine, from what `agreement` found of each.

    Args:
        by_seed: the metrics (n,) of each machine.
        ceiling: those of other networks on the same seeds, where there are any.
    """
    ideal = by_seed.get(IDEAL)
    return {
        kind: MachineSummary(
            metrics={name: summarise(values[name]) for name in METRICS},
            beats_ideal=None if ideal is None or kind == IDEAL else beats(values, ideal),
            of_ceiling={} if ceiling is None else shares(values, ceiling),
            undefined=int(values["pearson_r"].isnan().sum()),
        )
        for kind, values in by_seed.items()
    }
