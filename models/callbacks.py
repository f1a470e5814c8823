"""What happens beside training: samples, averages, checkpoints and speed."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from els.errors import InputError, check_between
from els.files import replacing, write_tensors
from els.images import to_uint8
from els.models.blocks import Network, Trained
from els.models.runs import remove
from els.models.stopping import Stopping
from els.sampling import ddim, seeded_labels, seeded_noise
from els.schedule import MOST_STEPS

_MOST_SAMPLES = 10_000  # of a grid
_MOST_TO_TRY = 4e9  # parameters x pixels of a batch, above which several threads always pay
_CLEARLY = 0.9  # share of one thread's time that several may take


def is_log_step(trainer: pl.Trainer) -> bool:
    """Whether numbers are logged at this step."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined] # set by its connectors
    return trainer.global_step % every == 0


def is_last_step(trainer: pl.Trainer) -> bool:
    """Whether the step that was just made, or is being made, is training's last."""
    steps, epochs = trainer.max_steps, trainer.max_epochs
    if trainer.should_stop or (steps != -1 and trainer.global_step >= steps):
        return True
    if epochs is None or epochs == -1:
        return False
    return trainer.is_last_batch and trainer.current_epoch + 1 >= epochs


class FinalValidation(Callback):
    """Validate after the last step, whenever that is: the results are those of the end."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """Make a validation due, which Lightning looks at next."""
        if is_last_step(trainer):
            trainer.check_val_every_n_epoch = 1
            trainer.val_check_batch = trainer.fit_loop.batch_idx + 1


class SampleGrid(Callback):
    """Draw a grid of samples with the validated weights, always from the same seeds.

    Must come before the EMA callback, which puts the training weights back when validation ends.

    Args:
        every_n_epochs: draw after a validation when that many epochs have passed, and after the
            last one; 0 for never.
        count: number of samples, seeds 0 .. count - 1.
        steps: DDIM steps.
    """

    def __init__(self, every_n_epochs: int = 10, count: int = 16, steps: int = 20) -> None:
        check_between("samples.every_n_epochs", every_n_epochs, 0)
        check_between("samples.count", count, 1, _MOST_SAMPLES)
        check_between("samples.steps", steps, 1, MOST_STEPS)
        self.every_n_epochs = every_n_epochs
        self.count = count
        self.steps = steps
        self._last_epoch: int | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw when it is time to, on the first process."""
        if trainer.sanity_checking or not self.every_n_epochs or not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch
        early = self._last_epoch is not None and epoch - self._last_epoch < self.every_n_epochs
        if early and not is_last_step(trainer):
            return
        self._last_epoch = epoch
        self._log(trainer, self.draw(pl_module))

    @torch.no_grad()
    def draw(self, pl_module: Any) -> Tensor:
        """The samples of a `Diffusion` as one uint8 picture (c h w)."""
        denoiser = pl_module.denoiser()
        seeds = range(self.count)
        x = seeded_noise(seeds, denoiser.image_shape).to(pl_module.device)
        label = None
        if denoiser.num_classes is not None:
            label = seeded_labels(seeds, denoiser.num_classes).to(pl_module.device)
        samples = ddim(denoiser, x, steps=self.steps, label=label, schedule=denoiser.schedule)
        return make_grid(to_uint8(samples.float()), nrow=max(1, round(self.count**0.5))).cpu()

    def _log(self, trainer: pl.Trainer, picture: Tensor) -> None:
        caption = f"epoch {trainer.current_epoch}, step {trainer.global_step}, DDIM {self.steps}"
        image = to_pil_image(picture)
        path = Path(trainer.default_root_dir) / "samples" / f"epoch{trainer.current_epoch:05d}.png"
        with replacing(path) as partial:
            image.save(partial)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("samples", [image], caption=[caption])
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", picture, trainer.global_step)


class EMA(WeightAveraging):
    """Exponential moving average of the weights, which validation, samples and checkpoints use.

    The decay starts low and grows to its final value, min(decay, (1 + n) / (10 + n)) after n
    steps, so that a short run does not average in its random beginning.

    Args:
        decay: the final decay; 0 keeps the weights as they are.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"ema.decay is {decay}; it must be at least 0 and below 1")
        # Buffers are copied: averages of integers would be nonsense.
        super().__init__(use_buffers=False, avg_fn=self._average)
        self.decay = decay

    def _average(self, average: Tensor, current: Tensor, n: Tensor | int) -> Tensor:
        decay = min(self.decay, (1 + float(n)) / (10 + float(n)))
        return average + (1 - decay) * (current - average)

    @property
    def averaged(self) -> Any:
        """The module with averaged weights, while training goes on."""
        assert self._average_model is not None
        return self._average_model.module


def averaged(trainer: pl.Trainer, pl_module: Any) -> Any:
    """The module with the averaged weights of an `EMA` among the callbacks; else as it is."""
    found = (one.averaged for one in trainer.callbacks if isinstance(one, EMA))  # type: ignore[attr-defined]
    return next(found, pl_module)


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or as they were: written beside, then renamed.

    Lightning's own go by way of the system's temporary folder, from where they are copied when it
    is on another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint."""
        write_tensors(Path(path), checkpoint)


