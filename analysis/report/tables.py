"""Results as tables: for the terminal, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from math import isfinite
from pathlib import Path
from typing import Any

from rich import box
from rich.console import ConsoleOptions
from rich.table import Table

from els.agreement import METRICS, Pair
from els.analysis.along import Along
from els.analysis.answers import CEILING
from els.analysis.attribution import Attribution
from els.analysis.comparison import Comparison
from els.analysis.report.published import PaperRow
from els.analysis.report.views import REACHED, medians
from els.analysis.report.words import interval_text
from els.analysis.results import CALIBRATION, ON_IMAGES, SAMPLING, AgreementAt, Results
from els.calibration import Scales
from els.console import plural
from els.errors import printable
from els.files import replacing
from els.information import Information
from els.machines import with_paper_name
from els.machines.local import SIZE
from els.probes import Probes

SHOWN_METRICS = ("pearson_r", "R2")  # r2 says the same as pearson_r; files have all
# Columns of the tables, which are also the names of what is logged.
SCALE, SCALE_ON_IMAGES, PEARSON_R = "scale", "scale_on_images", "pearson_r"
EFFECTIVE_SIZE, TOP_SHARE, CONSISTENCY = "effective_size", "top_share", "consistency"
EFFECTIVE_PATCHES, LARGEST_WEIGHT = "effective_patches", "largest_weight"
PREDICTED_ENTROPY, K_MEM, K_COLLAPSE = "predicted_entropy", "k_mem", "k_collapse"
EQUIVARIANCE, RECEPTIVE_FIELD = "equivariance_error", "erf"
NOVELTY, LOCALITY_SCORE = "novelty", "locality_score"
MSE, OVER_WIENER, GAP, SAME_X = "mse", "mse_over_wiener", "mse_gap", "same_x"
BOUND = "theory without error"  # what it would reach, by the networks of other seeds
_METRIC_WIDTH, _CELL_WIDTH = 11, 22
_FEW = 4
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet computes
_SHOWN_TIMES = (1, 0.75, 0.5, 0.25, 0)
_DASHES = box.Box("    \n    \n -- \n" + 5 * "    \n", ascii=True)
_AUDITED = {
    SAMPLING: "The {kind} machine was compared",
    CALIBRATION: "To fit its scales {kind} was compared",
    ON_IMAGES: "To fit its scales to held-out images {kind} was compared",
}


def plain(options: ConsoleOptions) -> bool:
    """Whether only ASCII is wanted: in a file or a log, or where the encoding knows no more."""
    return options.ascii_only or not options.is_terminal


class _HeadRule(box.Box):
    """A rule under the head, of dashes where only ASCII is wanted."""

    def substitute(self, options: ConsoleOptions, safe: bool = True) -> box.Box:
        """Called by the table that has this box."""
        return _DASHES if plain(options) else box.SIMPLE_HEAD.substitute(options, safe)


HEAD_RULE = _HeadRule(str(box.SIMPLE_HEAD))


def scales_table(scales: Mapping[str, Scales]) -> Table:
    """A row for each fitted machine: its scale at a few times, and those as good as it."""
    t = next(iter(scales.values())).t
    shown = sorted({_nearest(t, time) for time in _SHOWN_TIMES})
    table = Table(
        title="Fitted scale (and the range that is as good; + the largest that was tried)",
        box=HEAD_RULE,
        title_justify="left",
    )
    table.add_column("machine", no_wrap=True)
    table.add_column("scale", no_wrap=True)
    for i in shown:
        table.add_column(f"t = {t[i]:.2g}", justify="right", no_wrap=True)
    for kind, one in scales.items():
        table.add_row(kind, one.scale, *(scale_text(one, i) for i in shown))
    return table


def _nearest(times: Sequence[float], time: float) -> int:
    return min(range(len(times)), key=lambda i: abs(times[i] - time))


def scale_text(scales: Scales, step: int) -> str:
    """A fitted value, as "7 (5-9)" with the range that is as good, and "17+" where it ends."""
    (low, high), edge = scales.band[step], "+" * scales.at_edge[step]
    text = f"{scales.values[step]:g}{edge}"
    return text if low == high else f"{text} ({low:g}-{high:g})"


def agreement_tables(results: Results) -> list[Table]:
    """Medians and intervals, a row for each machine; a table for each number of network steps."""
    return [
        _table(
            f"Agreement over {plural(len(results.seeds), 'seed')}: median [95 % interval]\n"
            f"network {plural(one.network_steps, 'step')}, machines {one.machine_steps}",
            _side_by_side(agreement_cells(one), share_cells(one)),
        )
        for one in results.agreement
    ]


def agreement_cells(
    one: AgreementAt, *, named: Callable[[str], str] = str, paper: PaperRow | None = None
) -> list[tuple[str, ...]]:
    """The header, and medians and intervals of each machine, as text.

    With networks of other seeds also what these reach, and a theory without an error of its own.

    Args:
        one: what was measured.
        named: the name that is shown of a machine.
        paper: the paper's network of this kind, whose medians are one more column where it has any.
    """
    rows: list[tuple[str, ...]] = [("machine", *SHOWN_METRICS)]
    for kind, summary in one.machines.items():
        without = f" ({plural(summary.undefined, 'seed')} undefined)" if summary.undefined else ""
        values = (interval_text(summary.metrics[name]) for name in SHOWN_METRICS)
        rows.append((f"{named(kind)}{without}", *values))
    if one.ceiling is not None:
        reached = (interval_text(one.ceiling.metrics[name]) for name in SHOWN_METRICS)
        rows.append((REACHED, *reached))
        bounds = (one.ceiling.bounds[name] for name in SHOWN_METRICS)
        rows.append((BOUND, *(f"{bound:.3f}" if isfinite(bound) else "" for bound in bounds)))
    medians = {k: paper.pearson_r(k, one.network_steps) for k in one.machines} if paper else {}
    if not any(medians.values()):
        return rows
    told = ["" if median is None else f"{median:.2f}" for median in medians.values()]
    column = ("the paper's r", *told)
    return [(*row, cell) for row, cell in zip_longest(rows, column, fillvalue="")]


def locality_table(results: Results) -> Table:
    """The mean score of each machine, as locality-in-diffusion-models has them in its tables."""
    return _table("Score by protocol locality: mean [95 % interval]", locality_cells(results))


def locality_cells(results: Results, *, named: Callable[[str], str] = str) -> list[tuple[str, ...]]:
    """The header, and the mean score of each machine with its interval, as text."""
    rows = [(named(kind), str(mean)) for kind, mean in results.locality.items()]
    return [("machine", "score"), *rows]


def share_cells(one: AgreementAt, *, named: Callable[[str], str] = str) -> list[tuple[str, ...]]:
    """The header, and each machine's share of what networks of other seeds reach, as text."""
    rows: list[tuple[str, ...]] = [("machine", *(f"{name} / ceiling" for name in SHOWN_METRICS))]
    for kind, summary in one.machines.items() if one.ceiling is not None else ():
        shares = (summary.of_ceiling.get(name) for name in SHOWN_METRICS)
        rows.append(
            (named(kind), *("" if share is None else interval_text(share) for share in shares))
        )
    return rows


