"""What results show: every number and title once, as plain data that renderers draw.

A view is lines, a heat map, points or rows of dots, or several panels of one kind. `VIEWS` and
`COMPARISON_VIEWS` hold a function for each; it returns None where there is nothing to show.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from els.agreement import IDEAL, Mean, Summary
from els.analysis.along import LAST, OWN, Along
from els.analysis.answers import CEILING, TRAINING, UNSEEN, WIENER
from els.analysis.attribution import COPIES, HELD_OUT, NETWORK, NOVELTY, RATIOS
from els.analysis.comparison import Comparison
from els.analysis.report.published import paper_row
from els.analysis.report.style import (
    DASHED,
    DASHED_AND_DOTTED,
    DOTTED,
    SOLID,
    Dashes,
    Style,
    machine_style,
)
from els.analysis.results import Results
from els.calibration import Scales
from els.information import Information
from els.intervals import ByTime
from els.machines import with_paper_name
from els.machines.local import SIZE
from els.mosaic import Mosaic
from els.novelty import COPIED
from els.probes import Probes
from els.same_x import PLACES

Numbers = tuple[float, ...]

TIME, STEPS = "t (1 = pure noise)", "training step"
_IN_PIXELS = (SIZE.name, "width")
# Of everything that is no machine: the network, images that it has not seen, and those it has.
_NETWORK, _UNSEEN, _SEEN = "#000000", "#888888", "#8B5E3C"
_REACHED = "#B0B0B0"  # what networks of other seeds reach
_WIENER = "#9467BD"
_IMAGES = {UNSEEN: "unseen", TRAINING: "training"}
REACHED = "another network"
_MOST_TICKED = 41
_MARGIN, _MOST_USUAL = 1.3, 10.0  # of an axis of errors
_SMALLEST = 1e-12  # a loss of zero is compared with this
_CRITERIA = {
    "cosine": "1 - cosine, times the best of a t",
    "l2": "L2, times the best of a t",
    "mse": "squared error, times the best of a t",
}


# --- kinds of views ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """A line against t, with a band where it has one.

    Attributes:
        name: what it is of.
        style: how it is told from others.
        t: the times; the training steps where its view is against these.
        value: the value at each of them; NaN where there is none.
        low: the lower end of the band.
        high: its upper end.
    """

    name: str
    style: Style
    t: Numbers
    value: Numbers
    low: Numbers | None = None
    high: Numbers | None = None


@dataclass(frozen=True)
class Band:
    """A range of values that is drawn behind everything else.

    Attributes:
        name: what lies in it.
        low: its lower end.
        high: its upper end.
    """

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Lines:
    """Several lines against t.

    Attributes:
        title: of the whole.
        y: what the values are.
        series: the lines.
        log: the values are on a logarithmic axis.
        step: a value holds from half way before its time to half way after.
        limits: of the values' axis; default: as the values need.
        ticks: where the values' axis has numbers; default: as the values need.
        changes: times at which something changes for all lines, and what it is from there on.
        x: what the horizontal axis is: t, which falls from 1 to 0, or else training steps, which
            are on a logarithmic axis.
        behind: a line whose band is always drawn, behind all others.
    """

    title: str
    y: str
    series: tuple[Series, ...]
    log: bool = False
    step: bool = False
    limits: tuple[float, float] | None = None
    ticks: Numbers | None = None
    changes: tuple[tuple[float, str], ...] = ()
    x: str = TIME
    behind: Series | None = None


@dataclass(frozen=True)
class Edge:
    """A line across a heat map, in steps.

    Attributes:
        name: what is on which side of it.
        values: its height at each t, on the axis of the rows.
    """

    name: str
    values: Numbers


@dataclass(frozen=True)
class Track:
    """A line across a heat map that leads from row to row.

    Attributes:
        name: what it is of.
        dashes: how it is told from others.
        rows: one of the rows at each t; None where there is none.
    """

    name: str
    dashes: Dashes
    rows: tuple[float | None, ...]


@dataclass(frozen=True)
class HeatMap:
    """A colour for each time and row.

    Attributes:
        title: of the whole.
        y: what the rows are.
        t: the times, from 1 downwards.
        rows: what each row stands for.
        cells: the value of each time and row.
        unit: what the cells are.
        log: colours are on a logarithmic scale; else they begin at 0.
        most: the value of the last colour; default: the largest cell.
        marks: a row at each t that is marked.
        edge: a line across the map.
        tracks: lines that lead from row to row.
        told: what each cell was made from, and its name, where that is another number.
    """

    title: str
    y: str
    t: Numbers
    rows: Numbers
    cells: tuple[Numbers, ...]
    unit: str
    log: bool = False
    most: float | None = None
    marks: Numbers | None = None
    edge: Edge | None = None
    tracks: tuple[Track, ...] = ()
    told: tuple[str, tuple[Numbers, ...]] | None = None


@dataclass(frozen=True)
class Points:
    """The points of one machine.

    Attributes:
        name: what they are of.
        style: how they are told from others.
        x: of each seed.
        y: of each seed.
    """

    name: str
    style: Style
    x: Numbers
    y: Numbers


@dataclass(frozen=True)
class Scatter:
    """Points, one a seed, and the line on which x equals y.

    Attributes:
        title: of the whole.
        x: what the horizontal axis is.
        y: what the vertical axis is.
        seeds: of the points.
        points: by machine.
        behind: a range of y that is drawn behind the points.
    """

    title: str
    x: str
    y: str
    seeds: tuple[int, ...]
    points: tuple[Points, ...]
    behind: Band | None = None


@dataclass(frozen=True)
class Row:
    """Values, their quartiles and their median.

    Attributes:
        name: what they are of.
        style: how they are told from others.
        values: one an image.
        low: the lower quartile.
        middle: the median.
        high: the upper quartile.
    """

    name: str
    style: Style
    values: Numbers
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Dots:
    """Rows of dots, one an image.

    Attributes:
        title: of the whole.
        x: what the values are.
        names: every row that there is room for.
        rows: those that have values.
        limit: a value that is drawn as a line.
        behind: a range of x that is drawn behind the dots.
    """

    title: str
    x: str
    names: tuple[str, ...]
    rows: tuple[Row, ...]
    limit: float | None = None
    behind: Band | None = None


@dataclass(frozen=True)
class Panels:
    """Several views of one kind, side by side.

    Attributes:
        title: of the whole.
        views: the panels.
        share: they have the same axes and the same series.
    """

    title: str
    views: tuple[Lines, ...] | tuple[HeatMap, ...] | tuple[Dots, ...]
    share: bool = False


View = Lines | HeatMap | Scatter | Dots | Panels


# --- one analysis -----------------------------------------------------------------------------


def scales(results: Results) -> Lines | None:
    """Fitted patch sizes, and what held-out images alone suggest."""
    kinds = list(results.machines)
    series = [
        fitted_series(with_paper_name(kind), one, machine_style(kinds, kind, marker=True))
        for kind, one in sized(results).items()
    ]
    if not series:
        return None
    data = _sized_by_data(results)
    if data is not None:
        style = Style(_UNSEEN, (0, (2, 1)), "x", thin=True)
        name = f"{data.machine}: denoises unseen images best"
        series.append(Series(name, style, data.t, data.values))
    series += ceiling([*sized(results).values(), data])
    return Lines(
        "Fitted size, and the sizes that are as good",
        "patch size k (pixels)",
        tuple(series),
        step=True,
        ticks=odd_ticks(series),
    )


def looks(results: Results) -> Lines | None:
    """The first machine's fitted size against what the network measurably looks at."""
    probes, kind = results.probes, results.primary
    if probes is None:
        return None
    side, series = min(results.noise.shape[2:]), []
    if kind in sized(results):
        style = machine_style(list(results.machines), kind, marker=True)
        name = f"fitted: {with_paper_name(kind)}"
        series.append(fitted_series(name, results.scales[kind], style))
    series += measured_series("measured: {} % of x0_hat's squared gradient", probes)
    facts = results.provenance.network
    limit = facts.receptive_field
    above = " (above)" if limit is not None and limit > 1.5 * side else ""
    name = f"theoretical receptive field: {facts.field_text}{above}"
    style = Style(_NETWORK, DASHED_AND_DOTTED, thin=True)
    series.append(Series(name, style, (1.0, 0.0), (float(limit or side),) * 2))
    return Lines(
        "Fitted size, and what the network looks at",
        "side of the square (pixels)",
        tuple(series),
        step=True,
        limits=(0, 1.5 * side),
    )