class LastCheckpoint(ModelCheckpoint):
    """Keep `last.ckpt` fresh: at most once every `seconds`, and always when training ends or stops.

    Lightning's own `save_last` follows the monitored checkpoint, so that it lags behind when the
    loss stops improving; and its end-of-training hook comes after EMA has overwritten the weights.

    Args:
        dirpath: the folder of `last.ckpt`.
        seconds: least time between two saves, at the ends of epochs.
        stopping: what knows whether training was asked to stop.

    Attributes:
        kept: what the network of the file had learned when it was saved; None before that.
        replaced: the folder of a run that this one replaces, deleted after the first save.
    """

    def __init__(
        self,
        dirpath: Path | None = None,
        seconds: float = 60.0,
        stopping: Stopping | None = None,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            monitor=None,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        self.seconds = seconds
        self.stopping = stopping or Stopping()
        self.kept: Trained | None = None
        self.replaced: Path | None = None
        self._saved_at = -float("inf")  # the first epoch is kept at once

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop when training was asked to, at a step after which it can go on."""
        # At the end of an epoch, validation and `on_train_epoch_end` come first.
        between = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if between and not trainer.is_last_batch and self.stopping.wanted(trainer):
            self._keep(trainer, pl_module)
            self.stopping.stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save when it is time to, or when this was the last epoch."""
        over = trainer.should_stop or trainer.fit_loop.done
        due = trainer.strategy.broadcast(time.monotonic() - self._saved_at >= self.seconds)
        stop = self.stopping.wanted(trainer)
        if over or due or stop:
            self._keep(trainer, pl_module)
        if stop and not over:
            self.stopping.stop()

    def _keep(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self._saved_at = time.monotonic()
        if not self.best_model_path:  # in a fast_dev_run
            return
        self.kept = pl_module.trained
        if self.replaced is not None and trainer.is_global_zero:
            remove(self.replaced)
            self.replaced = None

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Report this file as `last`, so that loggers do not alias it `best`."""
        if self.best_model_path:
            self.last_model_path, self.best_model_path = self.best_model_path, ""


class Threads(Callback):
    """Train a small network on the CPU with one thread, where several are not clearly faster.

    Its parallel regions are so short that threads wait for each other as long as they compute, and
    beside other work many times as long (`benchmarks/contention.py`). Two steps tell, before the
    first; a training that goes on keeps what was chosen, as sums round by it. OMP_NUM_THREADS
    chooses otherwise.
    """

    def __init__(self) -> None:
        self.one: bool | None = None  # thread; None: not chosen
        self._before = torch.get_num_threads()

    def state_dict(self) -> dict[str, Any]:
        """What was chosen, for the checkpoint."""
        return {"one": self.one}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep to it."""
        self.one = state_dict["one"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose, or do as was chosen."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        shape, net = (data.batch_size, *data.images.image_shape), pl_module.net
        small = net.parameter_count * shape[0] * math.prod(shape[2:]) < _MOST_TO_TRY  # type: ignore[union-attr]
        on_cpu = trainer.strategy.root_device.type == "cpu"
        if not (on_cpu and small) or self._before == 1 or "OMP_NUM_THREADS" in os.environ:
            return
        if self.one is None:
            step = _trial(net, shape, trainer.precision_plugin.forward_context)  # type: ignore[arg-type]
            self.one = _seconds(step, 1) * _CLEARLY < _seconds(step, self._before)
        torch.set_num_threads(1 if self.one else self._before)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the process as it was."""
        torch.set_num_threads(self._before)


def _trial(
    net: Network, shape: tuple[int, ...], context: Callable[[], AbstractContextManager[Any]]
) -> Callable[[], None]:
    """Forward and back through a copy of a network, on noise that takes nothing from the seeds."""
    net = copy.deepcopy(net)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    t, label = torch.full(shape[:1], 0.5), torch.zeros(shape[0], dtype=torch.long)

    def step() -> None:
        with context():
            loss = net(x, t, None if net.num_classes is None else label).square().mean()
        loss.backward()

    return step


def _seconds(step: Callable[[], None], threads: int, steps: int = 2) -> float:
    """What steps take with so many threads, after one that is not counted."""
    torch.set_num_threads(threads)
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - start


class ImagesPerSecond(Callback):
    """Log `train/images_per_second` over all processes, averaged between two log steps."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._images = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """Count a batch; log when it is time to."""
        self._images += len(batch[0]) * trainer.world_size
        if not is_log_step(trainer):
            return
        now = time.monotonic()
        if self._since is not None:
            pl_module.log("train/images_per_second", self._images / (now - self._since))
        self._since, self._images = now, 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the time that validation takes out of the count."""
        self._since = None
