"""Intervals by time: exact values, and the width that statistics gives them."""

from __future__ import annotations

import math

import pytest
import torch

from els.intervals import ByTime, gap_by_t, mean_by_t, median_by_t, ratio_by_t


def normal(steps: int, n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(steps, n, generator=torch.Generator().manual_seed(seed)).double()


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    values = normal(3, 400)
    found = mean_by_t(values)
    assert found.value == pytest.approx(values.mean(dim=1).tolist())
    for low, high, row in zip(found.low, found.high, values, strict=True):
        width = 2 * 1.96 * float(row.std()) / math.sqrt(400)
        assert high - low == pytest.approx(width, rel=0.05)
        assert low < float(row.mean()) < high


def test_a_ratio_over_the_same_images_has_no_interval_where_all_have_that_ratio() -> None:
    reference = normal(2, 30).square()
    found = ratio_by_t(0.5 * reference, reference)
    for line in (found.value, found.low, found.high):
        assert line == pytest.approx((0.5, 0.5))


def test_a_gap_of_independent_images_has_the_sum_of_their_variances() -> None:
    values, reference = normal(1, 300) + 1, 2 * normal(1, 500, seed=1)
    found = gap_by_t(values, reference)
    assert found.value[0] == pytest.approx(float(values.mean() - reference.mean()))
    error = math.sqrt(float(values.var()) / 300 + float(reference.var()) / 500)
    assert found.high[0] - found.low[0] == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_seeds_without_a_value_are_left_out_and_times_without_any_have_none() -> None:
    nan = math.nan
    found = median_by_t(torch.tensor([[1.0, nan, 3.0, 2.0], [nan] * 4]))
    assert found.value[0] == 2
    assert (found.low[0], found.high[0]) == (1, 3)
    assert math.isnan(found.value[1])
    assert found.record()["value"] == [2, None]
    assert ByTime((2.0,), (1.0,), (3.0,)).columns("a", 0) == {"a": 2, "a_low": 1, "a_high": 3}


def test_the_interval_of_a_median_is_that_of_a_summary() -> None:
    from els.agreement import summarise

    values = normal(2, 25)
    found = median_by_t(values)
    for i, row in enumerate(values):
        summary = summarise(row)
        assert found.value[i] == summary.median
        assert (found.low[i], found.high[i]) == pytest.approx(summary.ci95, abs=0.12)
