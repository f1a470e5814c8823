"""Results as one self-contained page: plain HTML, a script, and charts of Vega-Lite."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import torch
import vl_convert
from torch import Tensor

from els.agreement import METRICS
from els.analysis.attribution import NETWORK, Attribution
from els.analysis.report.charts import Spec, charts, rival
from els.analysis.report.released import released_sizes
from els.analysis.report.sprites import coloured, in_colour, sheet
from els.analysis.report.tables import interval_text, probes_text
from els.analysis.report.wording import FITTED, INTRODUCTION, MACHINES, TEXT
from els.analysis.results import Results
from els.console import plural
from els.files import replacing
from els.images import to_uint8
from els.mosaic import Mosaic

PAGE_LIMIT = 10_000_000  # bytes
# Seeds shown side by side, and seeds with path and mosaic: as many as the limit leaves room for.
_SEEDS = ((None, 8), (None, 4), (None, 2), (48, 1), (24, 1), (12, 1), (4, 0))
_HERE = Path(__file__).parent

Data = dict[str, Any]


def headline(results: Results) -> str:
    """The main number in a sentence."""
    summary = results.summary()
    subject = summary["machines"][results.primary]
    beats = subject.get("beats_ideal")
    tail = "" if beats is None else f", and is closer than ideal on {beats:.0%} of the seeds"
    return (
        f"From the same noise, the {results.primary} machine predicts what the network draws with "
        f"a median pearson_r of {interval_text(subject['pearson_r'])} (95 % interval) over "
        f"{plural(summary['seeds'], 'seed')}{tail}; {summary['steps']['network']} steps of the "
        f"network, {summary['steps']['machine']} of the machine."
    )


def write_page(results: Results, path: Path) -> None:
    """Write the page; it shows fewer seeds where it would be larger than `PAGE_LIMIT`."""
    found = charts(results)
    for side_by_side, explored in _SEEDS:
        page = _page(results, found, side_by_side, explored)
        if len(page.encode()) <= PAGE_LIMIT:
            break
    with replacing(path) as partial:
        partial.write_text(page)


def document(title: str, body: str, data: Data) -> str:
    """A page with everything in it: style, script, charts' library, data."""
    return Template(_asset("page.html")).substitute(
        title=html.escape(title), style=_asset("page.css"), body=body, library=_library(),
        script=_asset("page.js"), data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    )  # fmt: skip


