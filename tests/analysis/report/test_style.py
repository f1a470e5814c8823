from itertools import pairwise
from pathlib import Path

import pytest

from els.analysis.report.style import machine_style, save_figure, styled_figure
from els.machines import MACHINES

MANY = tuple(MACHINES)


def test_machines_differ_in_more_than_colour() -> None:
    styles = [machine_style(MANY, kind, marker=True) for kind in MANY]
    assert len({(one.colour, one.dashes) for one in styles}) == len(MANY)
    assert len({one.marker for one in styles}) == len(MANY)
    for one, following in pairwise(styles):
        assert one.colour != following.colour
        assert one.dashes != following.dashes


def test_panels_that_are_not_needed_are_hidden() -> None:
    figure, axes = styled_figure(2, 3, panels=4, share=True)
    assert len(axes) == 4
    assert [ax.get_visible() for ax in figure.axes] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_figure_is_whole_and_the_same_every_time(suffix: str, tmp_path: Path) -> None:
    content = []
    for name in "ab":
        figure, (ax,) = styled_figure()
        ax.plot([0, 1], [1, 0])
        (path,) = save_figure(figure, tmp_path / name, "line", (suffix,))
        content.append(path.read_bytes())
        assert [one.name for one in path.parent.iterdir()] == [f"line.{suffix}"]
    assert content[0] == content[1]