def sizes(results: Results) -> Lines | None:
    """All that is a side in pixels: fitted, of held-out images, measured, and the paper's."""
    kinds = list(results.machines)
    series = [
        fitted_series(f"{with_paper_name(kind)}, fitted", one, machine_style(kinds, kind))
        for kind, one in sized(results).items()
    ]
    data, probes = _sized_by_data(results), results.probes
    if data is not None:
        name = f"{data.machine}, from held-out images alone"
        series.append(Series(name, Style(_UNSEEN, DASHED), data.t, data.values))
    if probes is not None:
        series += measured_series("network: side holding {} % of the gradient", probes)
    series += ceiling([*sized(results).values(), data])
    paper = paper_row(results)
    if paper is not None:
        t, values = tuple(paper.sizes), _numbers(paper.sizes.values())
        series.append(Series("released with the paper", Style(_SEEN, DOTTED), t, values))
    if not sized(results) and probes is None:
        return None
    return Lines(
        "", "side of the square (pixels)", tuple(series), step=True, ticks=odd_ticks(series)
    )


def other_scale(results: Results) -> Lines | None:
    """The first machine's scale where it is no patch size."""
    one = results.scales.get(results.primary)
    if one is None or one.scale == SIZE.name:
        return None
    style = machine_style(list(results.machines), one.machine)
    return Lines("", f"fitted {one.scale}", (fitted_series(one.machine, one, style),), step=True)


