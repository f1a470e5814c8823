from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conftest import shared
from made_results import made_results, with_answers

from els.analysis.report.published import paper_row, row_of
from els.analysis.report.tables import agreement_cells
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
    found = paper_row(one)
    if row is None:
        assert found is None
        return
    released = json.loads(shared("golden", "paper_scales.json").read_text())["scales"][row]
    assert list(found.sizes.values()) == released
    assert list(found.sizes) == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert paper_row(replace(one, noise=torch.zeros(n, 1, 16, 16))) is None


def test_the_papers_medians_stand_beside_ours() -> None:
    row = row_of("cifar10", "ResNet", "zeros", conditional=True, shape=(32, 32))
    assert row is not None
    assert row.pearson_r("boundary", 150) == 0.95
    assert row.pearson_r("boundary", 20) == 0.90
    assert row.pearson_r("equivariant", 150) is None
    assert row.pearson_r("boundary", 10) is None
    circular = row_of("cifar10", "ResNet", "circular", conditional=True, shape=(32, 32))
    assert circular is not None
    assert circular.pearson_r("equivariant", 20) == 0.90
    (one,) = with_answers(made_results(("boundary", "wiener", "ideal"))).agreement
    other = replace(one, network_steps=10)
    assert agreement_cells(other, paper=row) == agreement_cells(other)
    with_medians = agreement_cells(replace(one, network_steps=150), paper=row)
    assert [cells[-1] for cells in with_medians[:4]] == [
        "the paper's r", "0.95", "", "0.42",
    ]  # fmt: skip
    assert {len(cells) for cells in with_medians} == {4}
