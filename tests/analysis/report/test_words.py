from dataclasses import replace

import pytest
import torch
from made_results import made_results, with_answers

from els.agreement import Pair, Summary
from els.analysis.comparison import Comparison
from els.analysis.report.words import (
    comparison_headline,
    hardly_trained,
    headline,
    interval_text,
    pair_text,
)
from els.models.blocks import Trained


def test_intervals_as_text() -> None:
    value = Summary(0.9123, (0.9, 0.925))
    assert interval_text(value) == "0.912 [0.90, 0.93]"
    assert interval_text(Summary(-0.05, (-0.1, 0.01)), sign=True) == "-0.050 [-0.10, +0.01]"


@pytest.mark.parametrize(
    ("wins", "interval", "seeds", "told"),
    [
        (0.9, (0.02, 0.08), 20, "closer than local on 90% of the seeds"),
        (0.1, (-0.08, -0.02), 20, "farther off than local on 90% of the seeds"),
        (0.5, (-0.02, 0.08), 20, "not distinguishable from local"),
        (1.0, (0.02, 0.08), 5, "not distinguishable from local"),
    ],
)
def test_a_pair_is_told_by_its_interval(
    wins: float, interval: tuple[float, float], seeds: int, told: str
) -> None:
    pair = Pair("boundary", "local", wins, Summary(sum(interval) / 2, interval), seeds)
    assert pair_text(pair).startswith(told)


def test_the_headline_is_chosen_against_the_best_rival_and_the_one_that_memorises() -> None:
    results = made_results(("boundary", "equivariant", "local", "ideal"), seeds=24)
    text = headline(results)
    assert "equivariant" in text  # the next best
    assert "closer than ideal" in text
    assert "local" not in text
    generator = torch.Generator().manual_seed(5)
    alike = {
        kind: results.network[20] + 0.3 * torch.randn(24, 1, 8, 8, generator=generator)
        for kind in ("boundary", "equivariant")
    }
    text = headline(replace(results, machines={**results.machines, **alike}))
    assert "not distinguishable from equivariant" in text


def test_a_machine_that_loses_is_said_to() -> None:
    results = made_results(("boundary", "local"), seeds=12)
    good, bad = results.machines.values()
    results = replace(results, machines={"boundary": bad, "local": good})
    assert "farther off than local on 100% of the seeds" in headline(results)


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        (Trained(3, 1, 0.97), True),
        (Trained(2480, 40, 0.09), False),
        (Trained(3, 1, None), False),
        (None, False),
    ],
)
def test_a_network_that_was_hardly_trained_is_called_that(
    trained: Trained | None, said: bool
) -> None:
    results = made_results(("boundary", "ideal"))
    results = replace(results, provenance=replace(results.provenance, trained=trained))
    assert (hardly_trained(results.provenance) is not None) == said
    assert ("hardly trained" in headline(results)) == said


def test_of_two_networks_the_one_that_is_predicted_better_is_named() -> None:
    well = made_results(("boundary", "ideal"), seeds=12)
    badly = replace(
        well,
        machines={"boundary": well.machines["ideal"], "ideal": well.machines["boundary"]},
        provenance=replace(well.provenance, run="other"),
    )
    for order in ((well, badly), (badly, well)):
        text = comparison_headline(Comparison(order))
        assert text.startswith("made is predicted better than other: median pearson_r 1.00 against")
        assert "paired difference +0." in text
    alike = comparison_headline(
        Comparison((well, replace(well, provenance=replace(well.provenance, run="other"))))
    )
    assert "equally well" in alike
    apart = replace(badly, seeds=tuple(range(100, 112)))
    assert "no seeds in common" in comparison_headline(Comparison((well, apart)))


def test_the_headline_says_what_another_network_reaches_and_the_share_of_it() -> None:
    results = with_answers(made_results(("boundary", "ideal"), seeds=12))
    (one,) = results.agreement
    reached = interval_text(one.ceiling.metrics["pearson_r"])
    share = interval_text(one.machines["boundary"].of_ceiling["pearson_r"])
    assert f"another seed reaches {reached}, of which that is a share of {share}." in headline(
        results
    )
    assert "another seed" not in headline(made_results(("boundary", "ideal")))
