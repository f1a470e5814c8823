"""Errors of denoising and agreement at the same x, as records: what follows from them."""

from __future__ import annotations

import json
import math

import pytest
import torch

from els.analysis.answers import Denoising, SameX
from els.analysis.results import denoising_record, same_x_record

T = (1.0, 0.5)
ERRORS = {
    "held_out": {
        "network": torch.tensor([[0.4, 0.6], [0.1, 0.1]]),
        "wiener": torch.tensor([[0.5, 0.5], [0.2, 0.3]]),
    },
    "training": {
        "network": torch.tensor([[0.3, 0.5, 0.4], [0.05, 0.05, 0.05]]),
        "wiener": torch.tensor([[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]),
    },
}


def test_errors_are_means_shares_of_the_filters_and_gaps() -> None:
    found = Denoising(T, ERRORS)
    assert found.mean["held_out"]["network"].value == pytest.approx((0.5, 0.1))
    assert found.over_wiener["held_out"]["network"].value == pytest.approx((1, 0.4))
    assert list(found.over_wiener["training"]) == ["network"]
    assert found.gap["network"].value == pytest.approx((0.1, 0.05))
    assert found.gap["network"].low[1] == pytest.approx(0.05)
    record = denoising_record(found)
    assert record["images"] == {"held_out": 2, "training": 3}
    json.dumps(record, allow_nan=False)


def test_without_held_out_images_there_is_no_gap() -> None:
    alone = Denoising(T, {"training": ERRORS["training"]})
    assert alone.gap == {}
    assert denoising_record(alone)["gap"] == {}


def test_what_is_kept_is_found_again() -> None:
    found = Denoising.of(Denoising(T, ERRORS).arrays(), T)
    assert {split: list(sides) for split, sides in found.errors.items()} == {
        "held_out": ["network", "wiener"],
        "training": ["network", "wiener"],
    }
    assert torch.equal(found.errors["training"]["network"], ERRORS["training"]["network"])
    assert Denoising.of({}, T) is None
    values = torch.tensor([[0.5, 0.7], [math.nan, 0.2]])
    metrics = {"network": {"boundary": dict.fromkeys(("pearson_r", "r2", "R2"), values)}}
    same = SameX.of(SameX(T, metrics).arrays(), T)
    assert same.count("network") == 2
    assert same.median["network"]["boundary"]["R2"].value == pytest.approx((0.6, 0.2))
    json.dumps(same_x_record(same), allow_nan=False)
    assert SameX.of({}, T) is None