def network_cells(one: AgreementAt) -> list[tuple[str, ...]]:
    """The header, and how alike every two networks draw, as text; no row without twins."""
    rows: list[tuple[str, ...]] = [("network", "against", *METRICS)]
    for pair in () if one.ceiling is None else one.ceiling.pairs:
        metrics = (interval_text(pair.metrics[name]) for name in METRICS)
        rows.append((pair.network, pair.other, *metrics))
    return rows


def _side_by_side(
    cells: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]]
) -> list[tuple[str, ...]]:
    """Two tables of the same first rows as one; the first alone where the second has none."""
    if len(others) == 1:
        return list(cells)
    blank = ("",) * (len(others[0]) - 1)
    return [
        (*row, *other)
        for row, other in zip_longest(cells, (other[1:] for other in others), fillvalue=blank)
    ]


def pairs_table(results: Results) -> Table:
    """The first machine against each of the others, seed by seed."""
    mine = [pair for pair in results.pairs if pair.machine == results.primary]
    return _table(f"{results.primary} against the others, seed by seed", pair_cells(mine))


def shown_pairs(results: Results) -> list[Pair]:
    """Every two machines where they are few; else the first against each of the others."""
    few = len(results.machines) <= _FEW
    return [pair for pair in results.pairs if few or pair.machine == results.primary]


