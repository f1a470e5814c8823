"""The command line of training: Lightning's, with this project's run folders and callbacks."""

from __future__ import annotations

import logging
import math
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from pytorch_lightning.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from els.console import Parser, console, exit_cleanly, key_values, plural
from els.errors import InputError
from els.models.callbacks import EMA, ImagesPerSecond, LastCheckpoint, PlainProgress, SampleGrid
from els.models.datamodule import Images, data_of
from els.models.diffusion import Diffusion
from els.models.tracking import (
    LoggerName,
    name_in_sweep,
    print_run_link,
    training_logger,
    where_logged,
)

# In a clone; where the package is installed the command is els-train.
DESCRIPTION = """Train a network.

python train.py fit --config digits_resnet
python train.py fit --config digits_resnet --ckpt_path last (go on with a run)
python train.py fit --config digits_resnet --model network/unet_32_zeros (another network)
"""


@dataclass
class Run:
    """Where a run is kept and logged.

    Attributes:
        name: the run's folder is <dir>/<name>; in a sweep the run's id is added to it.
        dir: folder of all runs.
        logger: "wandb" (online when logged in, else offline), "csv" or "none".
        project: the W&B project.
        overwrite: throw away a run of the same name instead of refusing to start.
    """

    name: str = "run"
    dir: str = "runs"
    logger: LoggerName = "wandb"
    project: str = "els"
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.name = name_in_sweep(self.name)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.dir) / self.name


class RunSummary(Callback):
    """Print a summary of the run before training starts."""

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
        if trainer.ckpt_path:
            rows["goes on from"] = str(trainer.ckpt_path)
        console.print(key_values(rows))


def _length(trainer: pl.Trainer) -> str:
    """For how long, and with how many images a step."""
    steps, epochs = trainer.estimated_stepping_batches, trainer.max_epochs
    text = "until stopped" if steps == math.inf else plural(int(steps), "step")
    if epochs is not None and epochs > 0:
        text = f"{plural(epochs, 'epoch')}, {text}"
    share = "" if trainer.world_size == 1 else " in each process"
    return f"{text}, batch size {data_of(trainer).batch_size}{share}"


class SaveConfig(SaveConfigCallback):
    """Write the whole configuration to <run>/config.yaml and to the logger, resumed runs too."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See `SaveConfigCallback.save_config`; called on the first process."""
        if stage != "fit":
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = str(folder / "config.yaml")
        self.parser.save(self.config, path, overwrite=True, multifile=False)
        if isinstance(trainer.logger, Logger):
            trainer.logger.log_hyperparams(self.config.as_dict())


class TrainParser(Parser, LightningArgumentParser):
    """Lightning's parser with errors of one line, and configurations that have names."""

    config_folders = MappingProxyType(
        {"-c": "", "--config": "", "--data": "data", "--model": "network", "--trainer": "trainer"}
    )


class TrainCLI(LightningCLI):
    """LightningCLI with this project's run folders, loggers and callbacks."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add run, samples, ema and checkpoint; tell the network what the data are like."""
        parser.add_class_arguments(Run, "run")
        # Samples are drawn with the averaged weights, so they come before EMA takes them away.
        parser.add_lightning_class_args(SampleGrid, "samples")
        parser.add_lightning_class_args(EMA, "ema")
        parser.link_arguments(
            "data.num_channels", "model.net.init_args.channels", apply_on="instantiate"
        )
        parser.link_arguments(
            "data.num_classes", "model.net.init_args.num_classes", apply_on="instantiate"
        )

    def before_instantiate_classes(self) -> None:
        """Refuse to overwrite a run that nobody asked to, before anything is made."""
        config = self.config[self.subcommand]
        config.weights_only = True  # checkpoints are data
        if self.subcommand != "fit" or config.ckpt_path or config.trainer.fast_dev_run:
            return
        self._clear(Run(**config.run.as_dict()))

    @rank_zero_only
    def _clear(self, run: Run) -> None:
        last = run.folder / "checkpoints" / "last.ckpt"
        if last.exists() and not run.overwrite:
            raise InputError(
                f"'{run.folder}' already holds a trained run; add --ckpt_path last to go on with "
                "it, --run.overwrite true to start again, or give another --run.name"
            )
        if run.overwrite and run.folder.exists():
            shutil.rmtree(run.folder)

    def instantiate_trainer(self, **kwargs: object) -> pl.Trainer:
        """A trainer that keeps everything of the run in the run's folder."""
        config = self.config[self.subcommand]
        run = Run(**config.run.as_dict())
        logger: Logger | bool = False
        if not config.trainer.fast_dev_run:
            logger = training_logger(run.logger, run.name, run.folder, run.project)
        trainer = super().instantiate_trainer(
            logger=logger, default_root_dir=str(run.folder), **kwargs
        )
        return trainer

    def _instantiate_trainer(self, config: dict, callbacks: list[pl.Callback]) -> pl.Trainer:
        folder = Path(config["default_root_dir"]) / "checkpoints"
        callbacks = [
            *callbacks,
            RunSummary(),
            ImagesPerSecond(),
            *([LearningRateMonitor("step")] if config["logger"] else []),
            RichProgressBar() if console.is_terminal else PlainProgress(),
            ModelCheckpoint(
                dirpath=folder, filename="best", monitor="val/loss", enable_version_counter=False
            ),
            LastCheckpoint(dirpath=folder),
        ]
        config["enable_progress_bar"] = config["enable_progress_bar"] or console.is_terminal
        return super()._instantiate_trainer(config, callbacks)

    def after_fit(self) -> None:
        """Say where the results are."""
        self._print_next_step()

    @rank_zero_only
    def _print_next_step(self) -> None:
        last = Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if last.exists():
            console.print(key_values({
                "checkpoint": str(last),
                "next": f"{_analyze()} --checkpoint {last}",
            }))  # fmt: skip
        if isinstance(self.trainer.logger, WandbLogger):
            print_run_link(self.trainer.logger.experiment, console.print)
            self.trainer.logger.experiment.finish()  # left to itself it ends with a coloured notice


def _analyze() -> str:
    """The command of analyses, as it is called where training was started in the same way."""
    return "python analyze.py" if Path(sys.argv[0]).name == "train.py" else "els-analyze"


# What Lightning warns of and this project means to do.
_EXPECTED = (
    ".*does not have many workers.*",  # batches are cut from memory
    ".*is smaller than the logging interval.*",
    ".*recommended to use `self.log\\(.*sync_dist=True.*",  # LossByNoise sums over processes itself
    ".*treespec, LeafSpec.*",
    "Checkpoint directory .* exists and is not empty.*",
)


def main(args: ArgsType = None) -> TrainCLI:
    """Run the command line; `args` stands in for sys.argv in tests."""
    for message in _EXPECTED:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    return TrainCLI(
        Diffusion,
        Images,
        args=args,
        auto_configure_optimizers=False,
        # Checkpoints describe their network themselves (models/checkpoints.py). Lightning's own way
        # would tie the module to this whole object, and EMA would copy it, data and all.
        load_from_checkpoint_support=False,
        seed_everything_default=0,
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={"description": DESCRIPTION},
        parser_class=TrainParser,
        trainer_defaults={"log_every_n_steps": 25, "enable_model_summary": False},
    )


def command() -> None:
    """The command els-train, and train.py."""
    with exit_cleanly():
        main()
