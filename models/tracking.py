"""Where runs are logged: Weights & Biases online or offline, CSV files, or nowhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import wandb
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

LoggerName = Literal["wandb", "csv", "none"]


def wandb_mode() -> str:
    """$WANDB_MODE if set; else "online" where a key is stored, else "offline"."""
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return mode
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


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
        "settings": wandb.Settings(quiet=True, show_info=sys.stderr.isatty()),
    }


def name_in_sweep(name: str) -> str:
    """A run's name, to which in a sweep the run's id is added: all are started with one name."""
    if os.environ.get("WANDB_SWEEP_ID") and (run_id := os.environ.get("WANDB_RUN_ID")):
        return f"{name}-{run_id}"
    return name


def checkpoint_name(run: str) -> str:
    """The artifact of a training run's checkpoints."""
    return f"{run}-checkpoint"


def training_logger(name: LoggerName, run: str, folder: Path, project: str) -> Logger | bool:
    """The Lightning logger of a training run; False for none."""
    if name == "csv":
        return CSVLogger(folder, name="csv")
    if name == "none":
        return False
    settings = wandb_settings(run, folder, project, "train")
    return WandbLogger(
        **settings, save_dir=settings["dir"], log_model=True, checkpoint_name=checkpoint_name(run)
    )


def print_run_link(run: wandb.sdk.wandb_run.Run, print_line: Callable[[str], None]) -> None:
    """Tell where a finished or running W&B run can be seen."""
    if run.settings.mode == "online":
        print_line(f"W&B run: {run.url}")
    elif run.settings.mode == "offline":
        folder = min(run.settings.sync_dir, os.path.relpath(run.settings.sync_dir), key=len)
        print_line(f"W&B run (offline): look at it with  wandb leet {folder}")
        print_line(f"                   upload it with   wandb sync {folder}")


def where_logged(logger: Logger | None) -> str:
    """Where a training run that has begun is logged, in a few words."""
    if isinstance(logger, WandbLogger):
        run = logger.experiment
        return f"W&B project {run.project}, {run.settings.mode}"
    return "nowhere" if logger is None else f"CSV, {logger.log_dir}"