def criterion(results: Results) -> Panels | None:
    """What each value of each fitted scale loses at each t, relative to the best one there.

    Of a cosine the loss is what it lacks of 1. At high noise all values lose little and at low
    noise all lose much, so that only the comparison at one t says anything.
    """
    views = tuple(_criterion(kind, one) for kind, one in results.scales.items())
    return Panels("", views) if views else None


def _criterion(kind: str, one: Scales) -> HeatMap:
    found = tuple(map(tuple, one.mean_table()))
    losses = found
    if one.criterion == "cosine":
        losses = tuple(tuple(1 - value for value in line) for line in found)
    least = [min(loss for loss in line if not math.isnan(loss)) for line in losses]
    cells = tuple(
        tuple(loss / max(best, _SMALLEST) for loss in line)
        for line, best in zip(losses, least, strict=True)
    )
    return HeatMap(
        title=kind,
        y=_scale_title(one.scale),
        t=one.t,
        rows=one.candidates,
        cells=cells,
        unit=_CRITERIA[one.criterion],
        log=True,
        marks=one.values,
        told=(one.criterion, found),
    )


def weights(results: Results) -> Lines | None:
    """The weight of each machine in the mixture, over all values of its scale, at each t."""
    found = results.weights
    if found is None:
        return None
    shares: dict[str, list[float]] = {}
    for i, component in enumerate(found.components):
        kind = component.split(" ")[0]
        before = shares.get(kind, [0.0] * len(found.t))
        shares[kind] = [share + row[i] for share, row in zip(before, found.weights, strict=True)]
    kinds = list(dict.fromkeys([*results.machines, *shares]))
    series = tuple(
        Series(with_paper_name(kind), machine_style(kinds, kind), found.t, tuple(values))
        for kind, values in shares.items()
    )
    return Lines("What the mixture is made of", "weight", series, limits=(0, 1))


def by_t(results: Results) -> Lines | None:
    """Agreement of the x0_hats at each step, every denoiser on its own path."""
    kinds = list(results.machines)
    series = tuple(
        spread_series(with_paper_name(kind), results.t, values, machine_style(kinds, kind))
        for kind, values in results.by_t.items()
    )
    title = "Agreement along the path: median and quartiles"
    behind = _reached_by_t(results)
    return Lines(title, "pearson_r of x0_hat", series, behind=behind) if series else None


def _reached_by_t(results: Results) -> Series | None:
    """What networks of other seeds reach, each on its own path."""
    if not results.ceiling_by_t:
        return None
    return spread_series(REACHED, results.t, results.ceiling_by_t["pearson_r"], Style(_REACHED))


def spread(results: Results) -> Dots:
    """How the metric is spread over seeds for each machine."""
    kinds = tuple(results.machines)
    rows = tuple(
        _row(with_paper_name(kind), values["pearson_r"], machine_style(kinds, kind))
        for kind, values in results.by_seed.items()
    )
    reached = results.ceiling_by_seed
    if reached:
        rows = (*rows, _row(REACHED, reached["pearson_r"], Style(_REACHED)))
    return Dots(
        "Seeds, quartiles and median",
        "pearson_r with the network",
        tuple(row.name for row in rows),
        rows,
        behind=_reached_band(results),
    )


