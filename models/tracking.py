"""Where runs are logged: Weights & Biases online or offline, TensorBoard, CSV, or nowhere."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import wandb
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment

from els.console import console
from els.errors import InputError, reason
from els.files import replacing
from els.reading import member, read_text

LoggerName = Literal["wandb", "csv", "none"]
TrainingLogger = Literal["wandb", "tensorboard", "csv", "none"]
_OUT_OF_REACH = re.compile(
    "(?i)timed out|connection|unreachable|name resolution|no such host|dial tcp"
)
_MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")
_SECONDS = 20.0  # after which W&B counts as out of reach
_RUN_ID = "wandb-id.txt"  # in a run's folder


def wandb_mode() -> str:
    """$WANDB_MODE if set; else "online" where a key is stored, else "offline".

    Raises:
        InputError: when $WANDB_MODE is no mode, or "online" without a key.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode and mode not in _MODES:
        raise InputError(f"WANDB_MODE is '{mode}'; it must be online, offline or disabled")
    if mode and mode != "online":
        return mode
    logged_in = wandb.login(prompt=False, verify=False)
    if mode and not logged_in:
        raise InputError(
            "WANDB_MODE is online, but there is no key; run `wandb login` or set WANDB_MODE=offline"
        )
    return "online" if logged_in else "offline"


def wandb_settings(run: str, folder: Path, project: str, job_type: str) -> dict[str, Any]:
    """Arguments of `wandb.init` shared by training and analysis, which are one group.

    Artifacts are staged in the run's folder too, so that a run leaves nothing anywhere else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb-data"))
    return {
        "project": project,
        "name": f"{run}-{job_type}",
        "group": run,
        "job_type": job_type,
        "mode": wandb_mode(),
        "dir": str(folder),
        # `print_run_link` tells what matters.
        "settings": wandb.Settings(quiet=True, silent=True, init_timeout=_SECONDS),
    }


def offline_instead(settings: dict[str, Any], error: wandb.errors.Error) -> dict[str, Any] | None:
    """The settings of a run that begins offline, where W&B could not be reached; said in a line.

    Args:
        settings: of the run that could not begin, see `wandb_settings`.
        error: why.

    Returns:
        None where W&B was reached and refuses the run, or it was to be offline.
    """
    if settings["mode"] != "online" or not _OUT_OF_REACH.search(str(error)):
        return None
    console.print(f"W&B cannot be reached ({reason(error, length=80)}): this run is logged offline")
    return {**settings, "mode": "offline"}


class PatientLogger(WandbLogger):
    """Lightning's logger, which begins offline where W&B cannot be reached."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """See `WandbLogger.experiment`."""
        try:
            return super().experiment
        except wandb.errors.CommError as error:
            settings = offline_instead(self._wandb_init, error)
            if settings is None:
                raise InputError(
                    f"W&B refuses the run ({reason(error)}); WANDB_MODE=offline logs it here, to "
                    "be uploaded later, and --run.logger none does without"
                ) from error
            self._wandb_init.update(settings)
            return super().experiment


def name_in_sweep(name: str) -> str:
    """A run's name, to which in a sweep the run's id is added: all are started with one name."""
    if os.environ.get("WANDB_SWEEP_ID") and (run_id := os.environ.get("WANDB_RUN_ID")):
        return f"{name}-{run_id}"
    return name


def checkpoint_name(run: str) -> str:
    """The artifact of a training run's checkpoints, in the characters that W&B allows."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", run) + "-checkpoint"


class OneCSV(CSVLogger):
    """Lightning's CSV files, where a run that goes on continues the file that is there."""

    def __init__(self, folder: Path, *, goes_on: bool) -> None:
        super().__init__(folder, name="csv", version="")
        self._goes_on = goes_on

    @property
    def log_dir(self) -> str:
        """The folder of the files."""
        return self.root_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """See `CSVLogger.experiment`."""
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir, goes_on=self._goes_on)
        return self._experiment


