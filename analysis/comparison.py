"""Several networks against the same machines: one row a network, one column a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.table import Table

from els.agreement import METRICS
from els.analysis.report.charts import comparison_charts
from els.analysis.report.page import chart_section, document, html_table
from els.analysis.report.style import (
    STYLE,
    TWO_COLUMNS,
    machine_colour,
    machine_marker,
    save_figure,
    styled_figure,
)
from els.analysis.report.tables import HEAD_RULE, interval_text, write_csv
from els.analysis.results import Results
from els.files import replacing

_METRIC_WIDTH = 11
_CELL_WIDTH = 22


@dataclass(frozen=True)
class Comparison:
    """The results of several analyses.

    Attributes:
        results: one for each network.
    """

    results: tuple[Results, ...]

    @property
    def names(self) -> list[str]:
        """The networks' runs."""
        names = [str(one.context.get("run", i)) for i, one in enumerate(self.results)]
        return [
            name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)
        ]

    @cached_property
    def summaries(self) -> list[dict[str, Any]]:
        """The content of each agreement.json."""
        return [one.summary() for one in self.results]

    @property
    def kinds(self) -> list[str]:
        """Every machine of any of them, in the order of their first appearance."""
        return list(dict.fromkeys(kind for one in self.results for kind in one.machines))

    def table(self, width: int) -> Table:
        """Medians and intervals of each metric, for a terminal of so many columns.

        One row a network and one column a machine where they fit, else the other way round.
        """
        fits = _METRIC_WIDTH + _CELL_WIDTH * (1 + len(self.kinds)) <= width
        rows, columns = (self.names, self.kinds) if fits else (self.kinds, self.names)
        machines = dict(zip(self.names, (one["machines"] for one in self.summaries), strict=True))
        table = Table(
            title="Agreement with each network: median [95 % interval over seeds]",
            box=HEAD_RULE, title_justify="left",
        )  # fmt: skip
        for name in ("metric", "network" if fits else "machine", *columns):
            table.add_column(name, justify="right" if name in columns else "left")
        for metric in METRICS:
            for i, row in enumerate(rows):
                cells = []
                for column in columns:
                    name, kind = (row, column) if fits else (column, row)
                    value = machines[name].get(kind)
                    cells.append("" if value is None else interval_text(value[metric]))
                table.add_row("" if i else metric, row, *cells)
            table.add_section()
        return table

    def rows(self) -> list[dict[str, Any]]:
        """One row a network: seeds, steps, and every metric of every machine with its interval."""
        rows = []
        for name, summary in zip(self.names, self.summaries, strict=True):
            row: dict[str, Any] = {"network": name, "seeds": summary["seeds"]}
            row |= {f"{side}_steps": n for side, n in summary["steps"].items()}
            for kind in self.kinds:
                for metric in METRICS:
                    value = summary["machines"].get(kind, {}).get(metric)
                    low, high = value["ci95"] if value else (None, None)
                    key = f"{kind}/{metric}"
                    row |= {key: value and value["median"], f"{key}_low": low, f"{key}_high": high}
            rows.append(row)
        return rows

    def by_t_figure(self) -> Figure:
        """Agreement of the x0_hats at each step, a panel for each network."""
        columns = min(3, len(self.results))
        rows = -(-len(self.results) // columns)
        figure, axes = styled_figure(
            rows, columns, panels=len(self.results), width=TWO_COLUMNS, height=2.1 * rows + 0.7,
            share=True,
        )  # fmt: skip
        looks = {kind: self._look(kind) for kind in self.kinds}
        for ax, name, one in zip(axes, self.names, self.results, strict=True):
            for kind, values in one.by_t.items():
                ax.plot(one.t, np.median(values.numpy(), axis=1), **looks[kind])
            ax.set(xlim=(1.02, 0), title=name)
        for ax in axes[-columns:]:
            ax.set_xlabel("t (1 = pure noise)")
        figure.supylabel("pearson_r of x0_hat, median over seeds", fontsize=8)
        lines = [Line2D([], [], **look) for look in looks.values()]
        figure.legend(lines, self.kinds, loc="outside lower center", ncols=5)
        return figure

    def _look(self, kind: str) -> dict[str, Any]:
        """Colour, dashes and marker of a machine."""
        i = self.kinds.index(kind)
        colour, dashes = machine_colour(self.kinds, kind)
        return {"color": colour, "ls": dashes, "lw": 1, "ms": 3.5,
                "marker": machine_marker(self.kinds, kind), "markevery": (i % 5, 5)}  # fmt: skip

    def write(self, folder: Path, *, formats: Sequence[str] = ("png",)) -> list[Path]:
        """Write the page, the table as CSV and the curves in each format; returns the paths."""
        path = folder / "comparison.csv"
        write_csv(path, self.rows())
        with replacing(folder / "report.html") as partial:
            partial.write_text(self.page())
        return [folder / "report.html", path, *self.write_figures(folder, formats=formats)]

    def write_figures(self, folder: Path, *, formats: Sequence[str] = ("png",)) -> list[Path]:
        """Write the curves in each of the formats; returns the paths."""
        with matplotlib.rc_context(STYLE):
            return save_figure(self.by_t_figure(), folder, "by_t", formats)

    def page(self) -> str:
        """The table and the curves as one self-contained page."""
        found = comparison_charts(self.results, self.names)
        parts = [
            f'<p class="headline">{len(self.names)} networks, predicted by closed-form machines '
            "from the same noise.</p>",
            '<p class="caption">Median over seeds [95 % bootstrap interval]. The curves are those '
            "of each network's first machine.</p>",
        ]
        for metric in METRICS:
            rows = [
                [name, *(interval_text(one["machines"][kind][metric])
                         if kind in one["machines"] else "" for kind in self.kinds)]
                for name, one in zip(self.names, self.summaries, strict=True)
            ]  # fmt: skip
            parts.append(f"<h2>{metric}</h2>{html_table(['network', *self.kinds], rows)}")
        for name, heading, text in (
            ("scales", "Fitted scale", "Medians and the middle 80 % of the calibration seeds."),
            ("by_t", "Agreement by time", "Medians and quartiles of the seeds; noise on the left."),
        ):
            parts.append(chart_section(name, heading, text, found[name]))
        facts = [
            [name, str(one.context.get("network")), str(one.seeds[0]), str(one.seeds[-1]),
             str(one.context.get("checkpoint", {}).get("path"))]
            for name, one in zip(self.names, self.results, strict=True)
        ]  # fmt: skip
        header = ["network", "what it is", "first seed", "last seed", "checkpoint"]
        parts.append(f"<h2>How this was made</h2>{html_table(header, facts)}")
        return document("Comparison of networks", "".join(parts), {"charts": found})
