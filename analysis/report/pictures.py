"""The pictures of the page as data for its script: first screen, gallery, path and mosaics."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from els.agreement import IDEAL, METRICS
from els.analysis.attribution import NETWORK, Attribution, Tracing
from els.analysis.comparison import Comparison
from els.analysis.report.sprites import coloured, in_colour, sheet
from els.analysis.report.style import machine_style
from els.analysis.report.views import side_style
from els.analysis.results import Results
from els.images import to_uint8
from els.machines import MACHINES, with_paper_name
from els.mosaic import Mosaic

Data = dict[str, Any]
NOISE = "noise"
_TELLING_SIDE = 7  # pixels: of smaller patches one cannot see what they show


# --- the first screen -------------------------------------------------------------------------


def hero(results: Results, attribution: Attribution, seeds: Sequence[int]) -> Data:
    """Noise, network, theory and the machine that memorises, for up to three seeds.

    Args:
        results: what was found.
        attribution: whose paths are shown.
        seeds: positions of the seeds whose paths the page has.
    """
    kinds = [kind for kind in (results.primary, IDEAL) if kind in attribution.paths]
    names = {NETWORK: "network", IDEAL: "memoriser", results.primary: "theory"}
    return {
        "noise": sheet(to_uint8(results.noise[list(seeds[:3])])[:, None]),
        "columns": [
            {
                "row": list(attribution.paths).index(side),
                "name": names[side],
                "detail": "" if side == NETWORK else with_paper_name(side),
                "colour": side_style(results, side).colour,
            }
            for side in dict.fromkeys([NETWORK, *kinds])
        ],
        "rows": [_row(results, seed) for seed in seeds[:3]],
    }


def _row(results: Results, seed: int) -> Data:
    """A seed, and in words which of them it is."""
    return {
        "seed": results.seeds[seed],
        "name": seed_name(results, seed),
        "note": _joined(_standing(results).get(seed), _label(results, seed)),
    }


# --- network, machines and seeds side by side -------------------------------------------------


def gallery(results: Results, seeds: Sequence[int]) -> Data:
    """Every picture from each of the seeds, and how well machines predict the network's."""
    samples = {
        NOISE: results.noise,
        NETWORK: results.network[results.network_steps],
        **{name: drawn[results.network_steps] for name, drawn in results.twins.items()},
        **results.machines,
    }
    chosen = list(seeds)
    return {
        "sheet": sheet(torch.stack([to_uint8(x[chosen]) for x in samples.values()], dim=1)),
        "columns": [_column(results, side, chosen) for side in samples],
        "primary": results.primary,
        "rows": [_row(results, seed) for seed in chosen],
    }


def _column(results: Results, side: str, seeds: list[int]) -> Data:
    """What is said of a column of pictures: of a machine, how well it predicts each of them."""
    if side == NOISE:
        return {"name": side}
    colour = side_style(results, side).colour
    if side == NETWORK:
        return {"name": side, "colour": colour, "network": True}
    values = {**results.twins_by_seed, **results.by_seed}[side]
    paper = MACHINES[side].paper if side in MACHINES else ""
    return {
        "name": side,
        "paper": "another seed" if side in results.twins else paper,
        "colour": colour,
        "metrics": {name: rounded(values[name][seeds]) for name in METRICS},
    }


def _standing(results: Results) -> dict[int, str]:
    """Which seeds are predicted best, worst and in the middle."""
    named = results.named_seeds
    return {seed: name for name, seed in named.items()} if len(named) == 3 else {}


def seed_name(results: Results, seed: int) -> str:
    """Such as "seed 12, best, class 3"."""
    number = f"seed {results.seeds[seed]}"
    return _joined(number, _standing(results).get(seed), _label(results, seed))


def _label(results: Results, seed: int) -> str:
    if results.labels is None:
        return ""
    tracing = None if results.attribution is None else results.attribution.tracing
    return _class_name(tracing, int(results.labels[seed]))