class _Rows(ExperimentWriter):
    """Writes rows after those that are there, without those that are made anew."""

    def __init__(self, log_dir: str, *, goes_on: bool) -> None:
        self._continues = goes_on and (Path(log_dir) / self.NAME_METRICS_FILE).is_file()
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        if not self._continues:
            super()._check_log_dir_exists()

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """See `ExperimentWriter.log_metrics`."""
        if self._continues and step is not None:
            self._continues = False
            self._drop_from(step)
        super().log_metrics(metrics_dict, step)

    def _drop_from(self, step: int) -> None:
        """Drop the rows of steps that were made after the checkpoint that goes on."""
        path = Path(self.metrics_file_path)
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if int(row["step"]) < step]
            self.metrics_keys = list(reader.fieldnames or ())
        with replacing(path) as partial, open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)


def training_logger(
    name: TrainingLogger, run: str, folder: Path, project: str, *, goes_on: bool = False
) -> Logger | bool:
    """The Lightning logger of a training run; False for none.

    Args:
        name: which.
        run: the run's name.
        folder: its folder.
        project: the W&B project.
        goes_on: the run was begun before, and what is logged continues what was.

    Raises:
        InputError: when TensorBoard is asked for and missing, or W&B cannot be used as asked.
    """
    if name == "csv":
        return OneCSV(folder, goes_on=goes_on)
    if name == "none":
        return False
    if name == "tensorboard":
        try:
            return TensorBoardLogger(folder, name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise InputError(
                "--run.logger tensorboard needs TensorBoard; pip install tensorboard"
            ) from error
    settings = wandb_settings(run, folder, project, "train")
    logger = PatientLogger(
        **settings,
        save_dir=settings["dir"],
        log_model=True,
        checkpoint_name=checkpoint_name(run),
        id=_run_id(folder) if goes_on else None,
    )
    logger._wandb_init.pop("anonymous", None)  # at which wandb warns, even of None
    return logger


def _run_id(folder: Path) -> str | None:
    """The id of the W&B run that a run is logged as, if it was."""
    try:
        return read_text(member(folder, _RUN_ID)).strip()
    except (OSError, InputError):
        return None


def remember_run(logger: Logger, folder: Path) -> None:
    """Keep the id of a W&B run in the run's folder, for when it goes on."""
    if isinstance(logger, WandbLogger):
        with replacing(folder / _RUN_ID) as partial:
            partial.write_text(f"{logger.experiment.id}\n")


def finish(logger: Logger, summary: Mapping[str, float]) -> None:
    """Complete what is logged of a training run that is over or stopped, and say where it is."""
    if isinstance(logger, WandbLogger) and wandb.run is not None:  # it has begun
        run = logger.experiment
        run.summary.update(dict(summary))
        print_run_link(run, console.print)
        run.finish()  # left to itself it ends with a coloured notice


def abandon(logger: Logger) -> None:
    """End what is logged of a training run that could not be started, without a word."""
    if isinstance(logger, WandbLogger) and wandb.run is not None:
        wandb.run.finish(exit_code=1)


def print_run_link(run: wandb.sdk.wandb_run.Run, print_line: Callable[[str], None]) -> None:
    """Tell where a finished or running W&B run can be seen."""
    if run.settings.mode == "online":
        print_line(f"W&B run: {run.url}")
    elif run.settings.mode == "offline":
        folder = min(run.settings.sync_dir, os.path.relpath(run.settings.sync_dir), key=len)
        parts = list(Path(folder).parent.glob(f"offline-run-*-{run.id}"))
        print_line("W&B run (offline); look at it and upload it with")
        print_line(f"  wandb leet {folder}")
        if len(parts) > 1:  # of a run that went on: W&B joins them
            folder = str(Path(folder).with_name(f"offline-run-*-{run.id}"))
        print_line(f"  wandb sync {folder}")


def where_logged(logger: Logger | None) -> str:
    """Where a training run that has begun is logged, in a few words."""
    if isinstance(logger, WandbLogger):
        run = logger.experiment
        if run.settings.mode == "disabled":
            return "nowhere: W&B is disabled (WANDB_MODE)"
        return f"W&B project {run.project}, {run.settings.mode}"
    if logger is None:
        return "nowhere"
    kind = "CSV" if isinstance(logger, CSVLogger) else "TensorBoard"
    return f"{kind}, {str(logger.log_dir).rstrip(os.sep)}"
