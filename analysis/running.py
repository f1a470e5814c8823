"""Analyses as they are run: loaded, shared over processes, computed, reported."""

from __future__ import annotations

import os
import resource
import sys
import textwrap
import webbrowser
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from els.analysis.again import check_unique, comparison_folder, name_of, print_page, write_and_log
from els.analysis.along import Along
from els.analysis.launch import alone, is_first, launch, work_in
from els.analysis.options import Compute, Output, Protocol, Source
from els.analysis.overwriting import check_earlier
from els.analysis.pipeline import analyse
from els.analysis.plan import plan
from els.analysis.report.findings import findings
from els.analysis.report.tables import (
    agreement_tables,
    audits_text,
    locality_table,
    pairs_table,
    probes_text,
    scales_table,
)
from els.analysis.report.write import ReportFiles, write_report
from els.analysis.results import AGREEMENT, Results, scales_path
from els.analysis.study import Study, load_study
from els.analysis.tracking.log import tracked
from els.analysis.training import UNMEASURED, run_along
from els.calibration import Scales
from els.console import console, key_values, progress
from els.errors import InputError
from els.models.snapshots import SNAPSHOTS, snapshots_in
from els.models.tracking import wandb_mode
from els.reading import within
from els.work import Work

Group = TypeVar("Group")


def run(options: dict[str, Any]) -> Results | list[Results] | Along | None:
    """Analyse one network, or several and compare them, or the snapshots of a training.

    Args:
        options: of the command line by name, and as `told` the names of those that it gave itself,
            which no configuration did.
    """
    if any(map(snapshots_in, options["checkpoint"])):
        options = _without_unmeasured(options)
    sources = [_group(Source, {**options, "checkpoint": one}) for one in options["checkpoint"]]
    protocol = _group(Protocol, options)
    _print_replaced(protocol, options)
    compute = _group(Compute, options)
    output = _group(Output, options)
    along = [one for one in sources if snapshots_in(one.checkpoint)]
    if along and len(sources) > 1:
        raise InputError(
            f"'{along[0].checkpoint}' holds the snapshots of a training, which are analysed by "
            "themselves; give it alone"
        )
    if along:
        return run_along(along[0], protocol, compute, output)
    if output.name == SNAPSHOTS:
        raise InputError(
            f"name is '{SNAPSHOTS}', which the analysis of a training's snapshots has; give another"
        )
    outputs = [_own_output(output, source, several=len(sources) > 1) for source in sources]
    pairs = list(zip(sources, outputs, strict=True))
    folders = [out.analysis(source) for source, out in pairs]
    check_unique(folders)
    found = [run_one(source, protocol, compute, out) for source, out in pairs]
    results = [one for one in found if one is not None]
    if len(found) == 1 or not results:
        return results[0] if results else None
    if is_first():
        write_and_log(results, folders, comparison_folder(folders, output.out), output)
    return results


def run_one(source: Source, protocol: Protocol, compute: Compute, output: Output) -> Results | None:
    """Analyse one network, and report it where this is the first process; None of a dry run."""
    folder = within(output.folder(source), output.analysis(source))
    study = load_study(source, protocol, compute, run=name_of(folder))
    if output.logger == "wandb":
        wandb_mode()  # refused before the folder is made
    with alone(folder, compute):
        return _run_study(study, folder, source, compute, output)


def _run_study(
    study: Study, folder: Path, source: Source, compute: Compute, output: Output
) -> Results | None:
    replaces = check_earlier(folder, study.provenance, force=compute.force)
    console.print(key_values(_summary(study, folder)))
    _print_earlier(folder, compute)
    processes = launch(compute, torch.device(study.starts.device))
    study = study.to(processes.device)
    first = not processes.rank
    if first:
        console.print(plan(study, processes=processes.world))
    if compute.dry_run:
        return None
    with tracked(study, folder, source, output, anew=compute.force, first=first) as tracker:
        # Where it replaces another, parts of that one that are the same still serve.
        anew = compute.force and not replaces
        shown = tracker.progress(progress)
        work = work_in(folder, compute, processes, shown, anew=anew)

        def fitted(scales: Scales) -> None:
            tracker.fitted(scales)
            if first and not (folder / AGREEMENT).exists():  # what is finished stays as it is
                kinds = [one.kind for one in study.machines if one.scale]
                scales.save(scales_path(folder, scales.machine, kinds))

        results = analyse(study, work, fitted=fitted)
        if first:
            tracker.stage("writing the report")
            files = _write(results, work, folder, output)
            tracker.finished(results, files)
        work.prune()
    if first:
        _print_findings(results, files, output)
    return results


