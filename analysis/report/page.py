"""Results as one self-contained page: what the templates, the script and the charts are given."""

from __future__ import annotations

import json
import os
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from els.agreement import IDEAL, METRICS
from els.analysis.along import Along
from els.analysis.attribution import Attribution
from els.analysis.comparison import Comparison
from els.analysis.report.charts import Spec, specs
from els.analysis.report.findings import findings, plain_sentence
from els.analysis.report.pictures import (
    compared,
    explorer,
    gallery,
    hero,
    seed_name,
    walk,
)
from els.analysis.report.published import paper_row
from els.analysis.report.tables import (
    agreement_cells,
    along_cells,
    audits_text,
    comparison_cells,
    locality_cells,
    network_cells,
    pair_cells,
    probes_text,
    share_cells,
    shown_pairs,
)
from els.analysis.report.verdicts import verdicts
from els.analysis.report.views import ALONG_VIEWS, COMPARISON_VIEWS, VIEWS, rival, sized
from els.analysis.report.words import along_headline, comparison_headline
from els.analysis.results import Provenance, Results
from els.files import replacing
from els.machines import MACHINES, with_paper_name
from els.models.blocks import PADDINGS
from els.models.user_code import is_code

PAGE_LIMIT = 10_000_000  # bytes
# Seeds shown side by side, and seeds with path and mosaic: as many as the limit leaves room for.
_SEEDS = ((None, 8), (None, 4), (None, 2), (48, 1), (24, 1), (12, 1), (4, 0))
_HERE = Path(__file__).parent
# The views that each section of the page shows as charts.
_SECTIONS = {
    "scales": ("sizes", "other_scale"),
    "criterion": ("criterion",),
    "weights": ("weights",),
    "by_t": ("by_t",),
    "scatter": ("scatter",),
    "locality": ("locality",),
    "equivariance": ("equivariance",),
    "novelty": ("novelty",),
    "copies": ("copies",),
    "information": ("information",),
    "memorisation": ("memorisation",),
    "consistency": ("consistency",),
    "denoising": ("denoising",),
    "same_x": ("same_x",),
}
_SCRIPTS = {"page": ("page.js", "mosaic.js"), "comparison": ("comparison.js",), "along": ()}
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
        partial.write_text(page, encoding="utf-8")


def write_comparison_page(comparison: Comparison, path: Path, pages: Sequence[Path] = ()) -> None:
    """Write the page of several networks: pictures, a table, and curves over each other.

    Args:
        comparison: of what.
        path: of the page.
        pages: those of each of the networks, in their order, which it links to.
    """
    charts = {name: specs(COMPARISON_VIEWS[view](comparison)) for name, view in _COMPARED.items()}
    links = [_link(page, path.parent) for page in pages] or [""] * len(comparison.names)
    header, *rows = comparison_cells(comparison)
    facts = [
        [name, one.provenance.network.description, one.seeds[0], one.seeds[-1]]
        for name, one in comparison.by_name.items()
    ]
    content = {
        "headline": comparison_headline(comparison),
        "differences": comparison.differences,
        "charts": charts,
        "header": header,
        "rows": list(zip(links, rows, strict=True)),
        "pairs": _header_and_rows(pair_cells(comparison.pairs, of="network")),
        "facts": facts,
        "checkpoints": {
            name: one.provenance.checkpoint.path for name, one in comparison.by_name.items()
        },
        "pictured": bool(comparison.seeds),
    }
    data: Data = {"charts": charts}
    if comparison.seeds:
        data["compared"] = compared(comparison)
    page = _document("comparison", "Comparison of networks", content, data)
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def write_along_page(along: Along, path: Path) -> None:
    """Write the page of a training: agreement, losses and scales at every snapshot."""
    charts = {name: specs(view(along)) for name, view in ALONG_VIEWS.items()}
    source = along.provenance
    first, last = along.seeds[0], along.seeds[-1]
    content = {
        "headline": along_headline(along),
        "charts": charts,
        "primary": with_paper_name(along.primary),
        "numbers": _header_and_rows(along_cells(along)),
        "facts": {
            "network": source.network.description,
            "images": f"{source.images} of '{source.data.name}'",
            "snapshots": f"{len(along.moments)} in {source.checkpoint.path}",
            "seeds": f"{len(along.seeds)} ({first} to {last}), none of them used for fitting",
            "calibration seeds": source.protocol.calibration_seeds,
            "steps of sampling": source.protocol.steps,
        },
    }
    title = f"Agreement along training: {source.run}"
    page = _document("along", title, content, {"charts": charts})
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _link(page: Path, folder: Path) -> str:
    """The address of a page as seen from a folder."""
    there = Path(os.path.relpath(page.resolve(), folder.resolve()))
    return quote(there.as_posix())


def page_charts(results: Results) -> dict[str, list[Spec]]:
    """Every chart that these results have data for, by the section that it belongs to."""
    return {
        section: [spec for name in names for spec in specs(VIEWS[name](results))]
        for section, names in _SECTIONS.items()
    }


