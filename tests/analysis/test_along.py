"""The record of a training: its numbers by hand, and what it says of when."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_results import made_provenance

from els.agreement import METRICS
from els.analysis.along import ALONG, LAST, OWN, Along, Moment
from els.analysis.report.charts import specs
from els.analysis.report.figures import along_figure
from els.analysis.report.tables import along_cells
from els.analysis.report.views import ALONG_VIEWS, STEPS, HeatMap, Lines, Panels
from els.analysis.report.words import along_headline
from els.analysis.report.write import write_along
from els.analysis.tracking import content
from els.errors import InputError
from els.schedule import CosineSchedule

T = (1.0, 0.5)
SEEDS = tuple(range(8))
SPREAD = torch.linspace(-0.02, 0.02, len(SEEDS))


def made_moment(step: int, own: float, last: float, **changes: Any) -> Moment:
    """A snapshot that two machines agree with at these medians, and `ideal` with half of it."""

    def scores(r: float) -> dict[str, dict[str, tuple[float, ...]]]:
        kinds = {"boundary": r, "ideal": r / 2}
        return {
            kind: {metric: tuple((SPREAD + value).tolist()) for metric in METRICS}
            for kind, value in kinds.items()
        }

    moment = Moment(
        step=step,
        sha256=f"{step:064d}",
        val_loss=None if step == 1 else 0.1,
        agreement={OWN: scores(own), LAST: scores(last)},
        by_t={"boundary": (own, last), "ideal": (own / 2, last / 2)},
        scales={"boundary": (7.0, 3.0)},
        errors={"held_out": ((4.0, 0.5), (2.0, 0.25)), "training": ((1.0, 0.25), (1.0, 0.125))},
        memorised=tuple((SPREAD.abs()).tolist()),
        ratios={"in_place": (0.1,) * 2 + (0.5,) * 6, "shifted": (0.1,) * 4 + (0.5,) * 4},
    )
    return replace(moment, **changes)


def made_along(*pairs: tuple[float, float]) -> Along:
    moments = tuple(made_moment(10**i, *pair) for i, pair in enumerate(pairs))
    provenance = made_provenance(("boundary", "ideal"))
    return Along(provenance=provenance, seeds=SEEDS, t=T, moments=moments)


RISES = ((0.1, 0.05), (0.6, 0.5), (0.9, 0.9))
FALLS = ((0.1, 0.2), (0.9, 0.8), (0.5, 0.5))


def test_losses_are_means_over_t_and_images() -> None:
    """Of the squared error of x0_hat times (alpha / sigma)^2, which is that of eps_hat."""
    moment, schedule = made_moment(1, 0.5, 0.5), CosineSchedule()
    (a1, s1), (a2, s2) = (
        (float(schedule.alpha(torch.tensor(t))), float(schedule.sigma(torch.tensor(t)))) for t in T
    )
    first = (4.0 * (a1 / s1) ** 2 + 0.5 * (a2 / s2) ** 2) / 2
    second = (2.0 * (a1 / s1) ** 2 + 0.25 * (a2 / s2) ** 2) / 2
    found = moment.loss("held_out", T)
    assert found.mean == pytest.approx((first + second) / 2, rel=1e-5)
    assert found.ci95 == pytest.approx((second, first), rel=1e-5)  # both of 2 images may be one
    assert moment.error("held_out", 1).mean == pytest.approx(0.375)


def test_the_best_snapshot_and_those_as_good() -> None:
    along = made_along(*FALLS)
    assert along.best("boundary") == 1
    assert along.as_good("boundary") == (False, True, False)
    assert along.below_best("boundary", 2).median == pytest.approx(0.4)
    rises = made_along(*RISES)
    assert rises.as_good("boundary") == (False, False, True)


def test_snapshots_that_differ_by_chance_are_as_good() -> None:
    """One seed up and one down: the paired interval holds zero."""
    along = made_along((0.9, 0.9), (0.901, 0.9))
    scores = dict(along.moments[0].agreement)
    shifted = (SPREAD.flip(0) + 0.9).tolist()
    scores[OWN] = {**scores[OWN], "boundary": dict.fromkeys(METRICS, tuple(shifted))}
    along = replace(along, moments=(replace(along.moments[0], agreement=scores), along.moments[1]))
    assert along.as_good("boundary") == (True, True)


def of_seeds(moment: Moment, values: torch.Tensor) -> Moment:
    """A snapshot with this agreement by seed (n,) of one machine alone."""
    scores = dict.fromkeys(METRICS, tuple(values.tolist()))
    return replace(moment, agreement={OWN: {"boundary": scores}, LAST: {"boundary": scores}})


def test_few_seeds_tell_nothing_apart() -> None:
    """Of 3 snapshots 7 seeds can tell: 3 pairs of p = 2 / 2^7 each."""
    along = made_along(*FALLS)
    for count, found in ((7, (False, True, False)), (6, (True, True, True))):
        moments = tuple(of_seeds(one, one_of(one)[:count]) for one in along.moments)
        assert replace(along, moments=moments).as_good("boundary") == found


def one_of(moment: Moment) -> torch.Tensor:
    return torch.tensor(moment.agreement[OWN]["boundary"]["pearson_r"])


def test_the_best_of_many_that_are_alike_is_not_better() -> None:
    """Chosen by looking, the best of 14 is above others by chance: each is compared for all."""
    generator = torch.Generator().manual_seed(0)
    alike = made_along(*((0.9, 0.9),) * 14)
    told, alone = 0, 0
    for _ in range(10):
        moments = tuple(
            of_seeds(one, 0.9 + 0.05 * torch.randn(16, generator=generator))
            for one in alike.moments
        )
        along = replace(alike, moments=moments)
        best = along.best("boundary")
        told += not all(along.as_good("boundary"))
        pairs = (replace(along, moments=(moments[best], one)) for one in moments)
        alone += not all(all(pair.as_good("boundary")) for pair in pairs)
    assert told == 0
    assert alone >= 3  # of 10: each compared as if the best had been known before


def test_seeds_without_agreement_are_left_out() -> None:
    along = made_along((0.1, 0.2), (0.9, 0.8))
    values = one_of(along.moments[0])
    first = of_seeds(along.moments[0], values.index_fill(0, torch.tensor([3]), math.nan))
    along = replace(along, moments=(first, of_seeds(along.moments[1], one_of(along.moments[1]))))
    assert along.undefined("boundary") == 1
    assert along.as_good("boundary") == (False, True)
    assert "On 1 seed of one snapshot or another an image is constant" in along_headline(along)
    # No seed has both: nothing is told.
    first, second = (
        of_seeds(one, values.index_fill(0, torch.arange(half, half + 4), math.nan))
        for half, one in zip((0, 4), along.moments, strict=True)
    )
    assert replace(along, moments=(first, second)).as_good("boundary") == (True, True)


def test_the_headline_says_when_it_leaves_its_theory() -> None:
    text = along_headline(made_along(*FALLS))
    assert "has its highest median pearson_r with the network at step 10: 0.900 [" in text
    assert "Then it leaves its theory: at the last, step 100, it is 0.400 [" in text
    assert "cannot be told" not in text
    text = along_headline(made_along(*RISES))
    assert "at step 100: 0.900" in text
    assert "That is the last snapshot." in text
    assert "leaves" not in text
    text = along_headline(made_along((0.1, 0.1), (0.5, 0.5), (0.5, 0.5)))
    assert "From step 10 to step 100 it cannot be told from that. Until the end nothing" in text


def test_the_headline_names_the_unbroken_run_around_the_best() -> None:
    """The last is as good, but not as one that never was below."""
    along = made_along((0.9, 0.9), (0.9, 0.9), (0.3, 0.3), (0.9, 0.9))
    moments = [of_seeds(one, one_of(one)) for one in along.moments]
    moments[1] = of_seeds(moments[1], 0.9 + SPREAD.flip(0) + 0.001)
    text = along_headline(replace(along, moments=tuple(moments)))
    assert "at step 10: 0.901 [" in text
    assert "From step 1 to step 10 it cannot be told from that." in text
    assert "At step 100 it is 0.601 [" in text
    assert "at the last, step 1,000, it cannot be told from the highest again" in text


def test_it_is_read_back(tmp_path: Path) -> None:
    along = made_along(*RISES)
    along.save(tmp_path)
    assert Along.load(tmp_path) == along
    json.loads((tmp_path / ALONG).read_text(), parse_constant=pytest.fail)
    (tmp_path / ALONG).write_text("{")
    with pytest.raises(InputError, match="holds no agreement along training"):
        Along.load(tmp_path)


def test_what_is_undefined_is_null_and_read_back_as_nan(tmp_path: Path) -> None:
    undefined = made_moment(1, 0.5, 0.5, by_t={"boundary": (math.nan, 0.5)})
    undefined = of_seeds(undefined, torch.tensor([math.nan, 0.5]))
    along = replace(made_along(*RISES), moments=(undefined,))
    along.save(tmp_path)
    plain = json.loads((tmp_path / ALONG).read_text(), parse_constant=pytest.fail)["moments"][0]
    assert plain["by_t"]["boundary"] == [None, 0.5]
    assert plain["agreement"][LAST]["boundary"]["R2"] == [None, 0.5]
    (back,) = Along.load(tmp_path).moments
    assert math.isnan(back.by_t["boundary"][0])
    assert back.by_t["boundary"][1] == 0.5
    assert math.isnan(back.agreement[OWN]["boundary"]["r2"][0])


def test_rows_have_every_number_with_its_interval() -> None:
    first, *_, last = made_along(*RISES).rows()
    assert (first["step"], last["step"]) == (1, 100)
    assert first["val_loss"] is None
    assert last["boundary/pearson_r/own"] == pytest.approx(0.9)
    assert last["boundary/pearson_r/own_low"] < 0.9 < last["boundary/pearson_r/own_high"]
    assert first["ideal/R2/last"] == pytest.approx(0.025)
    assert last["error/held_out/t0.5"] == pytest.approx(0.375)
    assert {"loss/training", "loss/held_out_low", "memorised/network"} <= set(last)
    assert (last["copied/in_place"], last["copied/shifted"]) == (0.25, 0.5)
    # Clopper and Pearson's interval of 2 in 8.
    assert last["copied/in_place_low"] == pytest.approx(0.0319, abs=1e-4)
    assert last["copied/in_place_high"] == pytest.approx(0.6509, abs=1e-4)


def test_views_are_against_training_steps() -> None:
    along = made_along(*RISES)
    own, last = (ALONG_VIEWS[name](along) for name in ("own", "last"))
    assert isinstance(own, Lines)
    assert own.x == STEPS
    assert own.series[0].t == (1, 10, 100)
    assert own.series[0].value == pytest.approx((0.1, 0.6, 0.9))
    assert last.series[0].value == pytest.approx((0.05, 0.5, 0.9))
    by_t = ALONG_VIEWS["by_t"](along)
    assert isinstance(by_t, Panels)
    assert by_t.views[0].cells == ((0.1, 0.6, 0.9), (0.05, 0.5, 0.9))  # by t, then by snapshot
    scales = ALONG_VIEWS["scales"](along)
    assert isinstance(scales, HeatMap)
    assert (scales.cells, scales.most) == (((7.0,) * 3, (3.0,) * 3), 7.0)
    copied = ALONG_VIEWS["copied"](along)
    assert isinstance(copied, Lines)
    assert [one.value for one in copied.series] == [(0.25,) * 3, (0.5,) * 3]
    assert copied.series[0].high == pytest.approx((0.6509,) * 3, abs=1e-4)
    assert along_cells(along)[0][-1] == "copied"
    assert along_cells(along)[1][-1] == "25% [3%, 65%]"
    error = ALONG_VIEWS["error"](along)
    assert [one.name for one in error.series] == ["t = 1", "t = 0.5"]


def test_what_was_not_measured_is_not_shown() -> None:
    along = made_along(*RISES)
    bare = tuple(
        replace(one, agreement={LAST: one.agreement[LAST]}, errors={}, memorised=(), ratios={})
        for one in along.moments
    )
    along = replace(along, moments=bare)
    assert (along.refitted, along.scales) == (False, LAST)
    shown = {name for name, view in ALONG_VIEWS.items() if view(along) is not None}
    assert shown == {"last", "r2", "by_t"}
    assert along_cells(along)[1][1] == ""
    assert "as fitted to the last snapshot" in along_headline(along)


@pytest.mark.parametrize("name", sorted(ALONG_VIEWS))
def test_every_view_is_drawn(name: str) -> None:
    for one in specs(ALONG_VIEWS[name](made_along(*RISES))):
        if name not in ("by_t", "scales"):
            layers = json.dumps(one)
            assert '"type": "log"' in layers
            assert STEPS in layers
            assert '"reverse": true' not in layers


def test_the_figure_has_logarithmic_steps_and_one_legend() -> None:
    figure = along_figure(made_along(*RISES))
    assert len(figure.axes) == 4
    for ax in figure.axes:
        assert ax.get_xscale() == "log"
        assert ax.get_xlabel() == STEPS
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [
        *("boundary (ELS)", "ideal (IS)", "held-out images", "training images"),
        *("copied, in place", "up to translation"),
    ]


def test_the_report_has_a_page_a_table_and_a_figure(tmp_path: Path) -> None:
    along = made_along(*RISES)
    along.save(tmp_path)
    files = write_along(along, tmp_path, ["png"])
    named = {path.name for path in files.paths}
    assert named == {"report.html", "along.json", "along.csv", "along.png"}
    page = files.page.read_text()
    assert along_headline(along) in page
    assert "0.900 [" in page
    with open(tmp_path / "along.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "10", "100"]
    assert rows[0]["val_loss"] == ""


def test_wandb_gets_a_curve_for_every_number(tmp_path: Path) -> None:
    along = made_along(*RISES)
    rows = content.along_rows(along)
    assert [row["along/step"] for row in rows] == [1, 10, 100]
    assert "along/val_loss" not in rows[0]  # not measured by then
    assert rows[2]["along/boundary/pearson_r/own"] == pytest.approx(0.9)
    files = write_along(along, tmp_path, ["png"])
    assert set(content.along_panels(along, files)) == {"along/table", "along/along", "report"}
