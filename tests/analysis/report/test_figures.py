import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_results import made_results, made_weights, with_answers
from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from els.analysis.comparison import Comparison
from els.analysis.options import Protocol
from els.analysis.report.figures import FIGURES, comparison_figure, draw
from els.analysis.report.style import DPI, TWO_COLUMNS
from els.analysis.report.write import write_figures
from els.analysis.results import Results
from els.machines import MACHINES, with_paper_name

THREE = ("boundary", "local", "ideal")
MANY = ("boundary", *(kind for kind in MACHINES if kind != "boundary"))
SETS = {"one": ("ideal",), "three": THREE, "many": MANY}


def everything(kinds: tuple[str, ...], name: str = "") -> Results:
    """Results with all that a figure can be of; those of the protocol that one figure is of."""
    results = with_answers(made_results(kinds))
    if "local" in kinds:
        results = replace(results, weights=made_weights())
    if name != "locality":
        return results
    protocol = Protocol(protocol="locality")
    return replace(results, provenance=replace(results.provenance, protocol=protocol))


def drawn(name: str, kinds: tuple[str, ...]) -> Figure | None:
    """A figure laid out."""
    figure = draw(name, everything(kinds, name))
    if figure is not None:
        figure.draw_without_rendering()
    return figure


@pytest.fixture(params=[(name, size) for name in FIGURES for size in SETS], ids="-".join)
def figure(request: pytest.FixtureRequest) -> Figure:
    name, size = request.param
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        figure = drawn(name, SETS[size])
    if figure is None:
        assert size == "one"  # ideal has no scale and no patches
        pytest.skip("there is nothing to show")
    return figure


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


def test_many_machines_get_a_panel_each() -> None:
    def panels(name: str, kinds: tuple[str, ...]) -> list[str]:
        axes = [ax for ax in drawn(name, kinds).axes if ax.get_visible()]
        return [ax.get_title("left") or ax.get_title("right") for ax in axes]

    assert len(panels("by_t", THREE)) == 1
    assert panels("by_t", MANY) == list(map(with_paper_name, MANY))
    others = [with_paper_name(kind) for kind in MANY if kind != "ideal"]
    assert panels("agreement", MANY)[1:] == others
    assert panels("agreement", ("boundary", "local"))[1:] == ["boundary (ELS)"]
    assert len(panels("agreement", ("ideal",))) == 1


def test_figures_are_written_for_print_in_every_format(tmp_path: Path) -> None:
    paths = write_figures(everything(THREE, "locality"), tmp_path, ("pdf", "png", "svg"))
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
        write_figures(made_results(("ideal",)), tmp_path / name, (suffix,)) for name in "ab"
    )
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_the_legend_of_a_comparison_covers_nothing() -> None:
    figure = comparison_figure(Comparison((made_results(MANY), made_results(THREE))))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    for ax in figure.axes:
        assert not legend.get_window_extent().overlaps(ax.get_tightbbox())