def _reached_band(results: Results) -> Band | None:
    """The quartiles over seeds of what networks of other seeds reach."""
    if not results.ceiling_by_seed:
        return None
    row = _row(REACHED, results.ceiling_by_seed["pearson_r"], Style(_REACHED))
    return Band(REACHED, row.low, row.high)


def locality(results: Results) -> Dots | None:
    """How the score of protocol locality is spread over seeds for each machine."""
    kinds = tuple(results.machines)
    rows = tuple(
        _row(with_paper_name(kind), scores, machine_style(kinds, kind))
        for kind, scores in results.locality_scores.items()
    )
    if not rows:
        return None
    title = "Protocol locality: seeds and quartiles"
    return Dots(title, "1 - SS_res / (n var)", tuple(map(with_paper_name, kinds)), rows)


def rival(results: Results) -> str | None:
    """The machine that others are drawn against: `ideal`, or the one after the first."""
    kinds = list(results.machines)
    return IDEAL if IDEAL in kinds and len(kinds) > 1 else next(iter(kinds[1:]), None)


def scatter(results: Results) -> Scatter | None:
    """Each seed's pearson_r of every machine against that of `ideal`, or of the second one."""
    other, kinds = rival(results), list(results.machines)
    if other is None:
        return None
    found = {kind: values["pearson_r"] for kind, values in results.by_seed.items()}
    defined = ~torch.stack(list(found.values())).isnan().any(dim=0)
    score = {kind: _numbers(values[defined]) for kind, values in found.items()}
    seeds = tuple(seed for seed, one in zip(results.seeds, defined, strict=True) if one)
    points = tuple(
        Points(
            with_paper_name(kind),
            machine_style(kinds, kind, marker=True),
            score[other],
            score[kind],
        )
        for kind in kinds
        if kind != other
    )
    return Scatter(
        title=f"Above the line: better than {other}",
        x=f"pearson_r of {with_paper_name(other)}",
        y="pearson_r of the machine",
        seeds=seeds,
        points=points,
        behind=_reached_band(results),
    )


