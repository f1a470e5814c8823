"""Each sentence under a figure, as it is for results of one kind and of the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_results import T, made_results, made_scales, with_answers

from els.analysis.answers import Denoising, SameX
from els.analysis.attribution import HELD_OUT, NETWORK
from els.analysis.report import verdicts
from els.analysis.report.views import VIEWS
from els.analysis.results import Results
from els.calibration import Scales

KINDS = ("boundary", "local", "ideal")


@pytest.fixture
def results() -> Results:
    return made_results(KINDS)


def fitted(results: Results, *sizes: float, data: Scales | None = None) -> str:
    scales = {"boundary": made_scales("boundary", sizes=sizes)}
    return verdicts.scales(replace(results, scales=scales, data_scales=data))


def test_the_fitted_scale_is_told_as_a_finding(results: Results) -> None:
    # Of the made table all larger values are as good, so that the bands of any two overlap.
    told = "The fitted size of boundary is 5 (band 5-7) at t = 1 and 3 (band 3-7) at t = 0.25"
    assert fitted(results, 5, 5, 5, 3).startswith(f"{told}, which are not told apart.")
    assert verdicts.scales(made_results(("ideal",))) == ""


def test_a_ceiling_is_called_that_and_nothing_else_is(results: Results) -> None:
    assert "ceiling" in fitted(results, 7, 7, 5, 3)
    assert "2 times between t = 1 and 0.75" in fitted(results, 7, 7, 5, 3)
    assert "ceiling" not in fitted(results, 5, 5, 5, 3)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((5, 5, 5, 3), "much the same sizes"),
        ((7, 7, 7, 5), "larger ones are needed at 4 of 4 times, at 3 of them the largest"),
        ((5, 5, 7, 7), "larger ones are needed at 2 of 4 times, at 2 of them the largest"),
        ((3, 3, 3, 3), "smaller ones do at 3 of 4 times"),
    ],
)
def test_what_unseen_images_ask_for_is_compared(
    sizes: tuple[float, ...], told: str, results: Results
) -> None:
    data = replace(made_scales("boundary", sizes=sizes), criterion="mse")
    assert told in fitted(results, 5, 5, 5, 3, data=data)


def test_what_is_copied_is_told_with_its_interval(results: Results) -> None:
    novelty = results.attribution.novelty
    near = replace(novelty[NETWORK], in_place=torch.full((6,), 0.1), second_in_place=torch.ones(6))
    found = {**novelty, NETWORK: near}
    told = verdicts.copies(
        replace(results, attribution=replace(results.attribution, novelty=found))
    )
    assert told.startswith("Copies of a training image, in place, are 100% [54%, 100%] of the")
    assert told.endswith("of those of boundary.")
    assert verdicts.copies(replace(results, attribution=None)) == ""


def test_where_the_fitted_size_is_above_that_of_memory_is_told(results: Results) -> None:
    # Of k_mem 7, 5, 3 and none, at which the fitted sizes are 7, 5, 5 and 3.
    told = verdicts.information(results)
    assert told.startswith(
        "At 2 times between t = 0.5 and 0.25, at the fitted size of boundary, one"
    )
    first = replace(results.information["boundary"], t=(1.0, 0.75, 0.75, 0.75))
    maps = first.largest[[0, 1, 1, 1]]
    below = replace(results, information={"boundary": replace(first, largest=maps)})
    assert verdicts.information(below).startswith("At every t, at the fitted size of boundary, no")
    # Above k_mem the weight may be below one half again: what counts is that at the fitted size.
    bent = torch.tensor([0.6, 0.4, 0.2])[None, :, None, None, None].expand_as(first.largest)
    above = replace(results, information={"boundary": replace(first, largest=bent)})
    assert verdicts.information(above) == verdicts.information(below)
    assert verdicts.information(replace(results, information={})) == ""


def test_where_many_values_are_as_good_the_choice_means_little(results: Results) -> None:
    apart = tuple(
        tuple((0.9 if k == best else 0.5,) * 2 for k in (3, 5, 7)) for best in (7, 5, 5, 3)
    )
    sharp = {"boundary": made_scales("boundary", table=apart)}
    assert "at most two values" in verdicts.criterion(replace(results, scales=sharp))
    alike = {"boundary": made_scales("boundary", table=(((0.9, 0.9),) * 3, *apart[1:]))}
    told = verdicts.criterion(replace(results, scales=alike))
    assert told.startswith("At t = 1 three or more values")


def test_agreement_by_time_names_where_it_is_least(results: Results) -> None:
    at_noise = torch.tensor([0.2, 0.8, 0.9, 0.95])[:, None].expand(4, 6)
    later = at_noise.flip(0)
    told = [
        verdicts.by_t(replace(results, by_t={**results.by_t, "boundary": values}))
        for values in (at_noise, later)
    ]
    noise = "lowest at t = 1 (0.20 [0.20, 0.20]), where the network's guess is mostly its own error"
    assert noise in told[0]
    assert told[0].endswith("ends at 0.95 [0.95, 0.95].")
    assert "lowest at t = 0.25 (0.20 [0.20, 0.20]), and ends at 0.20 [0.20, 0.20]." in told[1]


def novelty_of(results: Results, network: float, unseen: float) -> str:
    found = dict(results.attribution.novelty)
    for side, value in ((NETWORK, network), (HELD_OUT, unseen)):
        found[side] = replace(found[side], distance=torch.full((6,), value))
    return verdicts.novelty(
        replace(results, attribution=replace(results.attribution, novelty=found))
    )


def test_copies_are_told_from_what_is_new(results: Results) -> None:
    assert novelty_of(results, 0.4, 0.2).endswith("(median distance 0.40 against 0.20): no copies.")
    assert "it copies" in novelty_of(results, 0.05, 0.2)
    assert "about as far" in novelty_of(results, 0.18, 0.2)
    assert verdicts.novelty(replace(results, attribution=None)) == ""


def test_fewest_patches_are_told_with_their_size(results: Results) -> None:
    tracing = results.attribution.tracing
    mosaic = tracing.mosaics["boundary"]
    counts = torch.tensor([900.0, 30, 400, 80])[:, None, None, None].expand(4, 6, 8, 8)
    traced = replace(mosaic, effective_size=counts, sides=(9, 7, 5, 3))
    mosaics = {**tracing.mosaics, "boundary": traced}
    attribution = replace(results.attribution, tracing=replace(tracing, mosaics=mosaics))
    told = verdicts.consistency(replace(results, attribution=attribution))
    assert f"t = {T[1]:g} (a median of 30, k = 7)" in told
    assert verdicts.consistency(made_results(("ideal",))) == ""


@pytest.mark.parametrize(
    ("near", "far", "told"),
    [
        (0.8, 0.01, "by the border alone"),
        (0.6, 0.3, "far from the border too (error 0.3; at the border 0.6)"),
        (0.001, 0.0005, "hardly depends on the place anywhere (error at most 0.001)"),
    ],
)
def test_a_network_knows_its_place_by_the_border_everywhere_or_not(
    near: float, far: float, told: str, results: Results
) -> None:
    probes = replace(results.probes, equivariance=((0.5, near, 0.4, far),) * 4)
    assert told in verdicts.equivariance(replace(results, probes=probes))


def test_there_is_a_sentence_or_nothing_for_every_figure(results: Results) -> None:
    for found in map(verdicts.verdicts, (results, with_answers(results))):
        assert set(found) <= set(VIEWS)
        assert all(text.endswith(".") for text in found.values() if text)
    silent = {name for name, text in found.items() if not text}
    assert silent == {"weights"}  # without a mixture
    assert all(
        verdicts.verdicts(results)[name] for name in set(found) - {"denoising", "same_x", "weights"}
    )
    bare = replace(results, scales={}, probes=None, attribution=None)
    told = {name for name, text in verdicts.verdicts(bare).items() if text}
    assert told == {"by_t", "scatter"}


def test_a_mixture_is_above_all_machines_or_that_is_not_said() -> None:
    """The first of made results is closest to the network on every seed, the next ones less."""
    ahead = made_results(("mixture", "local", "ideal"))
    text = verdicts.weights(ahead)
    # Weights of 0.25 and 0.75 at every t.
    assert text.startswith("It is mostly wiener at t = 1 (75%), wiener at t = 0.5 (75%), wiener")
    scores = ahead.by_seed
    gain = np.median(scores["mixture"]["R2"] - scores["local"]["R2"])
    won = "Its R2 is above that of every single machine, of local, the best, by"
    assert f"{won} {gain:+.3f}" in text
    behind = verdicts.weights(made_results(("boundary", "mixture", "ideal")))
    lost = "Its R2 is not above that of every single machine by more than chance: not of"
    assert f"{lost} boundary." in behind
    assert "From that of boundary, the best, it differs by -" in behind
    few = verdicts.weights(made_results(("mixture", "local", "ideal"), seeds=5))
    assert f"{lost} local, ideal." in few  # 5 seeds tell nothing
    assert verdicts.weights(made_results(KINDS)) == ""


# --- answers apart from paths ---------------------------------------------------------------------


def errors(network: float, machine: float, training: float) -> Denoising:
    """Errors of the filter are 1; those of others vary a little, by image."""
    spread = torch.linspace(0.98, 1.02, 9).double().expand(len(T), 9)
    sides = {"network": network, "boundary": machine, "wiener": 1.0}
    return Denoising(
        T,
        {
            "held_out": {side: value * spread for side, value in sides.items()},
            "training": {side: value * spread * training for side, value in sides.items()},
        },
    )


def test_who_beats_the_filter_is_told_and_whether_training_images_are_known(
    results: Results,
) -> None:
    assert verdicts.denoising(results) == ""
    good = verdicts.denoising(replace(results, denoising=errors(0.5, 1.2, 0.5)))
    assert "On unseen images the network beats the Wiener filter at 4 of 4 times" in good
    assert "down to 0.50 [0.50, 0.50] of its error" in good
    assert "None of the machines beats it anywhere beyond chance." in good
    assert "lower at 4 times between t = 1 and 0.25, by up to 50%" in good
    bad = verdicts.denoising(replace(results, denoising=errors(1.5, 0.9, 1.0)))
    assert "the network beats the Wiener filter at no time beyond chance (at best 1.50" in bad
    assert "Of the machines, boundary beats the Wiener filter at 4 of 4 times" in bad
    assert bad.endswith("no sign of memorising.")


def same(network: float, machine: float) -> SameX:
    def metrics(value: float) -> dict[str, torch.Tensor]:
        return dict.fromkeys(("pearson_r", "r2", "R2"), torch.full((len(T), 3), value))

    places = {"network": network, "machine": machine}
    return SameX(T, {place: {"boundary": metrics(value)} for place, value in places.items()})


@pytest.mark.parametrize(
    ("at_network", "own", "said"),
    [
        (0.95, 0.7, "Most of what it loses is lost in what the path adds up."),
        (0.75, 0.7, "Most of what it loses is lost in single steps."),
        (0.6, 0.7, "Paths add nothing to the errors of single steps."),
    ],
)
def test_errors_of_steps_are_told_from_those_of_paths(
    at_network: float, own: float, said: str, results: Results
) -> None:
    assert verdicts.same_x(results) == ""
    by_t = {"boundary": torch.full((len(T), 6), own)}
    found = verdicts.same_x(replace(results, by_t=by_t, same_x=same(at_network, 0.9)))
    assert f"at {at_network:.2f} on the network's path, 0.90 on its own; at {own:.2f}" in found
    assert found.endswith(said)


def test_what_other_networks_reach_is_told_by_time(results: Results) -> None:
    answered = with_answers(results)
    found = verdicts.by_t(answered)
    last = float(answered.ceiling_by_t["pearson_r"][-1].median())
    assert "Networks of other seeds agree with it at " in found
    assert float(found.split(" there and ")[1].split(" at the end")[0]) == pytest.approx(
        last, abs=0.12
    )
