"""The command line of analyses: `run`, which needs not be named, `figures` and `dashboard`."""

from __future__ import annotations

import os
import resource
import sys
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only

from els.analysis.comparison import Comparison
from els.analysis.launch import launch
from els.analysis.options import FORMATS, Compute, Output, Protocol, Source, chosen_formats
from els.analysis.pipeline import analyse
from els.analysis.report.tables import (
    agreement_tables,
    comparison_table,
    pairs_table,
    probes_text,
    scales_table,
)
from els.analysis.report.write import (
    ReportFiles,
    write_comparison,
    write_comparison_figures,
    write_figures,
    write_report,
)
from els.analysis.results import Results
from els.analysis.study import RESULTS_VERSION, Study, load_study
from els.analysis.tracking.dashboard import write_dashboard
from els.analysis.tracking.log import log_analysis, log_comparison
from els.console import Parser, console, exit_cleanly, key_values, progress
from els.errors import InputError
from els.machines.registry import described
from els.work import Work

DESCRIPTION = """Measure how well closed-form denoisers predict trained networks.

python analyze.py --checkpoint runs/digits_resnet/checkpoints/last.ckpt
python analyze.py --checkpoint A.ckpt B.ckpt C.ckpt --machines all
python analyze.py figures runs/digits_resnet --formats pdf,png (again, from saved results alone)
python analyze.py dashboard --project els (a workspace of W&B; dashboard --help says more)
"""
Group = TypeVar("Group")


def command() -> None:
    """The command `els-analyze`."""
    with exit_cleanly():
        main()