def equivariance(results: Results) -> HeatMap | None:
    """The equivariance error by time and distance to the border."""
    probes = results.probes
    if probes is None:
        return None
    overall = max(errors[0] for errors in probes.equivariance)
    cells = tuple(tuple(errors[1:]) for errors in probes.equivariance)
    edge = None
    # A window of k pixels lies inside the image from k // 2 pixels on, and is then free to move.
    if results.primary == "boundary" and results.scales:
        radii = (results.scales["boundary"].at(t) // 2 - 0.5 for t in probes.t)
        edge = Edge("boundary of the fitted size: 0 above", tuple(radii))
    return HeatMap(
        title=f"Equivariance error; over all places {overall:.2g} at most",
        y="distance to the border (pixels)",
        t=probes.t,
        rows=_numbers(range(len(cells[0]))),
        cells=cells,
        unit="relative difference",
        most=float(max(1, *(error for errors in cells for error in errors))),
        edge=edge,
    )


def novelty(results: Results) -> Panels | None:
    """How far from copies the samples are, and real images as yardsticks."""
    if results.attribution is None:
        return None
    by_seed = results.attribution.by_seed
    sides = tuple(map(with_paper_name, by_seed))
    views = []
    for name, title in NOVELTY.items():
        rows = tuple(
            _row(with_paper_name(side), values[name], side_style(results, side))
            for side, values in by_seed.items()
            if name in values
        )
        if rows:
            views.append(Dots(title, title, sides, rows))
    return Panels("Novelty: seeds, quartiles and median", tuple(views))


def copies(results: Results) -> Panels | None:
    """How much nearer samples are to one training image than to any other."""
    if results.attribution is None:
        return None
    by_seed = {
        side: values for side, values in results.attribution.by_seed.items() if "ratio" in values
    }
    if not by_seed:
        return None
    sides = tuple(map(with_paper_name, by_seed))
    views = tuple(
        Dots(
            title,
            title,
            sides,
            tuple(
                _row(with_paper_name(side), values[name], side_style(results, side))
                for side, values in by_seed.items()
            ),
            limit=COPIED,
        )
        for name, title in RATIOS.items()
    )
    return Panels("Copies: left of 1/3, one training image is three times as near", views)


def information(results: Results) -> Panels | None:
    """Over how many patches each machine averages, by t and scale, and where it has but one."""
    if not results.information:
        return None
    found = results.information.items()
    return Panels("", tuple(_information(one, results.scales.get(kind)) for kind, one in found))


def _information(one: Information, fitted: Scales | None) -> HeatMap:
    tracks = (
        Track("k_mem: up to here no patch has half the weight", SOLID, one.k_mem),
        Track("up to here Gaussian patches would not collapse", DOTTED, one.k_collapse),
    )
    cells = tuple(map(tuple, one.effective_patches.tolist()))
    return HeatMap(
        title=with_paper_name(one.machine),
        y=_scale_title(one.scale),
        t=one.t,
        rows=one.candidates,
        cells=cells,
        unit="exp H, in patches",
        log=True,
        marks=None if fitted is None else tuple(fitted.at(t) for t in one.t),
        tracks=tracks,
    )


def memorisation(results: Results) -> Panels | None:
    """The calibrated scale of each patch machine beside that from which on it has one patch."""
    views = tuple(
        _memorisation(results, kind, one)
        for kind, one in results.information.items()
        if kind in results.scales
    )
    return Panels("Fitted scale, and where the posterior collapses", views) if views else None


def _memorisation(results: Results, kind: str, one: Information) -> Lines:
    style = machine_style(list(results.machines), kind)
    lines = (
        ("k_mem: largest weight 1/2", Style(_NETWORK, DASHED), one.k_mem),
        ("Gaussian patches collapse", Style(_UNSEEN, DOTTED), one.k_collapse),
    )
    return Lines(
        with_paper_name(kind),
        _scale_title(one.scale),
        (
            fitted_series(with_paper_name(kind), results.scales[kind], style),
            *(
                Series(name, look, one.t, tuple(math.nan if k is None else k for k in values))
                for name, look, values in lines
            ),
        ),
        step=True,
        ticks=_numbers(one.candidates) if len(one.candidates) <= _MOST_TICKED // 2 else None,
    )


def _scale_title(scale: str) -> str:
    return f"{scale} (pixels)" if scale in _IN_PIXELS else scale


def side_style(results: Results, side: str) -> Style:
    """A machine has its own colour everywhere; the network is black, real images are not."""
    real = {NETWORK: _NETWORK, HELD_OUT: _UNSEEN, COPIES: _SEEN}
    real |= dict.fromkeys(results.twins, _REACHED)
    return Style(real[side]) if side in real else machine_style(list(results.machines), side)


def consistency(results: Results) -> Panels | None:
    """How well neighbouring winners agree, and how many patches count, at each step."""
    attribution = results.attribution
    if attribution is None or attribution.tracing is None or attribution.traced is None:
        return None
    mosaic, kind = attribution.traced, attribution.tracing.machine
    style, name = machine_style(list(results.machines), kind), with_paper_name(kind)
    views, changes = [], _changes_of_size(mosaic)
    if not mosaic.consistency.isnan().all():
        line = spread_series(name, mosaic.t, mosaic.consistency, style)
        views.append(Lines("", "local consistency", (line,), changes=changes))
    line = spread_series(name, mosaic.t, mosaic.of_a_pixel("effective_size"), style)
    views.append(Lines("", "patches that count", (line,), log=True, changes=changes))
    return Panels(f"{kind}: median and quartiles of seeds", tuple(views))


def _changes_of_size(mosaic: Mosaic) -> tuple[tuple[float, str], ...]:
    """Where the size of the patches changes, half way between two steps, and the new size."""
    steps = list(zip(mosaic.t, mosaic.sides, strict=True))
    return tuple(
        ((before + t) / 2, f"k = {side}")
        for (before, last), (t, side) in pairwise(steps)
        if side != last
    )


def denoising(results: Results) -> Panels | None:
    """Errors on unseen images, beside the Wiener filter's, and what is lower on training images."""
    found = results.denoising
    if found is None:
        return None
    split = UNSEEN if UNSEEN in found.errors else TRAINING
    filters = Series("Wiener filter", Style(_WIENER, DOTTED), (1.0, 0.0), (1.0, 1.0))
    errors = _sides_series(results, found.mean[split])
    ratios = (*_sides_series(results, found.over_wiener[split]), filters)
    views = [
        Lines(
            f"error on {_IMAGES[split]} images",
            "mean squared error",
            errors,
            log=True,
            limits=_without_blow_up(errors, max(found.mean[split][WIENER].value)),
        ),
        Lines(
            "relative to the Wiener filter",
            "error / Wiener filter's",
            ratios,
            log=True,
            limits=_without_blow_up(ratios, 1),
        ),
    ]
    if found.relative_gap:
        views.append(
            Lines(
                "lower on training images by",
                "1 - training / unseen",
                _sides_series(results, found.relative_gap),
            )
        )
    return Panels("Denoising real images: mean and 95 % interval", tuple(views))


def _without_blow_up(series: Sequence[Series], usual: float) -> tuple[float, float]:
    """Of an axis of errors: at t = 1 a network's own is magnified, hundreds of times the usual."""
    values = [value for one in series for value in one.value if value > 0]
    least, most = min(values, default=usual), max(values, default=usual)
    return least / _MARGIN, min(most * _MARGIN, _MOST_USUAL * usual)


def _sides_series(results: Results, by_side: Mapping[str, ByTime]) -> tuple[Series, ...]:
    """A line for the network, each machine, and the Wiener filter where it is no machine."""
    return tuple(
        Series(
            "Wiener filter" if side not in (NETWORK, *results.machines) else with_paper_name(side),
            _answering_style(results, side),
            results.t,
            one.value,
            one.low,
            one.high,
        )
        for side, one in by_side.items()
    )


def _answering_style(results: Results, side: str) -> Style:
    if side in (NETWORK, *results.machines):
        return side_style(results, side)
    return Style(_WIENER, DOTTED)


def same_x(results: Results) -> Panels | None:
    """Agreement by time where each is on its own path, and where both are asked at the same x."""
    found = results.same_x
    if found is None:
        return None
    kinds = list(results.machines)
    own = replace(by_t(results) or Lines("", "", ()), title="each on its own path")
    views = [own]
    for place, title in PLACES.items():
        medians_of = found.median.get(place)
        if medians_of is None:
            continue
        series = {
            kind: Series(
                REACHED if kind == CEILING else with_paper_name(kind),
                Style(_REACHED) if kind == CEILING else machine_style(kinds, kind),
                found.t,
                metrics["pearson_r"].value,
                metrics["pearson_r"].low,
                metrics["pearson_r"].high,
            )
            for kind, metrics in medians_of.items()
        }
        behind = series.pop(CEILING, None)
        views.append(Lines(title, own.y, tuple(series.values()), behind=behind))
    drawn = [one for view in views for one in (*view.series, view.behind) if one is not None]
    lows = [value for one in drawn for value in one.low or one.value if math.isfinite(value)]
    limits = (math.floor(10 * min(lows, default=0)) / 10, 1)  # which shows what each panel adds
    panels = tuple(replace(view, limits=limits) for view in views)
    return Panels("Agreement at the same x: medians", panels, share=True)


VIEWS: dict[str, Callable[[Results], View | None]] = {
    "scales": scales,
    "looks": looks,
    "sizes": sizes,
    "other_scale": other_scale,
    "criterion": criterion,
    "weights": weights,
    "by_t": by_t,
    "spread": spread,
    "scatter": scatter,
    "locality": locality,
    "equivariance": equivariance,
    "novelty": novelty,
    "copies": copies,
    "information": information,
    "memorisation": memorisation,
    "consistency": consistency,
    "denoising": denoising,
    "same_x": same_x,
}


# --- several networks ---------------------------------------------------------------------------


def compared_scales(comparison: Comparison) -> Lines | None:
    """The first machines' fitted sizes."""
    series = tuple(
        fitted_series(name, one.scales[one.primary], machine_style(comparison.names, name))
        for name, one in comparison.by_name.items()
        if one.primary in sized(one)
    )
    if not series:
        return None
    return Lines("", "patch size (pixels)", series, step=True, ticks=odd_ticks(series))


def compared_primary(comparison: Comparison) -> Lines:
    """Agreement of the first machines' x0_hats at each step."""
    series = tuple(
        spread_series(name, one.t, one.by_t[one.primary], machine_style(comparison.names, name))
        for name, one in comparison.by_name.items()
    )
    return Lines("", "pearson_r of x0_hat", series)


def compared_by_t(comparison: Comparison) -> Panels:
    """Agreement of every machine's x0_hats at each step, a panel for each network."""
    kinds = comparison.kinds
    views = tuple(
        Lines(
            name,
            "pearson_r of x0_hat, median over seeds",
            tuple(
                Series(
                    with_paper_name(kind),
                    replace(machine_style(kinds, kind, marker=True), thin=True),
                    one.t,
                    medians(values),
                )
                for kind, values in one.by_t.items()
            ),
            behind=_reached_by_t(one),
        )
        for name, one in comparison.by_name.items()
    )
    return Panels("", views, share=True)


COMPARISON_VIEWS: dict[str, Callable[[Comparison], View | None]] = {
    "scales": compared_scales,
    "primary": compared_primary,
    "by_t": compared_by_t,
}


# --- along training -------------------------------------------------------------------------------


def along_own(along: Along) -> Lines | None:
    """Agreement at every snapshot, the machines at scales that were fitted to it."""
    return _along(along, OWN, "Scales fitted to each snapshot") if along.refitted else None


def along_last(along: Along) -> Lines:
    """Agreement at every snapshot, the machines at the scales of the last one."""
    return _along(along, LAST, "Scales of the last snapshot")


def _along(along: Along, scales: str, title: str, metric: str = "pearson_r") -> Lines:
    return Lines(
        title,
        f"{metric} with the network",
        tuple(
            summary_series(
                with_paper_name(kind),
                along.steps,
                along.summaries[scales][kind][metric],
                machine_style(along.kinds, kind, marker=True),
            )
            for kind in along.kinds
        ),
        x=STEPS,
    )


def along_r2(along: Along) -> Lines:
    """R2 at every snapshot, which a wrong contrast or mean lowers too."""
    return _along(along, along.scales, "R2, which a wrong contrast lowers too", "R2")


def along_loss(along: Along) -> Lines | None:
    """The loss of every snapshot, on held-out images and on those of training."""
    named = {"held_out": (HELD_OUT, Style(_UNSEEN)), "training": (COPIES, Style(_SEEN, DASHED))}
    series = tuple(
        _mean_series(name, along, [one.loss(images, along.t) for one in along.moments], style)
        for images, (name, style) in named.items()
        if images in along.moments[0].errors
    )
    return Lines("Loss", "squared error of eps_hat", series, log=True, x=STEPS) if series else None


def along_error(along: Along) -> Lines | None:
    """How well every snapshot denoises held-out images, at three noise levels."""
    if "held_out" not in along.moments[0].errors:
        return None
    names = [f"t = {along.t[at]:.2g}" for at in along.shown_t]
    series = tuple(
        _mean_series(
            name,
            along,
            [one.error("held_out", at) for one in along.moments],
            machine_style(names, name, marker=True),
        )
        for name, at in zip(names, along.shown_t, strict=True)
    )
    return Lines("Held-out images", "squared error of x0_hat", series, log=True, x=STEPS)


def _mean_series(name: str, along: Along, means: Sequence[Mean], style: Style) -> Series:
    low, high = zip(*(one.ci95 for one in means), strict=True)
    return Series(name, style, _numbers(along.steps), tuple(one.mean for one in means), low, high)


def along_copied(along: Along) -> Lines | None:
    """The share of the network's samples that are copies, at every snapshot."""
    named = {"in_place": ("copied, in place", SOLID), "shifted": ("up to translation", DOTTED)}
    series = []
    for side, (name, dashes) in named.items():
        shares = [one.copied[side] for one in along.moments if side in one.copied]
        if len(shares) == len(along.moments):
            low, high = zip(*(one.ci95 for one in shares), strict=True)
            value = tuple(one.share for one in shares)
            style = Style(_NETWORK, dashes)
            series.append(Series(name, style, _numbers(along.steps), value, low, high))
    if not series:
        return None
    title = "Copies of a training image"
    return Lines(title, "share of samples", tuple(series), limits=(0, 1), x=STEPS)


def along_memorised(along: Along) -> Lines | None:
    """How much of the network's samples is that of a training image, at every snapshot."""
    if not along.moments[0].memorised:
        return None
    values = torch.tensor([one.memorised for one in along.moments])
    line = spread_series(NETWORK, along.steps, values, Style(_NETWORK))
    return Lines("Samples: pixels of a training image", NOVELTY["memorised"], (line,), x=STEPS)


def along_by_t(along: Along) -> Panels:
    """Agreement of the x0_hats at every snapshot and t, a panel for each machine."""
    maps = tuple(
        HeatMap(
            title=with_paper_name(kind),
            y=STEPS,
            t=along.t,
            rows=_numbers(along.steps),
            cells=tuple(zip(*(one.by_t[kind] for one in along.moments), strict=True)),
            unit="pearson_r of x0_hat, median",
            most=1.0,
        )
        for kind in along.kinds
    )
    return Panels("", maps)


def along_scales(along: Along) -> HeatMap | None:
    """The first machine's scale as it was fitted to every snapshot."""
    if not along.refitted or along.primary not in along.moments[-1].scales:
        return None
    cells = tuple(zip(*(one.scales[along.primary] for one in along.moments), strict=True))
    return HeatMap(
        title=with_paper_name(along.primary),
        y=STEPS,
        t=along.t,
        rows=_numbers(along.steps),
        cells=cells,
        unit="fitted scale",
        most=max(map(max, cells)),
    )


def along_panels(along: Along) -> Panels:
    """Agreement with both kinds of scales, the loss, and the share of copies."""
    views = (along_own(along), along_last(along), along_loss(along), along_copied(along))
    return Panels("", tuple(one for one in views if one is not None))


ALONG_VIEWS: dict[str, Callable[[Along], View | None]] = {
    "own": along_own,
    "last": along_last,
    "r2": along_r2,
    "loss": along_loss,
    "error": along_error,
    "copied": along_copied,
    "memorised": along_memorised,
    "by_t": along_by_t,
    "scales": along_scales,
}


# --- numbers --------------------------------------------------------------------------------------


def fitted_series(name: str, one: Scales, style: Style) -> Series:
    """A fitted scale, with the values that are as good."""
    low, high = zip(*one.band, strict=True)
    return Series(name, style, one.t, one.values, low, high)


def ceiling(fitted: Iterable[Scales | None]) -> list[Series]:
    """A line at the largest size that was tried, where one of the scales is at it."""
    found = [one for one in fitted if one is not None and any(one.at_edge)]
    if not found:
        return []
    most = float(max(found[0].candidates))
    style = Style(_UNSEEN, DOTTED, thin=True)
    return [Series(f"largest size tried ({most:g})", style, (1.0, 0.0), (most, most))]


def odd_ticks(series: Iterable[Series]) -> Numbers | None:
    """The odd sizes up to the largest of some lines; None where these are too many to be read."""
    most = max(value for one in series for value in (*one.value, *(one.high or ())))
    return _numbers(range(1, int(most) + 1, 2)) if most <= _MOST_TICKED else None


def measured_series(name: str, probes: Probes) -> list[Series]:
    """The sides of the squares that hold half and 90 % of the gradient, where it was measured.

    Args:
        name: of the series, with {} for the share in per cent.
        probes: what was measured.
    """
    sides = probes.sides()
    return [
        Series(
            name.format(share), Style(_NETWORK, dashes), probes.t, _numbers(sides[f"erf/{share}"])
        )
        for share, dashes in (("50", DOTTED), ("90", DASHED))
        if f"erf/{share}" in sides
    ]


def summary_series(
    name: str, at: Sequence[float], values: Sequence[Summary], style: Style
) -> Series:
    """Medians and their intervals."""
    low, high = zip(*(one.ci95 for one in values), strict=True)
    return Series(name, style, _numbers(at), tuple(one.median for one in values), low, high)


def spread_series(name: str, t: Sequence[float], values: Tensor, style: Style) -> Series:
    """Median and quartiles over seeds of values (steps n)."""
    low, middle, high = _quartiles(values)
    return Series(name, style, tuple(t), middle, low, high)


def medians(values: Tensor) -> Numbers:
    """Medians over seeds of values (steps n); NaN counts as absent."""
    return _quartiles(values)[1]


def _quartiles(values: Tensor) -> tuple[Numbers, Numbers, Numbers]:
    with warnings.catch_warnings():  # where all are NaN, NaN is right
        warnings.simplefilter("ignore", RuntimeWarning)
        found = np.nanquantile(values.double().numpy(), [0.25, 0.5, 0.75], axis=1)
    low, middle, high = (tuple(line) for line in found.tolist())
    return low, middle, high


def _row(name: str, values: Tensor, style: Style) -> Row:
    low, middle, high = (line[0] for line in _quartiles(values[None]))
    return Row(name, style, _numbers(values[~values.isnan()]), low, middle, high)


def sized(results: Results) -> dict[str, Scales]:
    """The fitted scales that are patch sizes in pixels."""
    return {kind: one for kind, one in results.scales.items() if one.scale == SIZE.name}


def _sized_by_data(results: Results) -> Scales | None:
    """The first machine's size as held-out images alone suggest it."""
    data = results.data_scales
    return data if data is not None and data.scale == SIZE.name else None


def _numbers(values: Iterable[float] | Tensor) -> Numbers:
    return tuple(values.tolist() if isinstance(values, Tensor) else values)
