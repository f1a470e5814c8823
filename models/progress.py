"""How far training is and how long it takes: a bar on a terminal, lines anywhere else."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from els.console import console

MEASURED = 20  # steps after which the time left is told
_SILENCE = 50.0  # seconds without a line, so that one comes each minute
_BLINK = 0.1  # seconds between two looks at the losses, for which a GPU has to be waited for


def duration(seconds: float) -> str:
    """Such as "40 s", "3 min", "2.8 h" and "4.2 days"."""
    for unit, size, digits in (("days", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def time_of_end(seconds: float, now: float) -> str:
    """When it is over: "14:05", with the day of the week if that is not today's."""
    end = time.localtime(now + seconds)
    today = end[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if today else "%a %H:%M", end)


class Pace:
    """Measures how fast steps and images go by.

    Everything between two steps counts for the time left, such as validation; speed in images per
    second is that of the steps alone.

    Attributes:
        total: the step that training ends with, or infinity.
    """

    def __init__(self, total: float) -> None:
        self.total = total
        self._first: tuple[int, float] | None = None
        self._step, self._at = 0, 0.0
        self._images = 0
        self._paused = self._pausing = 0.0  # seconds before the last step, and since then
        self._pause_at = 0.0

    def count(self, step: int, images: int, now: float) -> None:
        """Count a step that is over; the first only starts the clock, as it is slower."""
        if self._first is None:
            self._first = step, now
        else:
            self._images += images
            self._paused += self._pausing
        self._step, self._at, self._pausing = step, now, 0.0

    def pause(self, now: float) -> None:
        """Something other than a step begins."""
        self._pause_at = now

    def go_on(self, now: float) -> None:
        """Something other than a step is over."""
        self._pausing += now - self._pause_at

    @property
    def known(self) -> bool:
        """Whether enough steps were seen."""
        return self._first is not None and self._step - self._first[0] >= MEASURED - 1

    @property
    def seconds_left(self) -> float:
        """Until the end of training; infinite when it has none."""
        assert self._first is not None
        step, since = self._first
        return (self.total - self._step) * (self._at - since) / max(1, self._step - step)

    @property
    def images_per_second(self) -> float:
        """In the steps alone, over all processes."""
        assert self._first is not None
        return self._images / max(1e-9, self._at - self._first[1] - self._paused)

    def left(self, now: float) -> str:
        """Such as "3 min left, ends 14:05"; empty where that is not known."""
        if not self.known or math.isinf(self.total) or self._step >= self.total:
            return ""
        seconds = self.seconds_left
        return f"{duration(seconds)} left, ends {time_of_end(seconds, now)}"

    def speed(self) -> str:
        """Such as "1,150 images/s"; empty where that is not known."""
        return f"{self.images_per_second:,.0f} images/s" if self.known else ""


class TrainingProgress(Callback):
    """What both ways of showing progress share: the pace, and the line that ends training."""

    def __init__(self) -> None:
        self.pace = Pace(math.inf)
        self._told_left = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure."""
        self.pace = Pace(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """Count the step; say the time left when it is known for the first time."""
        images = len(batch[0]) * trainer.world_size
        self.pace.count(trainer.global_step, images, time.monotonic())
        left = self.pace.left(time.time())
        if left and not self._told_left:
            self._told_left = True
            _say(f"about {left}, {self.pace.speed()}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the time that validation takes out of the speed."""
        self.pace.pause(time.monotonic())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on to measure."""
        self.pace.go_on(time.monotonic())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say in one line how training ended."""
        losses = "".join(f", {text}" for text in _losses(trainer))
        _say(f"finished at step {_of(trainer.global_step, self.pace.total)}{losses}")


class PlainProgress(TrainingProgress):
    """A line at least once a minute and after every validation."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure."""
        super().on_train_start(trainer, pl_module)
        self._said_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """Print a line when the last one was a while ago."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, _)
        if time.monotonic() - self._said_at > _SILENCE:
            self._line(trainer, "train/loss")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print where training stands."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:
            self._line(trainer, "train/loss", "val/loss")

    def _line(self, trainer: pl.Trainer, *names: str) -> None:
        self._said_at = time.monotonic()
        parts = [f"step {trainer.global_step:,}/{_number(self.pace.total)}"]
        parts += _losses(trainer, *names)
        parts += [self.pace.speed(), self.pace.left(time.time()).partition(",")[0]]
        _say("  ".join(part for part in parts if part))


class ProgressBar(TrainingProgress):
    """One bar over all steps, with the time left, the losses and the speed in a line below."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: _Bar | None = None
        self._shown_at = -math.inf

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        super().on_train_start(trainer, pl_module)
        self._bar = _Bar(self.pace.total)
        self._bar.start()
        self._show(trainer)

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """Move the bar."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, _)
        self._show(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the loss."""
        super().on_validation_end(trainer, pl_module)
        self._shown_at = -math.inf
        self._show(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away, and say how training ended."""
        self._stop()
        super().on_train_end(trainer, pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Take the bar away."""
        self._stop()

    def _show(self, trainer: pl.Trainer) -> None:
        now = time.monotonic()
        if self._bar is None or now - self._shown_at < _BLINK:
            return
        self._shown_at = now
        details = [*_losses(trainer), self.pace.speed()]
        self._bar.show(
            trainer.global_step,
            self.pace.left(time.time()),
            "  ".join(text for text in details if text),
        )

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Bar(Progress):
    """Step, bar and time left in one line, which fits into 80 columns; details in the next."""

    def __init__(self, total: float) -> None:
        self._details = ""
        self._all = total
        super().__init__(
            TextColumn("step {task.fields[step]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[left]}"),
            console=console,
            expand=True,
            transient=True,
        )
        bounded = None if math.isinf(total) else total
        self._only = self.add_task("", total=bounded, step=_of(0, total), left="")

    def show(self, step: int, left: str, details: str) -> None:
        """Move the bar to a step, with the time left and what stands below."""
        self._details = details
        self.update(self._only, completed=step, step=_of(step, self._all), left=left)

    def get_renderables(self) -> Iterator[RenderableType]:
        """Called by rich: the bar, and the line below."""
        yield from super().get_renderables()
        if self._details:
            yield Text(self._details)


def _losses(trainer: pl.Trainer, *names: str) -> list[str]:
    """The last losses, each with its name; by default that of training and of validation."""
    return [
        f"{name} {float(trainer.callback_metrics[name]):.3g}"
        for name in names or ("train/loss", "val/loss")
        if name in trainer.callback_metrics
    ]


def _of(step: int, total: float) -> str:
    return f"{step:,}" if math.isinf(total) else f"{step:,} of {_number(total)}"


def _number(total: float) -> str:
    return "..." if math.isinf(total) else f"{int(total):,}"


@rank_zero_only
def _say(line: str) -> None:
    console.print(line)
    console.file.flush()
