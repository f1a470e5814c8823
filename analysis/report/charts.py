"""Views as interactive charts: Vega-Lite by way of Altair. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, Literal

import altair as alt

from els.analysis.report.style import Dashes, Style
from els.analysis.report.views import (
    TIME,
    Band,
    Dots,
    HeatMap,
    Lines,
    Panels,
    Scatter,
    Series,
    Track,
    View,
)

Spec = dict[str, Any]
Chart = alt.Chart | alt.LayerChart | alt.FacetChart

_HEIGHT, _SQUARE = 300, 400  # a scatter is about as wide as high, see page.css
_BELOW = alt.Legend(orient="bottom", title=None, labelLimit=0, columns=3)
_POWERS = [10.0**power for power in range(-6, 10)]
_LEVELS, _LEVEL = 3, 12  # heights of words that may lie beside each other, in pixels
_FEW = 4  # more bands than these hide each other
_FAINT = 0.4  # of a band behind everything else
_BAND = "#B0B0B0"
_LEAST = 1e-6  # of a logarithmic scale of colours
_T = alt.Axis(title=TIME, values=[0, 0.2, 0.4, 0.6, 0.8, 1], labelFlush=False)
# One column for each step; noise is on the left, as in every chart.
_STEPS = alt.X(
    "t:O",
    sort="descending",
    axis=alt.Axis(title=TIME, labelAngle=0, labelOverlap=True, labelSeparation=4, format=".2f"),
)


def specs(view: View | None) -> list[Spec]:
    """Plain Vega-Lite of a view, as wide as the page gives it: a chart for each panel."""
    if view is None:
        return []
    if isinstance(view, Panels):
        charts = [_draw(one) for one in view.views]
        titles = [_title(one) for one in view.views]
    else:
        charts, titles = [_draw(view)], [""]
    return [
        (chart.properties(title=title) if title else chart).properties(width="container").to_dict()
        for chart, title in zip(charts, titles, strict=True)
    ]


def _title(panel: View) -> str:
    """What stands above one of several charts."""
    return f"{panel.title}: {panel.unit}" if isinstance(panel, HeatMap) else panel.title


def _draw(view: View) -> Chart:
    return _RENDERERS[type(view)](view)


# --- lines ----------------------------------------------------------------------------------


def _lines(view: Lines) -> Chart:
    """Lines with bands against t, each series in its own colour and dashes."""
    drawn = [*([] if view.behind is None else [view.behind]), *view.series]
    rows = [row for series in drawn for row in _rows(series)]
    shape: Literal["step", "linear"] = "step" if view.step else "linear"
    x = _horizontal(view)
    scale = alt.Scale(type="log") if view.log else alt.Scale(zero=False)
    if view.limits is not None:
        scale = alt.Scale(
            type="log" if view.log else "linear", domain=list(view.limits), nice=False
        )
    y = alt.Y("value:Q", scale=scale, title=view.y, axis=_axis(view))
    colour, dash = _colour_and_dash({one.name: one.style for one in drawn})
    chart = alt.Chart(alt.Data(values=rows))
    band = chart.mark_area(opacity=0.15, interpolate=shape, clip=True).encode(
        x=x,
        y=alt.Y("low:Q", scale=scale, title=view.y, axis=_axis(view)),
        y2="high:Q",
        color=alt.Color("series:N", scale=colour, legend=None),
    )
    legend = alt.Legend(
        orient="bottom",
        columns=1 if len(view.series) <= _FEW or view.step else 2,
        labelLimit=0,
        title=None,
        symbolSize=400,
        symbolType="stroke",
    )
    line = chart.mark_line(interpolate=shape, strokeWidth=2, clip=True).encode(
        x=x,
        y=y,
        color=alt.Color("series:N", scale=colour, legend=legend),
        strokeDash=alt.StrokeDash("series:N", scale=dash, legend=legend),
    )
    at = alt.Tooltip("t:Q", format=".2f")
    if view.x != TIME:
        at = alt.Tooltip("t:Q", title=view.x, format=",d")
    tooltip = ["series:N", at, *_told(drawn)]
    points = chart.mark_point(opacity=0, size=120, clip=True).encode(x=x, y=y, tooltip=tooltip)
    bands = [band] if len(view.series) <= _FEW or view.step else []
    behind = [] if view.behind is None else [_behind(view.behind, x, scale)]
    layers = alt.layer(*behind, *_changes(view, x), *bands, line, points).properties(height=_HEIGHT)
    return layers.resolve_scale(color="independent", strokeDash="independent")


def _horizontal(view: Lines) -> alt.X:
    """The axis of times, or of training steps."""
    if view.x == TIME:
        return alt.X("t:Q", axis=_T, scale=alt.Scale(domain=[0, 1], reverse=True))
    axis = alt.Axis(title=view.x, values=_POWERS, format="~s")
    return alt.X("t:Q", axis=axis, scale=alt.Scale(type="log", nice=False))


def _told(drawn: Sequence[Series]) -> list[alt.Tooltip]:
    """The value of a point, and the ends of its band where any of the lines has one."""
    banded = any(one.low is not None for one in drawn)
    names = ("value", "low", "high") if banded else ("value",)
    return [alt.Tooltip(f"{name}:Q", format=".4~g") for name in names]


def _behind(series: Series, x: alt.X, scale: alt.Scale) -> Chart:
    """The band of a line that lies behind the others."""
    area = alt.Chart(alt.Data(values=_rows(series))).mark_area(
        color=series.style.colour, opacity=_FAINT
    )
    return area.encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")


def _axis(view: Lines) -> alt.Axis:
    if view.ticks is not None:
        return alt.Axis(values=list(view.ticks))
    return alt.Axis(values=_POWERS) if view.log else alt.Axis()


def _changes(view: Lines, x: alt.X) -> list[Chart]:
    """A vertical stroke wherever something changes for all lines, and what it is from there on."""
    drawn: list[Chart] = []
    for i, (t, text) in enumerate(view.changes):
        chart = alt.Chart(alt.Data(values=[{"t": t, "change": text}])).encode(x=x)
        words = chart.mark_text(align="left", baseline="top", dx=3, color="grey", fontSize=11)
        at = alt.value(3 + _LEVEL * (i % _LEVELS))
        drawn += [
            chart.mark_rule(color="grey", strokeDash=[2, 3]),
            words.encode(text="change:N", y=at),
        ]
    return drawn


def _rows(series: Series) -> list[dict[str, Any]]:
    low, high = (series.value if side is None else side for side in (series.low, series.high))
    return [
        {"series": series.name, "t": t, "value": value, "low": a, "high": b}
        for t, value, a, b in zip(series.t, series.value, low, high, strict=True)
        if isfinite(value)
    ]


def _colour_and_dash(styles: Mapping[str, Style]) -> tuple[alt.Scale, alt.Scale]:
    names = list(styles)
    colours = [style.colour for style in styles.values()]
    dashes = [_dash(style.dashes) for style in styles.values()]
    return alt.Scale(domain=names, range=colours), alt.Scale(domain=names, range=dashes)


def _dash(dashes: Dashes) -> list[float]:
    """Matplotlib's dashes as Vega's."""
    return [1, 0] if isinstance(dashes, str) else [2 * part for part in dashes[1]]


# --- heat maps --------------------------------------------------------------------------------


def _heat_map(view: HeatMap) -> Chart:
    """A rectangle for each time and row, and a dot for each mark."""
    name, told = view.told or (view.unit, view.cells)
    rows = [
        {"t": _named(t), "row": row, "value": value, "colour": _shown(cell, log=view.log)}
        for t, cells, values in zip(view.t, view.cells, told, strict=True)
        for row, cell, value in zip(view.rows, cells, values, strict=True)
        if not math.isnan(cell)
    ]
    y = alt.Y("row:O", sort="descending", title=view.y)
    if view.log:
        scale = alt.Scale(scheme="cividis", type="log")
    else:
        scale = alt.Scale(scheme="cividis", domain=[0, view.most], clamp=True)
    tooltip = [
        alt.Tooltip("t:O"),
        alt.Tooltip("row:O", title=view.y),
        alt.Tooltip("value:Q", title=name, format=".4f"),
    ]
    legend = alt.Legend(format=".4~g")
    colour = alt.Color("colour:Q", title=None, scale=scale, legend=legend)
    chart = alt.Chart(alt.Data(values=rows)).properties(height=_HEIGHT)
    cells = chart.mark_rect().encode(x=_STEPS, y=y, color=colour, tooltip=tooltip)
    layers = [cells, *(layer for track in view.tracks for layer in _track(view, track, y))]
    if view.marks is not None:
        marks = [{"t": _named(t), "row": row} for t, row in zip(view.t, view.marks, strict=True)]
        point = alt.Chart(alt.Data(values=marks)).mark_point(
            filled=True, size=45, color="white", stroke="black", opacity=1
        )
        layers.append(point.encode(x=_STEPS, y=y))
    return alt.layer(*layers).properties(height=_HEIGHT) if len(layers) > 1 else cells


def _track(view: HeatMap, track: Track, y: alt.Y) -> list[Chart]:
    """A white line in a black casing, from the row of one time to that of the next."""
    rows = [
        {"t": _named(t), "row": row, "of": track.name}
        for t, row in zip(view.t, track.rows, strict=True)
        if row is not None
    ]
    chart = alt.Chart(alt.Data(values=rows)).encode(x=_STEPS, y=y)
    dashes = _dash(track.dashes)
    return [
        chart.mark_line(color="black", strokeWidth=4, strokeDash=dashes),
        chart.mark_line(color="white", strokeWidth=2, strokeDash=dashes, tooltip=True).encode(
            tooltip=["of:N", "t:O", alt.Tooltip("row:O", title=view.y)]
        ),
    ]


def _named(t: float) -> float:
    """A time as the name of a column."""
    return round(t, 6)


def _shown(cell: float, *, log: bool) -> float:
    return max(cell, _LEAST) if log else cell


# --- points and dots --------------------------------------------------------------------------


def _scatter(view: Scatter) -> Chart:
    """A point for each seed and machine, and the line of equal values."""
    rows = [
        {"seed": seed, "machine": one.name, "x": x, "y": y}
        for one in view.points
        for seed, x, y in zip(view.seeds, one.x, one.y, strict=True)
    ]
    names = [one.name for one in view.points]
    colours = [one.style.colour for one in view.points]
    scale = alt.Scale(zero=False, nice=False, padding=6)
    x = alt.X("x:Q", title=view.x, scale=scale, axis=alt.Axis(tickCount=6))
    y = alt.Y("y:Q", title=view.y, scale=scale, axis=alt.Axis(tickCount=6))
    points = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=50, opacity=0.75)
    points = points.encode(
        x=x,
        y=y,
        color=alt.Color("machine:N", scale=alt.Scale(domain=names, range=colours), legend=_BELOW),
        shape=alt.Shape("machine:N", scale=alt.Scale(domain=names), legend=_BELOW),
        tooltip=[
            "seed:O",
            "machine:N",
            alt.Tooltip("y:Q", title=view.y, format=".3f"),
            alt.Tooltip("x:Q", title=view.x, format=".3f"),
        ],
    )
    least = min(x for one in view.points for x in one.x)
    ends = alt.Chart(alt.Data(values=[{"x": least, "y": least}, {"x": 1, "y": 1}]))
    line = ends.mark_line(color="grey", strokeDash=[4, 4]).encode(x="x:Q", y="y:Q")
    behind = [] if view.behind is None else [_range(view.behind).encode(y="from:Q", y2="to:Q")]
    return alt.layer(*behind, line, points).properties(height=_SQUARE)


def _range(band: Band) -> Chart:
    """A band across the whole chart."""
    values = [{"from": band.low, "to": band.high, "behind": band.name}]
    return alt.Chart(alt.Data(values=values)).mark_rect(color=_BAND, opacity=_FAINT)


def _dots(view: Dots) -> Chart:
    """A row of dots for each side, with a bar over its quartiles and a stroke at its median."""
    values = [{"of": row.name, "value": value} for row in view.rows for value in row.values]
    boxes = [
        {"of": row.name, "low": row.low, "value": row.middle, "high": row.high} for row in view.rows
    ]
    names, colours = [row.name for row in view.rows], [row.style.colour for row in view.rows]
    y = alt.Y("of:N", sort=names, title=None, axis=alt.Axis(labelLimit=0))
    colour = alt.Color("of:N", scale=alt.Scale(domain=names, range=colours), legend=None)
    x = alt.X("value:Q", title=None, axis=alt.Axis(tickCount=4), scale=alt.Scale(zero=False))
    spread = alt.Chart(alt.Data(values=boxes))
    low = alt.X("low:Q", title=None, scale=alt.Scale(zero=False))
    bar = spread.mark_bar(opacity=0.3, height=14).encode(x=low, x2="high:Q", y=y, color=colour)
    stroke = spread.mark_tick(thickness=3, size=18).encode(
        x=x, y=y, color=colour, tooltip=["of:N", alt.Tooltip("value:Q", title="median")]
    )
    dots = alt.Chart(alt.Data(values=values)).mark_point(filled=True, size=24, opacity=0.55)
    dots = dots.encode(x=x, y=y, color=colour, tooltip=["of:N", "value:Q"])
    layers = [bar, dots, stroke]
    if view.behind is not None:
        across = alt.X("from:Q", title=None, scale=alt.Scale(zero=False))
        layers.insert(0, _range(view.behind).encode(x=across, x2="to:Q"))
    if view.limit is not None:
        line = alt.Chart(alt.Data(values=[{"limit": view.limit}]))
        rule = line.mark_rule(color="grey", strokeDash=[4, 4])
        layers.append(rule.encode(x=alt.X("limit:Q", title=None)))
    return alt.layer(*layers).properties(height=30 * len(names))


_RENDERERS: dict[type, Callable[[Any], Chart]] = {
    Lines: _lines,
    HeatMap: _heat_map,
    Scatter: _scatter,
    Dots: _dots,
}
