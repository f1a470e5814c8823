"""What an analysis shows on Weights & Biases, made from its results: images, tables, artifacts.

No run is started here: `els.analysis.tracking.log` does that, and logs what these functions return.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from einops import rearrange, repeat
from torch import Tensor

from els.agreement import IDEAL, METRICS
from els.analysis.along import Along
from els.analysis.attribution import COPIES, HELD_OUT, NETWORK, Attribution, Tracing
from els.analysis.attribution import NOVELTY as NOVELTY_TITLES
from els.analysis.comparison import Comparison
from els.analysis.report.findings import findings
from els.analysis.report.tables import NOVELTY, scale_cells, seed_rows, time_rows
from els.analysis.report.write import ReportFiles
from els.analysis.results import CALIBRATION, SAMPLING, Results
from els.calibration import Scales
from els.files import sha256_of
from els.images import to_uint8
from els.mosaic import Mosaic

# The names of what is logged; the panels of the dashboard are made from them.
BY_TIME, IMAGES, MOSAICS, FIGURES, CHARTS = "analysis", "images", "mosaics", "figures", "charts"
TIME = f"{BY_TIME}/t"
AGREEMENT = "agreement"  # of the first machine, whichever it is; below it each by its kind
MACHINES, PEARSON_R, BEATS_IDEAL = f"{AGREEMENT}/machines", "pearson_r", "beats_ideal"
PAIRS = f"{AGREEMENT}/pairs"
AUDIT, COPIED, LOCALITY = "audit", "copied", "locality"
CEILING, OF_CEILING = f"{AGREEMENT}/ceiling", f"{AGREEMENT}/of_ceiling"
NETWORKS = f"{AGREEMENT}/networks"
SEEDS, REPORT, COMPARISON = "seeds", "report", "comparison"
SHARE, LEFT, STAGE = "progress/share", "progress/minutes_left", "progress/stage"
LOSS, PARAMETERS = "val/loss", "network/parameters"
ALONG = "along"  # of the snapshots of a training
STEP = f"{ALONG}/step"
# What are curves, and against what; the last value of a curve says nothing in a table of runs.
CURVES = {TIME: None, f"{BY_TIME}/*": TIME, SHARE: None, LEFT: None}
# In the summary: a table of runs that can be read, with every machine and what is copied.
MOST_NUMBERS = 31
_KEYS = {HELD_OUT: "held_out", COPIES: "training"}
_LINE = (213, 94, 0)
_PIXELS = 96  # W&B smooths what it enlarges, so that small images are enlarged here


def scale_rows(scales: Scales) -> list[dict[str, float]]:
    """What is logged at each t of one machine's calibration."""
    return [{TIME: t, **_named(scale_cells(scales.machine, scales, t))} for t in scales.t]


