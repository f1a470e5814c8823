"""What the page's scripts are given of the pictures."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_results import made_mosaic, made_results

from els.analysis.attribution import NETWORK
from els.analysis.comparison import Comparison
from els.analysis.report import pictures

KINDS = ("boundary", "local", "ideal")


def test_numbers_are_packed_as_they_are() -> None:
    values = torch.tensor([[1.5, -2.0], [0.0, 3.25]])
    found = np.frombuffer(base64.b64decode(pictures.packed(values, "<f4")), "<f4")
    assert found.tolist() == [1.5, -2.0, 0.0, 3.25]
    large = np.frombuffer(base64.b64decode(pictures.packed(torch.tensor([70_000]), "<u4")), "<u4")
    assert large.tolist() == [70_000]


def test_the_first_screen_has_what_was_analysed_of_theory_and_memoriser() -> None:
    results = made_results(KINDS)
    shown = pictures.hero(results, results.attribution, results.order)
    assert [column["name"] for column in shown["columns"]] == ["network", "theory"]
    paths = {**results.attribution.paths, "ideal": results.attribution.paths[NETWORK]}
    attribution = replace(results.attribution, paths=paths)
    shown = pictures.hero(results, attribution, results.order)
    assert [(c["name"], c["detail"], c["row"]) for c in shown["columns"]] == [
        ("network", "", 0),
        ("theory", "boundary (ELS)", 1),
        ("memoriser", "ideal (IS)", 2),
    ]
    assert [row["note"] for row in shown["rows"]] == ["best", "median", "worst"]
    alone = made_results(("ideal",))
    names = [c["name"] for c in pictures.hero(alone, alone.attribution, (0,))["columns"]]
    assert names == ["network", "theory"]


def test_the_gallery_has_each_machines_numbers_under_its_column() -> None:
    results = made_results(KINDS)
    shown = pictures.gallery(results, results.order[:2])
    assert [c["name"] for c in shown["columns"]] == ["noise", NETWORK, *KINDS]
    assert [c.get("paper") for c in shown["columns"]] == [None, None, "ELS", "LS", "IS"]
    for column in shown["columns"][2:]:
        values = results.by_seed[column["name"]]["R2"][list(results.order[:2])]
        assert column["metrics"]["R2"] == pytest.approx(values.tolist(), rel=1e-3)


def test_it_opens_in_the_heaviest_region_of_patches_that_can_be_seen() -> None:
    mosaic = made_mosaic((1.0, 0.5, 0.1), seeds=2)
    best, weight = mosaic.best.clone(), torch.full_like(mosaic.weight, 0.01)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    for step, seed in ((1, 1), (2, 0)):  # a piece of image 3, moved by one row
        best[step, seed, 0, 3:5, 3:5] = 3
        best[step, seed, 1, 3:5, 3:5] = (rows + 1)[3:5, 3:5].int()
        best[step, seed, 2, 3:5, 3:5] = columns[3:5, 3:5].int()
        weight[step, seed, 3:5, 3:5] = 0.6
    weight[1, 1, 4, 3] = 0.9
    weight[0, 0, 0, 0] = 1  # its patch reaches over the border
    made = replace(mosaic, best=best, weight=weight, sides=(7, 7, 3))
    found = pictures.most_telling(made, (0, 1), steps=4)
    assert found == {"seed": 1, "step": 2, "pixel": 4 * 8 + 3}
    small = replace(made, sides=(3, 3, 3))  # no patch can be seen well: any of them
    assert pictures.most_telling(small, (0, 1), steps=4)["pixel"] == 4 * 8 + 3


def test_networks_are_shown_from_the_same_noise() -> None:
    one, two = made_results(KINDS, seeds=7), made_results(("local",), seeds=6)
    shown = pictures.compared(Comparison((one, two)))
    assert [n["machine"] for n in shown["networks"]] == ["boundary (ELS)", "local (LS)"]
    assert len(shown["rows"]) == 3
    seeds = [int(row.removeprefix("seed ")) for row in shown["rows"]]
    for network, results in zip(shown["networks"], (one, two), strict=True):
        values = results.by_seed[results.primary]["pearson_r"][seeds]
        assert network["pearson_r"] == pytest.approx(values.tolist(), abs=0.006)
    assert len({network["colour"] for network in shown["networks"]}) == 2
