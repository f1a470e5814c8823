"""How well networks from other seeds predict a network, and what a theory could reach by that.

Two networks that differ by the seed of their training alone draw different images from the same
noise. What they do not share no theory of the architecture and the data can predict. Another
network is no upper bound itself, as it has an error of its own, which a theory has not: of a signal
of variance s and errors of variance e in both, networks correlate with r = s / (s + e) and R2 =
1 - 2 e / (s + e), the signal with sqrt(r) and (1 + R2) / 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from els.agreement import METRICS, Summary, agreement, metrics_by_t, summarise

Pairs = dict[tuple[str, str], dict[str, Tensor]]


@dataclass(frozen=True)
class NetworkPair:
    """How alike two networks draw from the same noise.

    Attributes:
        network: the one; R2 is of its images.
        other: the other.
        metrics: each of `els.agreement.METRICS` over seeds.
    """

    network: str
    other: str
    metrics: Mapping[str, Summary]


@dataclass(frozen=True)
class Ceiling:
    """How well other networks predict a network.

    Attributes:
        metrics: each of `els.agreement.METRICS` over seeds, on each seed the mean of the others.
        pairs: every two networks, those of the network that is analysed first.
    """

    metrics: Mapping[str, Summary]
    pairs: tuple[NetworkPair, ...]

    @property
    def bounds(self) -> dict[str, float]:
        """What a theory without an error of its own would reach of each metric.

        By the medians, where networks share a signal and have independent errors of one variance.
        NaN where they share none: of correlations below 0, and of an R2 below -1.
        """
        r, explained = (self.metrics[name].median for name in ("pearson_r", "R2"))
        r = r if r >= 0 else math.nan
        explained = explained if explained >= -1 else math.nan
        return {"pearson_r": math.sqrt(r), "r2": r, "R2": (1 + explained) / 2}


def network_pairs(samples: Mapping[str, Tensor]) -> Pairs:
    """The metrics (n,) of every two networks, see `els.agreement.agreement`.

    Args:
        samples: what each network draws from the same noise (n c h w).

    Returns:
        by (network, other), R2 being 1 - SSE / SST of the network's image.

    Raises:
        InputError: as `els.agreement.agreement`, of any two of them.

    Example:
        >>> first = torch.arange(16.0).view(1, 1, 4, 4)
        >>> found = network_pairs({"a": first, "b": 2 * first, "c": -first})
        >>> [(pair, float(one["pearson_r"])) for pair, one in found.items()]
        [(('a', 'b'), 1.0), (('a', 'c'), -1.0), (('b', 'c'), -1.0)]
    """
    return {
        (one, other): agreement(samples[other], samples[one])
        for one, other in combinations(samples, 2)
    }


def ceiling_by_seed(pairs: Pairs, network: str) -> dict[str, Tensor]:
    """The metrics (n,) that other networks reach for one: on each seed the mean of the others."""
    return mean_metrics([metrics for (one, _), metrics in pairs.items() if one == network])


def ceiling_by_t(network: Tensor, others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The metrics (steps n) of other networks' x0_hats, each network on its own path.

    Args:
        network: the x0_hats of one network (steps n c h w).
        others: those of the others, of whose metrics the mean is taken.
    """
    return mean_metrics([metrics_by_t(x0_hats, network) for x0_hats in others.values()])


def mean_metrics(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each metric over several networks: over those of them where it is defined.

    NaN where it is of none, as on a seed of which the network's own image is constant.
    """
    return {name: torch.stack([one[name] for one in found]).nanmean(dim=0) for name in METRICS}


def summarise_ceiling(pairs: Pairs, network: str) -> Ceiling:
    """Medians and intervals over seeds, from what `network_pairs` found.

    Args:
        pairs: of networks, among them one with each of the others in the first place.
        network: that one.
    """
    return Ceiling(
        metrics={
            name: summarise(values) for name, values in ceiling_by_seed(pairs, network).items()
        },
        pairs=tuple(
            NetworkPair(one, other, {name: summarise(metrics[name]) for name in METRICS})
            for (one, other), metrics in pairs.items()
        ),
    )
