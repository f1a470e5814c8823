"""The files of a report, by what they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from els.analysis.along import ALONG, Along
from els.analysis.comparison import Comparison
from els.analysis.options import FORMATS
from els.analysis.report.figures import FIGURES, along_figure, comparison_figure, draw
from els.analysis.report.page import write_along_page, write_comparison_page, write_page
from els.analysis.report.style import save_figure
from els.analysis.report.tables import seed_rows, time_rows, write_csv
from els.analysis.results import Results


@dataclass(frozen=True)
class ReportFiles:
    """The files of an analysis, or of a comparison.

    Attributes:
        page: the page.
        scales: what was fitted.
        data: everything else that was measured.
        tables: as CSV.
        figures: in every format.
    """

    page: Path
    scales: tuple[Path, ...]
    data: tuple[Path, ...]
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them, the page first."""
        return (self.page, *self.scales, *self.data, *self.tables, *self.figures)


def write_report(results: Results, folder: Path, formats: Sequence[str]) -> ReportFiles:
    """Write figures, tables and the page beside the results that were saved in a folder.

    Args:
        results: what was found.
        folder: where it was saved.
        formats: of the figures.
    """
    page, per_seed, per_t = (folder / name for name in ("report.html", "per_seed.csv", "per_t.csv"))
    figures = write_figures(results, folder, formats)
    write_page(results, page)
    write_csv(per_seed, seed_rows(results))
    write_csv(per_t, time_rows(results))
    return ReportFiles(
        page=page,
        scales=tuple(results.fitted(folder)),
        data=tuple(results.measured(folder)),
        tables=(per_seed, per_t),
        figures=tuple(figures),
    )


def write_figures(results: Results, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Draw every figure that there is something to show in; returns the paths.

    Those of an earlier analysis with more to show are removed.
    """
    paths = []
    for name in FIGURES:
        figure = draw(name, results)
        if figure is None:
            for left in FORMATS:
                (folder / f"{name}.{left}").unlink(missing_ok=True)
        else:
            paths += save_figure(figure, folder, name, formats)
    return paths


def write_along(along: Along, folder: Path, formats: Sequence[str]) -> ReportFiles:
    """Write the page, the table and the curves of a training, which were saved in a folder."""
    page, table = folder / "report.html", folder / "along.csv"
    write_csv(table, along.rows())
    write_along_page(along, page)
    figures = save_figure(along_figure(along), folder, "along", formats)
    return ReportFiles(
        page=page, scales=(), data=(folder / ALONG,), tables=(table,), figures=tuple(figures)
    )


def write_comparison(
    comparison: Comparison, folder: Path, formats: Sequence[str], pages: Sequence[Path] = ()
) -> ReportFiles:
    """Write the page, which links to those of the networks, the table and the curves."""
    page, table = folder / "report.html", folder / "comparison.csv"
    write_csv(table, comparison.rows())
    write_comparison_page(comparison, page, pages)
    figures = write_comparison_figures(comparison, folder, formats)
    return ReportFiles(page=page, scales=(), data=(), tables=(table,), figures=tuple(figures))


def write_comparison_figures(
    comparison: Comparison, folder: Path, formats: Sequence[str]
) -> list[Path]:
    """Draw the curves of several networks in each format; returns the paths."""
    return save_figure(comparison_figure(comparison), folder, "by_t", formats)
