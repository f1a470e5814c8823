"""The numbers and titles of every view, and that both backends draw each of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from made_results import T, made_results, made_scales, with_answers

from els.agreement import agreement
from els.analysis.attribution import COPIES, HELD_OUT, NETWORK, NOVELTY, RATIOS
from els.analysis.comparison import Comparison
from els.analysis.report import charts, figures, views
from els.analysis.report.style import machine_style
from els.analysis.report.views import COMPARISON_VIEWS, VIEWS, Dots, HeatMap, Lines, Panels, View
from els.analysis.results import Results
from els.machines import MACHINES, with_paper_name
from els.same_x import PLACES
from els.stacking import Weights

KINDS = ("boundary", "tempered", "local", "ideal")
MANY = ("boundary", *(kind for kind in MACHINES if kind != "boundary"))


@pytest.fixture(scope="module")
def results() -> Results:
    """Results with everything that there is to show."""
    data = replace(
        made_scales("boundary", sizes=(7, 7, 3, 3)), criterion="mse", by_seed=((3,),) * 4
    )
    return replace(made_results(KINDS), data_scales=data)


@pytest.fixture(scope="module")
def comparison(results: Results) -> Comparison:
    return Comparison((results, made_results(("local", "ideal"))))


def lines(results: Results, name: str) -> dict[str, views.Series]:
    view = VIEWS[name](results)
    assert isinstance(view, Lines)
    return {series.name: series for series in view.series}


def quartiles(values: torch.Tensor) -> list[list[float]]:
    return np.quantile(values.double().numpy(), [0.25, 0.5, 0.75], axis=-1).tolist()


# --- numbers ------------------------------------------------------------------------------------


def test_the_weights_of_a_mixture_are_added_up_by_machine() -> None:
    made = made_results(("mixture", "local", "ideal"))
    components = ("local 3", "local 5", "wiener")
    rows = ((0.1, 0.2, 0.7), (0.3, 0.3, 0.4), (0.0, 1.0, 0.0), (0.5, 0.25, 0.25))
    made = replace(made, weights=Weights("mixture", components, T, rows, (0, 1)))
    found = lines(made, "weights")
    assert list(found) == ["local (LS)", "wiener"]
    assert found["local (LS)"].value == pytest.approx((0.3, 0.6, 1.0, 0.75))
    assert found["wiener"].value == (0.7, 0.4, 0.0, 0.25)
    assert found["local (LS)"].style == machine_style(list(made.machines), "local")
    assert VIEWS["weights"](made_results(("local", "ideal"))) is None


def test_fitted_sizes_have_the_sizes_that_are_as_good(results: Results) -> None:
    # At t = 1 sizes 5 and 7 are alike on both seeds; below, the chosen one is far ahead.
    alike = ((0.5, 0.5), (0.9, 0.9001), (0.9, 0.9))
    apart = [tuple((0.9 if k == best else 0.5,) * 2 for k in (3, 5, 7)) for best in (5, 5, 3)]
    table = (alike, *apart)
    fitted = {"boundary": made_scales("boundary", table=table)}
    found = lines(replace(results, scales=fitted), "scales")
    boundary = found["boundary (ELS)"]
    assert (boundary.t, boundary.value) == (T, (7, 5, 5, 3))
    assert boundary.low == (5, 5, 5, 3)
    assert boundary.high == (7, 5, 5, 3)
    assert found["boundary: denoises unseen images best"].value == (7, 7, 3, 3)
    assert found["boundary: denoises unseen images best"].low is None
    assert list(lines(results, "scales")) == [
        "boundary (ELS)",
        "local (LS)",
        "boundary: denoises unseen images best",
        "largest size tried (7)",
    ]


def test_the_largest_size_tried_is_marked_where_something_is_at_it(results: Results) -> None:
    name = "largest size tried (7)"
    assert lines(results, "sizes")[name].value == (7, 7)
    low = {kind: made_scales(kind, sizes=(5, 5, 5, 3)) for kind in ("boundary", "local")}
    within = replace(results, scales=low)
    assert name in lines(within, "sizes")  # the curve of held-out images is at it
    assert name not in lines(replace(within, data_scales=None), "sizes")


@pytest.mark.parametrize(("largest", "ticks"), [(9, (1, 3, 5, 7, 9)), (43, None)])
def test_the_axis_of_sizes_has_odd_numbers_alone(largest: int, ticks: tuple | None) -> None:
    one = views.Series("a", machine_style(KINDS, "local"), (1.0, 0.5), (3, largest))
    assert views.odd_ticks([one]) == ticks


def test_all_that_is_a_size_is_on_one_chart(results: Results) -> None:
    found = lines(results, "sizes")
    assert list(found) == [
        "boundary (ELS), fitted",
        "local (LS), fitted",
        "boundary, from held-out images alone",
        "network: side holding 50 % of the gradient",
        "network: side holding 90 % of the gradient",
        "largest size tried (7)",
    ]
    assert found["network: side holding 50 % of the gradient"].value == (3,) * 4
    assert found["network: side holding 90 % of the gradient"].value == (5,) * 4


def test_what_the_network_looks_at_is_compared_with_the_first_machine(results: Results) -> None:
    view = VIEWS["looks"](results)
    assert (view.limits, view.y) == ((0, 12), "side of the square (pixels)")
    *_, limit = view.series
    assert (limit.name, limit.value) == ("theoretical receptive field: 9 px", (9, 9))
    facts = results.provenance.network
    for field, text, value in ((13, "13 px (above)", 13), (None, "the whole image", 8)):
        network = replace(facts, receptive_field=field)
        other = replace(results, provenance=replace(results.provenance, network=network))
        *_, limit = VIEWS["looks"](other).series
        assert (limit.name, limit.value[0]) == (f"theoretical receptive field: {text}", value)


def test_a_first_machine_without_a_size_has_a_chart_of_its_scale(results: Results) -> None:
    assert VIEWS["other_scale"](results) is None
    tempered = made_results(("tempered", "local"))
    view = VIEWS["other_scale"](tempered)
    assert (view.y, view.series[0].value) == ("fitted temperature", (7, 5, 5, 3))
    assert "tempered" not in lines(tempered, "scales")


@pytest.mark.parametrize(
    ("criterion", "unit"),
    [("cosine", "1 - cosine, times the best of a t"), ("l2", "L2, times the best of a t")],
)
def test_the_criterion_is_shown_relative_to_the_best_of_its_t(
    criterion: str, unit: str, results: Results
) -> None:
    scales = {kind: replace(one, criterion=criterion) for kind, one in results.scales.items()}
    view = VIEWS["criterion"](replace(results, scales=scales))
    assert isinstance(view, Panels)
    assert [one.title for one in view.views] == ["boundary", "tempered", "local"]
    assert [one.y for one in view.views] == ["size (pixels)", "temperature", "size (pixels)"]
    for one in view.views:
        table = scales[one.title].mean_table()
        assert (one.unit, one.t, one.rows, one.marks) == (unit, T, (3, 5, 7), (7, 5, 5, 3))
        assert one.told == (criterion, tuple(map(tuple, table)))
        loss = 1 - np.array(table) if criterion == "cosine" else np.array(table)
        np.testing.assert_allclose(one.cells, loss / loss.min(axis=1, keepdims=True))


def test_sizes_that_were_not_tried_stay_blank(results: Results) -> None:
    one = results.scales["boundary"]
    table = tuple(((None, None), *row[1:]) if i < 2 else row for i, row in enumerate(one.table))
    found = replace(results, scales={"boundary": replace(one, table=table)})
    view = VIEWS["criterion"](found)
    assert isinstance(view, Panels)
    (heat_map,) = view.views
    assert isinstance(heat_map, HeatMap)
    assert [np.isnan(cells[0]) for cells in heat_map.cells] == [True, True, False, False]
    assert np.nanmin(heat_map.cells) == 1
    (spec,) = charts.specs(view)
    assert json.dumps(spec, allow_nan=False).count('"colour": ') == 4 * 3 - 2
    assert_drawn(view)


def test_agreement_along_the_path_is_the_median_with_quartiles(results: Results) -> None:
    for kind in KINDS:
        series = lines(results, "by_t")[with_paper_name(kind)]
        low, middle, high = quartiles(results.by_t[kind])
        assert (series.t, list(series.value)) == (T, middle)
        assert (list(series.low), list(series.high)) == (low, high)
        assert series.style == machine_style(KINDS, kind)


def test_every_seed_is_a_dot(results: Results) -> None:
    view = VIEWS["spread"](results)
    assert list(view.names) == list(map(with_paper_name, KINDS))
    assert [row.name for row in view.rows] == list(view.names)
    for kind, row in zip(KINDS, view.rows, strict=True):
        values = results.by_seed[kind]["pearson_r"]
        assert row.values == tuple(values.tolist())
        assert [row.low, row.middle, row.high] == quartiles(values)


@pytest.mark.parametrize(
    ("kinds", "other"), [(KINDS, "ideal"), (("local", "wiener", "boundary"), "wiener")]
)
def test_machines_are_drawn_against_ideal_or_the_second(kinds: tuple[str, ...], other: str) -> None:
    results = made_results(kinds)
    view = VIEWS["scatter"](results)
    assert view.title == f"Above the line: better than {other}"
    assert view.x == f"pearson_r of {with_paper_name(other)}"
    others = [kind for kind in kinds if kind != other]
    assert [one.name for one in view.points] == list(map(with_paper_name, others))
    assert view.seeds == results.seeds
    for kind, one in zip(others, view.points, strict=True):
        assert one.x == tuple(results.by_seed[other]["pearson_r"].tolist())
        assert one.y == tuple(results.by_seed[kind]["pearson_r"].tolist())


def test_the_equivariance_error_is_by_distance_with_the_boundary_of_the_size(
    results: Results,
) -> None:
    view = VIEWS["equivariance"](results)
    assert view.cells == ((0.9, 0.2, 0.0),) * 4
    assert (view.rows, view.most) == ((0, 1, 2), 1)
    assert view.title == "Equivariance error; over all places 0.5 at most"
    assert view.edge.values == (2.5, 1.5, 1.5, 0.5)
    assert VIEWS["equivariance"](made_results(("local",))).edge is None


def test_novelty_has_a_panel_for_each_measure(results: Results) -> None:
    view = VIEWS["novelty"](results)
    assert [one.title for one in view.views] == list(NOVELTY.values())
    by_seed = results.attribution.by_seed
    sides = (NETWORK, "boundary", HELD_OUT, COPIES)
    for name, one in zip(NOVELTY, view.views, strict=True):
        assert isinstance(one, Dots)
        assert one.names == (NETWORK, "boundary (ELS)", HELD_OUT, COPIES)
        for side, row in zip(sides, one.rows, strict=True):
            values = by_seed[side][name]
            assert row.values == tuple(values.tolist())
            assert [row.low, row.middle, row.high] == quartiles(values)
    alone = VIEWS["novelty"](made_results(("ideal",)))
    assert [one.title for one in alone.views] == list(NOVELTY.values())[:2]


def test_the_scores_of_protocol_locality_are_shown_where_it_was_asked_for(
    results: Results,
) -> None:
    assert VIEWS["locality"](results) is None
    protocol = replace(results.provenance.protocol, protocol="locality")
    found = replace(results, provenance=replace(results.provenance, protocol=protocol))
    view = VIEWS["locality"](found)
    assert [row.name for row in view.rows] == list(map(with_paper_name, KINDS))
    for row, scores in zip(view.rows, found.locality_scores.values(), strict=True):
        assert row.values == tuple(scores.tolist())
    assert_drawn(view)


def test_copies_have_a_panel_in_place_and_one_up_to_translation(results: Results) -> None:
    view = VIEWS["copies"](results)
    assert [one.title for one in view.views] == list(RATIOS.values())
    for name, one in zip(RATIOS, view.views, strict=True):
        assert one.limit == pytest.approx(1 / 3)
        for side, row in zip((NETWORK, "boundary", HELD_OUT, COPIES), one.rows, strict=True):
            assert row.values == tuple(results.attribution.by_seed[side][name].tolist())
    for figure_ax in figures.view_figure(view).axes:
        assert [line.get_xdata() for line in figure_ax.lines if line.get_ls() == "--"] == [
            [pytest.approx(1 / 3)] * 2
        ]
    for spec in charts.specs(view):
        assert spec["layer"][-1]["mark"]["type"] == "rule"


def test_effective_patches_have_the_fitted_scale_and_the_lines_of_collapse(
    results: Results,
) -> None:
    view = VIEWS["information"](results)
    assert [one.title for one in view.views] == ["boundary (ELS)", "local (LS)"]
    first, found = view.views[0], results.information["boundary"]
    assert (first.t, first.rows, first.marks) == (T, (3, 5, 7), (7, 5, 5, 3))
    np.testing.assert_allclose(first.cells, found.effective_patches)
    assert [track.rows for track in first.tracks] == [(7, 5, 3, None), (7, 5, 3, None)]
    lines = {series.name: series for series in VIEWS["memorisation"](results).views[0].series}
    assert [one.value[:3] for one in lines.values()] == [(7, 5, 5), (7, 5, 3), (7, 5, 3)]
    assert np.isnan(lines["k_mem: largest weight 1/2"].value[3])
    # Each track stands in the chart as a line over its casing, without the t where it has no row.
    (spec, _) = charts.specs(view)
    drawn = [layer for layer in spec["layer"] if layer["mark"]["type"] == "line"]
    assert [len(layer["data"]["values"]) for layer in drawn] == [3] * 4
    unfitted = VIEWS["information"](replace(results, scales={}))
    assert [one.marks for one in unfitted.views] == [None, None]
    assert VIEWS["memorisation"](replace(results, scales={})) is None


def test_one_colour_means_one_thing_in_every_view(results: Results) -> None:
    colours: dict[str, set[str]] = {}
    for name in VIEWS:
        view = VIEWS[name](results)
        panels = view.views if isinstance(view, Panels) else (view,)
        fields = [
            getattr(panel, field, ()) for panel in panels for field in ("series", "rows", "points")
        ]
        parts = [one for field in fields for one in field if hasattr(one, "style")]
        for part in parts:
            # "local (LS), fitted" is of local, "network: side ..." of the network
            of = re.split(r"[ :,]", part.name.removeprefix("fitted: "))[0]
            if "held-out" in part.name or "unseen" in part.name:
                of = HELD_OUT
            if of in (*KINDS, NETWORK, HELD_OUT, COPIES):
                colours.setdefault(of, set()).add(part.style.colour)
    assert {len(some) for some in colours.values()} == {1}
    assert len(set().union(*colours.values())) == len(colours)
    assert set(colours) >= {"boundary", "local", "ideal", NETWORK, HELD_OUT}


def test_where_the_size_of_the_patches_changes_is_marked(results: Results) -> None:
    tracing = results.attribution.tracing
    mosaic = replace(tracing.mosaics["boundary"], sides=(7, 5, 5, 3))
    mosaics = {**tracing.mosaics, "boundary": mosaic}
    attribution = replace(results.attribution, tracing=replace(tracing, mosaics=mosaics))
    view = VIEWS["consistency"](replace(results, attribution=attribution))
    for one in view.views:
        assert one.changes == ((0.875, "k = 5"), (0.375, "k = 3"))
    spec = charts.specs(view)[1]
    rows = [row for layer in spec["layer"] if "data" in layer for row in layer["data"]["values"]]
    told = [row["change"] for row in rows if "change" in row]
    assert set(told) == {"k = 5", "k = 3"}
    texts = [text.get_text().strip() for ax in figures.view_figure(view).axes for text in ax.texts]
    assert texts == ["k = 5", "k = 3"] * 2


def test_consistency_is_that_of_the_traced_machine(results: Results) -> None:
    view = VIEWS["consistency"](results)
    mosaic = results.attribution.traced
    assert [one.y for one in view.views] == ["local consistency", "patches that count"]
    assert [one.log for one in view.views] == [False, True]
    wanted = (mosaic.consistency, mosaic.effective_size.flatten(2).double().median(dim=-1).values)
    assert list(view.views[0].series[0].value) == quartiles(wanted[0])[1]
    pixels = mosaic.effective_size.flatten(2).double().numpy()
    np.testing.assert_allclose(
        view.views[1].series[0].value, np.median(np.median(pixels, axis=2), axis=1)
    )


def test_consistency_that_is_not_known_is_left_out(results: Results) -> None:
    tracing = results.attribution.tracing
    mosaic = tracing.mosaics["boundary"]

    def with_consistency(values: torch.Tensor) -> Panels:
        mosaics = {**tracing.mosaics, "boundary": replace(mosaic, consistency=values)}
        attribution = replace(results.attribution, tracing=replace(tracing, mosaics=mosaics))
        return VIEWS["consistency"](replace(results, attribution=attribution))

    unknown = torch.full_like(mosaic.consistency, torch.nan)
    assert [one.y for one in with_consistency(unknown).views] == ["patches that count"]
    partly = mosaic.consistency.clone()
    partly[0] = torch.nan
    first, *rest = with_consistency(partly).views[0].series[0].value
    assert np.isnan(first)
    assert np.isfinite(rest).all()


def test_networks_are_compared_by_their_first_machines(comparison: Comparison) -> None:
    assert comparison.names == ["made (1)", "made (2)"]
    one, two = comparison.results
    scales = COMPARISON_VIEWS["scales"](comparison)
    assert {s.name: s.value for s in scales.series} == dict.fromkeys(comparison.names, (7, 5, 5, 3))
    primary = COMPARISON_VIEWS["primary"](comparison)
    medians = [list(series.value) for series in primary.series]
    assert medians == [quartiles(one.by_t["boundary"])[1], quartiles(two.by_t["local"])[1]]
    by_t = COMPARISON_VIEWS["by_t"](comparison)
    assert [panel.title for panel in by_t.views] == comparison.names
    for panel, each in zip(by_t.views, comparison.results, strict=True):
        for kind, series in zip(each.by_t, panel.series, strict=True):
            assert series.name == with_paper_name(kind)
            assert list(series.value) == quartiles(each.by_t[kind])[1]
            assert series.style.colour == machine_style(comparison.kinds, kind).colour
            assert series.low is None


# --- answers apart from paths ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def answered(results: Results) -> Results:
    return with_answers(results)


def test_what_other_networks_reach_is_behind_every_figure_of_agreement(answered: Results) -> None:
    low, middle, high = quartiles(answered.ceiling_by_t["pearson_r"])
    shown = [
        VIEWS["by_t"](answered).behind,
        COMPARISON_VIEWS["by_t"](Comparison((answered,))).views[0].behind,
    ]
    for behind in shown:
        assert (behind.name, list(behind.value)) == (views.REACHED, middle)
        assert (list(behind.low), list(behind.high)) == (low, high)
    twins = [drawn[20] for drawn in answered.twins.values()]
    scores = [agreement(x, answered.network[20])["pearson_r"] for x in twins]
    low, middle, high = quartiles(sum(scores) / 2)
    for name in ("spread", "scatter"):
        band = VIEWS[name](answered).behind
        assert (band.name, band.low, band.high) == (views.REACHED, low, high)
    *_, row = VIEWS["spread"](answered).rows
    assert (row.name, row.middle) == (views.REACHED, middle)


def test_errors_are_shown_beside_the_filters_and_on_both_sets(answered: Results) -> None:
    errors, ratios, gaps = VIEWS["denoising"](answered).views
    found = answered.denoising
    names = ["network", *map(with_paper_name, KINDS)]
    assert [one.name for one in errors.series] == [*names, "Wiener filter"]
    for side, one in zip(("network", *KINDS, "wiener"), errors.series, strict=True):
        mean = found.mean["held_out"][side]
        assert (one.value, one.low, one.high) == (mean.value, mean.low, mean.high)
    for side, one in zip(("network", *KINDS), ratios.series, strict=False):
        assert one.value == found.over_wiener["held_out"][side].value
    assert gaps.series[0].value == found.relative_gap["network"].value
    assert errors.log
    assert ratios.limits[1] <= 10


def test_at_t_of_one_an_error_that_is_magnified_does_not_flatten_the_rest(
    answered: Results,
) -> None:
    values = answered.denoising.errors["held_out"]
    large = {**values, "network": values["network"] * torch.tensor([1e4, 1, 1, 1])[:, None]}
    denoising = replace(answered.denoising, errors={"held_out": large})
    errors, ratios = VIEWS["denoising"](replace(answered, denoising=denoising)).views
    assert errors.limits[1] == 10 * max(denoising.mean["held_out"]["wiener"].value)
    assert ratios.limits[1] == 10
    assert max(ratios.series[0].value) > 1000


def test_the_same_x_has_a_panel_for_each_place(answered: Results) -> None:
    own, *places = VIEWS["same_x"](answered).views
    assert own.series == VIEWS["by_t"](answered).series
    assert [one.title for one in places] == list(PLACES.values())
    for place, panel in zip(PLACES, places, strict=True):
        found = answered.same_x.median[place]
        assert [one.name for one in panel.series] == list(map(with_paper_name, KINDS))
        for kind, series in zip(KINDS, panel.series, strict=True):
            assert series.value == found[kind]["pearson_r"].value
            assert series.low == found[kind]["pearson_r"].low
        assert panel.behind.value == found["ceiling"]["pearson_r"].value
    alone = VIEWS["same_x"](with_answers(answered, twins=()))
    assert all(panel.behind is None for panel in alone.views)


# --- what is not there --------------------------------------------------------------------------


def test_what_there_is_nothing_of_is_not_shown() -> None:
    bare = replace(made_results(("ideal",)), probes=None, attribution=None)
    shown = [name for name, view in VIEWS.items() if view(bare) is not None]
    assert shown == ["by_t", "spread"]
    without_patches = made_results(("wiener", "ideal"))
    shown = [name for name, view in VIEWS.items() if view(without_patches) is not None]
    measured = ["looks", "sizes", "by_t", "spread", "scatter", "equivariance"]
    assert shown == [*measured, "novelty", "copies"]
    assert COMPARISON_VIEWS["scales"](Comparison((bare,))) is None


# --- both backends ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize(
    "kinds", [KINDS, ("tempered", "local"), MANY], ids=["few", "other", "many"]
)
def test_both_backends_draw_it(name: str, kinds: tuple[str, ...]) -> None:
    for results in (made_results(kinds), with_answers(made_results(kinds))):
        assert_drawn(VIEWS[name](results))


@pytest.mark.parametrize("name", COMPARISON_VIEWS)
def test_both_backends_draw_comparisons(name: str, comparison: Comparison) -> None:
    assert_drawn(COMPARISON_VIEWS[name](comparison))


def assert_drawn(view: View | None) -> None:
    if view is None:
        assert charts.specs(view) == []
        return
    figure = figures.view_figure(view)
    figure.draw_without_rendering()
    panels = view.views if isinstance(view, Panels) else (view,)
    specs = charts.specs(view)
    assert len(specs) == len(panels)
    for panel, spec in zip(panels, specs, strict=True):
        assert spec["width"] == "container"
        assert_holds(spec, panel)


def assert_holds(spec: dict, panel: View) -> None:
    """The chart's data are the panel's numbers."""
    layers = [part["data"] for part in (spec, *spec.get("layer", [])) if "data" in part]
    found = [row for data in layers for row in data["values"]]
    if isinstance(panel, Lines):
        lines = [*panel.series, *([] if panel.behind is None else [panel.behind])]
        points = {(s.name, t, v) for s in lines for t, v in zip(s.t, s.value, strict=True)}
        wanted = {one for one in points if not np.isnan(one[-1])}
        drawn = {(row["series"], row["t"], row["value"]) for row in found if "series" in row}
        assert drawn == wanted
    elif isinstance(panel, HeatMap):
        cells = [cell for line in panel.cells for cell in line if not np.isnan(cell)]
        assert [row["colour"] for row in found if "colour" in row] == cells
    elif isinstance(panel, Dots):
        assert_behind(found, panel)
        found = [row for row in found if "behind" not in row]
        dots = [row["value"] for row in found if "value" in row and "low" not in row]
        assert dots == [value for row in panel.rows for value in row.values]
        keys = ("of", "low", "value", "high")
        drawn = {tuple(row[key] for key in keys) for row in found if "low" in row}
        assert drawn == {(one.name, one.low, one.middle, one.high) for one in panel.rows}
    else:
        assert_behind(found, panel)
        wanted = [
            (one.name, x, y) for one in panel.points for x, y in zip(one.x, one.y, strict=True)
        ]
        assert [(row["machine"], row["x"], row["y"]) for row in found if "seed" in row] == wanted


def assert_behind(found: list[dict], panel: views.Dots | views.Scatter) -> None:
    bands = [(row["behind"], row["from"], row["to"]) for row in found if "behind" in row]
    behind = panel.behind
    assert bands == ([] if behind is None else [(behind.name, behind.low, behind.high)])


# --- the rule -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["report/figures.py", "report/charts.py", "report/page.py", "tracking/content.py"]
)
@pytest.mark.parametrize("forbidden", [r"quantile\(", r"median\(", r"\bagreement\(", r"\.mean\("])
def test_what_draws_computes_nothing(module: str, forbidden: str) -> None:
    text = (ROOT / "analysis" / module).read_text()
    assert not re.search(forbidden, text)


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_says_what_it_shows(name: str) -> None:
    function: Callable[[Results], View | None] = VIEWS[name]
    assert function.__doc__
