"""Results as interactive charts (Vega-Lite by way of Altair), each from saved results alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

import altair as alt
import numpy as np
from torch import Tensor

from els.analysis.report.released import released_sizes
from els.analysis.report.style import machine_colour
from els.analysis.results import IDEAL, Results
from els.calibration import Scales
from els.machines.local import SIZE

Spec = dict[str, Any]
Rows = list[dict[str, Any]]

_HEIGHT = 300
_T = alt.Axis(title="t (1 = pure noise)", values=[0, 0.2, 0.4, 0.6, 0.8, 1], labelFlush=False)
# One column for each step; noise is on the left, as in every chart.
_STEPS = alt.X("t:O", sort="descending",
               axis=alt.Axis(title="t (1 = pure noise)", labelAngle=0, labelOverlap=True,
                             format=".2f"))  # fmt: skip
# Dashes as `machine_colour` gives them: matplotlib's.
_SOLID, _DASHED, _DOTTED = "-", (0, (5, 1.5)), (0, (1, 1.2))


def charts(results: Results) -> dict[str, list[Spec]]:
    """Every chart that these results have data for, by the section that it belongs to."""
    found = {
        "scales": scale_charts(results),
        "criterion": [criterion_chart(scales) for scales in results.scales.values()],
        "by_t": [by_t_chart(results)],
        "scatter": [scatter_chart(results)] if len(results.machines) > 1 else [],
        "equivariance": [equivariance_chart(results)] if results.probes is not None else [],
        "novelty": [],
        "consistency": [],
    }
    if results.attribution is not None:
        found["novelty"] = novelty_charts(results)
        if results.attribution.traced is not None:
            found["consistency"] = consistency_charts(results)
    return {name: [_spec(chart) for chart in some] for name, some in found.items()}


def scale_charts(results: Results) -> list[alt.LayerChart]:
    """Fitted patch sizes with what the network looks at; and the first machine's other scale."""
    found = [sizes_chart(results)] if _sized(results) or results.probes is not None else []
    scales = results.scales.get(results.primary)
    if scales is not None and scales.scale != SIZE.name:
        low, high = np.quantile(np.array(scales.by_seed), [0.1, 0.9], axis=1).tolist()
        styles = {scales.machine: machine_colour(list(results.machines), scales.machine)}
        rows = _rows(scales.machine, scales.t, scales.values, low, high)
        found.append(_lines(rows, styles, f"fitted {scales.scale}", step=True))
    return found


def sizes_chart(results: Results) -> alt.LayerChart:
    """Fitted patch size against t, what held-out images suggest, the probes, and the paper's."""
    kinds = list(results.machines)
    rows, styles = [], {}
    for kind, scales in _sized(results).items():
        low, high = np.quantile(np.array(scales.by_seed), [0.1, 0.9], axis=1).tolist()
        rows += _rows(f"{kind}, fitted", scales.t, scales.values, low, high)
        styles[f"{kind}, fitted"] = machine_colour(kinds, kind)
    if results.data_scales is not None and results.data_scales.scale == SIZE.name:
        name = f"{results.data_scales.machine}, from held-out images alone"
        rows += _rows(name, results.data_scales.t, results.data_scales.values)
        styles[name] = ("#888888", _DASHED)
    if results.probes is not None:
        for share, line in (("50", _SOLID), ("90", _DASHED)):
            if f"erf/{share}" in results.probes.sides():
                name = f"network: side holding {share} % of the gradient"
                rows += _rows(name, results.probes.t, results.probes.sides()[f"erf/{share}"])
                styles[name] = ("#8B5E3C", line)
    released = released_sizes(results)
    if released is not None:
        rows += _rows("released with the paper", list(released), list(released.values()))
        styles["released with the paper"] = ("#888888", _DOTTED)
    return _lines(rows, styles, "side of the square (pixels)", step=True)


def criterion_chart(scales: Scales) -> alt.LayerChart:
    """The calibration criterion for every t and value of the scale, and what was chosen."""
    table, lowest = scales.mean_table(), 1e-6  # of a logarithmic scale
    # Cosines are all near 1 at high noise: what they lack of it is what can be told apart.
    cosine = scales.criterion == "cosine"
    rows = [
        {
            "t": round(t, 6),
            "value": value,
            "criterion": found,
            "colour": max(1 - found if cosine else found, lowest),
        }
        for t, line in zip(scales.t, table, strict=True)
        for value, found in zip(scales.candidates, line, strict=True)
    ]
    chosen = [{"t": round(t, 6), "value": v}
              for t, v in zip(scales.t, scales.values, strict=True)]  # fmt: skip
    y = alt.Y("value:O", sort="descending", title=scales.scale)
    tooltip = [alt.Tooltip("t:O"), alt.Tooltip("value:O", title=scales.scale),
               alt.Tooltip("criterion:Q", title=scales.criterion, format=".4f")]  # fmt: skip
    cells = alt.Chart(alt.Data(values=rows)).mark_rect().encode(
        x=_STEPS, y=y, tooltip=tooltip,
        color=alt.Color("colour:Q", title="1 - cosine" if cosine else scales.criterion,
                        scale=alt.Scale(scheme="cividis", reverse=True, type="log")),
    )  # fmt: skip
    dots = alt.Chart(alt.Data(values=chosen)).mark_point(
        filled=True, size=45, color="white", stroke="black", opacity=1
    ).encode(x=_STEPS, y=y)  # fmt: skip
    return alt.layer(cells, dots).properties(title=f"{scales.machine}: {scales.criterion} of eps")