def pair_cells(
    pairs: Sequence[Pair], *, of: str = "machine", named: Callable[[str], str] = str
) -> list[tuple[str, ...]]:
    """The header, and how each of a pair does against the other, as text.

    Args:
        pairs: of machines, or of networks.
        of: what they are of.
        named: the name that is shown of each.
    """
    rows: list[tuple[str, ...]] = [(of, "against", "wins", "difference", "")]
    for one in pairs:
        told = "" if one.distinguishable else "not distinguishable"
        difference = interval_text(one.difference, sign=True)
        names = (named(one.machine), named(one.other))
        rows.append((*names, f"{one.wins:.0%}", difference, told))
    return rows


def _table(title: str, cells: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, box=HEAD_RULE, title_justify="left")
    header, *rows = cells
    for name in header:
        table.add_column(name, justify="left" if name in ("machine", "against", "") else "right")
    for row in rows:
        table.add_row(*row)
    return table


def along_cells(along: Along) -> list[tuple[str, ...]]:
    """The header, and a row for each snapshot, as text.

    Its loss, how well it is predicted, and the share of its samples that are copies.
    """
    copied = any(one.copied for one in along.moments)
    header = ("step", "held-out loss", *along.kinds, *(("copied",) if copied else ()))
    rows: list[tuple[str, ...]] = [header]
    for i, one in enumerate(along.moments):
        known = "held_out" in one.errors
        loss = f"{one.loss('held_out', along.t).mean:.3f}" if known else ""
        found = along.summaries[along.scales]
        scores = (interval_text(found[kind][PEARSON_R][i]) for kind in along.kinds)
        shares = (str(one.copied.get("in_place", "")),) if copied else ()
        rows.append((f"{one.step:,}", loss, *scores, *shares))
    return rows


def along_table(along: Along) -> Table:
    """A row for each snapshot, for a terminal."""
    return _table("Agreement along training: median pearson_r [95 % interval]", along_cells(along))


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


def comparison_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """The header, and a row for each network: what it is, and how well it is predicted."""
    kinds = comparison.kinds
    machines = map(with_paper_name, kinds)
    rows: list[tuple[str, ...]] = [
        ("network", "data", "padding", "parameters", "val/loss", *machines)
    ]
    for name, one in comparison.by_name.items():
        source, trained = one.provenance, one.provenance.trained
        known = trained is not None and trained.val_loss is not None
        loss = f"{trained.val_loss:.3f}" if trained is not None and known else ""
        scores = (comparison_cell(comparison, name, kind, PEARSON_R) for kind in kinds)
        facts = (source.data.name, source.network.padding, f"{source.network.parameters:,}", loss)
        rows.append((name, *facts, *scores))
    return rows


def seed_rows(results: Results) -> list[dict[str, Any]]:
    """One row a seed: seed, label, every metric of every machine, and what is copied."""
    attribution = results.attribution
    by_seed = {} if attribution is None else attribution.by_seed
    drawn = () if attribution is None else attribution.drawn
    rows = []
    for i, seed in enumerate(results.seeds):
        row: dict[str, Any] = {"seed": seed}
        if results.labels is not None:
            row["label"] = int(results.labels[i])
        for kind, values in results.by_seed.items():
            row |= {f"{kind}/{name}": float(values[name][i]) for name in METRICS}
        for kind, scores in results.locality_scores.items():
            row[f"{kind}/{LOCALITY_SCORE}"] = float(scores[i])
        for name, values_of in results.ceiling_by_seed.items():
            row[f"{CEILING}/{name}"] = float(values_of[i])
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
        for one in results.information.values():
            row |= _information_cells(one, i)
        if results.probes is not None:
            row |= _probe_cells(results.probes, results.probes.t.index(t))
        row |= {name: values[i] for name, values in mosaics.items() if isfinite(values[i])}
        row |= {name: value for name, value in _answers(results, i).items() if isfinite(value)}
    return rows