def _write(results: Results, work: Work, folder: Path, output: Output) -> ReportFiles:
    """Write what was found."""
    if not work.computed:
        console.print("This analysis was finished before; --force computes it again.")
    for kind, seen in results.seen.items():
        shares = (f"{t:.2f}: {share:.2%}" for t, share in zip(results.t, seen, strict=True))
        console.print(f"{kind} compared with, of all patches at t  " + "  ".join(shares))
    console.print("writing the report ...")
    results.save(folder, findings=findings(results))
    return write_report(results, folder, output.formats)


def _print_findings(results: Results, files: ReportFiles, output: Output) -> None:
    """Print what was found; the sentences and the page come last."""
    console.print(f"peak memory {_peak_gigabytes():.2f} GB")
    if results.probes is not None:
        console.print(textwrap.fill(probes_text(results), console.width))
    if results.audits_by_stage:
        console.print(textwrap.fill(audits_text(results), console.width))
    if results.scales:
        console.print(scales_table(results.scales))
    for table in agreement_tables(results):
        console.print(table)
    if results.locality_scores:
        console.print(locality_table(results))
    if results.pairs:
        console.print(pairs_table(results))
    for sentence in findings(results).values():
        console.print(textwrap.fill(sentence, console.width))
    print_page(files.page, len(files.paths) - 1)
    if output.open_page:
        _open(files.page)


def _open(page: Path) -> None:
    """Show the page in a browser; without a desktop some would open in the terminal instead."""
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform in ("darwin", "win32") or any(map(os.environ.get, displays)):
        webbrowser.open(page.resolve().as_uri())
    else:
        console.print("(there is no desktop here: copy the page to where one is; it is one file)")


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
        "tolerance": _tolerance_text(float(protocol.tolerance)),
        "seeds": f"{protocol.calibration_seeds} to calibrate on, {evaluation} to compare",
        "steps": f"network {steps}, machines {protocol.steps}",
        "engine": f"{study.engine} on {study.starts.device}",
        "results": str(folder),
    }


def _tolerance_text(tolerance: float) -> str:
    if not tolerance:
        return "none: every training patch is compared"
    return f"{tolerance:g} of x0_hat where a part of the patches will do (--tolerance 0 is exact)"


def _print_earlier(folder: Path, compute: Compute) -> None:
    """Say why a finished analysis is computed again, where what it was made from is not there."""
    finished, parts = (folder / name for name in (AGREEMENT, ".work"))
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


def _print_replaced(protocol: Protocol, options: dict[str, Any]) -> None:
    """Say which options the protocol has set, and what stood there."""
    for name, value in options.items():
        kept = getattr(protocol, name, value)
        if kept != value:
            console.print(
                f"protocol {protocol.protocol} sets {name} to {kept}, in place of {value}"
            )


def _without_unmeasured(options: dict[str, Any]) -> dict[str, Any]:
    """The options without those of a configuration that are not measured along a training."""
    left_out = {
        name: value
        for name, value in UNMEASURED.items()
        if options[name] != value and name not in options["told"]
    }
    if left_out:
        console.print(
            f"of the configuration {' and '.join(left_out)} are left out: that is not measured "
            "along a training"
        )
    return {**options, **left_out}


def _group(kind: type[Group], options: dict[str, Any]) -> Group:
    return kind(**{one.name: options[one.name] for one in fields(kind)})  # type: ignore[arg-type]


def _peak_gigabytes() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
