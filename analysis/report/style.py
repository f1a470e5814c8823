"""How every figure looks: sizes of a paper's columns, fonts, and what tells machines apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from els.files import replacing

Dashes = str | tuple[int, tuple[float, ...]]
ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0  # widths in inches
DPI = 300
# Okabe & Ito's colours, which colour-blind readers can tell apart, but the yellow, which is too
# pale, and black, which is the network's.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#882255")
# As many as no divisor of the colours: 28 machines differ, and neighbours differ in both.
SOLID: Dashes = "-"
DASHED: Dashes = (0, (5, 1.5))
DOTTED: Dashes = (0, (1, 1.2))
DASHED_AND_DOTTED: Dashes = (0, (6, 1.5, 1, 1.5))
_DASHES: tuple[Dashes, ...] = (SOLID, DASHED, DOTTED, DASHED_AND_DOTTED)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "d", "h", "p", "8", "H", "x")
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "image.cmap": "cividis",
    "image.interpolation": "nearest",
    "savefig.dpi": DPI,
    "pdf.fonttype": 42,  # TrueType, which publishers and editors of figures can use
    "ps.fonttype": 42,
    "svg.hashsalt": "els",
}
# Without a date, the same results give the same file.
_UNDATED: dict[str, dict[str, None]] = {
    "png": {},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}


@dataclass(frozen=True)
class Style:
    """What tells a line or a group of points from others.

    Attributes:
        colour: such as "#0072B2".
        dashes: "-" or matplotlib's (offset, lengths).
        marker: matplotlib's name of a marker; empty for none.
        thin: a line that stands back behind others.
    """

    colour: str
    dashes: Dashes = SOLID
    marker: str = ""
    thin: bool = False


def machine_style(kinds: Sequence[str], kind: str, *, marker: bool = False) -> Style:
    """The style of a machine, by its place among the machines."""
    i = list(kinds).index(kind)
    return Style(
        colour=_COLOURS[i % len(_COLOURS)],
        dashes=_DASHES[i % len(_DASHES)],
        marker=_MARKERS[i % len(_MARKERS)] if marker else "",
    )


def styled_figure(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float = ONE_COLUMN,
    height: float = 2.4,
    panels: int | None = None,
    share: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of panels in a grid.

    Args:
        rows: of the grid.
        columns: of the grid.
        width: in inches.
        height: in inches.
        panels: how many panels are shown; default: all of the grid.
        share: the panels have the same axes, and only the outer ones are labelled.
    """
    panels = rows * columns if panels is None else panels
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    return figure, shown_panels(axes, panels)


def shown_panels(axes: np.ndarray, panels: int) -> list[Axes]:
    """The first of a grid of panels, row by row, with ticks wherever none is below; no others."""
    shown, columns = list(axes.flat)[:panels], axes.shape[1]
    for ax in axes.flat[panels:]:
        ax.set_visible(False)
    for ax in shown[-columns:]:
        ax.tick_params(labelbottom=True)
    return shown


def save_figure(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write <folder>/<name>.<format> for each format, whole or not at all; returns the paths."""
    paths = [folder / f"{name}.{suffix}" for suffix in formats]
    with matplotlib.rc_context(STYLE):
        for path in paths:
            with replacing(path) as partial:
                figure.savefig(partial, metadata=_UNDATED[path.suffix[1:]])
    return paths
