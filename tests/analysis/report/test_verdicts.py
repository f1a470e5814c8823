from dataclasses import replace

import pytest
import torch
from made_results import made_results

from els.analysis.attribution import HELD_OUT, NETWORK
from els.analysis.report.verdicts import VERDICTS, verdicts
from els.analysis.results import Results
from els.probes import Probes

KINDS = ("boundary", "local", "ideal")


@pytest.fixture(scope="module")
def results() -> Results:
    return made_results(KINDS, seeds=12)


def with_scales(results: Results, *values: int, **changes: object) -> Results:
    """The same with other fitted values of the first machine, each as good as no other."""
    one = replace(results.scales["boundary"], values=values, table=(), **changes)
    return replace(results, scales={"boundary": one})


def test_there_is_a_sentence_or_nothing_for_every_figure(results: Results) -> None:
    found = verdicts(results)
    assert set(found) == set(VERDICTS)
    assert all(text == "" or text.endswith(".") for text in found.values())
    bare = replace(results, scales={}, probes=None, attribution=None)
    told = {name for name, text in verdicts(bare).items() if text}
    assert told == {"by_t", "scatter"}


def test_a_scale_falls_rises_or_stays_and_ends_at_a_ceiling(results: Results) -> None:
    candidates = (3, 5, 7, 9)
    tell = VERDICTS["scales"]
    falls = tell(with_scales(results, 7, 5, 5, 3, candidates=candidates))
    assert "size of boundary falls from 7 at t = 1 to 3 at t = 0.25." in falls
    assert "ceiling" not in falls
    rises = tell(with_scales(results, 3, 5, 7, 9, candidates=candidates))
    assert "rises from 3" in rises
    assert "At t = 0.25 it is the largest that was tried" in rises
    assert "stays at 5" in tell(with_scales(results, 5, 5, 5, 5, candidates=candidates))


def test_held_out_images_are_said_to_ask_for_what_they_ask_for(results: Results) -> None:
    fitted = with_scales(results, 5, 5, 5, 5, candidates=(3, 5, 7, 9))
    one = fitted.scales["boundary"]
    for values, told in (
        ((5, 5, 5, 7), "ask for much the same"),
        ((9, 9, 7, 5), "larger ones"),
        ((3, 3, 3, 3), "smaller ones would do at 4 of 4"),
    ):
        text = VERDICTS["scales"](replace(fitted, data_scales=replace(one, values=values)))
        assert told in text


def test_novelty_is_judged_by_images_that_were_not_seen(results: Results) -> None:
    attribution = results.attribution
    unseen = torch.full((12,), 0.5)
    for distance, told in ((0.8, "no copies"), (0.1, "it copies"), (0.45, "about as far")):
        drawn = torch.linspace(-0.01, 0.01, 12) + distance
        novelty = dict(attribution.novelty)
        for side, values in ((NETWORK, drawn), (HELD_OUT, unseen)):
            novelty[side] = replace(attribution.novelty[side], distance=values)
        made = replace(results, attribution=replace(attribution, novelty=novelty))
        assert told in VERDICTS["novelty"](made)


def test_a_network_that_feels_the_border_is_told_from_one_that_does_not(results: Results) -> None:
    for errors, told in (
        ((0.5, 0.9, 0.2, 0.0), "what the boundary machine supposes"),
        ((0.2, 0.2, 0.2, 0.2), "much the same"),
    ):
        shares = ((0.2, 0.6, 0.95, 1.0),) * 4
        probes = Probes(seeds=(0,), t=results.t, shares=shares, equivariance=(errors,) * 4)
        assert told in VERDICTS["equivariance"](replace(results, probes=probes))


def test_the_worst_time_is_named(results: Results) -> None:
    by_t = torch.tensor([[0.9], [0.3], [0.8], [0.95]]).expand(4, 12)
    text = VERDICTS["by_t"](replace(results, by_t={"boundary": by_t}))
    assert text == "boundary agrees least at t = 0.75 (0.30) and ends at 0.95."
