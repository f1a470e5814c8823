"""Values by time with their 95 % bootstrap intervals over seeds or images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from els.agreement import ENDS, resamples

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ByTime:
    """A value at each time with its 95 % percentile bootstrap interval.

    Attributes:
        value: the value; NaN where there is none.
        low: the lower end of the interval.
        high: its upper end.
    """

    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def record(self) -> dict[str, list[float | None]]:
        """As JSON holds it, which knows no NaN."""
        return {
            name: [one if np.isfinite(one) else None for one in values]
            for name, values in (("value", self.value), ("low", self.low), ("high", self.high))
        }

    def columns(self, name: str, i: int) -> dict[str, float]:
        """The i-th value by the name, and the ends of its interval as `_low` and `_high`."""
        return {name: self.value[i], f"{name}_low": self.low[i], f"{name}_high": self.high[i]}


def median_by_t(values: Tensor) -> ByTime:
    """Medians over seeds of values (steps n); seeds without a value (NaN) are left out.

    Example:
        >>> median_by_t(torch.tensor([[1.0, 1.0, 1.0]])).high
        (1.0,)
    """
    rows = [row[~row.isnan()].double().numpy() for row in values.cpu()]
    found = [np.median(row) if len(row) else np.nan for row in rows]
    drawn = [
        np.median(row[resamples(len(row))], axis=1) if len(row) else np.full(1, np.nan)
        for row in rows
    ]
    return _of([float(one) for one in found], np.array([np.percentile(one, ENDS) for one in drawn]))


def mean_by_t(values: Tensor) -> ByTime:
    """Means over images of values (steps n)."""
    return _of(values.double().mean(dim=1).tolist(), _ends(_means(values)))


def ratio_by_t(values: Tensor, reference: Tensor) -> ByTime:
    """Ratios of two means over the same images (steps n), which are resampled together.

    Example:
        >>> ratio_by_t(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 4.0]])).value
        (0.5,)
    """
    found = values.double().mean(dim=1) / reference.double().mean(dim=1)
    return _of(found.tolist(), _ends(_means(values) / _means(reference)))


def gap_by_t(values: Tensor, reference: Tensor) -> ByTime:
    """What the mean of a reference (steps m) is lower by than that of values (steps n).

    They are of different images, each resampled by itself.

    Example:
        >>> gap_by_t(torch.tensor([[3.0, 3.0]]), torch.tensor([[1.0]])).low
        (2.0,)
    """
    found = values.double().mean(dim=1) - reference.double().mean(dim=1)
    return _of(found.tolist(), _ends(_means(values) - _means(reference, seed=1)))


def relative_gap_by_t(values: Tensor, reference: Tensor) -> ByTime:
    """`gap_by_t` as a share of the mean of values: 0 is no gap, 1 a reference of zero.

    Example:
        >>> relative_gap_by_t(torch.tensor([[4.0, 4.0]]), torch.tensor([[1.0]])).value
        (0.75,)
    """
    found = 1 - reference.double().mean(dim=1) / values.double().mean(dim=1)
    return _of(found.tolist(), _ends(1 - _means(reference, seed=1) / _means(values)))


def _means(values: Tensor, *, seed: int = 0) -> Array:
    """Means of bootstrap resamples (steps resamples) of values (steps n)."""
    rows = values.double().cpu().numpy()
    n = rows.shape[1]
    drawn = resamples(n, seed=seed)
    counts = np.zeros((len(drawn), n))
    np.add.at(counts, (np.arange(len(drawn))[:, None], drawn), 1.0)
    means: Array = rows @ counts.T / n
    return means


def _ends(drawn: Array) -> Array:
    """The ends of the intervals (steps 2)."""
    ends: Array = np.percentile(drawn, ENDS, axis=1).T
    return ends


def _of(values: list[float], ends: Array) -> ByTime:
    low, high = (tuple(line) for line in ends.T.tolist())
    return ByTime(tuple(values), low, high)