def by_t_chart(results: Results) -> alt.LayerChart:
    """Agreement of the x0_hats at each step: median and quartiles over seeds."""
    kinds, rows = list(results.machines), []
    for kind, values in results.by_t.items():
        rows += _spread(kind, results.t, values)
    styles = {kind: machine_colour(kinds, kind) for kind in results.by_t}
    return _lines(rows, styles, "pearson_r of x0_hat")


def rival(results: Results) -> str:
    """The machine that others are drawn against: `ideal`, or the one after the first."""
    return IDEAL if IDEAL in results.machines else list(results.machines)[1]


def scatter_chart(results: Results) -> alt.LayerChart:
    """Each seed's pearson_r of the first machine against `ideal`, or else the second machine."""
    other = rival(results)
    metrics = results.by_seed()
    kinds = [kind for kind in results.machines if kind != other]
    rows = [
        {"seed": seed, "machine": kind, "of": float(metrics[kind]["pearson_r"][i]),
         "other": float(metrics[other]["pearson_r"][i])}
        for kind in kinds for i, seed in enumerate(results.seeds)
    ]  # fmt: skip
    least = min(row["other"] for row in rows)
    colours = [machine_colour(list(results.machines), kind)[0] for kind in kinds]
    points = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=50, opacity=0.75).encode(
        x=alt.X("other:Q", title=f"pearson_r of {other}", scale=alt.Scale(zero=False)),
        y=alt.Y("of:Q", title="pearson_r of the machine", scale=alt.Scale(zero=False)),
        color=alt.Color("machine:N", title=None, scale=alt.Scale(domain=kinds, range=colours)),
        shape=alt.Shape("machine:N", title=None, scale=alt.Scale(domain=kinds)),
        tooltip=["seed:O", "machine:N", alt.Tooltip("of:Q", title="pearson_r", format=".3f"),
                 alt.Tooltip("other:Q", title=other, format=".3f")],
    )  # fmt: skip
    ends = [{"other": least, "of": least}, {"other": 1, "of": 1}]
    line = alt.Chart(alt.Data(values=ends)).mark_line(color="grey", strokeDash=[4, 4]).encode(
        x="other:Q", y="of:Q"
    )  # fmt: skip
    return alt.layer(line, points)


def equivariance_chart(results: Results) -> alt.Chart:
    """The equivariance error by time and distance to the border."""
    probes = results.probes
    rows = [
        {"t": round(t, 6), "distance": d, "error": error}
        for t, errors in zip(probes.t, probes.equivariance, strict=True)
        for d, error in enumerate(errors[1:])
    ]
    most = max(1, *(row["error"] for row in rows))
    return alt.Chart(alt.Data(values=rows)).mark_rect().encode(
        x=_STEPS,
        y=alt.Y("distance:O", sort="descending", title="distance to the border (pixels)"),
        color=alt.Color("error:Q", title="error",
                        scale=alt.Scale(scheme="cividis", domain=[0, most])),
        tooltip=["t:O", "distance:O", alt.Tooltip("error:Q", format=".3f")],
    )  # fmt: skip


def novelty_charts(results: Results) -> list[alt.Chart]:
    """Histograms over seeds, for network and machine, and for real images."""
    titles = {
        "distance": "distance to nearest training image",
        "memorised": "share of memorised pixels",
        "images": "training images drawn on",
        "largest_piece": "largest piece (share of pixels)",
    }
    by_seed, found = results.attribution.by_seed(), []
    for name, title in titles.items():
        rows = [{"of": side, "value": float(value)}
                for side, values in by_seed.items() if name in values
                for value in values[name]]  # fmt: skip
        if rows:
            found.append(alt.Chart(alt.Data(values=rows)).mark_bar(opacity=0.55).encode(
                x=alt.X("value:Q", bin=alt.Bin(maxbins=24), title=None),
                y=alt.Y("count():Q", stack=None, title="images", axis=alt.Axis(tickMinStep=1)),
                color=_side_colour(by_seed, {row["of"] for row in rows}),
                tooltip=["of:N", "count():Q"],
            ).properties(height=200, title=title))  # fmt: skip
    return found


