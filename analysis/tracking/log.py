"""Analyses and comparisons as runs of Weights & Biases: the only place that starts any."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import wandb

from els.analysis.along import Along
from els.analysis.comparison import Comparison
from els.analysis.options import Output, Source
from els.analysis.report.words import along_headline
from els.analysis.report.write import ReportFiles
from els.analysis.results import Results
from els.analysis.study import Study
from els.analysis.tracking import config, content
from els.analysis.tracking.record import LoggedRun, digest_of, new_id, run_of
from els.analysis.tracking.tracker import LiveRun, Run, Tracker
from els.console import console
from els.errors import InputError, reason
from els.models.artifacts import PREFIX, full_name, is_artifact, version_of
from els.models.checkpoints import find_checkpoint
from els.models.tracking import (
    Patience,
    checkpoint_name,
    forgiving,
    offline_instead,
    print_run_link,
    wandb_mode,
    wandb_settings,
)
from els.models.user_code import is_code

_INTERRUPTED = 130  # the exit code of a command that was stopped with Ctrl-C


@contextmanager
def tracked(
    study: Study,
    folder: Path,
    source: Source,
    output: Output,
    *,
    anew: bool = False,
    first: bool = True,
) -> Iterator[Tracker]:
    """Log an analysis from its beginning to its end, as a run of the training run's group.

    One that was interrupted goes on as the same run, and one that is finished is not logged again.
    The run ends however the analysis does: as failed where that was an error or Ctrl-C.

    Args:
        study: what is analysed.
        folder: where its results are kept.
        source: where the network comes from.
        output: where it is logged, and whether again.
        anew: log it as a new run, since it is computed anew.
        first: whether this is the first of the processes that share it, the only one that logs.

    Raises:
        InputError: when W&B refuses the run.
    """
    if not first or not _is_logged(output):
        yield Tracker()
        return
    digest = digest_of(output.project, config.known_by(study.provenance))
    record = run_of(folder, digest, anew=anew or output.relog)
    if record.finished:
        _say_finished(record)
        yield Tracker()
        return
    home, name = output.folder(source), study.provenance.run
    described = {"config": config.config(study), "tags": config.tags(study)}
    with _run(record, home, name, output, "analysis", described) as patience:
        run = patience.run
        live = LiveRun(patience, replace(record, where=_where(run)), folder)
        run.summary.update(config.network_numbers(study))
        print_run_link(run, console.print)  # now, so that the analysis can be watched
        yield live
        if live.report is None:
            return
        follows, logged = None, False
        results, files = live.report
        with forgiving("the files"):
            follows = patience.wait_for(lambda: _log_files(run, results, files, name, source))
            live.stage("finished")
            logged = True
    if not logged or patience.lost:
        return
    replace(live.record, finished=True).save(folder)
    if follows is not None:
        with forgiving("the report"):
            _log_what_follows(*follows, home, name, output)
    if _is_online(run):  # what is to be uploaded later is needed still
        shutil.rmtree(_kept(run), ignore_errors=True)


@contextmanager
def _run(
    record: LoggedRun,
    home: Path,
    name: str,
    output: Output,
    job_type: str,
    described: Mapping[str, Any],
) -> Iterator[Patience]:
    """What waits for a run that is finished as its body ends: well, or as failed."""
    with _own_staging():
        # An analysis with a name of its own is in the group of its run too.
        settings = wandb_settings(home.name, home, output.project, job_type)
        settings["name"] = f"{name}-{job_type}"
        described = {"id": record.id, "resume": "allow", **described}
        try:
            run = _begun(settings, described)
        except wandb.errors.Error as error:
            raise InputError(
                f"W&B refuses the run ({reason(error)}); WANDB_MODE=offline logs it here, to be "
                "uploaded later, and --logger none does without"
            ) from error
        patience, code = Patience(run), 0
        try:
            yield patience
        except BaseException as error:
            code = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
            raise
        finally:
            with forgiving("the end of this run"):
                patience.wait_for(lambda: run.finish(exit_code=code))


def _begun(settings: dict[str, Any], described: Mapping[str, Any]) -> Run:
    """A run that has begun, offline where W&B cannot be reached.

    Raises:
        wandb.errors.Error: when W&B refuses it.
    """
    try:
        return wandb.init(**settings, **described)
    except wandb.errors.CommError as error:
        offline = offline_instead(settings, error)
        if offline is None:
            raise
        return wandb.init(**offline, **described)


@contextmanager
def _own_staging() -> Iterator[None]:
    """Each run stages what it uploads below its own folder, unless the environment says where."""
    told = wandb.env.DATA_DIR in os.environ
    try:
        yield
    finally:
        if not told:
            os.environ.pop(wandb.env.DATA_DIR, None)


def _log_files(
    run: Run, results: Results, files: ReportFiles, name: str, source: Source
) -> tuple[wandb.Artifact, wandb.Artifact] | None:
    """Log the files as artifacts; the scales and the report where these are to be linked."""
    checkpoint = use_checkpoint(run, source)
    *scales, report = content.artifacts(
        results, files, name=name, checkpoint=checkpoint, kept=_kept(run)
    )
    logged = [run.log_artifact(artifact) for artifact in scales]
    if scales and _is_online(run):
        # The report follows from the scales: a run of its own has them as input.
        return logged[0].wait(), report
    run.log_artifact(report)
    return None


def _log_what_follows(
    scales: wandb.Artifact, report: wandb.Artifact, home: Path, name: str, output: Output
) -> None:
    """Log the report as what the scales led to."""
    with _run(LoggedRun(new_id(), ""), home, name, output, "report", {}) as patience:
        patience.wait_for(lambda: patience.run.use_artifact(scales))
        patience.wait_for(lambda: patience.run.log_artifact(report))


def _kept(run: Run) -> Path:
    """Where the files of a run's artifacts are until they are uploaded."""
    return Path(run.settings.sync_dir, "artifacts")