def rows_by_t(results: Results, *, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What is logged at each t, without the calibration of machines that was logged before."""
    rows = []
    for row in time_rows(results):
        before = [scale_cells(kind, results.scales[kind], row["t"]) for kind in without]
        logged = {name for cells in before for name in cells}
        # Ends of intervals are in the files and figures: as curves they would only hide others.
        shown = {name: one for name, one in row.items() if not name.endswith(("_low", "_high"))}
        rows.append(_named({name: one for name, one in shown.items() if name not in logged}))
    return rows


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{BY_TIME}/{name}": value for name, value in row.items()}


def panels(results: Results, files: ReportFiles) -> dict[str, object]:
    """Everything that is logged once and is no number: images, tables, charts, and the page.

    Figures, the criterion's heat map among them, are the PNG files of the report: W&B has no
    preset for a heat map, and a Vega-Lite chart of one's own must be stored with an account first.
    """
    return {
        SEEDS: seed_table(results),
        MACHINES: machine_table(results),
        **({PAIRS: pair_table(results)} if results.pairs else {}),
        **({NETWORKS: network_table(results)} if results.twins else {}),
        **charts(results),
        **images(results),
        **_pictures_of(files, FIGURES),
        REPORT: wandb.Html(str(files.page), inject=False),
    }


def comparison_panels(comparison: Comparison, files: ReportFiles) -> dict[str, object]:
    """What is logged of several networks: the table, the curves and the page."""
    return {
        COMPARISON: _table(comparison.rows()),
        **_pictures_of(files, COMPARISON),
        REPORT: wandb.Html(str(files.page), inject=False),
    }


def along_rows(along: Along) -> list[dict[str, float]]:
    """What is logged of each snapshot: a curve for every number, against the training step."""
    return [
        {
            STEP if name == "step" else f"{ALONG}/{name}": value
            for name, value in row.items()
            if value is not None
        }
        for row in along.rows()
    ]


def along_panels(along: Along, files: ReportFiles) -> dict[str, object]:
    """What is logged once of a training: the table, the curves as a figure, and the page."""
    return {
        f"{ALONG}/table": _table(along.rows()),
        **_pictures_of(files, ALONG),
        REPORT: wandb.Html(str(files.page), inject=False),
    }


def _pictures_of(files: ReportFiles, name: str) -> dict[str, wandb.Image]:
    return {
        f"{name}/{file.stem}": wandb.Image(str(file))
        for file in files.figures
        if file.suffix == ".png"
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> wandb.Table:
    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


def images(results: Results) -> dict[str, list[wandb.Image]]:
    """Panels of images, by the name of the panel: the best, the median and the worst seed."""
    chosen, attribution = results.named_seeds, results.attribution
    found = {
        f"{IMAGES}/{name}": list(_pictures(results, seed).values()) for name, seed in chosen.items()
    }
    if attribution is not None and attribution.tracing is not None:
        for name, seed in chosen.items():
            about = f"seed {results.seeds[seed]}"
            found[f"{MOSAICS}/{name}"] = _mosaics(attribution, attribution.tracing, seed, about)
    return found


def _mosaics(
    attribution: Attribution, tracing: Tracing, index: int, seed: str
) -> list[wandb.Image]:
    """The final images of one seed redrawn from the training pixels that won."""
    found = []
    for side, mosaic in tracing.mosaics.items():
        values = attribution.by_seed[side]
        caption = (
            f"{side}, {seed}: patches of {float(values['images'][index]):.0f} training "
            f"images, the largest piece {float(values['largest_piece'][index]):.1%} of the pixels"
        )
        found.append(wandb.Image(_bordered(mosaic, index), caption=caption))
    return found


def _bordered(mosaic: Mosaic, index: int) -> Any:
    """The final mosaic in colour, with lines between winners of different training images."""
    below, right = (part[index].numpy() for part in mosaic.borders())
    pixels = _enlarged(mosaic.pixels[-1][index])
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels.copy()
    times = len(pixels) // mosaic.pixels.shape[-2]
    if times > 2:  # else the lines would leave nothing to see
        lines = np.zeros(pixels.shape[:2], dtype=bool)
        lines[times - 1 : -1 : times] = np.repeat(below, times, axis=1)
        lines[:, times - 1 : -1 : times] |= np.repeat(right, times, axis=0)
        pixels[lines] = _LINE
    return pixels


def seed_table(results: Results) -> wandb.Table:
    """A row for each seed: its metrics, and what network and machines draw from its noise."""
    rows = seed_rows(results)
    pictures = [_pictures(results, i) for i in range(len(rows))]
    return wandb.Table(
        columns=[*rows[0], *(f"image/{name}" for name in pictures[0])],
        data=[
            [*row.values(), *of_seed.values()] for row, of_seed in zip(rows, pictures, strict=True)
        ],
    )


def machine_table(results: Results) -> wandb.Table:
    """A row for each machine: its metrics with their intervals."""
    rows = []
    for kind, summary in results.agreement[0].machines.items():
        row: dict[str, Any] = {"machine": kind}
        for metric, value in summary.metrics.items():
            row |= value.columns(metric)
        for metric in METRICS if results.twins else ():
            share = summary.of_ceiling.get(metric)
            row[f"{metric}/ceiling"] = None if share is None else share.median
        rows.append({**row, BEATS_IDEAL: summary.beats_ideal})
    return _table(rows)


def network_table(results: Results) -> wandb.Table:
    """A row for every two networks of different seeds: how alike they draw."""
    ceiling = results.agreement[0].ceiling
    rows = []
    for pair in () if ceiling is None else ceiling.pairs:
        row: dict[str, Any] = {"network": pair.network, "against": pair.other}
        for metric, value in pair.metrics.items():
            row |= value.columns(metric)
        rows.append(row)
    return _table(rows)


def pair_table(results: Results) -> wandb.Table:
    """A row for every two machines: how often the one is closer, and by how much, seed by seed."""
    return _table(
        [
            {
                "machine": pair.machine,
                "against": pair.other,
                "wins": pair.wins,
                **pair.difference.columns("difference"),
                "distinguishable": pair.distinguishable,
            }
            for pair in results.pairs
        ]
    )


def charts(results: Results) -> dict[str, object]:
    """The histogram of the first machine's pearson_r, its scatter against `ideal`, and novelty."""
    rows = seed_rows(results)
    table = _table(rows)
    primary = f"{results.primary}/{PEARSON_R}"
    found: dict[str, object] = {
        f"{CHARTS}/histogram": wandb.plot.histogram(table, primary, title=primary)
    }
    if IDEAL in results.machines:
        found[f"{CHARTS}/machine_against_ideal"] = wandb.plot.scatter(
            table, f"{IDEAL}/{PEARSON_R}", primary, title=f"{results.primary} against ideal"
        )
    sides = () if results.attribution is None else results.attribution.paths
    for side in sides:
        for name, title in NOVELTY_TITLES.items():
            column = f"{NOVELTY}/{side}/{name}"
            if column in rows[0]:
                found[f"{CHARTS}/histogram_{side}_{name}"] = wandb.plot.histogram(
                    table, column, title=f"{side}: {title}"
                )
    return found


def numbers(results: Results) -> dict[str, float]:
    """What the summary says of the results, what matters most first, and no more than has room.

    The first machine's agreement is `agreement/<metric>` with `_low` and `_high`, so that networks
    can be compared, and a sweep can optimise it, whichever machine goes with each. All the rest is
    in the tables.
    """
    found = agreement_of_first(results) | copies_numbers(results) | agreement_by_kind(results)
    for stage, name in ((SAMPLING, "error"), (CALIBRATION, "calibration_error")):
        audits = results.audits_by_stage.get(stage, {})
        found |= {f"{AUDIT}/{kind}/{name}": one.found for kind, one in audits.items() if one.t}
    found |= {f"{LOCALITY}/{kind}": one.mean for kind, one in results.locality.items()}
    for side in (NETWORK, HELD_OUT, COPIES):
        found |= novelty_numbers(results, side)
    return dict(islice(found.items(), MOST_NUMBERS - len((PARAMETERS, LOSS))))


def agreement_of_first(results: Results) -> dict[str, float]:
    """Medians with intervals of the first machine, and its ceiling."""
    main = results.agreement[0]
    first = main.machines[results.primary]
    found: dict[str, float] = {}
    for metric, value in first.metrics.items():
        found |= value.columns(f"{AGREEMENT}/{metric}")
    if first.beats_ideal is not None:
        found[f"{AGREEMENT}/{BEATS_IDEAL}"] = first.beats_ideal
    if main.ceiling is not None:
        found[CEILING] = main.ceiling.metrics[PEARSON_R].median
        if PEARSON_R in first.of_ceiling:
            found[OF_CEILING] = first.of_ceiling[PEARSON_R].median
    return found


def agreement_by_kind(results: Results) -> dict[str, float]:
    """The median pearson_r of every machine."""
    machines = results.agreement[0].machines
    return {
        agreement_key(kind): summary.metrics[PEARSON_R].median for kind, summary in machines.items()
    }


def agreement_key(kind: str) -> str:
    """The name of the median pearson_r of a machine, by its kind."""
    return f"{AGREEMENT}/{kind}/{PEARSON_R}"


def novelty_numbers(results: Results, side: str) -> dict[str, float]:
    """How far from copies the samples, or the images, of a side are: medians.

    Of training images it goes without saying that their distance is 0 and all of them memorised.
    """
    values = results.summary.get("novelty", {}).get(side, {})
    known = ("distance", "memorised") if side == COPIES else ()
    names = [name for name in NOVELTY_TITLES if name in values and name not in known]
    return {novelty_key(side, name): values[name]["median"] for name in names}


def copies_numbers(results: Results) -> dict[str, float]:
    """The share of copies, in place, of the network and of the first machine."""
    copies = {} if results.attribution is None else results.attribution.copies
    return {
        copied_key(side): copies[side]["in_place"].share
        for side in (NETWORK, results.primary)
        if side in copies
    }


def copied_key(side: str) -> str:
    """The name of the share of copies of a side."""
    return f"{COPIED}/{side}"


def novelty_key(side: str, name: str) -> str:
    """The name of a measure of novelty."""
    return f"{NOVELTY}/{_KEYS.get(side, side)}/{name}"


def notes(results: Results) -> str:
    """What a run shows, a sentence on each line."""
    return "\n".join(findings(results).values())


def artifacts(
    results: Results, files: ReportFiles, *, name: str, checkpoint: str | None, kept: Path
) -> list[wandb.Artifact]:
    """The fitted scales, where there are any, and the report with everything else.

    Their metadata carry the lineage too, so that it does not depend on W&B having been online:
    scales name the checkpoint, the report names both, each with its sha256.

    Args:
        results: what was measured.
        files: the files of the report.
        name: the run's name.
        checkpoint: the checkpoint's own artifact, where it has one.
        kept: a folder where the files stay as they are until they are uploaded.
    """
    made = []
    record = results.provenance.record()
    source = {**record["checkpoint"], "artifact": checkpoint}
    metadata = {**record, "checkpoint": source}
    if files.scales:
        scales = {kind: {"t": one.t, one.scale: one.values} for kind, one in results.scales.items()}
        about = {"checkpoint": source, "data": record["data"], "scales": scales}
        fitted = wandb.Artifact(f"{name}-scales", "scales", "Fitted to the network", about)
        made.append(_with(fitted, files.scales, kept))
        digests = {file.name: sha256_of(file) for file in files.scales}
        metadata["scales"] = {"artifact": fitted.name, "sha256": digests}
    rest = [file for file in files.paths if file not in files.scales]
    report = wandb.Artifact(f"{name}-report", "report", notes(results), metadata)
    return [*made, _with(report, rest, kept)]


def _with(artifact: wandb.Artifact, files: Sequence[Path], kept: Path) -> wandb.Artifact:
    """The artifact with the files; nothing is copied where the disk knows second names.

    A later analysis replaces its files and does not write into them, so that a second name keeps
    what was logged.
    """
    kept.mkdir(parents=True, exist_ok=True)
    for file in files:
        second = kept / file.name
        second.unlink(missing_ok=True)
        try:
            os.link(file, second)
        except OSError:
            shutil.copyfile(file, second)
        artifact.add_file(str(second), policy="immutable")
    return artifact


def _pictures(results: Results, index: int) -> dict[str, wandb.Image]:
    """What came from one seed, with captions: noise, network and every machine."""
    metrics = results.by_seed
    seed = f"seed {results.seeds[index]}"
    if results.labels is not None:
        seed += f", label {int(results.labels[index])}"
    drawn = {"noise": results.noise, "network": results.network[results.network_steps]}
    found = {}
    for name, samples in {**drawn, **results.machines}.items():
        caption = f"{name}, {seed}"
        if name in metrics:
            values = (f"{metric} {float(metrics[name][metric][index]):.3f}" for metric in METRICS)
            caption += f": {', '.join(values)}"
        found[name] = wandb.Image(_pixels(samples[index]), caption=caption)
    return found


def _pixels(x: Tensor) -> Any:
    """An image (c h w) in [-1, 1] as uint8 (h w c); W&B would not rescale floats."""
    return _enlarged(to_uint8(x))


def _enlarged(pixels: Tensor) -> Any:
    times = max(1, _PIXELS // max(pixels.shape[1:]))
    return repeat(
        rearrange(pixels, "c h w -> h w c"), "h w c -> (h a) (w b) c", a=times, b=times
    ).numpy()
