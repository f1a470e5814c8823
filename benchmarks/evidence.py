"""Networks of the zoo beside the paper's: agreement, training and scales, each with its interval.

    python -m benchmarks.evidence

Reads agreement.json and scales of the zoo, prints tables in Markdown, and draws
docs/images/evidence.png.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from els.agreement import METRICS, Summary
from els.analysis.report.published import PaperRow, row_of
from els.analysis.report.style import STYLE, TWO_COLUMNS, save_figure, styled_figure
from els.calibration import Scales

ROOT = Path(__file__).resolve().parents[1]
ZOO, IMAGES, PICTURE = ROOT / "zoo", ROOT / "docs" / "images", "evidence"
SAME_IMAGES = {"zip": "cifar10"}  # the archive of CIFAR-10 in JPEG that our networks saw
ROLES = {"boundary": "els", "equivariant": "els", "local": "local", "ideal": "ideal"}
COLOURS = {"els": "#0072B2", "local": "#E69F00", "ideal": "#009E73"}
NAMES = {"els": "boundary / equivariant", "local": "local", "ideal": "ideal"}
APART = {"els": -0.2, "local": 0.0, "ideal": 0.2}  # of a network's lines


@dataclass(frozen=True)
class Row:
    """A network of the zoo and, if the paper has one of its kind, that row of the paper's table.

    Attributes:
        folder: its folder in the zoo.
        found: the content of its agreement.json.
        side: height and width of its images in pixels.
        paper: the paper's network of this kind, if it has one.
    """

    folder: Path
    found: dict[str, Any]
    side: int
    paper: PaperRow | None

    @classmethod
    def read(cls, folder: Path) -> Row:
        """From a folder of the zoo."""
        found = json.loads((folder / "agreement.json").read_text())
        shape = json.loads((folder / "config.json").read_text())["image_shape"][1:]
        data, network = found["data"]["name"], found["network"]
        paper = row_of(
            SAME_IMAGES.get(data, data),
            network["name"],
            network["padding"],
            conditional=network["num_classes"] is not None,
            shape=shape,
        )
        return cls(folder, found, shape[-1], paper)

    @property
    def name(self) -> str:
        """Of the network."""
        return self.folder.name

    @cached_property
    def agreements(self) -> list[dict[str, Any]]:
        """At each number of network steps, the main one first."""
        return [
            {key: self.found[key] for key in ("steps", "machines", "ceiling") if key in self.found},
            *self.found["other_steps"],
        ]

    def paper_r(self, kind: str, steps: int) -> float | None:
        """The paper's median for a machine, at a number of network steps."""
        return None if self.paper is None else self.paper.pearson_r(kind, steps)


def main() -> None:
    """Print the tables and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.parse_args()
    rows = read_rows()
    print("\n\n".join("\n".join(table) for table in tables(rows)))
    draw(rows, IMAGES)


def read_rows(zoo: Path = ZOO) -> list[Row]:
    """Of every network of the zoo; those that the paper's table has come first."""
    rows = [Row.read(path.parent) for path in sorted(zoo.glob("*/agreement.json"))]
    return sorted(rows, key=lambda row: (row.paper is None, row.name))


def tables(rows: list[Row]) -> list[list[str]]:
    """Three tables in Markdown: the networks, their agreement, and their scales."""
    return [networks_table(rows), agreement_table(rows), scales_table(rows)]


def networks_table(rows: list[Row]) -> list[str]:
    """What each network is and how it was trained."""
    lines = head("network", "images", "pixels", "parameters", "steps", "val/loss", "seeds")
    for row in rows:
        found, trained = row.found, row.found["trained"]
        images, parameters = found["images"], found["network"]["parameters"]
        lines.append(
            f"| `{row.name}` | {images:,} | {row.side} x {row.side} | {parameters / 1e6:.2f} M | "
            f"{trained['steps']:,} | {trained['val_loss']:.4f} | {found['seeds']} |"
        )
    return lines


def agreement_table(rows: list[Row]) -> list[str]:
    """Every machine of every network, and the paper's r where it has one of this kind."""
    lines = head("network", "steps", "machine", *METRICS, "paper's r")
    for row in rows:
        for one in row.agreements:
            steps = one["steps"]["network"]
            for kind, machine in one["machines"].items():
                paper = row.paper_r(kind, steps)
                told = "" if paper is None else f"{paper:.2f}"
                metrics = " | ".join(str(Summary(**machine[metric])) for metric in METRICS)
                lines.append(f"| `{row.name}` | {steps} | `{kind}` | {metrics} | {told} |")
            if "ceiling" in one:
                metrics = " | ".join(str(Summary(**one["ceiling"][metric])) for metric in METRICS)
                lines.append(f"| `{row.name}` | {steps} | another seed | {metrics} | |")
    return lines


def scales_table(rows: list[Row]) -> list[str]:
    """The patch sizes that were fitted from t = 1 down, and the released ones of such a row."""
    lines = head("network", "sizes", "released", "median difference")
    for row in rows:
        if (both := fitted_and_released(row)) is None:
            continue
        ours, theirs = both
        apart = sorted(abs(ours[t] - theirs[t]) for t in ours)[len(ours) // 2]
        told = (" ".join(map(str, sizes.values())) for sizes in both)
        lines.append(f"| `{row.name}` | {' | '.join(told)} | {apart} |")
    return lines


def fitted_and_released(row: Row) -> tuple[dict[float, int], dict[float, int]] | None:
    """A network's patch sizes from t = 1 down, and those that the paper's authors released."""
    if row.paper is None:
        return None
    scales = Scales.load(row.folder / "scales.json")
    released = dict(sorted(row.paper.sizes.items(), reverse=True))
    return {t: int(scales.at(t)) for t in released}, released


def draw(rows: list[Row], folder: Path) -> None:
    """Dots with intervals, one line a network; diamonds are the paper's medians."""
    with matplotlib.rc_context(STYLE):
        height = 0.42 * len(rows) + 1.1
        figure, (ax,) = styled_figure(width=TWO_COLUMNS, height=height)
        for place, row in enumerate(rows):
            _draw_row(ax, place, row)
        for role, colour in COLOURS.items():
            ax.plot([], [], "o", color=colour, ms=4, label=NAMES[role])
        ax.plot([], [], "D", color="0.4", mfc="none", ms=5, label="the paper's, of such a network")
        ax.set_yticks(range(len(rows)), [row.name for row in rows])
        ax.set(
            xlim=(-0.2, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="median pearson_r, 95 % interval"
        )
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4)
        save_figure(figure, folder, PICTURE, ["png"])


def _draw_row(ax: Axes, place: int, row: Row) -> None:
    first = row.agreements[0]
    for kind, role in ROLES.items():
        if kind not in first["machines"]:
            continue
        one = first["machines"][kind]["pearson_r"]
        low, high = one["ci95"]
        y = place + APART[role]
        ax.plot([low, high], [y, y], color=COLOURS[role], lw=1.6)
        ax.plot(one["median"], y, "o", color=COLOURS[role], ms=4)
        paper = row.paper_r(kind, first["steps"]["network"])
        if paper is not None:
            ax.plot(paper, y, "D", color=COLOURS[role], mfc="none", ms=5)


def head(*columns: str) -> list[str]:
    """The first two lines of a table in Markdown."""
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]


if __name__ == "__main__":
    main()
