"""What an analysis shows on Weights & Biases, made from its results: images, tables, artifacts.

No run is started here: analyze.py does that, and logs what these functions return.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from einops import rearrange, repeat
from torch import Tensor

from els.agreement import METRICS
from els.analysis.report.page import headline
from els.analysis.report.tables import seed_rows
from els.analysis.results import IDEAL, Results
from els.files import sha256_of
from els.images import to_uint8
from els.mosaic import Mosaic

SUBJECT = "agreement"
_LINE = (213, 94, 0)
_PIXELS = 96  # W&B smooths what it enlarges, so that small images are enlarged here


def content(results: Results, files: Sequence[Path]) -> dict[str, object]:
    """Everything that is logged once: images, tables, charts, figures and the page.

    Figures, the criterion's heat map among them, are the PNG files of the report: W&B has no
    preset for a heat map, and a Vega-Lite chart of one's own must be stored with an account first.
    """
    figures = [file for file in files if file.suffix == ".png"]
    pages = [file for file in files if file.suffix == ".html"]
    return {
        "seeds": seed_table(results),
        **charts(results),
        **images(results),
        **{f"figures/{file.stem}": wandb.Image(str(file)) for file in figures},
        **{file.stem: wandb.Html(str(file), inject=False) for file in pages},
    }


def images(results: Results) -> dict[str, list[wandb.Image]]:
    """Panels of images, by the name of the panel: the best, the median and the worst seed."""
    chosen = dict(zip(("best", "median", "worst"), results.order()[:3], strict=False))
    found = {
        f"images/{name}": list(_pictures(results, seed).values()) for name, seed in chosen.items()
    }
    if results.attribution is not None and results.attribution.machine is not None:
        found |= {f"mosaics/{name}": _mosaics(results, seed) for name, seed in chosen.items()}
    return found


def _mosaics(results: Results, index: int) -> list[wandb.Image]:
    """The final images of one seed redrawn from the training pixels that won."""
    by_seed, found = results.attribution.by_seed(), []
    for side, mosaic in results.attribution.mosaics.items():
        values = {name: float(value[index]) for name, value in by_seed[side].items()}
        caption = (
            f"{side}, seed {results.seeds[index]}: patches of {values['images']:.0f} training "
            f"images, the largest piece {values['largest_piece']:.1%} of the pixels"
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
            [*row.values(), *of_seed.values()]
            for row, of_seed in zip(rows, pictures, strict=True)
        ],
    )  # fmt: skip


def charts(results: Results) -> dict[str, object]:
    """The histogram of the first machine's pearson_r, and its scatter against `ideal`."""
    rows = seed_rows(results)
    table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    subject = f"{results.primary}/pearson_r"
    found = {"histogram": wandb.plot.histogram(table, subject, title=subject)}
    if IDEAL in results.machines:
        found["machine_against_ideal"] = wandb.plot.scatter(
            table, f"{IDEAL}/pearson_r", subject, title=f"{results.primary} against ideal"
        )
    for side in () if results.attribution is None else results.attribution.paths:
        for name in ("distance", "memorised", "images", "largest_piece"):
            if (column := f"novelty/{side}/{name}") in rows[0]:
                found[f"histogram_{side}_{name}"] = wandb.plot.histogram(
                    table, column, title=column
                )
    return found


def novelty_numbers(results: Results) -> dict[str, float]:
    """Medians over seeds by `novelty/<side>/<what>`: how far from copies the samples are."""
    sides = results.summary().get("novelty", {})
    return {
        f"novelty/{side}/{name}": value["median"]
        for side, values in sides.items()
        for name, value in values.items()
    }


def agreement_numbers(results: Results) -> dict[str, float]:
    """Medians with their intervals by `<kind>/<metric>`, `_low` and `_high`.

    Those of the first machine are also there as `agreement/<metric>`, so that a sweep can optimise
    them whichever machine goes with a network.
    """
    machines = results.summary()["machines"]
    found = {}
    for name, values in {**machines, SUBJECT: machines[results.primary]}.items():
        for metric in METRICS:
            low, high = values[metric]["ci95"]
            key = f"{name}/{metric}"
            found |= {key: values[metric]["median"], f"{key}_low": low, f"{key}_high": high}
        if "beats_ideal" in values:
            found[f"{name}/beats_ideal"] = values["beats_ideal"]
    return found


def network_numbers(results: Results) -> dict[str, int | str]:
    """What the probes say about the network as a whole."""
    if results.probes is None:
        return {}
    return {
        "network/parameters": results.probes.parameters,
        "network/receptive_field": results.probes.receptive_field or "whole image",
    }


def artifacts(
    results: Results, files: Sequence[Path], *, name: str, checkpoint: str | None
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
    source = {**results.context.get("checkpoint", {}), "artifact": checkpoint}
    metadata = {**results.context, "checkpoint": source}
    fitted = [file for file in files if _is_of_scales(file)]
    if fitted:
        scales = {kind: {"t": one.t, one.scale: one.values} for kind, one in results.scales.items()}
        about = {"checkpoint": source, "data": results.context.get("data"), "scales": scales}
        made.append(_artifact(f"{name}-scales", "scales", fitted, "Fitted to the network", about))
        metadata["scales"] = {
            "artifact": made[0].name, "sha256": {file.name: sha256_of(file) for file in fitted}
        }  # fmt: skip
    rest = [file for file in files if file not in fitted]
    made.append(_artifact(f"{name}-report", "report", rest, headline(results), metadata))
    return made


def _artifact(
    name: str, kind: str, files: Sequence[Path], description: str, metadata: Mapping[str, Any]
) -> wandb.Artifact:
    artifact = wandb.Artifact(name, kind, description=description, metadata=dict(metadata))
    for file in files:
        artifact.add_file(str(file))
    return artifact


def _is_of_scales(file: Path) -> bool:
    stem = file.stem
    return file.suffix == ".json" and (
        stem.startswith("scales") or stem in ("data_scales", "weights")
    )


def _pictures(results: Results, index: int) -> dict[str, wandb.Image]:
    """What came from one seed, with captions: noise, network and every machine."""
    metrics = results.by_seed()
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
    return repeat(rearrange(pixels, "c h w -> h w c"),
                  "h w c -> (h a) (w b) c", a=times, b=times).numpy()  # fmt: skip
