"""Runs and their folders: what one is called, what is one, and how a new one takes its place."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from els.errors import InputError
from els.files import LOCK
from els.models.checkpoints import find_checkpoint
from els.models.tracking import TrainingLogger, name_in_sweep
from els.reading import member, read_text

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
_KEPT = ("last.ckpt", "best.ckpt")
_SECTIONS = {"run:", "data:", "model:", "trainer:"}  # of the configuration that a run keeps


@dataclass
class Run:
    """Where a run is kept and logged.

    Attributes:
        name: the run's folder is <dir>/<name>; in a sweep the run's id is added to it.
        dir: folder of all runs.
        logger: "wandb" (online when logged in, else offline), "tensorboard", "csv" or "none".
        project: the W&B project.
        overwrite: replace a run of the same name instead of refusing to start; the old one is moved
            aside, and deleted when the new one has kept its first checkpoint.
        snapshots: how many snapshots of the averaged weights are kept, in snapshots/, at steps from
            the first to the last that are evenly spaced in log; 0 for none.
        twin_of: the folder of a run whose configuration is taken, with the next seed of the first
            weights and of the training noise and a name that says it: A_seed1 beside A. The two
            differ by chance alone, and say how far a theory can come (`analyze.py A --twin
            A_seed1`).
    """

    name: str = "run"
    dir: str = "runs"
    logger: TrainingLogger = "wandb"
    project: str = "els"
    overwrite: bool = False
    snapshots: int = 0
    twin_of: str | None = None

    def __post_init__(self) -> None:
        if self.snapshots < 0:
            raise InputError(f"run.snapshots is {self.snapshots}; it must be at least 0")
        if (
            self.name in ("", ".", "..")
            or self.name.startswith("-")
            or not self.name.isprintable()
            or any(separator in self.name for separator in "/\\")
        ):
            raise InputError(
                f"run.name is {self.name!r}; it must be the name of one folder, such as "
                "digits_resnet, that does not begin with a dash"
            )
        self.name = name_in_sweep(self.name)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.dir) / self.name

    @property
    def last(self) -> Path:
        """The run's last checkpoint, which need not be there."""
        return self.folder / CHECKPOINTS / "last.ckpt"

    def check_room(self, ckpt_path: str | None) -> None:
        """Make sure that training would not write over a finished run that nobody gave up.

        Raises:
            InputError: when the name is taken, or what would be replaced is not a run.
        """
        own = ckpt_path is not None and _is_within(Path(ckpt_path), self.folder)
        if self.overwrite and own:
            raise InputError(
                f"--run.overwrite would replace '{self.folder}', which --ckpt_path goes on with; "
                "leave one of them out"
            )
        if self.overwrite:
            check_replaceable(self.folder)
        elif self.last.exists() and not own:
            raise InputError(
                f"'{self.folder}' already holds a trained run; add --ckpt_path last to go on with "
                "it, --run.overwrite true to start again, or give another --run.name"
            )

    def checkpoint(self, ckpt_path: str) -> Path:
        """The file that --ckpt_path stands for: "last", "best", or anything with a checkpoint.

        Raises:
            InputError: when it is not there; the message names the run's folder and like runs.
        """
        if ckpt_path not in ("last", "best"):
            return find_checkpoint(ckpt_path)
        path = self.folder / CHECKPOINTS / f"{ckpt_path}.ckpt"
        if path.is_file():
            return path
        near = difflib.get_close_matches(self.name, run_names(Path(self.dir)), n=3)
        meant = f"; did you mean --run.name {' or '.join(near)}?" if near else ""
        raise InputError(f"'{self.folder}' has no {CHECKPOINTS}/{path.name} to go on from{meant}")


def run_names(folder: Path) -> list[str]:
    """The names of the runs in a folder that have a checkpoint."""
    return sorted({path.parents[1].name for path in folder.glob(f"*/{CHECKPOINTS}/*.ckpt")})


def is_run(folder: Path) -> bool:
    """Whether training made this folder: it has checkpoints, or a configuration of training."""
    if any((folder / CHECKPOINTS / name).is_file() for name in _KEPT):
        return True
    try:
        return is_configuration(read_text(member(folder, CONFIG)))
    except (OSError, InputError):
        return False


def is_configuration(text: str) -> bool:
    """Whether a text looks like the configuration that a run keeps."""
    return set(text.splitlines()) >= _SECTIONS


def check_replaceable(folder: Path) -> None:
    """Make sure that a folder is a run, empty, or not there.

    Raises:
        InputError: when it holds anything else, which is never removed.
    """
    if not folder.exists() or is_run(folder):
        return
    if folder.is_dir() and all(path.name == LOCK for path in folder.iterdir()):
        return
    raise InputError(
        f"'{folder}' is not a run of train.py (it has neither its checkpoints nor its {CONFIG}) "
        "and is not replaced; give another --run.name, or move it away"
    )


def move_aside(folder: Path) -> Path | None:
    """Rename a run to the first free of <name>.old, <name>.old2, ...; None when there is none."""
    check_replaceable(folder)
    if not is_run(folder):
        return None
    number, moved = 1, folder.with_name(f"{folder.name}.old")
    while moved.exists():
        number += 1
        moved = folder.with_name(f"{folder.name}.old{number}")
    folder.rename(moved)
    return moved


def missing_folders(folder: Path) -> list[Path]:
    """A folder and those above it that are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def take_back(folder: Path, made: Sequence[Path], moved: Path | None) -> None:
    """Leave everything as it was before a run was begun that could not be started.

    Args:
        folder: the run's.
        made: what `missing_folders` said before.
        moved: where `move_aside` moved the run before; None where there was none.
    """
    if made or moved is not None:
        shutil.rmtree(folder, ignore_errors=True)
    if moved is not None:
        moved.rename(folder)
    for path in made[1:]:
        with suppress(OSError):  # something else was put there meanwhile
            path.rmdir()


def remove(folder: Path) -> None:
    """Delete what `move_aside` moved: of a link the link alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def _is_within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
