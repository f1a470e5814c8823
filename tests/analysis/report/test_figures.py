import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from made_results import made_results, made_scales
from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from els.analysis.comparison import Comparison
from els.analysis.report.figures import FIGURES, drawable, write_figures
from els.analysis.report.style import (
    DPI,
    STYLE,
    TWO_COLUMNS,
    chosen_formats,
    machine_colour,
    machine_marker,
)
from els.errors import InputError
from els.machines import MACHINES

THREE = ("boundary", "local", "ideal")
MANY = ("boundary", *(kind for kind in MACHINES if kind != "boundary"))
SETS = {"one": ("ideal",), "three": THREE, "many": MANY}


def drawn(name: str, kinds: tuple[str, ...]) -> Figure:
    """A figure laid out."""
    with matplotlib.rc_context(STYLE):
        figure = FIGURES[name](made_results(kinds))
        figure.draw_without_rendering()
    return figure


@pytest.fixture(params=[(name, size) for name in FIGURES for size in SETS], ids="-".join)
def figure(request: pytest.FixtureRequest) -> Figure:
    name, size = request.param
    if name not in drawable(made_results(SETS[size])):
        pytest.skip("ideal has no scale and no patches")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return drawn(name, SETS[size])


def test_nothing_written_is_cut_off_and_the_figure_fits_a_page(figure: Figure) -> None:
    assert figure.get_figwidth() <= TWO_COLUMNS + 1e-6
    assert figure.get_figheight() <= 9
    width, height = figure.bbox.size
    ticks = {text for tick in figure.findobj(Tick) for text in tick.findobj(Text)}
    for text in set(figure.findobj(Text)) - ticks:
        if text.get_text() and (text.axes is None or text.axes.get_visible()):
            box = text.get_window_extent()
            inside = box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2
            assert inside, text.get_text()


def test_no_legend_covers_anything(figure: Figure) -> None:
    for ax in figure.axes:
        assert ax.get_legend() is None
        for legend in figure.legends:
            assert not legend.get_window_extent().overlaps(ax.get_tightbbox())


def test_machines_differ_in_more_than_colour() -> None:
    looks = [machine_colour(MANY, kind) for kind in MANY]
    assert len(set(looks)) == len({machine_marker(MANY, kind) for kind in MANY}) == len(MANY)
    for (colour, dashes), (next_colour, next_dashes) in pairwise(looks):
        assert colour != next_colour
        assert dashes != next_dashes


def test_many_machines_get_a_panel_each() -> None:
    def panels(name: str, kinds: tuple[str, ...]) -> list[str]:
        axes = [ax for ax in drawn(name, kinds).axes if ax.get_visible()]
        return [ax.get_title("left") or ax.get_title("right") for ax in axes]

    assert len(panels("by_t", THREE)) == 1
    assert panels("by_t", MANY) == list(MANY)
    assert panels("agreement", MANY)[1:] == [kind for kind in MANY if kind != "ideal"]
    assert len(panels("agreement", ("boundary", "local"))) == 1


def test_figures_are_written_for_print_in_every_format(tmp_path: Path) -> None:
    results = made_results(THREE)
    paths = write_figures(results, tmp_path, formats=("pdf", "png", "svg"))
    assert {path.name for path in paths} == {
        f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png", "svg")
    }
    for name in FIGURES:
        pdf = (tmp_path / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        assert b"/FontFile2" in pdf  # TrueType
        assert b"/Type3" not in pdf
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.info["dpi"] == pytest.approx((DPI, DPI), rel=1e-3)
            assert image.width <= TWO_COLUMNS * DPI + 1
            assert np.asarray(image.convert("L")).std() > 5
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_results_give_the_same_file(suffix: str, tmp_path: Path) -> None:
    one, two = (
        write_figures(made_results(("ideal",)), tmp_path / name, formats=(suffix,)) for name in "ab"
    )
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_the_criterion_is_shown_whatever_it_is(tmp_path: Path) -> None:
    results = made_results(("boundary",))
    for criterion, label in (("cosine", "1 - cosine"), ("l2", "L2")):
        scales = {"boundary": replace(made_scales("boundary"), criterion=criterion)}
        figure = FIGURES["criterion"](replace(results, scales=scales))
        assert figure.axes[-1].get_ylabel().startswith(label)


def test_comparison_in_every_format(tmp_path: Path) -> None:
    comparison = Comparison((made_results(MANY), made_results(THREE)))
    paths = comparison.write(tmp_path, formats=("svg", "pdf"))
    assert [path.name for path in paths] == [
        "report.html",
        "comparison.csv",
        "by_t.svg",
        "by_t.pdf",
    ]
    figure = comparison.by_t_figure()
    figure.draw_without_rendering()
    (legend,) = figure.legends
    for ax in figure.axes:
        assert not legend.get_window_extent().overlaps(ax.get_tightbbox())


def test_formats_are_a_comma_list_or_a_list() -> None:
    assert chosen_formats("pdf, png,pdf") == chosen_formats(["pdf", "png"]) == ("pdf", "png")
    for asked in ("", "gif", ["png", "eps"]):
        with pytest.raises(InputError, match="one or more of png, pdf, svg"):
            chosen_formats(asked)
