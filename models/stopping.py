"""Ctrl-C and SIGTERM while a network is trained: keep what there is, then end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from els.console import console

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping(Callback):
    """Remembers that training was asked to stop, until it can be stopped without a loss.

    The first signal stops training at the end of a step, where everything can be kept; before
    the first step, and a second time, it stops at once. Processes of one training stop together.

    Attributes:
        signum: the signal that came first, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._training = False
        self._first = True  # of the processes, which speaks for all of them

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals in the place of Python's and Lightning's handlers, for a while."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called by the trainer."""
        self._first = trainer.is_global_zero

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning has put its own handler of SIGTERM before ours, which can hang."""
        self._listen()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on there is something to keep."""
        self._listen()
        self._training = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Everything is kept."""
        self._training = False

    def wanted(self, trainer: pl.Trainer) -> bool:
        """Whether to stop; to be asked by all processes at the same places."""
        asked = self.signum is not None
        if trainer.world_size == 1:
            return asked
        return trainer.strategy.reduce_boolean_decision(asked, all=False)

    def stop(self) -> NoReturn:
        """End this process, with the exit code of a process that the signal killed."""
        self.signum = self.signum or signal.SIGTERM  # another process was asked
        # Lightning ends the first process when another fails.
        raise SystemExit(128 + self.signum if self._first else 0)

    def _listen(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, self.signum or signum
        if again or not self._training:
            self.stop()
        if self._first:
            console.print("stopping after this step; press Ctrl-C again to stop at once")
