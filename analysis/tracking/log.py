"""Analyses and comparisons as runs of Weights & Biases: the only place that starts any."""

from __future__ import annotations

import secrets
from pathlib import Path

import wandb

from els.analysis.comparison import Comparison
from els.analysis.options import Output, Source
from els.analysis.report.write import ReportFiles
from els.analysis.results import Results
from els.analysis.tracking import content
from els.console import console
from els.errors import reason
from els.models.artifacts import PREFIX, is_artifact, version_of
from els.models.checkpoints import find_checkpoint
from els.models.tracking import checkpoint_name, print_run_link, wandb_settings

Run = wandb.sdk.wandb_run.Run


def log_analysis(results: Results, files: ReportFiles, source: Source, output: Output) -> None:
    """Log an analysis as a run of the training run's group, with its files as artifacts."""
    folder = output.folder(source)
    settings = wandb_settings(folder.name, folder, output.project, "analysis")
    run = wandb.init(**settings, config=content.config(results))
    run.define_metric("analysis/t")
    run.define_metric("analysis/*", step_metric="analysis/t")
    for row in content.rows_by_t(results):
        run.log(row)
    run.log(content.panels(results, files))
    run.summary.update(content.network_numbers(results))
    *scales, report = content.artifacts(
        results, files, name=folder.name, checkpoint=use_checkpoint(run, source)
    )
    logged = [run.log_artifact(artifact) for artifact in scales]
    linked = bool(scales) and run.settings.mode == "online"
    if linked:  # the report follows from the scales, so that a run of its own has them as input
        logged = [artifact.wait() for artifact in logged]
    else:
        run.log_artifact(report)
    print_run_link(run, console.print)
    run.finish()
    if linked:
        named = wandb_settings(folder.name, folder, output.project, "report")
        # An id of its own, also where the environment gives the run of a sweep its id.
        with wandb.init(**named, id=secrets.token_hex(4)) as after:
            after.use_artifact(logged[0])
            after.log_artifact(report)


def use_checkpoint(run: Run, source: Source) -> str | None:
    """Make the checkpoint's artifact an input of the run; its name, or None where it has none.

    Offline, where a run cannot have inputs, the name is the one under which training logs it.
    """
    named = is_artifact(source.checkpoint)
    if named:
        name = source.checkpoint.removeprefix(PREFIX)
    elif find_checkpoint(source.checkpoint).suffix == ".ckpt":
        name = checkpoint_name(source.home.name)
    else:
        return None
    if run.settings.mode != "online":
        return name
    try:
        collection = f"{run.entity}/{run.project}/{name}"
        used = name if named else version_of(find_checkpoint(source.checkpoint), collection)
        return run.use_artifact(used).qualified_name
    except Exception as error:  # the lineage is an extra, whatever W&B answers
        console.print(f"W&B shows this run without its checkpoint '{name}' ({reason(error)})")
        return None


def log_comparison(comparison: Comparison, files: ReportFiles, folder: Path, project: str) -> None:
    """Log the table of several networks as a run of its own."""
    run = wandb.init(
        **wandb_settings("comparison", folder, project, "comparison"),
        config={"checkpoints": [one.provenance.checkpoint.path for one in comparison.results]},
    )
    run.log(content.comparison_panels(comparison, files))
    print_run_link(run, console.print)
    run.finish()
