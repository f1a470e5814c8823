"""Views as figures for print, and the two pictures of samples. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
from einops import rearrange
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FormatStrFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from torch import Tensor

from els.analysis.along import Along
from els.analysis.comparison import Comparison
from els.analysis.report.style import (
    ONE_COLUMN,
    STYLE,
    TWO_COLUMNS,
    Style,
    shown_panels,
    styled_figure,
)
from els.analysis.report.views import (
    TIME,
    VIEWS,
    Dots,
    HeatMap,
    Lines,
    Panels,
    Points,
    Row,
    Scatter,
    Series,
    Track,
    View,
    along_panels,
    compared_by_t,
    scatter,
    spread,
)
from els.analysis.results import Results
from els.images import to_uint8

_COLUMNS = 12
# Height of a page, and widths of a letter of a label and of a line in a legend, in inches.
_PAGE, _LETTER, _HANDLE = 9, 0.075, 0.4
_MANY_DECADES = 1e3  # from here on a logarithmic scale of colours has powers of ten alone
_LEGEND_COLUMNS, _LEGEND_ROW = 5, 0.14  # of a legend for several panels; inches
_FEW = 4  # more lines than these get a panel each
_CASING = [patheffects.Stroke(linewidth=3, foreground="black"), patheffects.Normal()]
_BEHIND: dict[str, Any] = {"color": "#B0B0B0", "alpha": 0.4, "lw": 0, "zorder": 0}
_BORDER: dict[str, Any] = {"colors": "#D55E00", "linewidths": 0.4}


def view_figure(view: View) -> Figure:
    """A view as a figure of its own."""
    with matplotlib.rc_context(STYLE):
        return _RENDERERS[type(view)](view)


# --- lines ------------------------------------------------------------------------------------


def _lines_figure(view: Lines) -> Figure:
    if len(view.series) > _FEW and not view.step:
        return _apart_figure(view)
    figure, (ax,) = styled_figure(height=2.7)
    _draw_lines(ax, view)
    ax.set(xlabel=view.x, title=view.title)
    _legend_below(figure, ax)
    return figure


def _apart_figure(view: Lines) -> Figure:
    """A panel for each line, with the others in grey."""
    count, columns = len(view.series), 5
    rows = -(-count // columns)
    figure, axes = styled_figure(
        rows, columns, panels=count, width=TWO_COLUMNS, height=1.3 * rows + 0.6, share=True
    )
    for ax, series in zip(axes, view.series, strict=True):
        _draw_behind(ax, view)
        for other in view.series:
            ax.plot(other.t, other.value, color="0.85", lw=0.5)
        _draw_series(ax, series)
        ax.set(xlim=(1.02, 0), title=series.name)
    figure.suptitle(f"{view.title}; the others in grey", x=0.01, ha="left")
    figure.supxlabel(TIME, fontsize=8)
    figure.supylabel(view.y, fontsize=8)
    return figure


def _draw_behind(ax: Axes, view: Lines) -> None:
    """The band that is always there, and its line."""
    if view.behind is not None:
        _draw_series(ax, replace(view.behind, style=replace(view.behind.style, thin=True)))


def _draw_lines(ax: Axes, view: Lines) -> None:
    _draw_behind(ax, view)
    for series in view.series:
        (_draw_steps if view.step else _draw_series)(ax, series)
    ax.set(ylabel=view.y)
    if view.x == TIME:
        ax.set(xlim=(0, 1.02) if view.step else (1.02, 0))
    else:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    if view.log:
        ax.set_yscale("log")
    if view.limits is not None:
        ax.set_ylim(view.limits)
    if view.ticks is not None:
        ax.set_yticks(view.ticks)
    for i, (t, text) in enumerate(view.changes):
        ax.axvline(t, color="grey", lw=0.6, ls=":", zorder=0)
        at: dict[str, Any] = {"va": "bottom", "transform": ax.get_xaxis_transform()}
        ax.text(t, 1 + 0.05 * (i % 2), f" {text}", fontsize=5, color="grey", **at)


def _draw_series(ax: Axes, series: Series) -> None:
    ax.plot(series.t, series.value, label=series.name, **_look(series.style))
    if series.low is not None and series.high is not None:
        colour = series.style.colour
        ax.fill_between(series.t, series.low, series.high, color=colour, alpha=0.25, lw=0)


def _draw_steps(ax: Axes, series: Series) -> None:
    ax.step(series.t, series.value, where="mid", label=series.name, **_look(series.style))
    if series.low is not None and series.high is not None:
        band: dict[str, Any] = {"color": series.style.colour, "alpha": 0.15, "lw": 0}
        ax.fill_between(series.t, series.low, series.high, step="mid", **band)


def _look(style: Style) -> dict[str, Any]:
    look = {"color": style.colour, "ls": style.dashes, "marker": style.marker or None}
    return {**look, "lw": 1, "ms": 3.5} if style.thin else {**look, "ms": 3}


# --- heat maps --------------------------------------------------------------------------------


def _heat_map_figure(view: HeatMap) -> Figure:
    figure, (ax,) = styled_figure()
    image = _draw_heat_map(ax, view, _norm([view]))
    ax.set(xlabel=TIME, title=view.title)
    if view.edge is not None:
        _legend_below(figure, ax)
    _colour_bar(figure, image, ax, view, aspect=20)
    return figure


def _colour_bar(
    figure: Figure, image: ScalarMappable, axes: Any, view: HeatMap, *, aspect: float
) -> None:
    """The scale of the colours; plain numbers where it is logarithmic."""
    bar = figure.colorbar(image, ax=axes, label=view.unit, aspect=aspect)
    if view.log:
        low, high = bar.mappable.get_clim()
        many = high > _MANY_DECADES * low
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1,) if many else (1, 2, 5)))
        bar.ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        bar.ax.yaxis.set_minor_locator(NullLocator())


def _draw_heat_map(ax: Axes, view: HeatMap, norm: Normalize) -> ScalarMappable:
    """Rows over columns, from t = 0 upwards."""
    t, cells = view.t[::-1], np.array(view.cells)[::-1].T
    if norm.vmin is not None:
        cells = np.maximum(cells, norm.vmin)
    image = ax.imshow(cells, origin="lower", aspect="auto", norm=norm)
    if view.marks is not None:
        marked = [view.rows.index(row) for row in view.marks[::-1]]
        ax.plot(range(len(t)), marked, "o", color="white", mec="black", mew=0.7, ms=3.5)
        ax.set_yticks(range(len(view.rows)), [f"{row:g}" for row in view.rows], fontsize=6)
    for track in view.tracks:
        _draw_track(ax, view, track)
    if view.edge is not None:
        ax.step(
            range(len(t)),
            view.edge.values[::-1],
            where="mid",
            color="white",
            path_effects=_CASING,
            label=view.edge.name,
        )
    every = max(1, len(t) // 5)
    ax.set_xticks(range(0, len(t), every), [f"{v:.2f}" for v in t[::every]])
    ax.set(ylabel=view.y)
    ax.grid(visible=False)
    return image


def _draw_track(ax: Axes, view: HeatMap, track: Track) -> None:
    at = [math.nan if row is None else view.rows.index(row) for row in track.rows[::-1]]
    look: dict[str, Any] = {"color": "white", "ls": track.dashes, "path_effects": _CASING}
    ax.plot(range(len(at)), at, label=track.name, **look)


def _norm(views: Sequence[HeatMap]) -> Normalize:
    """One scale of colours for several heat maps."""
    if not views[0].log:
        return Normalize(0, views[0].most)
    cells = [np.array(view.cells) for view in views]
    positive = np.concatenate([one[one > 0] for one in cells])
    if not len(positive):
        return LogNorm(1e-6, 1)
    return LogNorm(positive.min(), max(positive.max(), 1.01 * positive.min()))


# --- dots and points --------------------------------------------------------------------------


def _dots_figure(view: Dots) -> Figure:
    figure, (ax,) = styled_figure(height=max(2.2, 0.2 * len(view.names) + 0.8))
    _draw_dots(ax, view)
    ax.set(title=view.title)
    return figure


def _draw_dots(ax: Axes, view: Dots) -> None:
    """A row for each name: every value, their quartiles and their median."""
    if view.behind is not None:
        ax.axvspan(view.behind.low, view.behind.high, **_BEHIND)
    for row in view.rows:
        _draw_row(ax, view.names.index(row.name), row)
    ax.set_yticks(range(len(view.names)), list(view.names))
    ax.set_ylim(len(view.names) - 0.5, -0.5)
    if view.limit is not None:
        ax.axvline(view.limit, color="black", lw=0.8, ls="--", zorder=0)
    ax.grid(visible=False, axis="y")
    ax.set(xlabel=view.x)


def _draw_row(ax: Axes, at: int, row: Row) -> None:
    jitter = np.random.default_rng(0).uniform(-0.28, 0.28, len(row.values))
    ax.plot(row.values, at + jitter, "o", ms=2.2, color=row.style.colour, alpha=0.6, mew=0)
    ax.plot([row.low, row.high], [at, at], color="black", lw=1)
    ax.plot(row.middle, at, "|", color="black", ms=9, mew=1.6)


def _scatter_figure(view: Scatter) -> Figure:
    rows, _ = _grid(len(view.points))
    figure = Figure(figsize=(TWO_COLUMNS, max(2.2, 0.95 * rows + 0.7)), layout="constrained")
    _draw_scatter(figure, view)
    return figure


def _draw_scatter(figure: Figure | SubFigure, view: Scatter) -> None:
    """A panel for each machine."""
    rows, columns = _grid(len(view.points))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for ax, points in zip(shown_panels(axes, len(view.points)), view.points, strict=True):
        _draw_points(ax, points)
        if view.behind is not None:
            ax.axhspan(view.behind.low, view.behind.high, **_BEHIND)
    grey = "" if view.behind is None else f"; grey: {view.behind.name}"
    figure.suptitle(f"{view.title}{grey}", x=0.02, ha="left")
    figure.supxlabel(view.x, fontsize=8)
    figure.supylabel(view.y, fontsize=8)


def _draw_points(ax: Axes, points: Points) -> None:
    style = points.style
    ax.axline((1, 1), slope=1, color="grey", lw=0.8, ls="--")
    ax.plot(points.x, points.y, style.marker, ms=2.5, color=style.colour, alpha=0.8, mew=0)
    left = min(points.x)
    low = min(left, *points.y)  # of each machine: one that fails is far below
    ax.set_xlim(left - 0.05 * (1 - left), 1 + 0.05 * (1 - left))
    ax.set_ylim(low - 0.08 * (1 - low), 1 + 0.08 * (1 - low))
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.set_title(points.name, fontsize=7, loc="right")  # a long name may reach above the numbers
    ax.tick_params(labelsize=6)


def _grid(panels: int) -> tuple[int, int]:
    """Rows and columns of the panels of points."""
    columns = min(3, panels)
    return -(-panels // columns), columns


def _agreement_figure(results: Results) -> Figure:
    """Left, how the metric is spread for each machine; right, each seed against `ideal`."""
    dots, points = spread(results), scatter(results)
    if points is None:
        return view_figure(dots)
    rows, _ = _grid(len(points.points))
    height = max(2.2, 0.2 * len(dots.names) + 0.8, 0.95 * rows + 0.7)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(TWO_COLUMNS, height), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2), squeeze=False)[0]
        ax = left.subplots()
        _draw_dots(ax, dots)
        ax.set(title=dots.title)
        _draw_scatter(right, points)
    return figure


# --- panels -------------------------------------------------------------------------------------


def _panels_figure(view: Panels) -> Figure:
    first = view.views[0]
    if isinstance(first, HeatMap):
        return _heat_maps_figure([one for one in view.views if isinstance(one, HeatMap)])
    if view.share:
        return _shared_figure([one for one in view.views if isinstance(one, Lines)])
    count = len(view.views)
    columns = 2 if isinstance(first, Lines) and count == 4 else count  # for the titles' width
    rows = -(-count // columns)
    height = rows * (2.1 if isinstance(first, Dots) else 2.2)
    if isinstance(first, Lines) and len(first.series) > 1:
        height += _LEGEND_ROW * -(-len(first.series) // _LEGEND_COLUMNS)
    figure, axes = styled_figure(rows, columns, width=TWO_COLUMNS, height=height)
    for i, (ax, one) in enumerate(zip(axes, view.views, strict=True)):
        if isinstance(one, Lines):
            _draw_lines(ax, one)
            ax.set(xlabel=one.x, title=one.title)
        elif isinstance(one, Dots):
            _draw_dots(ax, one)
            ax.set_xlabel(_in_two_lines(one.x))
            ax.tick_params(labelleft=i == 0)
    if isinstance(first, Lines) and len(first.series) > 1:
        _legend_of(figure, [one for one in view.views if isinstance(one, Lines)])
    if view.title:
        figure.suptitle(view.title, x=0.01, ha="left")
    return figure


def _heat_maps_figure(views: Sequence[HeatMap]) -> Figure:
    """Heat maps with one scale of colours."""
    columns = min(3, len(views))
    rows = -(-len(views) // columns)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    figure, axes = styled_figure(
        rows, columns, panels=len(views), height=1.7 * rows + 0.4, width=width
    )
    norm = _norm(views)
    for ax, one in zip(axes, views, strict=True):
        image = _draw_heat_map(ax, one, norm)
        ax.set(xlabel="t", title=one.title)
    _colour_bar(figure, image, axes, views[0], aspect=20 * rows)
    if views[0].tracks:
        _legend_below(figure, axes[0])
    return figure


def _shared_figure(views: Sequence[Lines]) -> Figure:
    """Panels with the same lines, and one legend for all of them."""
    columns = 2 if len(views) == 4 else min(3, len(views))
    rows = -(-len(views) // columns)
    figure, axes = styled_figure(
        rows, columns, panels=len(views), width=TWO_COLUMNS, height=2.1 * rows + 0.7, share=True
    )
    for ax, one in zip(axes, views, strict=True):
        _draw_behind(ax, one)
        for i, series in enumerate(one.series):
            ax.plot(series.t, series.value, markevery=(i % 5, 5), **_look(series.style))
        ax.set(xlim=(1.02, 0), title=one.title)
    for ax in axes[-columns:]:
        ax.set_xlabel(TIME)
    figure.supylabel(views[0].y, fontsize=8)
    _legend_of(figure, views)
    return figure


def _legend_of(figure: Figure, views: Sequence[Lines]) -> None:
    """One legend below for the lines of several panels."""
    styles: dict[str, Style] = {}
    for one in views:
        drawn = [*([] if one.behind is None else [one.behind]), *one.series]
        styles |= {series.name: series.style for series in drawn}
    lines = [Line2D([], [], **_look(style)) for style in styles.values()]
    column = _LETTER * max(map(len, styles)) + _HANDLE
    columns = min(_LEGEND_COLUMNS, max(1, int(figure.get_figwidth() / column)))
    figure.legend(lines, list(styles), loc="outside lower center", ncols=columns)


def _in_two_lines(text: str) -> str:
    """Broken at the space that is nearest to the middle."""
    spaces = [i for i, letter in enumerate(text) if letter == " "]
    middle = min(spaces, key=lambda i: abs(i - len(text) / 2))
    return f"{text[:middle]}\n{text[middle + 1 :]}"


def _legend_below(figure: Figure, ax: Axes) -> None:
    """What is drawn, where it covers nothing."""
    lines, names = ax.get_legend_handles_labels()
    if names:
        columns = 1 if max(map(len, names)) > 20 else 3
        figure.legend(lines, names, loc="outside lower center", ncols=columns)


_RENDERERS: dict[type, Callable[[Any], Figure]] = {
    Lines: _lines_figure,
    HeatMap: _heat_map_figure,
    Dots: _dots_figure,
    Scatter: _scatter_figure,
    Panels: _panels_figure,
}


# --- pictures of samples ------------------------------------------------------------------------


def _samples_figure(results: Results) -> Figure:
    """Noise, network and machines side by side, from the best seed to the worst."""
    score = results.by_seed[results.primary]["pearson_r"]
    order = score.nan_to_num(-np.inf).argsort(descending=True)
    chosen = order[np.linspace(0, len(order) - 1, min(_COLUMNS, len(order))).round()]
    rows = {"noise": results.noise, "network": results.network[results.network_steps]}
    rows |= {name: drawn[results.network_steps] for name, drawn in results.twins.items()}
    rows |= results.machines
    gutter = max(_LETTER * len(name) for name in rows)
    cell = min((TWO_COLUMNS - gutter) / _COLUMNS, _PAGE / (len(rows) + 0.35))
    size = (gutter + len(chosen) * cell, (len(rows) + 0.35) * cell)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
        axes = figure.subplots(len(rows), len(chosen), squeeze=False)
    for i, (name, images) in enumerate(rows.items()):
        for j, index in enumerate(chosen.tolist()):
            _show(axes[i, j], _picture(to_uint8(images[index])), "")
            if i == 0:
                axes[i, j].set_title(f"{float(score[index]):.2f}", fontsize=7, loc="center", pad=2)
        axes[i, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def _mosaic_figure(results: Results) -> Figure | None:
    """The best, the median and the worst seed: images, their mosaics, and what decided.

    Lines part neighbours whose winning patches are of different training images.
    """
    attribution, seeds = results.attribution, list(results.named_seeds.values())
    if attribution is None or attribution.tracing is None:
        return None
    tracing = attribution.tracing
    columns = 2 * len(tracing.mosaics) + 1
    figure, axes = styled_figure(
        len(seeds), columns, width=TWO_COLUMNS, height=(len(seeds) + 0.3) * TWO_COLUMNS / columns
    )
    for row, seed in enumerate(seeds):
        line = axes[row * columns : (row + 1) * columns]
        for i, (side, mosaic) in enumerate(tracing.mosaics.items()):
            sample = _picture(attribution.paths[side][-1, seed])
            _show(line[2 * i], sample, side if not row else "")
            image = line[2 * i + 1]
            _show(image, _picture(mosaic.pixels[-1][seed]), "its mosaic" if not row else "")
            _draw_borders(image, *(part[seed].numpy() for part in mosaic.borders()))
        top_share = tracing.mosaics[tracing.machine].top_share[-1][seed].float()
        share = line[-1].imshow(top_share.numpy(), vmin=0, vmax=1)
        _show(line[-1], None, "top image's share" if not row else "")
        line[0].set_ylabel(f"seed {results.seeds[seed]}")
    figure.colorbar(share, ax=axes[columns - 1 :: columns], shrink=0.6)
    return figure


def _show(ax: Axes, picture: np.ndarray | None, title: str) -> None:
    if picture is not None:
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[], title=title)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _draw_borders(ax: Axes, below: np.ndarray, right: np.ndarray) -> None:
    """Lines between pixels, where (h - 1 w) and (h w - 1) say so."""
    rows, columns = below.nonzero()
    ax.hlines(rows + 0.5, columns - 0.5, columns + 0.5, **_BORDER)
    rows, columns = right.nonzero()
    ax.vlines(columns + 0.5, rows - 0.5, rows + 0.5, **_BORDER)


def _picture(pixels: Tensor) -> np.ndarray:
    """A uint8 image (c h w) as (h w) or (h w 3)."""
    array = pixels.numpy()
    return array[0] if len(array) == 1 else rearrange(array, "c h w -> h w c")


# --- every figure -------------------------------------------------------------------------------


def _of_view(name: str) -> Callable[[Results], Figure | None]:
    def draw(results: Results) -> Figure | None:
        view = VIEWS[name](results)
        return None if view is None else view_figure(view)

    return draw


def along_figure(along: Along) -> Figure:
    """Agreement and loss along training."""
    return view_figure(along_panels(along))


def comparison_figure(comparison: Comparison) -> Figure:
    """Agreement of the x0_hats at each step, a panel for each network."""
    return view_figure(compared_by_t(comparison))


FIGURES: dict[str, Callable[[Results], Figure | None]] = {
    "samples": _samples_figure,
    "scales": _of_view("scales"),
    "looks": _of_view("looks"),
    "equivariance": _of_view("equivariance"),
    "agreement": _agreement_figure,
    "by_t": _of_view("by_t"),
    "locality": _of_view("locality"),
    "criterion": _of_view("criterion"),
    "weights": _of_view("weights"),
    "mosaic": _mosaic_figure,
    "novelty": _of_view("novelty"),
    "copies": _of_view("copies"),
    "information": _of_view("information"),
    "memorisation": _of_view("memorisation"),
    "consistency": _of_view("consistency"),
    "denoising": _of_view("denoising"),
    "same_x": _of_view("same_x"),
}


def draw(name: str, results: Results) -> Figure | None:
    """One of the figures; None where there is nothing to show."""
    with matplotlib.rc_context(STYLE):
        return FIGURES[name](results)
