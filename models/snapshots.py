"""Snapshots of a network along its training: its averaged weights at steps spaced evenly in log."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from els.errors import InputError
from els.files import replacing_folder
from els.models.callbacks import averaged
from els.models.formats import exported

SNAPSHOTS = "snapshots"
_NAMED = re.compile(r"step-(\d+)")


def snapshot_steps(count: int, total: int) -> tuple[int, ...]:
    """The steps after which snapshots are kept, from the first to the last.

    Args:
        count: how many are wanted; of a shorter training every step is one.
        total: steps of the whole training.

    Example:
        >>> snapshot_steps(5, 10_000)
        (1, 10, 100, 1000, 10000)
        >>> snapshot_steps(4, 10)
        (1, 2, 5, 10)
    """
    if count == 1:
        return (total,)
    count, found = min(count, total), [0]
    for i in range(count):
        # Rounded, the first few would be the same; each is then the next step.
        found.append(max(found[-1] + 1, round(total ** (i / max(1, count - 1)))))
    return tuple(found[1:])


def snapshots_in(folder: str | Path) -> dict[int, Path]:
    """The snapshots of a folder by their steps, in order; none where it is no such folder."""
    named = ((_NAMED.fullmatch(path.name), path) for path in Path(folder).glob("step-*"))
    found = {int(match[1]): path for match, path in named if match and path.is_dir()}
    return dict(sorted(found.items()))


def is_snapshot(folder: Path) -> bool:
    """Whether a folder is one of a run's snapshots."""
    return folder.parent.name == SNAPSHOTS and _NAMED.fullmatch(folder.name) is not None


class Snapshots(Callback):
    """Keep the averaged weights at `count` steps of training, for `load_denoiser`.

    Each is a folder, step-000128, that appears whole: written under another name, then renamed. The
    steps follow from the options alone, and so do the weights, so that training which was killed
    and goes on leaves the same snapshots as one that was not. Must come after the EMA callback.

    Args:
        folder: where they are kept.
        count: how many.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self._due: tuple[int, ...] = ()

    def check(self, trainer: pl.Trainer) -> None:
        """Refuse a training whose number of steps is not known.

        Raises:
            InputError: when it has no end.
        """
        if trainer.max_steps == -1 and trainer.max_epochs == -1:
            raise InputError(
                f"run.snapshots is {self.count}, whose steps depend on how long training is; give "
                "--trainer.max_steps or --trainer.max_epochs"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the steps, and remove what a training that was killed left of later ones."""
        done, total = trainer.global_step, int(trainer.estimated_stepping_batches)
        self._due = tuple(step for step in snapshot_steps(self.count, total) if step > done)
        if trainer.is_global_zero:
            for step, path in snapshots_in(self.folder).items():
                if step > done:
                    shutil.rmtree(path)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, _: int
    ) -> None:
        """Keep a snapshot at the first batch after which its step is reached."""
        if not self._due or trainer.global_step < self._due[0]:
            return
        self._due = self._due[1:]
        if trainer.is_global_zero:
            self.keep(trainer, pl_module)

    def keep(self, trainer: pl.Trainer, pl_module: Any) -> Path:
        """Write the network as it is now; returns its folder."""
        path = self.folder / f"step-{trainer.global_step:06d}"
        with replacing_folder(path) as partial:
            exported.write(partial, averaged(trainer, pl_module).net, pl_module.described())
        return path
