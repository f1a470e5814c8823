"""Results as tables: for the terminal, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from els.agreement import METRICS, Summary
from els.analysis.attribution import Attribution
from els.analysis.comparison import Comparison
from els.analysis.report.views import medians
from els.analysis.results import AgreementAt, Results
from els.calibration import Scales
from els.console import plural
from els.files import replacing
from els.machines.local import SIZE
from els.probes import Probes

# Columns of the tables, which are also the names of what is logged.
SCALE, SCALE_ON_IMAGES, PEARSON_R = "scale", "scale_on_images", "pearson_r"
EFFECTIVE_SIZE, TOP_SHARE, CONSISTENCY = "effective_size", "top_share", "consistency"
EQUIVARIANCE, RECEPTIVE_FIELD = "equivariance_error", "erf"
NOVELTY = "novelty"
BEATS_IDEAL = "beats ideal"
_METRIC_WIDTH, _CELL_WIDTH = 11, 22
_BLOCKS = "▁▂▃▄▅▆▇█"
_DIGITS = "0123456789"
_CURVE_WIDTH = 40
_DASHES = box.Box("    \n    \n -- \n" + 5 * "    \n", ascii=True)


def plain(options: ConsoleOptions) -> bool:
    """Whether only ASCII is wanted: in a file or a log, or where the encoding knows no more."""
    return options.ascii_only or not options.is_terminal


class _HeadRule(box.Box):
    """A rule under the head, of dashes where only ASCII is wanted."""

    def substitute(self, options: ConsoleOptions, safe: bool = True) -> box.Box:
        """Called by the table that has this box."""
        return _DASHES if plain(options) else box.SIMPLE_HEAD.substitute(options, safe)


HEAD_RULE = _HeadRule(str(box.SIMPLE_HEAD))


class ScaleCurves:
    """A line for each fitted machine: a small curve of its scale against t, and the scale's range.

    A step of a curve is one of the values that were tried, in their order; digits stand for the
    blocks where only ASCII is wanted.
    """

    def __init__(self, scales: Mapping[str, Scales]) -> None:
        self.scales = scales

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by `Console.print`."""
        levels, title = _BLOCKS, "Fitted scale against t"
        if plain(options):
            levels, title = _DIGITS, f"{title} (0 the smallest value, 9 the largest)"
        table = Table(title=title, box=HEAD_RULE, title_justify="left")
        t = next(iter(self.scales.values())).t
        for name in ("machine", f"t = {t[0]:g} to {t[-1]:g}", "scale"):
            table.add_column(name, no_wrap=True)
        for kind, one in self.scales.items():
            low, high = min(one.values), max(one.values)
            table.add_row(kind, curve(one, levels), f"{one.scale} {low:g} to {high:g}")
        yield table


def curve(scales: Scales, levels: str) -> str:
    """The scale at each t (of at most 40 of them) as one of the levels, the lowest first."""
    ranks = sorted({*scales.candidates, *scales.values})
    heights = [ranks.index(size) for size in scales.values]
    low, high = min(heights), max(heights)
    count = min(_CURVE_WIDTH, len(heights))
    picked = [heights[round(i * (len(heights) - 1) / max(1, count - 1))] for i in range(count)]
    top = (len(levels) - 1) / max(1, high - low)
    return "".join(levels[round((height - low) * top)] for height in picked)


def agreement_tables(results: Results) -> list[Table]:
    """Medians and intervals, a row for each machine; a table for each number of network steps."""
    return [_agreement_table(one, len(results.seeds)) for one in results.agreement]


