"""The five sentences, by hand on both sides of each threshold that chooses their words."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_results import T, made_results, made_scales, with_answers

from els.analysis.attribution import NETWORK
from els.analysis.report.findings import findings, plain_sentence
from els.analysis.results import AGREEMENT, Results
from els.models.blocks import Trained

SEEDS = 12


def at(low: float, high: float | None = None) -> list[float]:
    """Values by seed whose median has this interval: half of them are the one, half the other."""
    return [low, low if high is None else high] * (SEEDS // 2)


def correlated(seeds: int = SEEDS, twin: Sequence[float] = (), **kinds: Sequence[float]) -> Results:
    """Results of machines whose pearson_r with the network on each seed is as given, and a twin's.

    Images are a, and r a + sqrt(1 - r^2) b for orthogonal a and b without a mean.
    """
    results = made_results(tuple(kinds), seeds=seeds)
    a, b = torch.zeros(2, 64, dtype=torch.float64)
    a[::2], a[1::2], b[0::4], b[1::4], b[2::4], b[3::4] = 1, -1, 1, 1, -1, -1

    def drawn(r: Sequence[float]) -> torch.Tensor:
        return torch.stack([x * a + math.sqrt(1 - x**2) * b for x in r[:seeds]]).view(-1, 1, 8, 8)

    network = drawn([1.0] * seeds)
    twins = with_answers(results, twins=("twin",)) if twin else results
    return replace(
        results,
        provenance=twins.provenance,
        network={20: network},
        machines={kind: drawn(r) for kind, r in kinds.items()},
        twins={"twin": {20: drawn(twin)}} if twin else {},
        ceiling_by_t=twins.ceiling_by_t,
    )


def told(name: str, results: Results) -> str:
    return findings(results)[name]


# --- agreement ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "word"),
    [
        (0.91, "nearly what"),
        (0.89, "much of what"),
        (0.71, "much of what"),
        (0.69, "some of what"),
        (0.41, "some of what"),
        (0.39, "little of what"),
        (0.01, "little of what"),
        (-0.01, "nothing beyond chance of what"),
    ],
)
def test_how_much_is_predicted_goes_by_the_lower_end(low: float, word: str) -> None:
    results = correlated(boundary=at(low, 0.99))
    assert f"machine predicts {word} the network draws, with a median" in told("agreement", results)
    assert f"theory draws {word} this network draws" in plain_sentence(results)


def test_agreement_is_told_with_its_interval_seeds_and_steps() -> None:
    assert told("agreement", correlated(boundary=at(0.8, 0.9))) == (
        "From the same noise the boundary machine predicts much of what the network draws, with a "
        "median pearson_r of 0.850 [0.80, 0.90] (95 % interval, 12 seeds; network 20 steps, "
        "machines 4); what a network of another seed reaches was not measured (--twin)."
    )


def test_the_protocol_of_others_is_named() -> None:
    results = correlated(boundary=at(0.8))
    protocol = replace(results.provenance.protocol, protocol="locality", steps=10)
    results = replace(results, provenance=replace(results.provenance, protocol=protocol))
    assert "machines 4; protocol locality)" in told("agreement", results)


@pytest.mark.parametrize(("seeds", "said"), [(6, True), (5, False)])
def test_few_seeds_choose_no_word(seeds: int, said: bool) -> None:
    results = correlated(seeds, boundary=[0.95] * seeds)
    assert ("predicts nearly" in told("agreement", results)) == said
    assert ("theory draws nearly" in plain_sentence(results)) == said
    assert ("has a median pearson_r of 0.950 [0.95, 0.95]" in told("agreement", results)) != said


@pytest.mark.parametrize(
    ("machine", "how"),
    [
        (at(0.79), "less than it"),
        (at(0.79, 0.81), "not told apart from it"),
        (at(0.81), "more than it"),
    ],
)
def test_the_share_of_the_ceiling_is_below_it_or_not_told_apart(
    machine: list[float], how: str
) -> None:
    text = told("agreement", correlated(boundary=machine, twin=at(0.8)))
    share = sum(machine) / SEEDS / 0.8
    assert f"a share of {share:.3f} [" in text
    assert text.endswith(f"of what a network of another seed reaches, 0.800 [0.80, 0.80]: {how}.")


def test_of_a_ceiling_at_zero_nothing_is_a_share() -> None:
    text = told("agreement", correlated(boundary=at(0.5), twin=at(-0.1, 0.2)))
    assert text.endswith("reaches 0.050 [-0.10, 0.20], of which nothing is a share.")


@pytest.mark.parametrize(("loss", "said"), [(0.51, True), (0.49, False)])
def test_a_network_that_was_hardly_trained_is_called_that_first(loss: float, said: bool) -> None:
    results = correlated(boundary=at(0.5))
    trained = replace(results.provenance, trained=Trained(3, 1, loss))
    results = replace(results, provenance=trained)
    assert told("agreement", results).startswith("This network was hardly trained") == said
    assert plain_sentence(results).startswith("This network was hardly trained") == said


# --- scales ---------------------------------------------------------------------------------------


def fitted(first: Sequence[int], last: Sequence[int], *, seeds: int = 2) -> Results:
    """Sizes that are as good at the first and at the last time; the first of each is chosen."""

    def line(good: Sequence[int]) -> tuple[tuple[float, ...], ...]:
        return tuple((0.9 if size in good else 0.5,) * seeds for size in (3, 5, 7))

    sizes = (first[0], 5, 5, last[0])
    made = made_scales("boundary", sizes=sizes, table=tuple(map(line, (first, [5], [5], last))))
    made = replace(made, seeds=tuple(range(seeds)))
    return replace(made_results(("boundary", "ideal")), scales={"boundary": made})


def test_a_scale_changes_where_its_bands_lie_apart() -> None:
    assert told("scale", fitted([5], [3])) == (
        "The fitted size of boundary falls from 5 at t = 1 to 3 at t = 0.25."
    )
    assert "rises from 3 at t = 1 to 5 at t = 0.25." in told("scale", fitted([3], [5]))
    text = told("scale", fitted([5, 3], [3]))
    assert text.endswith(" is 5 (band 3-5) at t = 1 and 3 at t = 0.25, which are not told apart.")
    alone = told("scale", fitted([5], [3], seeds=1))
    assert alone.endswith("is 5 at t = 1 and 3 at t = 0.25; one calibration seed does not tell "
                          "them apart.")  # fmt: skip


def test_the_largest_size_that_was_tried_is_no_finding() -> None:
    edge = " At t = 1 it is the largest that was tried: a ceiling of this analysis, not a finding"
    assert told("scale", fitted([7], [3])).endswith(f"{edge} (give larger --sizes).")
    assert "largest" not in told("scale", fitted([5], [3]))


def test_what_has_no_scale_is_said_to_have_none() -> None:
    assert told("scale", made_results(("ideal",))) == "Nothing was fitted: ideal has no scale."
    mixed = told("scale", made_results(("mixture", "ideal")))
    assert mixed == "Fitted at each t are the weights of the 2 components of mixture."


# --- along t --------------------------------------------------------------------------------------


def along(*lines: Sequence[float], seeds: int = SEEDS) -> str:
    values = torch.tensor([line[:seeds] for line in lines], dtype=torch.float64)
    results = correlated(seeds, boundary=[0.9] * seeds)
    return told("time", replace(results, by_t={"boundary": values}))


def test_it_fails_where_the_whole_interval_is_below_one_half() -> None:
    text = along(at(0.4, 0.49), at(0.4, 0.6), at(0.51), at(0.9))
    start = "Along t, by the median pearson_r of x0_hat, boundary"
    assert text == (
        f"{start} fails (is below 0.5) at t = 1 and is not told from that at t = 0.75; it is "
        "lowest at t = 1 (0.45 [0.40, 0.49]), where the network's guess is mostly its own error, "
        "and ends at 0.90 [0.90, 0.90]."
    )
    well = along(at(0.9), at(0.51, 0.6), at(0.9), at(0.9))
    assert "fails (is below 0.5) at no time; it is lowest at t = 0.75 (0.5" in well
    assert "not told" not in well
    assert "at 2 times between t = 1 and 0.75;" in along(at(0.1), at(0.2), at(0.9), at(0.9))


def test_few_seeds_tell_no_failure_and_constant_images_none() -> None:
    text = along(at(0.1), at(0.9), at(0.9), at(0.9), seeds=5)
    assert "is not told from a failure on fewer than 6 seeds; it is lowest at t = 1 (0.10" in text
    nothing = [math.nan] * SEEDS
    assert "fails (is below 0.5) at t = 0.5;" in along(nothing, at(0.9), at(0.1), at(0.9))
    assert along(*[nothing] * len(T)) == "Along t nothing of boundary correlates with the network."
    unknown = replace(correlated(boundary=at(0.9)), by_t={})
    assert told("time", unknown) == "Agreement along t was not measured."


# --- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("copied", "of", "how"),
    [
        (0, 72, "0% [0%, 5%] of the network's samples (95 % interval), less than 5%"),
        (0, 71, "0% [0%, 5%] of the network's samples (95 % interval), not told apart from 5%"),
        (3, 14, "21% [5%, 51%] of the network's samples (95 % interval), not told apart from 5%"),
        (3, 13, "23% [5%, 54%] of the network's samples (95 % interval), more than 5%"),
    ],
)
def test_copies_are_told_from_one_in_twenty_by_the_exact_interval(
    copied: int, of: int, how: str
) -> None:
    """Of none of n the upper end is 1 - 0.025^(1 / n): below 5 % from 72 on."""
    results = made_results(("boundary", "ideal"), seeds=of)
    novelty = results.attribution.novelty[NETWORK]
    near = torch.full((of,), 0.9)
    near[:copied] = 0.1
    found = replace(novelty, in_place=near, second_in_place=torch.ones(of))
    sides = {**results.attribution.novelty, NETWORK: found}
    text = told("copies", replace(results, attribution=replace(results.attribution, novelty=sides)))
    assert text.startswith(f"Copies of a training image, in place, are {how}, and ")
    assert text.endswith("of those of boundary.")


def test_copies_that_were_not_looked_for_are_not_denied() -> None:
    results = made_results(("boundary", "ideal"))
    text = told("copies", replace(results, attribution=None))
    assert text == "Whether samples are copies of training images was not measured (--mosaic true)."
    lone = {
        side: replace(one, second_in_place=torch.full((6,), torch.inf))
        for side, one in results.attribution.novelty.items()
    }
    alone = replace(results, attribution=replace(results.attribution, novelty=lone))
    assert "is not known" in told("copies", alone)


# --- the best -------------------------------------------------------------------------------------


def test_the_best_is_above_every_other_seed_by_seed() -> None:
    results = correlated(local=at(0.8), boundary=at(0.9), ideal=at(0.5))
    assert told("best", results) == (
        "Of 3 machines boundary is the best: in pearson_r, seed by seed, it is closer to the "
        "network than local (+0.100 [+0.10, +0.10]) and ideal (+0.400 [+0.40, +0.40])."
    )


def test_no_machine_is_the_best_where_one_difference_holds_zero() -> None:
    # boundary is above local on half of the seeds, and below it on the others.
    results = correlated(boundary=at(0.9, 0.86), local=at(0.85), ideal=at(0.5))
    assert "boundary is the best" in told("best", results)
    results = correlated(boundary=at(0.9, 0.84), local=at(0.85), ideal=at(0.5))
    assert told("best", results) == (
        "Of 3 machines none can be called the best: in pearson_r, seed by seed, boundary is closer "
        "than ideal (+0.370 [+0.34, +0.40]) and not told apart from local (+0.020 [-0.01, +0.05])."
    )


def test_few_seeds_tell_no_best_and_one_machine_has_no_rival() -> None:
    for seeds, best in ((6, True), (5, False)):
        found = told("best", correlated(seeds, boundary=[0.9] * seeds, ideal=[0.5] * seeds))
        assert ("boundary is the best" in found) == best
        assert ("not told apart from ideal" in found) != best
    alone = told("best", correlated(boundary=at(0.9)))
    assert alone == "No machine was compared with boundary (--machines all)."


def test_of_many_the_nearest_is_named() -> None:
    kinds = {kind: at(0.5) for kind in ("local", "wiener", "nearest", "ideal")}
    text = told("best", correlated(boundary=at(0.9), **{**kinds, "wiener": at(0.6)}))
    assert text.endswith("than wiener (+0.300 [+0.30, +0.30]) and 3 others.")


@pytest.mark.parametrize(
    ("ideal", "said"),
    [
        (at(0.6, 0.69), "draws something else."),
        (at(0.6, 0.71), "comes less close."),
        (at(0.95), "comes closer."),
        (at(0.8, 0.95), "does about as well."),
    ],
)
def test_the_memoriser_is_called_something_else_below_its_threshold(
    ideal: list[float], said: str
) -> None:
    results = correlated(boundary=at(0.9), ideal=ideal)
    assert plain_sentence(results).endswith(f"a machine that can only memorise {said}")


# --- where they stand -----------------------------------------------------------------------------


def test_agreement_json_opens_with_them_and_is_read_without(tmp_path: Path) -> None:
    results = with_answers(made_results(("boundary", "local", "ideal")))
    found = findings(results)
    assert list(found) == ["agreement", "scale", "time", "copies", "best"]
    assert all(text.endswith(".") for text in found.values())
    results.save(tmp_path, findings=found)
    record = json.loads((tmp_path / AGREEMENT).read_text())
    assert next(iter(record)) == "findings"
    assert record["findings"] == found
    assert findings(Results.load(tmp_path)) == found