def consistency_charts(results: Results) -> list[alt.LayerChart]:
    """How many patches count, and how well winning patches agree, against t."""
    mosaic = results.attribution.traced
    styles = {results.attribution.machine: machine_colour(list(results.machines),
                                                      results.attribution.machine)}  # fmt: skip
    found = []
    if not mosaic.consistency.isnan().all():
        rows = _spread(results.attribution.machine, mosaic.t, mosaic.consistency)
        found.append(_lines(rows, styles, "local consistency"))
    rows = _spread(results.attribution.machine, mosaic.t, mosaic.of_a_pixel("effective_size"))
    return [*found, _lines(rows, styles, "patches that count", log=True)]


def comparison_charts(results: Sequence[Results], names: Sequence[str]) -> dict[str, list[Spec]]:
    """The first machines' scales and agreement of several networks, over each other."""
    styles = {name: machine_colour(list(names), name) for name in names}
    scales, by_t = [], []
    for name, one in zip(names, results, strict=True):
        by_t += _spread(name, one.t, one.by_t[one.primary])
        fitted = one.scales.get(one.primary)
        if fitted is not None and fitted.scale == SIZE.name:
            low, high = np.quantile(np.array(fitted.by_seed), [0.1, 0.9], axis=1).tolist()
            scales += _rows(name, fitted.t, fitted.values, low, high)
    found = {
        "scales": [_lines(scales, styles, "patch size (pixels)", step=True)] if scales else [],
        "by_t": [_lines(by_t, styles, "pearson_r of x0_hat")],
    }
    return {name: [_spec(chart) for chart in some] for name, some in found.items()}


def _sized(results: Results) -> dict[str, Scales]:
    """The fitted scales that are patch sizes in pixels."""
    return {kind: one for kind, one in results.scales.items() if one.scale == SIZE.name}


def _rows(
    name: str,
    t: Sequence[float],
    values: Iterable[float],
    low: Iterable[float] | None = None,
    high: Iterable[float] | None = None,
) -> Rows:
    values = list(values)
    low, high = (values if side is None else side for side in (low, high))
    return [{"series": name, "t": a, "value": b, "low": c, "high": d}
            for a, b, c, d in zip(t, values, low, high, strict=True) if isfinite(b)]  # fmt: skip


def _spread(name: str, t: Sequence[float], values: Tensor) -> Rows:
    """Median and quartiles over seeds of values (steps n)."""
    low, middle, high = np.nanquantile(values.double().numpy(), [0.25, 0.5, 0.75], axis=1).tolist()
    return _rows(name, t, middle, low, high)


def _lines(
    rows: Rows,
    styles: dict[str, tuple[str, object]],
    title: str,
    *,
    step: bool = False,
    log: bool = False,
) -> alt.LayerChart:
    """Lines with bands against t, each series in its own colour and dashes."""
    names = list(styles)
    colour = alt.Scale(domain=names, range=[one for one, _ in styles.values()])
    dash = alt.Scale(domain=names, range=[_vega_dash(line) for _, line in styles.values()])
    legend = alt.Legend(orient="bottom", columns=1, labelLimit=0, title=None, symbolSize=400,
                        symbolType="stroke")  # fmt: skip
    x = alt.X("t:Q", axis=_T, scale=alt.Scale(domain=[0, 1], reverse=True))
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False)
    shape = "step" if step else "linear"
    chart = alt.Chart(alt.Data(values=rows))
    band = chart.mark_area(opacity=0.15, interpolate=shape).encode(
        x=x, y=alt.Y("low:Q", scale=scale, title=title), y2="high:Q",
        color=alt.Color("series:N", scale=colour, legend=None),
    )  # fmt: skip
    line = chart.mark_line(interpolate=shape, strokeWidth=2).encode(
        x=x, y=alt.Y("value:Q", scale=scale, title=title),
        color=alt.Color("series:N", scale=colour, legend=legend),
        strokeDash=alt.StrokeDash("series:N", scale=dash, legend=legend),
    )  # fmt: skip
    points = chart.mark_point(opacity=0, size=120).encode(
        x=x, y=alt.Y("value:Q", scale=scale, title=title),
        tooltip=["series:N", alt.Tooltip("t:Q", format=".2f"),
                 alt.Tooltip("value:Q", format=".4~g")],
    )  # fmt: skip
    return alt.layer(band, line, points).resolve_scale(
        color="independent", strokeDash="independent"
    )


def _vega_dash(line: object) -> list[float]:
    return [1, 0] if line == _SOLID else [2 * part for part in line[1]]


def _side_colour(every: Iterable[str], shown: set[str]) -> alt.Color:
    """The same colour for a side in every chart, and those that are shown in the legend."""
    every = list(every)
    sides = [side for side in every if side in shown]
    colours = [machine_colour(every, side)[0] for side in sides]
    return alt.Color("of:N", title=None, scale=alt.Scale(domain=sides, range=colours),
                     legend=alt.Legend(orient="bottom", columns=2))  # fmt: skip


def _spec(chart: alt.Chart | alt.LayerChart) -> Spec:
    """Plain Vega-Lite, as wide as the page gives it."""
    if chart.height is alt.Undefined:
        chart = chart.properties(height=_HEIGHT)
    return chart.properties(width="container").to_dict()