def main(args: Sequence[str] | None = None) -> Any:
    """Run the command line.

    Args:
        args: stands in for `sys.argv[1:]`.

    Returns:
        what the command returns: of `run` the results, a list of them for several checkpoints.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] not in _COMMANDS:
        args.insert(0, "run")
    console.quiet = not _is_first()
    options = build_parser().parse_args(args).as_dict()
    return _COMMANDS[options["command"]](options[options["command"]])


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(prog="analyze.py", description=DESCRIPTION)
    commands = parser.add_subcommands(dest="command")
    commands.add_subcommand("run", _run_parser(), help="analyse networks; the default")
    commands.add_subcommand("figures", _figures_parser(), help="draw figures again")
    commands.add_subcommand("dashboard", _dashboard_parser(), help="a workspace of W&B")
    return parser


# --- run ----------------------------------------------------------------------------------------


def _run_parser() -> Parser:
    parser = Parser(description=DESCRIPTION, epilog=f"Machines:\n\n{described()}")
    parser.add_argument("-c", "--config", action="config", help="a YAML file of these options")
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=str,
        required=True,
        help="what train.py wrote, wandb:entity/project/name:alias, a network of the paper's code, "
        "or a folder of diffusers; several are compared",
    )
    parser.add_class_arguments(Source, None, skip={"checkpoint"})
    for group in (Protocol, Compute, Output):
        parser.add_class_arguments(group, None)
    return parser


def run(options: dict[str, Any]) -> Results | list[Results]:
    """Analyse one network, or several and compare them."""
    sources = [_group(Source, {**options, "checkpoint": one}) for one in options["checkpoint"]]
    protocol = _group(Protocol, options)
    compute = _group(Compute, options)
    output = _group(Output, options)
    outputs = [_own_output(output, source, several=len(sources) > 1) for source in sources]
    _check_unique([out.folder(one).name for out, one in zip(outputs, sources, strict=True)])
    results = [
        run_one(source, protocol, compute, out)
        for source, out in zip(sources, outputs, strict=True)
    ]
    if len(results) == 1:
        return results[0]
    if _is_first():
        compare(results, output)
    return results


def run_one(source: Source, protocol: Protocol, compute: Compute, output: Output) -> Results:
    """Analyse one network, and report it where this is the first process."""
    folder = output.folder(source) / "analysis"
    study = load_study(source, protocol, compute, run=folder.parent.name)
    console.print(key_values(_summary(study, folder)))
    _print_earlier(folder, compute)
    processes = launch(compute, torch.device(study.starts.device))
    study = study.to(processes.device)
    work = Work(
        folder / ".work",
        context=RESULTS_VERSION,
        batch=compute.batch,
        rank=processes.rank,
        world=processes.world,
        barrier=processes.barrier,
        progress=progress,
    )
    if compute.force:
        work.clear()
    results = analyse(study, work)
    if not processes.rank:
        _report(results, work, folder, source, output)
    work.prune()
    return results


def _report(
    results: Results, work: Work, folder: Path, source: Source, output: Output
) -> ReportFiles:
    """Write, print and log what was found."""
    if not work.computed:
        console.print("This analysis was finished before; --force true computes it again.")
    for kind, seen in results.seen.items():
        shares = (f"{t:.2f}: {share:.0%}" for t, share in zip(results.t, seen, strict=True))
        console.print(f"{kind} compared with, at t  " + "  ".join(shares))
    console.print("writing the report ...")
    results.save(folder)
    files = write_report(results, folder, output.formats)
    if results.probes is not None:
        console.print(probes_text(results))
    console.print(f"peak memory {_peak_gigabytes():.2f} GB")
    for table in agreement_tables(results):
        console.print(table)
    if results.pairs:
        console.print(pairs_table(results))
    if results.scales:
        console.print(scales_table(results.scales))
    for path in files.paths:
        console.print(str(path))
    if output.logger == "wandb":
        log_analysis(results, files, source, output)
    if output.open_page and _has_desktop():
        webbrowser.open(files.page.resolve().as_uri())
    return files


def compare(results: Sequence[Results], output: Output) -> None:
    """One row a network, one column a machine: printed, as CSV, as figures, and to W&B."""
    folder = Path(output.out or "runs") / "comparison"
    comparison = Comparison(tuple(results))
    console.print(comparison_table(comparison, console.width))
    files = write_comparison(comparison, folder, output.formats)
    for path in files.paths:
        console.print(str(path))
    if output.logger == "wandb":
        log_comparison(comparison, files, folder, output.project)


def _summary(study: Study, folder: Path) -> dict[str, str]:
    """What is about to be analysed, as labels and values."""
    protocol, facts = study.protocol, study.provenance.network
    c, h, w = study.images.image_shape
    classes = "unconditional" if facts.num_classes is None else f"{facts.num_classes} classes"
    steps = " and ".join(map(str, protocol.network_steps))
    evaluation = len(protocol.evaluation)
    return {
        "network": f"{facts.name}, {facts.padding} padding, {classes}",
        "parameters": f"{facts.parameters:,}",
        "receptive field": facts.field_text,
        "images": f"{study.images.description}, {c} x {h} x {w}",
        "machines": ", ".join(machine.kind for machine in study.machines),
        "seeds": f"{protocol.calibration_seeds} to calibrate on, {evaluation} to compare",
        "steps": f"network {steps}, machines {protocol.steps}",
        "engine": f"{study.engine} on {study.starts.device}",
        "results": str(folder),
    }


def _print_earlier(folder: Path, compute: Compute) -> None:
    """Say why a finished analysis is computed again, where what it was made from is not there."""
    finished, parts = (folder / name for name in ("agreement.json", ".work"))
    if finished.exists() and not parts.is_dir() and not compute.force:
        console.print(
            "The analysis that is here has no parts to take up (it is of an earlier version, or "
            "its .work folder was removed): it is computed anew."
        )


def _own_output(output: Output, source: Source, *, several: bool) -> Output:
    """Where one of several analyses goes: below `out`, each by its own name."""
    if output.out is None or not several:
        return output
    return replace(output, out=str(Path(output.out, source.home.name)))


def _group(kind: type[Group], options: dict[str, Any]) -> Group:
    return kind(**{one.name: options[one.name] for one in fields(kind)})  # type: ignore[arg-type]


def _is_first() -> bool:
    """Whether this is the first of the processes, or the only one."""
    return not getattr(rank_zero_only, "rank", 0)


def _check_unique(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise InputError(f"the runs have the same name, so their results would be mixed: {names}")


def _peak_gigabytes() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _has_desktop() -> bool:
    """Whether a browser would have a window; without one, some open in the terminal instead."""
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, displays))


# --- figures ------------------------------------------------------------------------------------


def _figures_parser() -> Parser:
    parser = Parser(description="Draw the figures of finished analyses again, from what is saved.")
    parser.add_argument("runs", nargs="+", type=str, help="runs' folders, such as runs/digits")
    parser.add_argument("--formats", default="png", help=f"some of {', '.join(FORMATS)}: pdf,png")
    parser.add_argument("--out", type=str | None, help="a folder; default: beside the results")
    return parser


def figures(options: dict[str, Any]) -> list[Path]:
    """Draw the figures of finished analyses again, from what is saved alone; returns the paths."""
    formats, runs = chosen_formats(options["formats"]), [Path(run) for run in options["runs"]]
    every = [Results.load(run / "analysis") for run in runs]
    names = [run.resolve().name for run in runs]
    _check_unique(names)
    several, paths, out = len(runs) > 1, [], options["out"]
    for one, name, results in zip(runs, names, every, strict=True):
        folder = one / "analysis"
        if out is not None:
            folder = Path(out, name) if several else Path(out)
        paths += write_figures(results, folder, formats)
    if several:
        folder = Path(out or runs[0].parent, "comparison")
        paths += write_comparison_figures(Comparison(tuple(every)), folder, formats)
    for path in paths:
        console.print(str(path))
    return paths


# --- dashboard ----------------------------------------------------------------------------------


def _dashboard_parser() -> Parser:
    parser = Parser(
        description="Save a workspace for training and analysis to W&B; without a login, write it "
        "to a file."
    )
    parser.add_argument("--project", type=str, default="els", help="the W&B project")
    parser.add_argument("--entity", type=str | None, help="user or team; default: your own")
    parser.add_argument(
        "--out",
        type=str | None,
        help="write it to this file, logged in or not; default: runs/dashboard.json without a "
        "login",
    )
    return parser


def dashboard(options: dict[str, Any]) -> None:
    """Save a workspace to W&B, or write it to a file."""
    write_dashboard(**options)


_COMMANDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "run": run,
    "figures": figures,
    "dashboard": dashboard,
}
