"""The record of a training: its numbers by hand, and what it says of when."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_results import made_provenance

from els.agreement import METRICS
from els.analysis.along import ALONG, LAST, OWN, Along, Mean, Moment
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
    assert moment.loss("held_out", T).mean == pytest.approx((first + second) / 2, rel=1e-5)
    assert moment.error("held_out", 1).mean == pytest.approx(0.375)


def test_the_interval_of_a_mean_is_students() -> None:
    found = Mean.of(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    # Student's t of 3 degrees of freedom at 97.5 % is 3.1824; the standard error is 0.6455.
    assert found.mean == 2.5
    assert found.low == pytest.approx(2.5 - 3.18245 * 0.645497, abs=1e-4)
    assert found.high == pytest.approx(2.5 + 3.18245 * 0.645497, abs=1e-4)
    assert Mean.of(torch.tensor([3.0])) == Mean(3.0, 3.0, 3.0)


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


def test_few_seeds_tell_nothing_apart() -> None:
    assert replace(made_along(*FALLS), seeds=SEEDS[:5]).as_good("boundary") == (True, True, True)


def test_the_headline_says_when_it_leaves_its_theory() -> None:
    text = along_headline(made_along(*FALLS))
    assert "predicts the network best at step 10, with a median pearson_r of 0.900" in text
    assert "Then it leaves its theory: at step 100 it is 0.400" in text
    text = along_headline(made_along(*RISES))
    assert "best at step 100" in text
    assert "Until the end, step 100, it does not fall below that." in text
    assert "leaves" not in text


def test_it_is_read_back(tmp_path: Path) -> None:
    along = made_along(*RISES)
    along.save(tmp_path)
    assert Along.load(tmp_path) == along
    json.loads((tmp_path / ALONG).read_text())
    (tmp_path / ALONG).write_text("{")
    with pytest.raises(InputError, match="holds no agreement along training"):
        Along.load(tmp_path)


def test_rows_have_every_number_with_its_interval() -> None:
    first, *_, last = made_along(*RISES).rows()
    assert (first["step"], last["step"]) == (1, 100)
    assert first["val_loss"] is None
    assert last["boundary/pearson_r/own"] == pytest.approx(0.9)
    assert last["boundary/pearson_r/own_low"] < 0.9 < last["boundary/pearson_r/own_high"]
    assert first["ideal/R2/last"] == pytest.approx(0.025)
    assert last["error/held_out/t0.5"] == pytest.approx(0.375)
    assert {"loss/training", "loss/held_out_low", "memorised/network"} <= set(last)


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
    error = ALONG_VIEWS["error"](along)
    assert [one.name for one in error.series] == ["t = 1", "t = 0.5"]


def test_what_was_not_measured_is_not_shown() -> None:
    along = made_along(*RISES)
    bare = tuple(
        replace(one, agreement={LAST: one.agreement[LAST]}, errors={}, memorised=())
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
    assert len(figure.axes) == 3
    for ax in figure.axes:
        assert ax.get_xscale() == "log"
        assert ax.get_xlabel() == STEPS
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["boundary (ELS)", "ideal (IS)", "held-out images", "training images"]


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
