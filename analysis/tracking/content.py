"""What an analysis shows on Weights & Biases, made from its results: images, tables, artifacts.

No run is started here: `els.analysis.tracking.log` does that, and logs what these functions return.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from einops import rearrange, repeat
from torch import Tensor

from els.agreement import IDEAL, METRICS
from els.analysis.attribution import NOVELTY as NOVELTY_TITLES
from els.analysis.attribution import Attribution, Tracing
from els.analysis.comparison import Comparison
from els.analysis.report.tables import NOVELTY, seed_rows, time_rows
from els.analysis.report.words import headline
from els.analysis.report.write import ReportFiles
from els.analysis.results import Results
from els.files import sha256_of
from els.images import to_uint8
from els.mosaic import Mosaic

# The names of what is logged; the panels of the dashboard are made from them.
BY_TIME, IMAGES, MOSAICS, FIGURES = "analysis", "images", "mosaics", "figures"
TIME = f"{BY_TIME}/t"
PRIMARY = "agreement"  # stands for the first machine, whichever it is
BEATS_IDEAL = "beats_ideal"
SEEDS, REPORT, COMPARISON = "seeds", "report", "comparison"
_LINE = (213, 94, 0)
_PIXELS = 96  # W&B smooths what it enlarges, so that small images are enlarged here


def config(results: Results) -> dict[str, Any]:
    """What the run was made from; the protocol's settings also stand by themselves, for sweeps."""
    record = results.provenance.record()
    return {**record["protocol"], **record}


def rows_by_t(results: Results) -> list[dict[str, Any]]:
    """What is logged at each t."""
    return [
        {f"{BY_TIME}/{name}": value for name, value in row.items()} for row in time_rows(results)
    ]


def panels(results: Results, files: ReportFiles) -> dict[str, object]:
    """Everything that is logged once: numbers, images, tables, charts, figures and the page.

    Figures, the criterion's heat map among them, are the PNG files of the report: W&B has no
    preset for a heat map, and a Vega-Lite chart of one's own must be stored with an account first.
    What is logged is in the summary too; a sweep's metric may come from either.
    """
    return {
        SEEDS: seed_table(results),
        **charts(results),
        **images(results),
        **_pictures_of(files, FIGURES),
        REPORT: wandb.Html(str(files.page), inject=False),
        **agreement_numbers(results),
        **novelty_numbers(results),
    }


def comparison_panels(comparison: Comparison, files: ReportFiles) -> dict[str, object]:
    """What is logged of several networks: the table, the curves and the page."""
    return {
        COMPARISON: _table(comparison.rows()),
        **_pictures_of(files, COMPARISON),
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


def charts(results: Results) -> dict[str, object]:
    """The histogram of the first machine's pearson_r, and its scatter against `ideal`."""
    rows = seed_rows(results)
    table = _table(rows)
    primary = f"{results.primary}/pearson_r"
    found: dict[str, object] = {"histogram": wandb.plot.histogram(table, primary, title=primary)}
    if IDEAL in results.machines:
        found["machine_against_ideal"] = wandb.plot.scatter(
            table, f"{IDEAL}/pearson_r", primary, title=f"{results.primary} against ideal"
        )
    sides = () if results.attribution is None else results.attribution.paths
    for side in sides:
        for name, title in NOVELTY_TITLES.items():
            column = novelty_key(side, name)
            if column in rows[0]:
                found[f"histogram_{side}_{name}"] = wandb.plot.histogram(
                    table, column, title=f"{side}: {title}"
                )
    return found


def novelty_key(side: str, name: str) -> str:
    """The name of a measure of novelty."""
    return f"{NOVELTY}/{side}/{name}"


def novelty_numbers(results: Results) -> dict[str, float]:
    """Medians over seeds by `novelty/<side>/<what>`: how far from copies the samples are."""
    sides = results.summary.get("novelty", {})
    return {
        novelty_key(side, name): value["median"]
        for side, values in sides.items()
        for name, value in values.items()
    }


def agreement_numbers(results: Results) -> dict[str, float]:
    """Medians with their intervals by `<kind>/<metric>`, `_low` and `_high`.

    Those of the first machine are also there as `agreement/<metric>`, so that a sweep can optimise
    them whichever machine goes with a network.
    """
    machines = results.agreement[0].machines
    found: dict[str, float] = {}
    for name, summary in {**machines, PRIMARY: machines[results.primary]}.items():
        for metric, value in summary.metrics.items():
            found |= value.columns(f"{name}/{metric}")
        if summary.beats_ideal is not None:
            found[f"{name}/{BEATS_IDEAL}"] = summary.beats_ideal
    return found


def network_numbers(results: Results) -> dict[str, int | str]:
    """What is known of the network as a whole."""
    facts = results.provenance.network
    return {
        "network/parameters": facts.parameters,
        "network/receptive_field": facts.receptive_field or "whole image",
    }


def artifacts(
    results: Results, files: ReportFiles, *, name: str, checkpoint: str | None
) -> list[wandb.Artifact]:
    """The fitted scales, where there are any, and the report with everything else.

    Their metadata carry the lineage too, so that it does not depend on W&B having been online:
    scales name the checkpoint, the report names both, each with its sha256.

    Args:
        results: what was measured.
        files: the files of the report.
        name: the run's name.
        checkpoint: the checkpoint's own artifact, where it has one.
    """
    made = []
    record = results.provenance.record()
    source = {**record["checkpoint"], "artifact": checkpoint}
    metadata = {**record, "checkpoint": source}
    if files.scales:
        scales = {kind: {"t": one.t, one.scale: one.values} for kind, one in results.scales.items()}
        about = {"checkpoint": source, "data": record["data"], "scales": scales}
        fitted = _artifact(f"{name}-scales", "scales", files.scales, "Fitted to the network", about)
        made.append(fitted)
        digests = {file.name: sha256_of(file) for file in files.scales}
        metadata["scales"] = {"artifact": fitted.name, "sha256": digests}
    rest = [file for file in files.paths if file not in files.scales]
    made.append(_artifact(f"{name}-report", "report", rest, headline(results), metadata))
    return made


def _artifact(
    name: str, kind: str, files: Sequence[Path], description: str, metadata: Mapping[str, Any]
) -> wandb.Artifact:
    artifact = wandb.Artifact(name, kind, description=description, metadata=dict(metadata))
    for file in files:
        artifact.add_file(str(file))
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