def _class_name(tracing: Tracing | None, label: int) -> str:
    classes = () if tracing is None else tracing.training.classes
    return f"class {classes[label] if label < len(classes) else label}"


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def compared(comparison: Comparison) -> Data:
    """What each network and its first machine draw from the same noise, for three seeds.

    The first network's best, median and worst of the seeds that all of them have.
    """
    first = comparison.results[0]
    common = [first.seeds[i] for i in first.order if first.seeds[i] in comparison.seeds]
    chosen = list(dict.fromkeys([common[0], common[len(common) // 2], common[-1]]))
    columns = [first.noise[[first.seeds.index(seed) for seed in chosen]]]
    networks = []
    for name, one in comparison.by_name.items():
        places = [one.seeds.index(seed) for seed in chosen]
        columns += [one.network[one.network_steps][places], one.machines[one.primary][places]]
        networks.append(
            {
                "name": name,
                "machine": with_paper_name(one.primary),
                "colour": machine_style(comparison.names, name).colour,
                "pearson_r": rounded(one.by_seed[one.primary]["pearson_r"][places], 2),
            }
        )
    return {
        "sheet": sheet(torch.stack([to_uint8(x) for x in columns], dim=1)),
        "networks": networks,
        "rows": [f"seed {seed}" for seed in chosen],
    }


# --- along the path ---------------------------------------------------------------------------


def walk(results: Results, attribution: Attribution, seeds: Sequence[int]) -> Data:
    """x0_hat of network and machines at every step, and what the traced machine made its from."""
    traced, tracing = attribution.traced, attribution.tracing
    names = [f"{with_paper_name(side)}: x0_hat" for side in attribution.paths]
    captions = [""] * len(names)
    if traced is not None and tracing is not None:
        names += [
            f"{with_paper_name(tracing.machine)}: mosaic",
            "patches that count",
            "top image's share",
        ]
        most = float(traced.effective_size.max())
        captions += [
            "the winning training pixels",
            f"dark 1, bright {most:,.0f}, logarithmic",
            "dark 0, bright 1",
        ]
    return {
        "t": rounded(results.t),
        "names": names,
        "sides": list(attribution.paths),
        "captions": captions,
        "size": traced and list(traced.sides),
        "primary": results.primary,
        "seeds": [_walk_of(results, attribution, traced, seed) for seed in seeds],
    }


def _walk_of(results: Results, attribution: Attribution, traced: Mosaic | None, seed: int) -> Data:
    rows = [in_colour(path[:, seed]) for path in attribution.paths.values()]
    notes: list[list[str] | None] = [None] * len(rows)
    if traced is not None:
        effective, share = traced.effective_size[:, seed], traced.top_share[:, seed]
        scale = traced.effective_size.max().log().clamp(min=1)
        rows += [
            in_colour(traced.pixels[:, seed]),
            coloured(effective.clamp(min=1).log() / scale),
            coloured(share),
        ]
        consistency = traced.consistency[:, seed]
        notes += [
            None if consistency.isnan().any() else [f"consistency {c:.2f}" for c in consistency],
            [f"median {m:,.0f}" for m in traced.of_a_pixel("effective_size")[:, seed]],
            [f"median {m:.2g}" for m in traced.of_a_pixel("top_share")[:, seed]],
        ]
    return {
        "name": seed_name(results, seed),
        "seed": results.seeds[seed],
        "sheet": sheet(torch.stack(rows)),
        "notes": notes,
        "pearson_r": rounded(results.by_t[results.primary][:, seed]),
    }


# --- mosaics ----------------------------------------------------------------------------------


def explorer(results: Results, tracing: Tracing, seeds: Sequence[int]) -> Data:
    """The mosaics at every step at which there is one, and the training images they show."""
    training = tracing.training
    count = len(training.indices)
    columns = max(1, min(count, round(count**0.5)))
    rows = -(-count // columns)
    padded = torch.zeros(rows * columns, *training.pixels.shape[1:], dtype=torch.uint8)
    padded[:count] = training.pixels
    labels = None
    if training.labels is not None:
        labels = [_class_name(tracing, label) for label in training.labels.tolist()]
    steps = len(results.t)
    return {
        "height": results.noise.shape[2],
        "width": results.noise.shape[3],
        # A winner may then be a mirrored or turned copy of the patch at its place.
        "moved": bool(results.provenance.protocol.symmetries),
        "traced": tracing.machine,
        "opens": most_telling(tracing.mosaics[tracing.machine], seeds, steps=steps),
        "training": {
            "indices": training.indices.tolist(),
            "labels": labels,
            "columns": columns,
            "sheet": sheet(padded.unflatten(0, (rows, columns))),
        },
        "seeds": [
            {
                side: _explored(mosaic, seed, first=steps - len(mosaic.t))
                for side, mosaic in tracing.mosaics.items()
            }
            for seed in seeds
        ],
    }


def most_telling(mosaic: Mosaic, seeds: Sequence[int], *, steps: int) -> Data:
    """The seed, step and pixel that show best how a sample is pasted together.

    The largest region of one training image at one displacement, a pixel counting by the weight of
    its winner, among steps whose patches are large enough to see; in it, the pixel of most weight.
    Pixels whose patch reaches over the border do not count.

    Args:
        mosaic: the machine's.
        seeds: positions of the seeds to choose from.
        steps: number of steps of the path, of which the mosaic has the last.
    """
    n, h, w = len(seeds), *mosaic.weight.shape[2:]
    large = [i for i, side in enumerate(mosaic.sides) if side >= _TELLING_SIDE]
    best, found = -1.0, (0, len(mosaic.sides) - 1, (h // 2) * w + w // 2)
    for step in large or range(len(mosaic.sides)):
        for position in range(n):
            weight = mosaic.weight[step, seeds[position]].double()
            weight = (weight * _inside(h, w, mosaic.sides[step])).flatten()
            region = _regions(mosaic, step, seeds[position])
            total = torch.zeros(int(region.max()) + 1, dtype=torch.float64)
            total.index_add_(0, region, weight)
            if float(total.max()) > best:
                best = float(total.max())
                inside = weight * (region == total.argmax())
                found = (position, step, int(inside.argmax()))
    position, step, pixel = found
    return {"seed": position, "step": step + steps - len(mosaic.t), "pixel": pixel}


def _inside(h: int, w: int, side: int) -> Tensor:
    """1 where the whole window of a pixel (h w) lies in the image, and 0 elsewhere."""
    inside, r = torch.zeros(h, w), side // 2
    inside[r : h - r, r : w - r] = 1
    return inside


def _regions(mosaic: Mosaic, step: int, seed: int) -> Tensor:
    """For each pixel (h w), flat, the number of its region: one image at one displacement."""
    image, row, column = mosaic.best[step, seed].long()
    h, w = row.shape
    key = torch.stack([image, row - torch.arange(h)[:, None], column - torch.arange(w)])
    return key.flatten(1).unique(dim=1, return_inverse=True)[1]


def _explored(mosaic: Mosaic, seed: int, *, first: int) -> Data:
    """One sample's mosaic at every step, flat over steps and pixels; `first` is its first step."""
    image, row, column = mosaic.best[:, seed].unbind(dim=1)
    return {
        "first": first,
        "k": list(mosaic.sides),
        "mosaic": sheet(mosaic.pixels[:, seed][None]),
        "image": packed(image, "<u4"),
        "row": packed(row, "<u2"),
        "column": packed(column, "<u2"),
        "weight": packed(mosaic.weight[:, seed], "<f4"),
        "effective": packed(mosaic.effective_size[:, seed], "<f4"),
        "top": packed(mosaic.top_share[:, seed], "<f4"),
    }


def packed(values: Tensor, kind: str) -> str:
    """Numbers as base64 of their bytes, of a little-endian numpy type."""
    return base64.b64encode(values.numpy().astype(np.dtype(kind)).tobytes()).decode()


def rounded(values: Tensor | Sequence[float], digits: int = 4) -> list[float | None]:
    """Round to `digits` significant digits; NaN is None, as JSON has no NaN."""
    plain = values.tolist() if isinstance(values, Tensor) else values
    return [None if math.isnan(value) else float(f"{value:.{digits}g}") for value in plain]
