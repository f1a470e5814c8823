"""Results as one self-contained page."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

from els.agreement import METRICS
from els.files import replacing
from els.report.results import Results
from els.report.style import DPI
from els.report.tables import interval_text, probes_text

_SCREEN_DPI = 144  # an inch of a figure on the page, whose letters are small for print
# Of each figure: a heading, and what one sees.
_TEXT = {
    "samples": (
        "What was drawn",
        "Noise, network and machines from the same seeds, from the best seed to the worst; above "
        "each column the first machine's pearson_r.",
    ),
    "scales": (
        "Fitted scale",
        "The patch size at which the machine answers most like the network, at each time.",
    ),
    "agreement": (
        "Agreement by seed",
        "How the seeds are spread, and whether the machine beats memorisation on each.",
    ),
    "by_t": (
        "Agreement by time",
        "Agreement of the estimated clean images along the denoising path.",
    ),
    "looks": (
        "Fitted size against what the network looks at",
        "The fitted patch size beside the smallest squares that hold half and 90 % of the squared "
        "gradient of the network's x0_hat at the centre pixel, at the x that the size was fitted "
        "at, and beside the largest window that it could look at. Near t = 1 the centre's own "
        "share is the network's error in eps as well; per_t.csv also has the sizes without it.",
    ),
    "equivariance": (
        "Equivariance error",
        "How much the network's answer for the same content changes with the place it is put at: "
        "0 not at all, 1 as much as unrelated answers differ. By the distance to the border of "
        "the nearer of the two places.",
    ),
    "criterion": (
        "Calibration",
        "What the scales were chosen from; the dots are the chosen sizes.",
    ),
}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; height: auto; background: white; border-radius: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { overflow-x: auto; font-size: .8rem; }
"""


def headline(results: Results) -> str:
    """The main number in a sentence."""
    summary = results.summary()
    subject = summary["machines"][results.subject]
    beats = subject.get("beats_ideal")
    tail = "" if beats is None else f", and is closer than ideal on {beats:.0%} of the seeds"
    return (
        f"From the same noise, the {results.subject} machine predicts what the network draws with "
        f"a median pearson_r of {interval_text(subject['pearson_r'])} over {summary['seeds']} "
        f"seeds{tail}."
    )


def write_page(results: Results, figures: list[Path], path: Path) -> None:
    """Write the page with the figures inside it."""
    summary = results.summary()
    parts = [f"<p><strong>{html.escape(headline(results))}</strong></p>"]
    parts += [_table(block) for block in (summary, *summary["other_steps"])]
    if results.probes is not None:
        parts.append(f"<p>Network: {html.escape(probes_text(results.probes))}.</p>")
    for figure in figures:
        content = figure.read_bytes()
        data = base64.b64encode(content).decode()
        width = int.from_bytes(content[16:20]) * _SCREEN_DPI // DPI  # of the PNG's header
        heading, text = map(html.escape, _TEXT[figure.stem])
        parts.append(
            f'<h2>{heading}</h2><p>{text}</p><img alt="{text}" width="{width}" '
            f'src="data:image/png;base64,{data}">'
        )
    record = html.escape(json.dumps(dict(results.context), indent=1))
    parts.append(
        f"<details><summary>What this was measured on</summary><pre>{record}</pre></details>"
    )
    title = html.escape(f"Agreement: {results.context.get('run', results.subject)}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{''.join(parts)}</body></html>\n"
    )
    with replacing(path) as partial:
        partial.write_text(page)


def _table(block: dict) -> str:
    steps = block["steps"]
    head = "".join(f"<th>{name}</th>" for name in ("machine", *METRICS, "beats ideal"))
    rows = []
    for kind, values in block["machines"].items():
        share = values.get("beats_ideal")
        cells = [kind, *(interval_text(values[name]) for name in METRICS),
                 "" if share is None else f"{share:.0%}"]  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return (
        f"<p>Network {steps['network']} steps, machine {steps['machine']} steps; median and 95 % "
        f'bootstrap interval over seeds.</p><div class="scroll"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
