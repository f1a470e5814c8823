"""What is made again from finished analyses alone: their figures, and comparisons."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from els.analysis.comparison import Comparison
from els.analysis.options import Output, chosen_formats
from els.analysis.report.tables import comparison_table
from els.analysis.report.words import comparison_headline
from els.analysis.report.write import write_comparison, write_comparison_figures, write_figures
from els.analysis.results import AGREEMENT, Results
from els.analysis.tracking.log import log_comparison
from els.console import console
from els.errors import InputError
from els.reading import has


def analysis_folder(given: str | Path) -> Path:
    """The folder of results that a run's folder, or that folder itself, stands for.

    Raises:
        InputError: when there is no finished analysis; the message names those that are there.
    """
    folder = Path(given)
    for found in (folder, folder / "analysis"):
        if has(folder, found / AGREEMENT):
            return found
    finished = (path for path in folder.glob(f"analysis-*/{AGREEMENT}") if has(folder, path))
    others = sorted(str(path.parent) for path in finished)
    if len(others) == 1:
        return Path(others[0])
    way_out = f"analyse it first: python analyze.py {shlex.quote(str(folder))}"
    if others:
        way_out = f"give one of {', '.join(others)}"
    raise InputError(f"'{folder}' holds no complete analysis; {way_out}")


def name_of(folder: Path) -> str:
    """What a folder of results is called: its run, and the analysis where it has a name."""
    whole = folder.resolve()
    return f"{whole.parent.name}{whole.name.removeprefix('analysis')}"


def figures(options: dict[str, Any]) -> list[Path]:
    """Draw the figures of finished analyses again, from what is saved alone; returns the paths."""
    formats, out = chosen_formats(options["formats"]), options["out"]
    folders = [analysis_folder(run) for run in options["runs"]]
    check_unique(folders)
    every = [Results.load(folder) for folder in folders]
    paths = []
    for folder, results in zip(folders, every, strict=True):
        where = folder
        if out is not None:
            where = Path(out, name_of(folder)) if len(every) > 1 else Path(out)
        paths += write_figures(results, where, formats)
    if len(every) > 1:
        where = comparison_folder(folders, out)
        paths += write_comparison_figures(Comparison(tuple(every)), where, formats)
    for path in paths:
        console.print(str(path))
    return paths


def compare(options: dict[str, Any]) -> Comparison:
    """Compare finished analyses, from what is saved alone."""
    folders = [analysis_folder(run) for run in options["runs"]]
    if len(folders) < 2:
        raise InputError(f"'{options['runs'][0]}' is one run; name at least two to compare")
    check_unique(folders)
    results = [Results.load(folder) for folder in folders]
    for difference in Comparison(tuple(results)).differences:
        console.print(difference)
    told = {name: options[name] for name in ("logger", "project", "relog")}
    output = Output(figures=options["formats"], **told)
    return write_and_log(results, folders, comparison_folder(folders, options["out"]), output)


def write_and_log(
    results: Sequence[Results], folders: Sequence[Path], folder: Path, output: Output
) -> Comparison:
    """One row a network, one column a machine: printed, as CSV, figures and a page, and to W&B."""
    comparison = Comparison(tuple(results))
    console.print(comparison_table(comparison, console.width))
    pages = [one / "report.html" for one in folders]
    files = write_comparison(comparison, folder, output.formats, pages)
    console.print(textwrap.fill(comparison_headline(comparison), console.width))
    log_comparison(comparison, files, folder, output)
    print_page(files.page, len(files.paths) - 1)
    return comparison


def comparison_folder(folders: Sequence[Path], out: str | None) -> Path:
    """Where a comparison goes: a folder for these runs, so that none replaces another."""
    if out is not None:
        return Path(out, "comparison")
    names = [name_of(folder) for folder in folders]
    joined = "_vs_".join(names) if len(names) < 4 else f"{names[0]}_vs_{len(names) - 1}_others"
    return folders[0].parent.parent / "comparison" / joined


def print_page(page: Path, others: int) -> None:
    """The last line: where to look."""
    console.print(f"open  {page}  (and {others} files beside it)")


def check_unique(folders: Sequence[Path]) -> None:
    """Refuse analyses that are called the same.

    Raises:
        InputError: when two are.
    """
    names = [name_of(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise InputError(f"the runs have the same name, so their results would be mixed: {names}")
