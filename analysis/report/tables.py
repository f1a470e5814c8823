"""Results as tables: for the terminal, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from els.agreement import METRICS
from els.analysis.attribution import Attribution
from els.analysis.results import Results
from els.calibration import Scales
from els.files import replacing
from els.machines.local import SIZE
from els.probes import Probes, field_text

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


def agreement_table(summary: dict[str, Any]) -> Table:
    """The medians and intervals of agreement.json, a row for each machine."""
    steps = summary["steps"]
    table = Table(
        title=f"Agreement over {summary['seeds']} seeds: median [95 % interval]; "
        f"network {steps['network']} steps, machine {steps['machine']} steps",
        box=HEAD_RULE,
        title_justify="left",
    )
    for name in ("machine", *METRICS, "beats ideal"):
        table.add_column(name, justify="left" if name == "machine" else "right")
    for kind, values in summary["machines"].items():
        share = values.get("beats_ideal")
        cells = [interval_text(values[name]) for name in METRICS]
        table.add_row(kind, *cells, "" if share is None else f"{share:.0%}")
    return table


def interval_text(value: dict[str, Any]) -> str:
    """A median and its interval, as "0.912 [0.90, 0.92]"."""
    low, high = value["ci95"]
    return f"{value['median']:.3f} [{low:.2f}, {high:.2f}]"


def seed_rows(results: Results) -> list[dict[str, Any]]:
    """One row a seed: seed, label, every metric of every machine, and what is copied."""
    metrics, attribution = results.by_seed(), results.attribution
    by_seed = {} if attribution is None else attribution.by_seed()
    novelty = {side: values for side, values in by_seed.items() if side in attribution.paths}
    rows = []
    for i, seed in enumerate(results.seeds):
        row: dict[str, Any] = {"seed": seed}
        if results.labels is not None:
            row["label"] = int(results.labels[i])
        for kind, values in metrics.items():
            row |= {f"{kind}/{name}": float(values[name][i]) for name in METRICS}
        for side, values in novelty.items():
            row |= {f"novelty/{side}/{name}": float(value[i]) for name, value in values.items()}
        rows.append(row)
    return rows


def time_rows(results: Results) -> list[dict[str, Any]]:
    """One row a timestep: t, fitted scales, the criterion for every k, agreement, the probes."""
    rows = []
    for i, t in enumerate(results.t):
        row: dict[str, Any] = {"t": t}
        for kind, scales in results.scales.items():
            row[f"scale/{kind}"] = scales.at(t)
            step = scales.t.index(t)
            for k, value in zip(scales.candidates, scales.mean_table()[step], strict=True):
                name = f"k{k}" if scales.scale == SIZE.name else f"{scales.scale} {k:g}"
                row[f"{scales.criterion}/{kind}/{name}"] = value
        if results.data_scales is not None:
            row[f"scale_on_images/{results.data_scales.machine}"] = results.data_scales.at(t)
        for kind, values in results.by_t.items():
            row[f"pearson_r/{kind}"] = float(values[i].double().quantile(0.5))
        if results.probes is not None:
            row |= _probe_row(results.probes, results.probes.t.index(t))
        if results.attribution is not None:
            row |= _mosaic_row(results.attribution, i)
        rows.append(row)
    return rows


def _mosaic_row(attribution: Attribution, step: int) -> dict[str, Any]:
    """Medians over seeds of what the mosaics say at one of the steps, where they were traced."""
    mosaic = attribution.traced
    if mosaic is None:
        return {}
    row = {
        f"{name}/{attribution.machine}": float(mosaic.of_a_pixel(name)[step].quantile(0.5))
        for name in ("effective_size", "top_share")
    }
    consistency = mosaic.consistency[step].double()
    if not consistency.isnan().all():
        row[f"consistency/{attribution.machine}"] = float(consistency.nanquantile(0.5))
    return row


def _probe_row(probes: Probes, step: int) -> dict[str, Any]:
    """Sizes of the effective receptive field, and the equivariance error by distance."""
    overall, *by_distance = probes.equivariance[step]
    return {
        **{name: sides[step] for name, sides in probes.sides().items()},
        "equivariance_error": overall,
        **{f"equivariance_error/d{d}": error for d, error in enumerate(by_distance)},
    }


def probes_text(probes: Probes) -> str:
    """What the network is and what it was measured to look at, in a sentence."""
    sides = probes.sides()
    overall = [errors[0] for errors in probes.equivariance]
    measured = f"no measured one ({probes.skipped})"
    if sides:
        half, most = (f"{min(sides[name])} to {max(sides[name])}" for name in ("erf/50", "erf/90"))
        measured = f"half of the measured one within {half} px and 90 % within {most} px"
    return (
        f"{probes.parameters:,} parameters; receptive field "
        f"{field_text(probes.receptive_field)}, {measured}; "
        f"equivariance error {min(overall):.2g} to {max(overall):.2g}"
    )


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows with the same keys as CSV, whole or not at all."""
    with replacing(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
