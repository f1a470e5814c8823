from dataclasses import replace

import pytest
from made_results import made_results

from els.agreement import Pair, Summary
from els.analysis.comparison import Comparison
from els.analysis.report.words import (
    comparison_headline,
    hardly_trained,
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