def _answers(results: Results, i: int) -> dict[str, float]:
    """What networks of other seeds reach, errors of denoising, and agreement at the same x."""
    cells = {
        f"{CEILING}/{name}": medians(values)[i] for name, values in results.ceiling_by_t.items()
    }
    if (found := results.denoising) is not None:
        for named, by_split in ((MSE, found.mean), (OVER_WIENER, found.over_wiener)):
            for split, sides in by_split.items():
                for side, one in sides.items():
                    cells |= one.columns(f"{named}/{split}/{side}", i)
        for side, one in found.gap.items():
            cells |= one.columns(f"{GAP}/{side}", i)
    if results.same_x is not None:
        for place, kinds in results.same_x.median.items():
            for kind, metrics in kinds.items():
                for name, one in metrics.items():
                    cells |= one.columns(f"{SAME_X}/{place}/{name}/{kind}", i)
    return cells


def scale_cells(kind: str, scales: Scales, t: float) -> dict[str, float]:
    """The fitted value, and the criterion of each value that was tried."""
    cells = {f"{SCALE}/{kind}": scales.at(t)}
    criterion = scales.mean_table()[scales.t.index(t)]
    for value, found in zip(scales.candidates, criterion, strict=True):
        cells[f"{scales.criterion}/{kind}/{_candidate(scales.scale, value)}"] = found
    return cells


def _candidate(scale: str, value: float) -> str:
    return f"k{value:g}" if scale == SIZE.name else f"{scale} {value:g}"


def _information_cells(one: Information, step: int) -> dict[str, float]:
    """What was measured at every value of the scale, and where the posterior collapses."""
    columns = {
        EFFECTIVE_PATCHES: one.effective_patches,
        LARGEST_WEIGHT: one.largest_weight,
        PREDICTED_ENTROPY: one.predicted,
    }
    cells = {
        f"{name}/{one.machine}/{_candidate(one.scale, value)}": float(found[step, k])
        for name, found in columns.items()
        for k, value in enumerate(one.candidates)
    }
    ends = {K_MEM: one.k_mem[step], K_COLLAPSE: one.k_collapse[step]}
    return cells | {f"{name}/{one.machine}": k for name, k in ends.items() if k is not None}


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


def probes_text(results: Results) -> str:
    """What the network is and what it was measured to look at, in a sentence."""
    facts, probes = results.provenance.network, results.probes
    parameters = f"{facts.parameters:,} parameters"
    text = f"The network has {parameters} and a receptive field of {facts.field_text}"
    if probes is None:
        return text
    sides = probes.sides()
    overall = [errors[0] for errors in probes.equivariance]
    measured = f"how far it really looks was not measured ({probes.skipped})"
    if sides:
        half, most = (f"{min(sides[name])} to {max(sides[name])}" for name in ("erf/50", "erf/90"))
        measured = (
            f"half of what moves a pixel of its answer lies within {half} px, by t, and 90 % "
            f"within {most} px"
        )
    error = (
        f"its equivariance error is {min(overall):.2g} to {max(overall):.2g} (0: the same answer "
        "anywhere, 1: unrelated answers)"
    )
    return f"{text}; {measured}; {error}."


def audits_text(results: Results) -> str:
    """How far answers from a part of the training patches were off; "" where none were."""
    return " ".join(
        f"{_AUDITED[stage].format(kind=kind)} with a part of the training patches: {audit}."
        for stage, audits in results.audits_by_stage.items()
        for kind, audit in audits.items()
    )


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; a key that a row lacks is an empty cell.

    Text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    columns = dict.fromkeys(name for row in rows for name in row)
    with (
        replacing(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(map(_csv_cell, columns))
        writer.writerows([_csv_cell(row.get(name, "")) for name in columns] for row in rows)


def _csv_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.startswith(_FORMULA) else text
