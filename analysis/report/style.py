"""How every figure looks: sizes of a paper's columns, fonts, and what tells machines apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from els.errors import InputError
from els.files import replacing

FORMATS = ("png", "pdf", "svg")
ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0  # widths in inches
DPI = 300
# Okabe & Ito's colours, which colour-blind readers can tell apart, but the yellow: too pale.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
# As many as no divisor of the colours: 28 machines differ, and neighbours differ in both.
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "d", "h", "p", "8")
STYLE = {
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
_UNDATED = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def chosen_formats(asked: str | Sequence[str]) -> tuple[str, ...]:
    """The file formats that "pdf,png" or a list of names asks for.

    Raises:
        InputError: when one is unknown, or there is none.
    """
    names = asked.split(",") if isinstance(asked, str) else asked
    formats = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not formats or set(formats) - set(FORMATS):
        raise InputError(
            f"figures are asked for as '{asked if isinstance(asked, str) else ','.join(asked)}'; "
            f"give one or more of {', '.join(FORMATS)}, such as pdf,png"
        )
    return formats


def machine_colour(kinds: Sequence[str], kind: str) -> tuple[str, object]:
    """Colour and dashes of a machine's line, by its place among the machines."""
    i = list(kinds).index(kind)
    return _COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)]


def machine_marker(kinds: Sequence[str], kind: str) -> str:
    """The marker of a machine, by its place among the machines."""
    return _MARKERS[list(kinds).index(kind) % len(_MARKERS)]


def styled_figure(
    rows: int = 1, columns: int = 1, *, width: float = ONE_COLUMN, height: float = 2.4,
    panels: int | None = None, share: bool = False,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure of so many panels in a grid, in inches; all of them unless told.

    With `share`, the panels have the same axes, and only the outer ones are labelled.
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