def chart_section(name: str, heading: str, text: str, specs: Sequence[Spec]) -> str:
    """A heading, what one sees, and the place of some charts; nothing without any."""
    if not specs:
        return ""
    many = ' class="charts"' if len(specs) > 1 else ""
    return f'<h2>{heading}</h2><p class="caption">{text}</p><div id="chart-{name}"{many}></div>'


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text, which scrolls by itself where it is wider than the page."""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")  # fmt: skip


def _page(
    results: Results, found: Mapping[str, Sequence[Spec]], side_by_side: int | None, explored: int
) -> str:
    order = results.order()
    seeds = order[:explored]
    body = [
        f'<p class="headline">{html.escape(headline(results))}</p>',
        _introduction_html(results),
        _gallery_html(results, shown=side_by_side), _agreement_html(results),
        _scales_html(results, found["scales"]), _criterion_html(results, found["criterion"]),
        chart_section("by_t", "Agreement by time", TEXT["by_t"], found["by_t"]),
        chart_section("scatter", *_scatter_text(results), found["scatter"]),
        *_origins_html(results, seeds, found), _equivariance_html(results, found["equivariance"]),
        _record_html(results),
    ]  # fmt: skip
    data = {"charts": found, "gallery": _gallery(results, order[:side_by_side])}
    if results.attribution is not None and seeds:
        data["walk"] = _walk(results, results.attribution, seeds)
        if results.attribution.machine is not None:
            data["explorer"] = _explorer(results, results.attribution, seeds)
    return document(
        f"Agreement: {results.context.get('run', results.primary)}", "".join(body), data
    )


def _introduction_html(results: Results) -> str:
    """What the page is about, the first machine, and a line for each of the others."""
    scales = results.scales.get(results.primary)
    if results.weights is not None and results.primary == "mixture":
        fitted = FITTED["weights"]
    else:
        fitted = FITTED["nothing"] if scales is None else FITTED["scale"].format(scale=scales.scale)
    lines = "".join(f"<dt><code>{html.escape(kind)}</code></dt><dd>{MACHINES[kind]}</dd>"
                    for kind in results.machines if kind in MACHINES)  # fmt: skip
    return INTRODUCTION.format(machine=html.escape(results.primary), fitted=fitted, machines=lines)


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return vl_convert.javascript_bundle().replace("</script", "<\\/script")


@cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text()


# --- network, machines and seeds side by side -------------------------------------------------


def _gallery(results: Results, seeds: Sequence[int]) -> Data:
    rows = {"noise": results.noise, NETWORK: results.network[results.network_steps],
            **results.machines}  # fmt: skip
    names = _standing(results)
    metrics = {
        kind: {name: _rounded(values[name][seeds], 4) for name in METRICS}
        for kind, values in results.by_seed().items()
    }
    return {
        "sheet": sheet(torch.stack([to_uint8(x[seeds]) for x in rows.values()], dim=1)),
        "names": list(rows), "metrics": metrics, "subject": results.primary,
        "rows": [{"seed": results.seeds[i], "note": _joined(names.get(i), _label(results, i))}
                 for i in seeds],
    }  # fmt: skip


def _standing(results: Results) -> dict[int, str]:
    """Which seeds are predicted best, worst and in the middle."""
    first = results.order()[:3]
    return dict(zip(first, ("best", "median", "worst"), strict=False)) if len(first) == 3 else {}


def _label(results: Results, seed: int) -> str:
    if results.labels is None:
        return ""
    return _class_name(results.attribution, int(results.labels[seed]))


def _class_name(attribution: Attribution | None, label: int) -> str:
    classes = (
        () if attribution is None or attribution.training is None else attribution.training.classes
    )
    name = classes[label] if label < len(classes) else str(label)
    return f"class {name}"


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _gallery_html(results: Results, *, shown: int | None) -> str:
    options = "".join(f"<option>{name}</option>" for name in METRICS)
    left_out = ""
    if shown is not None and shown < len(results.seeds):
        left_out = f" {shown} of {len(results.seeds)} seeds are shown, to keep this page small."
    return (
        "<h2>Network and machines, side by side</h2>"
        '<p class="caption">Each row starts from the same noise. The best, the median and the '
        f"worst predicted seed come first. Press a heading to sort.{left_out}</p>"
        f'<div class="controls"><label>sort by <select id="gallery-metric">{options}</select>'
        '</label><button class="plain" type="button" id="gallery-first">best, median, worst first'
        '</button></div><div class="scroll gallery" tabindex="0" role="region" '
        'aria-label="Images of every seed"><table id="gallery"></table></div>'
    )


def _agreement_html(results: Results) -> str:
    summary = results.summary()
    blocks = "".join(_table(block) for block in (summary, *summary["other_steps"]))
    return f"<h2>Agreement in numbers</h2>{TEXT['metrics']}{blocks}"


def _table(block: Mapping[str, Any]) -> str:
    steps = block["steps"]
    rows = []
    for kind, values in block["machines"].items():
        share = values.get("beats_ideal")
        rows.append([kind, *(interval_text(values[name]) for name in METRICS),
                     "" if share is None else f"{share:.0%}"])  # fmt: skip
    table = html_table(("machine", *METRICS, "beats ideal"), rows)
    return (
        f"<p>Network {steps['network']} steps, machine {steps['machine']} steps; median and 95 % "
        f"bootstrap interval over seeds.</p>{table}"
    )


# --- curves ---------------------------------------------------------------------------------


def _scales_html(results: Results, specs: Sequence[Spec]) -> str:
    text = TEXT["scales"]
    if results.probes is not None:
        text += f" The network: {html.escape(probes_text(results.probes))}."
    if released_sizes(results) is not None:
        text += " Dotted: what the paper's authors released for their network of this kind."
    return chart_section("scales", "Fitted scale", text, specs)


def _criterion_html(results: Results, specs: Sequence[Spec]) -> str:
    if not specs:
        return ""
    options = "".join(f'<option value="{i}">{html.escape(kind)}</option>'
                      for i, kind in enumerate(results.scales))  # fmt: skip
    chooser = ""
    if len(specs) > 1:
        chooser = ('<div class="controls"><label>machine <select id="choose-criterion">'
                   f"{options}</select></label></div>")  # fmt: skip
    return (f'<h2>Calibration</h2><p class="caption">{TEXT["criterion"]}</p>{chooser}'
            '<div id="chart-criterion"></div>')  # fmt: skip


def _scatter_text(results: Results) -> tuple[str, str]:
    other = rival(results) if len(results.machines) > 1 else ""
    return (
        f"Machine against {other}",
        f"One point a seed. Above the line, a machine is closer to the network than {other}.",
    )


def _equivariance_html(results: Results, specs: Sequence[Spec]) -> str:
    return chart_section("equivariance", "Equivariance error", TEXT["equivariance"], specs)


# --- where samples come from ------------------------------------------------------------------


def _origins_html(
    results: Results, seeds: Sequence[int], found: Mapping[str, Sequence[Spec]]
) -> list[str]:
    attribution = results.attribution
    if attribution is None:
        return [_missing("This analysis was made without mosaics (or before there were any): "
                         "<code>--force true</code> makes them.")]  # fmt: skip
    if not seeds:
        return [_missing("The mosaics would make this page too large; they are in the figures and "
                         "in <code>origins.npz</code>.")]  # fmt: skip
    parts = [_walk_html(results, attribution, seeds)]
    if attribution.machine is None:
        parts.append(_missing("None of the machines answers with patches, which mosaics are made "
                              "of; add <code>boundary</code>, <code>equivariant</code> or "
                              "<code>local</code> to <code>--machines</code>."))  # fmt: skip
    else:
        parts.append(_explorer_html(results, attribution, seeds))
    novelty = chart_section("novelty", "Novelty", TEXT["novelty"], found["novelty"])
    consistency = chart_section(
        "consistency", "Local consistency", TEXT["consistency"], found["consistency"]
    )
    return [*parts, novelty, consistency]


def _missing(why: str) -> str:
    return f'<h2>Where samples come from</h2><p class="caption">{why}</p>'


def _seed_options(results: Results, seeds: Sequence[int]) -> str:
    return "".join(
        f'<option value="{i}">{html.escape(_seed_name(results, seed))}</option>'
        for i, seed in enumerate(seeds)
    )


def _seed_name(results: Results, seed: int) -> str:
    number = f"seed {results.seeds[seed]}"
    return _joined(number, _standing(results).get(seed), _label(results, seed))


def _walk_html(results: Results, attribution: Attribution, seeds: Sequence[int]) -> str:
    most = len(results.t) - 1
    return (
        f'<h2>Along the path</h2><p class="caption">{TEXT["walk"]}</p><div class="controls">'
        f'<label>seed <select id="walk-seed">{_seed_options(results, seeds)}</select></label>'
        '<button class="plain" type="button" id="walk-play">Play</button>'
        '<label class="wide">t <input type="range" id="walk-t" min="0" '
        f'max="{most}" value="{most // 2}"></label></div>'
        '<p id="walk-now" aria-live="polite"></p><div id="walk" class="tiles"></div>'
    )


def _walk(results: Results, attribution: Attribution, seeds: Sequence[int]) -> Data:
    """x0_hat of network and machine at every step, and what the machine made its from."""
    traced = attribution.traced
    names = [f"{side}: x0_hat" for side in attribution.paths]
    captions = ["what the image would be without noise"] * len(names)
    if traced is not None:
        names += [f"{attribution.machine}: mosaic", "patches that count", "top image's share"]
        most = float(traced.effective_size.max())
        captions += [
            "the winning training pixels",
            f"dark 1, bright {most:,.0f}, logarithmic",
            "dark 0, bright 1",
        ]
    return {
        "t": _rounded(results.t, 4), "names": names, "captions": captions,
        "size": traced and list(traced.sides),
        "subject": attribution.subject,
        "seeds": [_walk_of(results, attribution, traced, seed) for seed in seeds],
    }  # fmt: skip


def _walk_of(results: Results, attribution: Attribution, traced: Mosaic | None, seed: int) -> Data:
    rows = [in_colour(path[:, seed]) for path in attribution.paths.values()]
    notes: list[list[str] | None] = [None] * len(rows)
    if traced is not None:
        effective, share = traced.effective_size[:, seed], traced.top_share[:, seed]
        scale = traced.effective_size.max().log().clamp(min=1)
        rows += [in_colour(traced.pixels[:, seed]), coloured(effective.clamp(min=1).log() / scale),
                 coloured(share)]  # fmt: skip
        consistency = traced.consistency[:, seed]
        notes += [
            None if consistency.isnan().any() else [f"consistency {c:.2f}" for c in consistency],
            [f"median {m:,.0f}" for m in traced.of_a_pixel("effective_size")[:, seed]],
            [f"median {m:.2g}" for m in traced.of_a_pixel("top_share")[:, seed]],
        ]
    return {
        "sheet": sheet(torch.stack(rows)), "notes": notes,
        "pearson_r": _rounded(results.by_t[attribution.subject][:, seed], 4),
    }  # fmt: skip


def _explorer_html(results: Results, attribution: Attribution, seeds: Sequence[int]) -> str:
    sides = "".join(f'<option value="{html.escape(side)}">{html.escape(side)}</option>'
                    for side in reversed(list(attribution.mosaics)))  # fmt: skip
    figures = "".join(
        f'<figure><canvas id="{name}-image" role="img" aria-label="{what} in its training image">'
        f'</canvas><canvas class="zoom" id="{name}-patch" role="img" aria-label="{what}"></canvas>'
        f'<figcaption id="{name}-text"></figcaption></figure>'
        for name, what in (("best", "the winning patch"), ("next", "the best of another image"))
    )
    return (
        f'<h2>Mosaic explorer</h2><p class="caption">{TEXT["explorer"]}</p>'
        '<div class="controls"><label>seed <select id="mosaic-seed">'
        f"{_seed_options(results, seeds)}</select></label>"
        f'<label>image of <select id="mosaic-side">{sides}</select></label>'
        '<label>show <select id="mosaic-view"><option value="mosaic">patch mosaic</option>'
        '<option value="image">image as drawn</option></select></label></div>'
        '<div class="explorer"><div><canvas id="mosaic" tabindex="0" role="application" '
        'aria-label="Image to explore: arrow keys move from pixel to pixel" '
        'aria-describedby="mosaic-text"></canvas></div>'
        f'<div><p id="mosaic-text" aria-live="polite"></p><div class="sources">{figures}</div>'
        "</div></div>"
    )


def _explorer(results: Results, attribution: Attribution, seeds: Sequence[int]) -> Data:
    """The final mosaics, and the training images that they show."""
    training = attribution.training
    count = len(training.indices)
    columns = max(1, min(count, round(count**0.5)))
    rows = -(-count // columns)
    padded = torch.zeros(rows * columns, *training.pixels.shape[1:], dtype=torch.uint8)
    padded[:count] = training.pixels
    labels = None
    if training.labels is not None:
        labels = [_class_name(attribution, label) for label in training.labels.tolist()]
    return {
        "height": results.noise.shape[2], "width": results.noise.shape[3],
        # A winner may then be a mirrored or turned copy of the patch at its place.
        "moved": bool(results.context.get("settings", {}).get("symmetries")),
        "training": {"indices": training.indices.tolist(), "labels": labels, "columns": columns,
                     "sheet": sheet(padded.unflatten(0, (rows, columns)))},
        "seeds": [
            {"sides": {side: _explorer_side(results, mosaic, attribution.paths[side][-1, seed],
                                            seed) for side, mosaic in attribution.mosaics.items()}}
            for seed in seeds
        ],
    }  # fmt: skip


def _explorer_side(results: Results, mosaic: Mosaic, sample: Tensor, seed: int) -> Data:
    image, row, column = (part.flatten().tolist() for part in mosaic.best[-1][seed])
    second, second_row, second_column = (part.flatten().tolist() for part in mosaic.second[seed])
    return {
        "sheet": sheet(torch.stack([sample, mosaic.pixels[-1][seed]])[None]),
        "k": mosaic.sides[-1],
        "image": image, "row": row, "column": column,
        "second": second, "second_row": second_row, "second_column": second_column,
        **{name: _rounded(values.flatten()) for name, values in (
            ("weight", mosaic.weight[-1][seed]), ("effective", mosaic.effective_size[-1][seed]),
            ("top", mosaic.top_share[-1][seed]), ("second_weight", mosaic.second_weight[seed]),
        )},
    }  # fmt: skip


# --- the record -------------------------------------------------------------------------------


def _record_html(results: Results) -> str:
    context, settings = results.context, results.context.get("settings", {})
    data, checkpoint = context.get("data"), context.get("checkpoint")
    training, n = context.get("training", {}), len(results.seeds)
    facts = {
        "network": context.get("network"),
        "images": data and f"{data.get('images')} of '{data.get('name')}', shape {data['shape']}",
        "checkpoint": checkpoint and f"{checkpoint['path']}, sha256 {checkpoint['sha256'][:16]}...",
        "seeds": f"{n} ({results.seeds[0]} to {results.seeds[-1]}), none of them used for fitting",
        "calibration seeds": settings.get("calibration_seeds"),
        "versions": ", ".join(f"{k} {v}" for k, v in context.get("versions", {}).items()),
    }
    rows = "".join(f"<dt>{k}</dt><dd>{html.escape(str(v))}</dd>" for k, v in facts.items() if v)
    record = json.dumps({k: v for k, v in context.items() if k != "training"}, indent=1)
    parts = [
        "<h2>How this was made</h2>", f"<dl>{rows}</dl>",
        f"<p>The commands that reproduce it:</p><pre>{html.escape(_commands(results))}</pre>",
        "<details><summary>Everything on record</summary>"
        f"<pre>{html.escape(record)}</pre></details>",
    ]  # fmt: skip
    if training.get("text"):
        parts.append("<details><summary>The training run's configuration</summary>"
                     f"<pre>{html.escape(training['text'])}</pre></details>")  # fmt: skip
    return "".join(parts)


def _commands(results: Results) -> str:
    """The command lines that train and analyse this again, beside what there is."""
    settings = dict(results.context.get("settings", {}))
    checkpoint = results.context.get("checkpoint", {}).get("path", "CHECKPOINT")
    settings.pop("scales", None)
    options = [f"--{name} {_argument(value)}" for name, value in settings.items()
               if value is not None and value != []]  # fmt: skip
    start = f"python analyze.py --checkpoint {shlex.quote(checkpoint)}"
    analysis = " \\\n    ".join([start, *options])
    config = results.context.get("training", {}).get("config")
    if not config:
        return analysis
    name = shlex.quote(f"{results.context.get('run', 'run')}_again")
    return f"python train.py fit --config {shlex.quote(config)} --run.name {name}\n{analysis}"


def _argument(value: object) -> str:
    if isinstance(value, list):
        return "'[" + ",".join(str(one) for one in value) + "]'"
    return str(value)


def _rounded(values: Tensor | Sequence[float], digits: int = 4) -> list[float]:
    """As JSON holds them: so many significant digits."""
    values = values.tolist() if isinstance(values, Tensor) else values
    return [float(f"{value:.{digits}g}") for value in values]
