from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conftest import shared
from made_results import made_results

from els.analysis.report.released import released_sizes
from els.models.blocks import NetworkFacts


@pytest.mark.parametrize(
    ("name", "field", "data", "labels", "row"),
    [
        ("ResNet", 17, "mnist", False, "MNIST_ResNet_zeros"),
        ("UNet", 46, "cifar10", True, "CIFAR10_UNet_zeros_conditional"),
        ("UNet", 46, "cifar10", False, None),
        ("ResNet", 17, "celeba", False, None),
        ("UNet", None, "mnist", False, None),
    ],
)
def test_the_papers_curve_is_that_of_the_row(
    name: str, field: int | None, data: str, labels: bool, row: str | None
) -> None:
    made = made_results(("boundary", "ideal"))
    n = len(made.seeds)
    facts = NetworkFacts(name, "circular" if data == "celeba" else "zeros", None, 10, field)
    source = made.provenance
    one = replace(
        made, noise=torch.zeros(n, 1, 32, 32), labels=torch.zeros(n).long() if labels else None,
        provenance=replace(source, network=facts, data=replace(source.data, name=data)),
    )  # fmt: skip
    found = released_sizes(one)
    if row is None:
        assert found is None
        return
    released = json.loads(shared("golden", "paper_scales.json").read_text())["scales"][row]
    assert list(found.values()) == released
    assert list(found) == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert released_sizes(replace(one, noise=torch.zeros(n, 1, 16, 16))) is None