def _is_logged(output: Output) -> bool:
    return output.logger == "wandb" and wandb_mode() != "disabled"


def _is_online(run: Run) -> bool:
    return run.settings.mode == "online"


def _where(run: Run) -> str:
    """Where a run is to be seen."""
    if _is_online(run):
        return run.url or run.id
    folder = run.settings.sync_dir
    return f"offline: wandb sync {min(folder, os.path.relpath(folder), key=len)}"


def _say_finished(record: LoggedRun) -> None:
    console.print(f"W&B has this already, run {record.id} ({record.where}); --relog logs it again")


def use_checkpoint(run: Run, source: Source) -> str | None:
    """Make the checkpoint's artifact an input of the run; its name, or None where it has none.

    Offline, where a run cannot have inputs, the name is the one under which training logs it.
    """
    named = is_artifact(source.checkpoint)
    if named:
        name = source.checkpoint.removeprefix(PREFIX)
    elif not is_code(source.checkpoint) and find_checkpoint(source.checkpoint).suffix == ".ckpt":
        name = checkpoint_name(source.home.name)
    else:
        return None
    if not _is_online(run):
        return name
    try:
        collection = f"{run.entity}/{run.project}/{name}"
        used = (
            full_name(source.checkpoint)
            if named
            else version_of(find_checkpoint(source.checkpoint), collection)
        )
        return run.use_artifact(used).qualified_name
    except Exception as error:  # the lineage is an extra, whatever W&B answers
        console.print(f"W&B shows this run without its checkpoint '{name}' ({reason(error)})")
        return None


def log_along(along: Along, files: ReportFiles, folder: Path, output: Output) -> None:
    """Log the curves of a training as a run of its own, unless W&B has it."""
    if not _is_logged(output):
        return
    digest = digest_of(output.project, config.known_by(along.provenance))
    record = run_of(folder, digest, anew=output.relog)
    if record.finished:
        _say_finished(record)
        return
    described = {"config": {"snapshots": along.provenance.checkpoint.path}}
    name = along.provenance.run
    with _run(record, folder.parent, name, output, "training curve", described) as patience:
        run = patience.run
        run.define_metric(content.STEP, summary="none")
        run.define_metric(f"{content.ALONG}/*", step_metric=content.STEP, summary="last")
        for row in content.along_rows(along):
            run.log(row)
        run.notes = along_headline(along)
        logged = _log_panels(patience, lambda: content.along_panels(along, files))
    if logged and not patience.lost:
        replace(record, where=_where(run), finished=True).save(folder)


def log_comparison(
    comparison: Comparison, files: ReportFiles, folder: Path, output: Output
) -> None:
    """Log the table of several networks as a run of its own, unless W&B has it."""
    if not _is_logged(output):
        return
    compared = [config.known_by(one.provenance) for one in comparison.results]
    record = run_of(folder, digest_of(output.project, compared), anew=output.relog)
    if record.finished:
        _say_finished(record)
        return
    paths = [one.provenance.checkpoint.path for one in comparison.results]
    described = {"config": {"checkpoints": paths}}
    with _run(record, folder, folder.name, output, "comparison", described) as patience:
        logged = _log_panels(patience, lambda: content.comparison_panels(comparison, files))
    if logged and not patience.lost:
        replace(record, where=_where(patience.run), finished=True).save(folder)


def _log_panels(patience: Patience, panels: Callable[[], dict[str, object]]) -> bool:
    """Log the tables and pictures of a run; whether that could be done."""
    with forgiving("the tables and pictures"):
        patience.wait_for(lambda: patience.run.log(panels()))
        print_run_link(patience.run, console.print)
        return True
    return False
