"""How agreement goes with the number of training images and with the network's width.

    python -m benchmarks.curves

Reads benchmarks/curves/<axis>/<number>.json, each the agreement.json of a run, prints a table in
Markdown for each axis, and draws docs/images/by_<axis>.png, and the sizes fitted to the CIFAR-10
network of the zoo beside those that the paper's authors released, as docs/images/scales.png.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import yaml
from matplotlib.axes import Axes

from benchmarks.evidence import COLOURS, IMAGES, ROLES, Row, fitted_and_released, head, read_rows
from els.agreement import Summary
from els.analysis.report.style import ONE_COLUMN, STYLE, TWO_COLUMNS, save_figure, styled_figure
from els.novelty import Share

KEPT = Path(__file__).resolve().parent / "curves"
LABELS = ("fitted", "released")  # of patch sizes
AXES = {"images": "training images", "width": "channels of a layer"}


@dataclass(frozen=True)
class Point:
    """A run on an axis.

    Attributes:
        place: its number of images, or its width.
        found: the content of its agreement.json.
    """

    place: int
    found: dict[str, Any]

    def of(self, kind: str, metric: str = "pearson_r") -> Summary:
        """The agreement of a machine."""
        return Summary(**self.found["machines"][kind][metric])

    @property
    def width(self) -> int:
        """Channels of the network, by the configuration of its training."""
        training = yaml.safe_load(self.found["training"]["text"])
        width: int = training["model"]["net"]["init_args"]["width"]
        return width

    @property
    def ceiling(self) -> Summary | None:
        """That of a network of another seed, if there was one."""
        found = self.found.get("ceiling")
        return Summary(**found["pearson_r"]) if found else None

    @property
    def copied(self) -> str:
        """Of the network's samples, those that are copies in place; empty where not known."""
        found = self.found.get("copies", {}).get("network", {}).get("in_place")
        return str(Share(**found)) if found else ""


def main() -> None:
    """Print the tables and draw the pictures."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    for axis in AXES:
        points = read_points(axis)
        print("\n".join(table(axis, points)), end="\n\n")
        draw(axis, points, IMAGES)
    draw_scales(read_rows(), IMAGES)


def read_points(axis: str) -> list[Point]:
    """Those of an axis, in its order."""
    paths = sorted((KEPT / axis).glob("*.json"), key=lambda path: int(path.stem))
    return [Point(int(path.stem), json.loads(path.read_text())) for path in paths]


def table(axis: str, points: list[Point]) -> list[str]:
    """Medians of pearson_r of every machine, and what else goes with the axis, in Markdown."""
    kinds = [f"`{kind}`" for kind in points[0].found["machines"]]
    lines = head(AXES[axis], "val/loss", *kinds, "another seed", "copies")
    for point in points:
        machines = [str(point.of(kind)) for kind in point.found["machines"]]
        cells = [f"{point.place:,}", f"{point.found['trained']['val_loss']:.4f}", *machines]
        lines.append(f"| {' | '.join(cells)} | {point.ceiling or ''} | {point.copied} |")
    return lines


def draw(axis: str, points: list[Point], folder: Path) -> None:
    """Medians and intervals against the axis."""
    with matplotlib.rc_context(STYLE):
        figure, (ax,) = styled_figure(width=ONE_COLUMN, height=2.6)
        places = [point.place for point in points]
        for kind in points[0].found["machines"]:
            colour = COLOURS.get(ROLES.get(kind, ""), "#CC79A7")
            _line(ax, places, [point.of(kind) for point in points], color=colour, label=kind)
        if reached := {point.place: point.ceiling for point in points if point.ceiling}:
            _line(ax, [*reached], [*reached.values()], color="0.5", ls="--", label="another seed")
        ax.set_xscale("log")
        ax.set_xticks(places, [f"{place:,}" for place in places])
        ax.set_xticks([], minor=True)
        ax.set(xlabel=AXES[axis], ylabel="median pearson_r, 95 % interval", ylim=(None, 1))
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        save_figure(figure, folder, f"by_{axis}", ["png"])


def _line(ax: Axes, places: list[int], values: list[Summary], **style: Any) -> None:
    low, high = zip(*(value.ci95 for value in values), strict=True)
    ax.plot(places, [value.median for value in values], marker="o", ms=3.5, **style)
    ax.fill_between(places, low, high, color=style["color"], alpha=0.15, lw=0)


def draw_scales(rows: list[Row], folder: Path) -> None:
    """The patch sizes by t of every network that has a released row, and those released."""
    found = [(row, both) for row in rows if (both := fitted_and_released(row))]
    with matplotlib.rc_context(STYLE):
        figure, panels = styled_figure(columns=len(found), width=TWO_COLUMNS / 2 * len(found))
        for ax, (row, both) in zip(panels, found, strict=True):
            for sizes, label, colour in zip(both, LABELS, (COLOURS["els"], "0.4"), strict=True):
                ax.step(list(sizes), list(sizes.values()), where="mid", label=label, color=colour)
            ax.set(xlabel="t", ylabel="patch size, pixels", title=row.name)
            ax.legend()
        save_figure(figure, folder, "scales", ["png"])


if __name__ == "__main__":
    main()
