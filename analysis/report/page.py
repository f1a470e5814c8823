"""Results as one self-contained page: what the templates, the script and the charts are given."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from els.agreement import METRICS
from els.analysis.attribution import NETWORK, Attribution, Tracing
from els.analysis.comparison import Comparison
from els.analysis.report.charts import Spec, specs
from els.analysis.report.released import released_sizes
from els.analysis.report.sprites import coloured, in_colour, sheet
from els.analysis.report.tables import agreement_cells, comparison_cell, probes_text
from els.analysis.report.views import COMPARISON_VIEWS, VIEWS, rival
from els.analysis.report.words import headline
from els.analysis.results import Results
from els.files import replacing
from els.images import to_uint8
from els.machines import MACHINES
from els.mosaic import Mosaic

PAGE_LIMIT = 10_000_000  # bytes
# Seeds shown side by side, and seeds with path and mosaic: as many as the limit leaves room for.
_SEEDS = ((None, 8), (None, 4), (None, 2), (48, 1), (24, 1), (12, 1), (4, 0))
_HERE = Path(__file__).parent
# The views that each section of the page shows as charts.
_SECTIONS = {
    "scales": ("sizes", "other_scale"),
    "criterion": ("criterion",),
    "by_t": ("by_t",),
    "scatter": ("scatter",),
    "equivariance": ("equivariance",),
    "novelty": ("novelty",),
    "consistency": ("consistency",),
}
_COMPARED = {"scales": "scales", "by_t": "primary"}

Data = dict[str, Any]
Charts = Mapping[str, Sequence[Spec]]


def write_page(results: Results, path: Path) -> None:
    """Write the page; it shows fewer seeds where it would be larger than `PAGE_LIMIT`."""
    charts = page_charts(results)
    for side_by_side, explored in _SEEDS:
        page = _page(results, charts, side_by_side, explored)
        if len(page.encode()) <= PAGE_LIMIT:
            break
    with replacing(path) as partial:
        partial.write_text(page)


def write_comparison_page(comparison: Comparison, path: Path) -> None:
    """Write the page of several networks: tables, and curves over each other."""
    charts = {name: specs(COMPARISON_VIEWS[view](comparison)) for name, view in _COMPARED.items()}
    tables = [
        (
            metric,
            ("network", *comparison.kinds),
            [
                [
                    name,
                    *(comparison_cell(comparison, name, one, metric) for one in comparison.kinds),
                ]
                for name in comparison.names
            ],
        )
        for metric in METRICS
    ]
    facts = [
        [
            name,
            one.provenance.network.description,
            one.seeds[0],
            one.seeds[-1],
            one.provenance.checkpoint.path,
        ]
        for name, one in comparison.by_name.items()
    ]
    content = {
        "networks": len(comparison.names),
        "charts": charts,
        "tables": tables,
        "facts": facts,
    }
    page = _document("comparison", "Comparison of networks", content, {"charts": charts})
    with replacing(path) as partial:
        partial.write_text(page)


def page_charts(results: Results) -> dict[str, list[Spec]]:
    """Every chart that these results have data for, by the section that it belongs to."""
    return {
        section: [spec for name in names for spec in specs(VIEWS[name](results))]
        for section, names in _SECTIONS.items()
    }


def _page(results: Results, charts: Charts, side_by_side: int | None, explored: int) -> str:
    shown, seeds = results.order[:side_by_side], results.order[:explored]
    attribution = results.attribution
    data: Data = {"charts": charts, "gallery": _gallery(results, shown)}
    if attribution is not None and seeds:
        data["walk"] = _walk(results, attribution, seeds)
        if attribution.tracing is not None:
            data["explorer"] = _explorer(results, attribution, attribution.tracing, seeds)
    content = {
        **_introduction(results),
        **_curves(results),
        **_record(results),
        "charts": charts,
        "metrics": METRICS,
        "shown": len(shown),
        "seeds": len(results.seeds),
        "steps": len(results.t),
        "agreement": [(one, *_header_and_rows(agreement_cells(one))) for one in results.agreement],
        "attributed": attribution is not None,
        "explored": [_seed_name(results, seed) for seed in seeds],
        "sides": _sides(attribution),
    }
    return _document("page", f"Agreement: {results.provenance.run}", content, data)


def _document(template: str, title: str, content: Data, data: Data) -> str:
    """A page with everything in it: style, script, charts' library, data."""
    return (
        _templates()
        .get_template(f"{template}.html.jinja")
        .render(
            **content,
            title=title,
            style=_asset("page.css"),
            script=_asset("page.js"),
            library=_library(),
            data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        )
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    script: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    return script.replace("</script", "<\\/script")


@cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text()


# --- what the text is filled in with ----------------------------------------------------------


def _introduction(results: Results) -> Data:
    """The main number, and what the machines are."""
    scales = results.scales.get(results.primary)
    fitted = None if scales is None else scales.scale
    if results.weights is not None and results.weights.machine == results.primary:
        fitted = "weights"
    machines = [(kind, MACHINES[kind].says) for kind in results.machines if kind in MACHINES]
    return {
        "headline": headline(results),
        "primary": results.primary,
        "fitted": fitted,
        "machines": machines,
    }


def _curves(results: Results) -> Data:
    """What the captions of the charts name."""
    return {
        "probed": results.probes is not None,
        "network": probes_text(results),
        "released": released_sizes(results) is not None,
        "scaled": list(results.scales),
        "rival": rival(results) or "",
    }


def _header_and_rows(
    cells: Sequence[tuple[str, ...]],
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header, *rows = cells
    return header, rows


def _sides(attribution: Attribution | None) -> list[str]:
    """Whose mosaics can be explored, the machine's first."""
    if attribution is None or attribution.tracing is None:
        return []
    return list(attribution.tracing.mosaics)[::-1]


def _record(results: Results) -> Data:
    """What the results were made from."""
    source, shape = results.provenance, list(results.noise.shape[1:])
    first, last = results.seeds[0], results.seeds[-1]
    record = source.record()
    training = record.pop("training")
    facts = {
        "network": source.network.description,
        "images": f"{source.images} of '{source.data.name}', shape {shape}",
        "checkpoint": f"{source.checkpoint.path}, sha256 {source.checkpoint.sha256[:16]}...",
        "seeds": f"{len(results.seeds)} ({first} to {last}), none of them used for fitting",
        "calibration seeds": source.protocol.calibration_seeds,
        "versions": ", ".join(f"{name} {version}" for name, version in source.versions.items()),
    }
    return {
        "facts": facts,
        "commands": _commands(results),
        "record": json.dumps(record, indent=1),
        "training": training and training["text"],
    }


def _commands(results: Results) -> str:
    """The command lines that train and analyse this again, beside what there is."""
    source = results.provenance
    options = [
        f"--{name} {_argument(value)}"
        for name, value in asdict(source.protocol).items()
        if value is not None and value != []
    ]
    start = f"python analyze.py --checkpoint {shlex.quote(source.checkpoint.path)}"
    analysis = " \\\n    ".join([start, *options])
    if source.training is None:
        return analysis
    config, name = shlex.quote(source.training.path), shlex.quote(f"{source.run}_again")
    return f"python train.py fit --config {config} --run.name {name}\n{analysis}"


def _argument(value: object) -> str:
    if isinstance(value, list):
        return "'[" + ",".join(str(one) for one in value) + "]'"
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- network, machines and seeds side by side -------------------------------------------------


def _gallery(results: Results, seeds: Sequence[int]) -> Data:
    samples = {
        "noise": results.noise,
        NETWORK: results.network[results.network_steps],
        **results.machines,
    }
    chosen = list(seeds)
    names = _standing(results)
    return {
        "sheet": sheet(torch.stack([to_uint8(x[chosen]) for x in samples.values()], dim=1)),
        "names": list(samples),
        "metrics": {
            kind: {name: _rounded(values[name][chosen]) for name in METRICS}
            for kind, values in results.by_seed.items()
        },
        "primary": results.primary,
        "rows": [
            {"seed": results.seeds[i], "note": _joined(names.get(i), _label(results, i))}
            for i in chosen
        ],
    }


def _standing(results: Results) -> dict[int, str]:
    """Which seeds are predicted best, worst and in the middle."""
    named = results.named_seeds
    return {seed: name for name, seed in named.items()} if len(named) == 3 else {}


def _seed_name(results: Results, seed: int) -> str:
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


# --- where samples come from ------------------------------------------------------------------


def _walk(results: Results, attribution: Attribution, seeds: Sequence[int]) -> Data:
    """x0_hat of network and machine at every step, and what the machine made its from."""
    traced, tracing = attribution.traced, attribution.tracing
    names = [f"{side}: x0_hat" for side in attribution.paths]
    captions = ["what the image would be without noise"] * len(names)
    if traced is not None and tracing is not None:
        names += [f"{tracing.machine}: mosaic", "patches that count", "top image's share"]
        most = float(traced.effective_size.max())
        captions += [
            "the winning training pixels",
            f"dark 1, bright {most:,.0f}, logarithmic",
            "dark 0, bright 1",
        ]
    return {
        "t": _rounded(results.t),
        "names": names,
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
        "sheet": sheet(torch.stack(rows)),
        "notes": notes,
        "pearson_r": _rounded(results.by_t[results.primary][:, seed]),
    }


def _explorer(
    results: Results, attribution: Attribution, tracing: Tracing, seeds: Sequence[int]
) -> Data:
    """The final mosaics, and the training images that they show."""
    training = tracing.training
    count = len(training.indices)
    columns = max(1, min(count, round(count**0.5)))
    rows = -(-count // columns)
    padded = torch.zeros(rows * columns, *training.pixels.shape[1:], dtype=torch.uint8)
    padded[:count] = training.pixels
    labels = None
    if training.labels is not None:
        labels = [_class_name(tracing, label) for label in training.labels.tolist()]
    return {
        "height": results.noise.shape[2],
        "width": results.noise.shape[3],
        # A winner may then be a mirrored or turned copy of the patch at its place.
        "moved": bool(results.provenance.protocol.symmetries),
        "training": {
            "indices": training.indices.tolist(),
            "labels": labels,
            "columns": columns,
            "sheet": sheet(padded.unflatten(0, (rows, columns))),
        },
        "seeds": [
            {
                "sides": {
                    side: _explorer_side(mosaic, attribution.paths[side][-1, seed], seed)
                    for side, mosaic in tracing.mosaics.items()
                }
            }
            for seed in seeds
        ],
    }


def _explorer_side(mosaic: Mosaic, sample: Tensor, seed: int) -> Data:
    image, row, column = (part.flatten().tolist() for part in mosaic.best[-1][seed])
    second, second_row, second_column = (part.flatten().tolist() for part in mosaic.second[seed])
    return {
        "sheet": sheet(torch.stack([sample, mosaic.pixels[-1][seed]])[None]),
        "k": mosaic.sides[-1],
        "image": image,
        "row": row,
        "column": column,
        "second": second,
        "second_row": second_row,
        "second_column": second_column,
        "weight": _rounded(mosaic.weight[-1][seed].flatten()),
        "effective": _rounded(mosaic.effective_size[-1][seed].flatten()),
        "top": _rounded(mosaic.top_share[-1][seed].flatten()),
        "second_weight": _rounded(mosaic.second_weight[seed].flatten()),
    }


def _rounded(values: Tensor | Sequence[float], digits: int = 4) -> list[float]:
    """Round to `digits` significant digits."""
    plain = values.tolist() if isinstance(values, Tensor) else values
    return [float(f"{value:.{digits}g}") for value in plain]