def _page(results: Results, charts: Charts, side_by_side: int | None, explored: int) -> str:
    shown, seeds = results.order[:side_by_side], results.order[:explored]
    attribution = results.attribution
    paper = paper_row(results)
    data: Data = {"charts": charts, "gallery": gallery(results, shown)}
    if attribution is not None and seeds:
        data["path"] = walk(results, attribution, seeds)
        data["hero"] = hero(results, attribution, seeds)
        if attribution.tracing is not None:
            data["mosaic"] = explorer(results, attribution.tracing, seeds)
    content = {
        **_introduction(results),
        **_curves(results),
        **_record(results),
        "charts": charts,
        "metrics": METRICS,
        "shown": len(shown),
        "seeds": len(results.seeds),
        "steps": len(results.t),
        "agreement": [
            (
                one,
                _header_and_rows(agreement_cells(one, named=with_paper_name, paper=paper)),
                _header_and_rows(share_cells(one, named=with_paper_name)),
            )
            for one in results.agreement
        ],
        "told": paper is not None and any(map(paper.tells_of, results.network)),
        "locality": _header_and_rows(locality_cells(results, named=with_paper_name)),
        "networks": _header_and_rows(network_cells(results.agreement[0])),
        "attributed": attribution is not None,
        "hero": "hero" in data,
        "memoriser": attribution is not None and IDEAL in attribution.paths,
        "longer": results.network_steps if results.network_steps != len(results.t) else None,
        "pairs": _header_and_rows(pair_cells(shown_pairs(results), named=with_paper_name)),
        "verdicts": verdicts(results),
        "explored": [seed_name(results, seed) for seed in seeds],
        "sides": _sides(attribution),
    }
    return _document("page", f"Agreement: {results.provenance.run}", content, data)


def _document(template: str, title: str, content: Data, data: Data) -> str:
    """A page with everything in it: style, script, charts' library, data."""
    library, script = _library(), "\n".join(map(_asset, ("common.js", *_SCRIPTS[template])))
    return (
        _templates()
        .get_template(f"{template}.html.jinja")
        .render(
            **content,
            title=title,
            style=_asset("page.css"),
            policy=_policy(library, script),
            library=library,
            script=script,
            data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        )
    )


def _policy(*scripts: str) -> str:
    """What a browser may do: run these very scripts and show pictures of the page, no more.

    A second wall behind the escaping of text; nothing is loaded from anywhere.
    """
    digests = (b64encode(sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
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
    """Vega, Vega-Lite and Vega-Embed as one script, made by tests/vega.py."""
    return _asset("vega.js").replace("</script", "<\\/script")


@cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


# --- what the text is filled in with ----------------------------------------------------------


def _introduction(results: Results) -> Data:
    """The main number, and what the machines are."""
    scales = results.scales.get(results.primary)
    fitted = None if scales is None else scales.scale
    if results.weights is not None and results.weights.machine == results.primary:
        fitted = "weights"
    machines = [
        (kind, MACHINES[kind].paper, MACHINES[kind].says)
        for kind in results.machines
        if kind in MACHINES
    ]
    return {
        "plain": plain_sentence(results),
        "findings": list(findings(results).values()),
        "primary": with_paper_name(results.primary),
        "fitted": fitted,
        "machines": machines,
        "audits": audits_text(results),
    }


def _curves(results: Results) -> Data:
    """What the captions of the charts name."""
    return {
        "probed": results.probes is not None,
        "network": probes_text(results),
        "released": paper_row(results) is not None,
        "scaled": list(map(with_paper_name, results.scales)),
        "sized": bool(sized(results)),
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
        "networks of other seeds": ", ".join(one.path for one in source.twins.values()),
        "self-check": source.self_check and source.self_check.line,
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
    """The command lines that make this again, beside what there is."""
    source = results.provenance
    options = [
        f"--{name} {_argument(value)}"
        for name, value in asdict(source.protocol).items()
        if value is not None and value != []
    ]
    if source.twins:
        options.append(f"--twin {_argument([one.path for one in source.twins.values()])}")
    if source.training is None:  # a checkpoint from elsewhere, which may not name its images
        given = {"data_name": source.data.name, "data_root": source.data.root, **_reading(source)}
        given["name"] = "again"
        options += [f"--{name} {_argument(value)}" for name, value in given.items()]
        return _lines("python analyze.py", source.checkpoint.path, options)
    again = f"{source.run}_again"
    config, name = shlex.quote(source.training.path), shlex.quote(again)
    if source.declared is not None and source.declared.weights == "online":
        options.append("--weights online")
    training = f"python train.py fit --config {config} --run.dir runs --run.name {name}"
    return f"{training}\n{_lines('python analyze.py', f'runs/{again}', options)}"


def _reading(source: Provenance) -> dict[str, object]:
    """The options that say of a checkpoint from elsewhere what its file may leave open."""
    found: dict[str, object] = {"image_size": source.data.size}
    if source.network.padding in PADDINGS:
        found["padding"] = source.network.padding
    if source.declared is not None and not is_code(source.checkpoint.path):  # which says the rest
        found |= source.declared.options
    return {name: value for name, value in found.items() if value is not None}


def _lines(command: str, argument: str, options: Sequence[str]) -> str:
    """A command on as many lines as it has options."""
    return " \\\n    ".join([f"{command} {shlex.quote(argument)}", *options])


def _argument(value: object) -> str:
    if isinstance(value, list):
        return shlex.quote(",".join(map(str, value)))
    return str(value).lower() if isinstance(value, bool) else shlex.quote(str(value))