def _agreement_table(one: AgreementAt, seeds: int) -> Table:
    table = Table(
        title=f"Agreement over {seeds} seeds: median [95 % interval]; "
        f"network {one.network_steps} steps, machine {one.machine_steps} steps",
        box=HEAD_RULE,
        title_justify="left",
    )
    header, *rows = agreement_cells(one)
    for name in header:
        table.add_column(name, justify="left" if name == "machine" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def agreement_cells(one: AgreementAt) -> list[tuple[str, ...]]:
    """The header, and medians and intervals of each machine, as text."""
    rows: list[tuple[str, ...]] = [("machine", *METRICS, BEATS_IDEAL)]
    for kind, summary in one.machines.items():
        share = "" if summary.beats_ideal is None else f"{summary.beats_ideal:.0%}"
        rows.append((kind, *(interval_text(summary.metrics[name]) for name in METRICS), share))
    return rows


def interval_text(value: Summary) -> str:
    """A median and its interval, as "0.912 [0.90, 0.92]"."""
    low, high = value.ci95
    return f"{value.median:.3f} [{low:.2f}, {high:.2f}]"


def comparison_table(comparison: Comparison, width: int) -> Table:
    """Medians and intervals of each metric, for a terminal of a width in columns.

    One row a network and one column a machine where they fit, else the other way round.
    """
    names, kinds = comparison.names, comparison.kinds
    fits = _METRIC_WIDTH + _CELL_WIDTH * (1 + len(kinds)) <= width
    rows, columns = (names, kinds) if fits else (kinds, names)
    table = Table(
        title="Agreement with each network: median [95 % interval over seeds]",
        box=HEAD_RULE,
        title_justify="left",
    )
    for name in ("metric", "network" if fits else "machine", *columns):
        table.add_column(name, justify="right" if name in columns else "left")
    for metric in METRICS:
        for i, row in enumerate(rows):
            pairs = ((row, one) if fits else (one, row) for one in columns)
            cells = [comparison_cell(comparison, name, kind, metric) for name, kind in pairs]
            table.add_row("" if i else metric, row, *cells)
        table.add_section()
    return table


def comparison_cell(comparison: Comparison, name: str, kind: str, metric: str) -> str:
    """The metric of a machine and a network, as text; empty where it was not measured."""
    machines = comparison.by_name[name].agreement[0].machines
    return interval_text(machines[kind].metrics[metric]) if kind in machines else ""


def seed_rows(results: Results) -> list[dict[str, Any]]:
    """One row a seed: seed, label, every metric of every machine, and what is copied."""
    attribution = results.attribution
    by_seed = {} if attribution is None else attribution.by_seed
    drawn = () if attribution is None else attribution.paths
    rows = []
    for i, seed in enumerate(results.seeds):
        row: dict[str, Any] = {"seed": seed}
        if results.labels is not None:
            row["label"] = int(results.labels[i])
        for kind, values in results.by_seed.items():
            row |= {f"{kind}/{name}": float(values[name][i]) for name in METRICS}
        for side in drawn:
            row |= {
                f"{NOVELTY}/{side}/{name}": float(value[i]) for name, value in by_seed[side].items()
            }
        rows.append(row)
    return rows


def time_rows(results: Results) -> list[dict[str, Any]]:
    """One row a timestep: t, fitted scales, the criterion for every k, agreement, the probes."""
    rows: list[dict[str, Any]] = [{"t": t} for t in results.t]
    pearson = {f"{PEARSON_R}/{kind}": medians(values) for kind, values in results.by_t.items()}
    mosaics = {} if results.attribution is None else _mosaic_columns(results.attribution)
    for i, (t, row) in enumerate(zip(results.t, rows, strict=True)):
        for kind, scales in results.scales.items():
            row |= scale_cells(kind, scales, t)
        if results.data_scales is not None:
            row[f"{SCALE_ON_IMAGES}/{results.data_scales.machine}"] = results.data_scales.at(t)
        row |= {name: values[i] for name, values in pearson.items()}
        if results.probes is not None:
            row |= _probe_cells(results.probes, results.probes.t.index(t))
        row |= {name: values[i] for name, values in mosaics.items() if isfinite(values[i])}
    return rows


def scale_cells(kind: str, scales: Scales, t: float) -> dict[str, float]:
    """The fitted value, and the criterion of each value that was tried."""
    cells = {f"{SCALE}/{kind}": scales.at(t)}
    criterion = scales.mean_table()[scales.t.index(t)]
    for value, found in zip(scales.candidates, criterion, strict=True):
        name = f"k{value:g}" if scales.scale == SIZE.name else f"{scales.scale} {value:g}"
        cells[f"{scales.criterion}/{kind}/{name}"] = found
    return cells


def _mosaic_columns(attribution: Attribution) -> dict[str, Sequence[float]]:
    """Medians over seeds of what the mosaics say at each step, where they were traced."""
    mosaic, tracing = attribution.traced, attribution.tracing
    if mosaic is None or tracing is None:
        return {}
    columns: dict[str, Sequence[float]] = {
        f"{name}/{tracing.machine}": medians(mosaic.of_a_pixel(name))
        for name in (EFFECTIVE_SIZE, TOP_SHARE)
    }
    columns[f"{CONSISTENCY}/{tracing.machine}"] = medians(mosaic.consistency)
    return columns


def _probe_cells(probes: Probes, step: int) -> dict[str, float]:
    """Sizes of the effective receptive field, and the equivariance error by distance."""
    overall, *by_distance = probes.equivariance[step]
    return {
        **{name: sides[step] for name, sides in probes.sides().items()},
        EQUIVARIANCE: overall,
        **{f"{EQUIVARIANCE}/d{d}": error for d, error in enumerate(by_distance)},
    }


def headline(results: Results) -> str:
    """The main number in a sentence."""
    main = results.agreement[0]
    primary = main.machines[results.primary]
    share = primary.beats_ideal
    tail = "" if share is None else f", and is closer than ideal on {share:.0%} of the seeds"
    return (
        f"From the same noise, the {results.primary} machine predicts what the network draws with "
        f"a median pearson_r of {interval_text(primary.metrics['pearson_r'])} (95 % interval) over "
        f"{plural(len(results.seeds), 'seed')}{tail}; {main.network_steps} steps of the "
        f"network, {main.machine_steps} of the machine."
    )


def probes_text(results: Results) -> str:
    """What the network is and what it was measured to look at, in a sentence."""
    facts, probes = results.provenance.network, results.probes
    text = f"{facts.parameters:,} parameters; receptive field {facts.field_text}"
    if probes is None:
        return text
    sides = probes.sides()
    overall = [errors[0] for errors in probes.equivariance]
    measured = f"no measured one ({probes.skipped})"
    if sides:
        half, most = (f"{min(sides[name])} to {max(sides[name])}" for name in ("erf/50", "erf/90"))
        measured = f"half of the measured one within {half} px and 90 % within {most} px"
    error = f"equivariance error {min(overall):.2g} to {max(overall):.2g}"
    return f"{text}, {measured}; {error}"


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; a key that a row lacks is an empty cell."""
    columns = dict.fromkeys(name for row in rows for name in row)
    with replacing(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns))
        writer.writeheader()
        writer.writerows(rows)
