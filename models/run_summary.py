"""What a run of training is, said before it starts and logged with it."""

from __future__ import annotations

import math
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only

from els.console import console, key_values, plural
from els.models.blocks import Trained
from els.models.datamodule import data_of
from els.models.diffusion import Diffusion
from els.models.tracking import remember_run, where_logged

# What every logger can keep.
Logged = str | float | None


class RunSummary(Callback):
    """Print a summary of the run before training starts, and log it.

    Args:
        before: what the network had learned before, of a run that goes on.
    """

    def __init__(self, before: Trained | None) -> None:
        self.before = before

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by the trainer."""
        assert isinstance(pl_module, Diffusion)
        data, net = data_of(trainer), pl_module.net
        c, h, w = data.images.image_shape
        classes = "" if data.num_classes is None else f", {plural(data.num_classes, 'class')}"
        processes = plural(trainer.world_size, "process")
        rows = {
            "data": f"{data.images.description}, {c} x {h} x {w}{classes}",
            "network": f"{type(net).__name__}, {net.padding} padding",
            "parameters": f"{net.parameter_count:,}",
            "receptive field": net.facts.field_text,
            "training": _length(trainer),
            "device": f"{trainer.strategy.root_device}, {processes}, precision {trainer.precision}",
            "logged to": where_logged(trainer.logger),
            "results": trainer.default_root_dir,
        }
        if self.before is not None:
            trainer.fit_loop.setup_data()  # nobody has counted where only steps are bounded
            rows["goes on from"] = position(trainer, self.before)
        console.print(key_values(rows))
        for logger in trainer.loggers:
            remember_run(logger, Path(trainer.default_root_dir))
            logger.log_hyperparams(_facts(trainer, pl_module))


def _length(trainer: pl.Trainer) -> str:
    """For how long, and with how many images a step."""
    steps, epochs = trainer.estimated_stepping_batches, trainer.max_epochs
    text = "until stopped" if steps == math.inf else plural(int(steps), "step")
    if epochs is not None and epochs > 0 and steps != trainer.max_steps:
        text = f"{plural(epochs, 'epoch')}, {text}"
    share = "" if trainer.world_size == 1 else " in each process"
    return f"{text}, batch size {data_of(trainer).batch_size}{share}"


def _facts(trainer: pl.Trainer, module: Diffusion) -> dict[str, dict[str, Logged]]:
    """What runs are compared by, as plain data for the loggers."""
    net, data, steps = module.net, data_of(trainer), trainer.estimated_stepping_batches
    return {
        "network": {
            "class": type(net).__name__,
            **{key: value for key, value in net.config.items() if key != "num_classes"},
            "classes": net.num_classes,
            "parameters": net.parameter_count,
            "receptive_field": net.receptive_field,
        },
        "training": {
            "data": data.source.name,
            "images": len(data.images),
            "image_size": data.images.image_shape[1],
            "batch_size": data.batch_size * trainer.world_size,
            "optimizer": type(trainer.optimizers[0]).__name__ if trainer.optimizers else None,
            "steps": None if steps == math.inf else int(steps),
        },
    }


def position(trainer: pl.Trainer, trained: Trained) -> str:
    """How far a network was trained, such as "step 271, epoch 6 of 12"."""
    steps_each = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    within = trained.steps > trained.epochs * steps_each
    epochs = trainer.max_epochs
    bound = f" of {epochs:,}" if epochs is not None and epochs > 0 else ""
    return f"step {trained.steps:,}, epoch {trained.epochs + within:,}{bound}"
