"""What `train.py` runs: Lightning's command line, with this project's run folders and callbacks."""

from __future__ import annotations

import logging
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import (
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from els.console import Parser, console, key_values, plural
from els.errors import InputError, check_between, reason
from els.files import alone_in
from els.models.blocks import Trained
from els.models.callbacks import (
    EMA,
    FinalValidation,
    ImagesPerSecond,
    LastCheckpoint,
    SampleGrid,
    Threads,
    WholeFiles,
)
from els.models.checkpoints import read_training
from els.models.command_line import Command
from els.models.datamodule import Images
from els.models.diffusion import Diffusion
from els.models.networks import NETWORKS
from els.models.processes import check_nodes
from els.models.progress import PlainProgress, ProgressBar
from els.models.run_summary import RunSummary, position
from els.models.runs import CHECKPOINTS, CONFIG, Run, missing_folders, move_aside, take_back
from els.models.snapshots import SNAPSHOTS, Snapshots
from els.models.stopping import Stopping
from els.models.tracking import abandon, finish, training_logger


class SaveConfig(SaveConfigCallback):
    """Write the whole configuration to <run>/config.yaml and to the logger, resumed runs too.

    What is asked of one start alone is left out: training from that file replaces nothing.
    """

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See `SaveConfigCallback.save_config`; called on the first process."""
        config = self.config.clone()
        config.run.overwrite = False
        config.ckpt_path = None
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(config, str(folder / CONFIG), overwrite=True, multifile=False)
        if isinstance(trainer.logger, Logger):
            trainer.logger.log_hyperparams(config.as_dict())


_PIECES = {"data": "data", "network": "model", "trainer": "trainer"}  # by their folders


class TrainParser(Parser, LightningArgumentParser):
    """Lightning's parser with errors of one line, and configurations that have names."""

    config_folders = MappingProxyType(
        {"-c": "", "--config": "", "--data": "data", "--model": "network", "--trainer": "trainer"}
    )
    switches = frozenset({"--run.overwrite", "--data.conditional", "--data.download"})

    def _path(self, flag: str, value: str) -> str:
        """See `Parser`; a piece of a configuration is told from a whole one."""
        path = super()._path(flag, value)
        piece = Path(path).parent.name
        if flag in ("-c", "--config") and piece in _PIECES:
            raise InputError(
                f"'{value}' is a piece of a configuration; give it as --{_PIECES[piece]} {value}"
            )
        return path

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """See `Parser.error`."""
        if "trainer.logger" in message:
            check_logger("?")
        if re.search(r"\blearning_rate\b", message):  # as it is called elsewhere
            message += "; did you mean lr?"
        super().error(message, ex)

    def known_names(self) -> set[str]:
        """See `Parser.known_names`; the arguments of this project's networks, too."""
        arguments = {name for net in NETWORKS.values() for name in net.__init__.__annotations__}
        return super().known_names() | arguments


def check_logger(value: object) -> None:
    """Refuse loggers of --trainer.logger but the absence of any.

    Raises:
        InputError: when it is anything but false and null.
    """
    if value not in (None, False):
        raise InputError(
            "--trainer.logger takes false alone; choose a logger with --run.logger wandb, "
            "tensorboard, csv or none"
        )


class TrainCLI(LightningCLI):
    """LightningCLI with this project's run folders, loggers and callbacks."""

    command: Command
    run: Run
    stopping: Stopping
    made: Sequence[Path] = ()  # folders that were not there
    before: Trained | None = None
    snapshots: Snapshots | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The sub-commands, and what of Lightning's methods is no option of theirs."""
        data = {"model", "datamodule", "train_dataloaders", "val_dataloaders", "dataloaders"}
        return {"fit": data, "validate": data | {"verbose"}, "test": data | {"verbose"}}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this project's own options, then those of Lightning's trainer."""
        parser.add_class_arguments(Run, "run")
        parser.add_lightning_class_args(Images, "data")
        # Samples are drawn with the averaged weights, so they come before EMA takes them away.
        parser.add_lightning_class_args(SampleGrid, "samples")
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(Diffusion, "model")
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": it for key, it in self.trainer_defaults.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Tell the network what the data are like."""
        for source, target in (("num_channels", "channels"), ("num_classes", "num_classes")):
            parser.link_arguments(
                f"data.{source}", f"model.net.init_args.{target}", apply_on="instantiate"
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what `main` gives; Lightning warns of arguments that are not those of sys.argv."""
        self.config = parser.parse_args(args)
        config = self.config[self.config.subcommand]
        if not isinstance(config.seed_everything, bool):
            check_between("seed_everything", config.seed_everything, 0, 2**32 - 1)
        check_nodes(config.trainer.num_nodes)
        trainer = config.trainer
        check_between("trainer.log_every_n_steps", trainer.log_every_n_steps or 0, 0)
        check_between("trainer.accumulate_grad_batches", trainer.accumulate_grad_batches, 1)
        if (every := trainer.check_val_every_n_epoch) is not None:
            check_between("trainer.check_val_every_n_epoch", every, 1)

    def _parse_ckpt_path(self) -> None:
        """Checkpoints of this project hold no options of the command line."""

    @property
    def fitting(self) -> bool:
        """Whether this trains, and is no trial of a few steps."""
        return self.subcommand == "fit" and not self.config[self.subcommand].trainer.fast_dev_run

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot be done or would destroy a run, before anything is made."""
        config = self.config[self.subcommand]
        config.weights_only = True  # checkpoints are data
        check_logger(config.trainer.logger)
        self.run, self.stopping = Run(**config.run.as_dict()), Stopping()
        if self.fitting:
            self.made = missing_folders(self.run.folder)
            self.run.check_room(config.ckpt_path and self._checkpoint(config.ckpt_path))
        elif self.subcommand != "fit":
            config.ckpt_path = config.ckpt_path or "last"
        if config.ckpt_path:
            config.ckpt_path = self._checkpoint(config.ckpt_path)

    def _checkpoint(self, ckpt_path: str) -> str:
        return str(self.run.checkpoint(ckpt_path))

    def instantiate_trainer(self, **kwargs: object) -> pl.Trainer:
        """A trainer that keeps everything of the run in the run's folder."""
        config = self.config[self.subcommand]
        self.before = self._learned_before(config.ckpt_path)
        logger: Logger | bool = False
        try:
            if self.fitting and config.trainer.logger is not False:
                run = self.run
                logger = training_logger(
                    run.logger, run.name, run.folder, run.project, goes_on=bool(config.ckpt_path)
                )
            return super().instantiate_trainer(
                logger=logger, default_root_dir=str(self.run.folder), **kwargs
            )
        except Exception:
            if self.fitting:  # a logger has made it
                take_back(self.run.folder, self.made, None)
            raise

    def _learned_before(self, ckpt_path: str | None) -> Trained | None:
        """What the checkpoint says that goes on, whose network must be the one that is trained."""
        if not ckpt_path:
            return None
        (told, trained), net = read_training(Path(ckpt_path)), self.model.net
        now = {"name": type(net).__name__, **net.config}
        differing = [key for key in told | now if told.get(key) != now.get(key)]
        if differing:
            was, is_now = (
                ", ".join(f"{key} {source.get(key)}" for key in differing) for source in (told, now)
            )
            raise InputError(
                f"'{ckpt_path}' was trained with {was}, and the network now has {is_now}; give the "
                f"same options, or --config {Path(ckpt_path).parents[1] / CONFIG}"
            )
        return trained

    def _instantiate_trainer(self, config: dict, callbacks: list[pl.Callback]) -> pl.Trainer:
        terminal = console.is_terminal and config["enable_progress_bar"] is not False
        progress = ProgressBar() if terminal else PlainProgress()
        config["enable_progress_bar"] = False  # Lightning's own shows the epoch alone
        config["plugins"] = config["plugins"] or [WholeFiles()]
        if self.subcommand != "fit":
            callbacks = []
        elif not self.fitting:
            callbacks = [one for one in callbacks if not isinstance(one, SampleGrid)]
        if self.subcommand == "fit":
            callbacks += [RunSummary(self.before), Threads(), self.stopping, progress]
        if self.fitting:
            callbacks += self._keeping()
        if config["logger"]:
            callbacks.append(LearningRateMonitor("step"))
        if not self.fitting:
            self.save_config_callback = None
            config["enable_checkpointing"] = False
        try:
            return super()._instantiate_trainer(config, callbacks)
        except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self._asked_of_trainer()} cannot be: {reason(error)}") from error

    def _asked_of_trainer(self) -> str:
        """The options of the trainer that are not as they would be without being given."""
        given = self.config[self.subcommand].trainer.as_dict()
        usual = self._parser(self.subcommand).get_defaults().trainer.as_dict()
        asked = [
            f"--trainer.{name} {value}"
            for name, value in given.items()
            if value != usual.get(name) and name not in ("plugins", "enable_progress_bar")
        ]
        return ", ".join(asked) or "this trainer"

    def _keeping(self) -> list[Callback]:
        folder = self.run.folder / CHECKPOINTS
        best = ModelCheckpoint(
            dirpath=folder,
            filename="best",
            monitor="val/loss",
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
        self.best, self.last = best, LastCheckpoint(dirpath=folder, stopping=self.stopping)
        kept: list[Callback] = [ImagesPerSecond(), FinalValidation(), best, self.last]
        if self.run.snapshots:
            self.snapshots = Snapshots(self.run.folder / SNAPSHOTS, self.run.snapshots)
            kept.insert(0, self.snapshots)
        return kept

    def fit(self, **options: Any) -> None:
        """Train, and say where the results are; what stops it is kept and told."""
        if self._is_over():
            return
        if self.snapshots is not None:
            self.snapshots.check(self.trainer)
        with ExitStack() as folder, self.stopping.listening():
            try:
                if self.fitting and self.trainer.global_rank == 0:
                    folder.enter_context(self._begun())
                self.trainer.fit(**options)
            except SystemExit:
                if self.stopping.signum is not None:
                    self._say_stopped()
                raise
            except Exception:
                if self.fitting:
                    self._give_up()
                raise
        if self.fitting:
            self._say_finished()

    @rank_zero_only
    def _give_up(self) -> None:
        """End the logs; where nothing was trained, leave the folder as it was before."""
        for logger in self.trainer.loggers:
            abandon(logger)
        if not self.trainer.global_step:
            take_back(self.run.folder, self.made, self.last.replaced)

    def _is_over(self) -> bool:
        """Whether there is nothing to train, which is then said."""
        before, trainer = self.before, self.trainer
        if before is None or not self.fitting:
            return False
        limits = (
            ("epoch", before.epochs, trainer.max_epochs),
            ("step", before.steps, trainer.max_steps),
        )
        for what, done, limit in limits:
            if limit not in (None, -1) and done >= limit:
                _say(
                    f"nothing to do: '{self.run.name}' is already at {what} {done:,} of {limit:,}; "
                    f"raise --trainer.max_{what}s"
                )
                return True
        return False

    def _begun(self) -> AbstractContextManager[None]:
        """Give the run its folder, alone: what is replaced is moved aside.

        Raises:
            InputError: when another process is training there.
        """
        folder, doing = self.run.folder, "training"
        if self.run.overwrite and folder.exists():
            with alone_in(folder, doing):
                self._move_aside()
        return alone_in(folder, doing)

    def _move_aside(self) -> None:
        moved = move_aside(self.run.folder)
        if moved is None:
            return
        self.last.replaced = moved
        console.print(f"the run before is now {moved}")
        console.print("  and is deleted when the new one has kept its first checkpoint")

    def validate(self, **options: Any) -> None:
        """Print the held-out loss of a checkpoint."""
        self._measure(lambda: self.trainer.validate(**options, verbose=False))

    def test(self, **options: Any) -> None:
        """Print the loss of a checkpoint on images that no choice was made on."""
        self._measure(lambda: self.trainer.test(**options, verbose=False))

    def _measure(self, losses: Callable[[], Sequence[Mapping[str, float]]]) -> None:
        path = self.config[self.subcommand].ckpt_path
        with self.stopping.listening():
            found = losses()
        rows = {name: f"{value:.4g}" for name, value in found[0].items()}
        if self.before is not None:
            rows["trained"] = plural(self.before.steps, "step")
        _say(key_values({"checkpoint": path, **rows}))

    @rank_zero_only
    def _say_stopped(self) -> None:
        reached = "before the first step"
        if self.trainer.global_step:
            reached = f"at {position(self.trainer, self.model.trained)}"
        _say(key_values({"stopped": reached, **self._kept()}))
        if self.fitting:
            self._finish_logs()

    def _kept(self) -> dict[str, str]:
        """What is left of a run that was stopped, and what to do with it."""
        rows = {"kept": "nothing new"}
        if not self.fitting:
            return rows
        if self.last.kept is not None:
            rows["kept"] = f"{self.run.last} (step {self.last.kept.steps:,})"
        if self.run.last.exists():
            rows["go on with"] = self.command.going_on()
        if self.last.replaced is not None:
            rows["the run before"] = str(self.last.replaced)
        return rows

    @rank_zero_only
    def _say_finished(self) -> None:
        first, twin = str(self.run.folder), ""
        if self.run.twin_of is not None:
            first, twin = self.run.twin_of, f" --twin {shlex.quote(first)}"
        next_step = f"{self.command.analyze} {shlex.quote(first)}{twin}"
        console.print(key_values({"checkpoint": str(self.run.last), "next": next_step}))
        self._finish_logs()

    def _finish_logs(self) -> None:
        trained, best = self.model.trained, self.best.best_model_score
        summary = {"training/steps": trained.steps, "training/epochs": trained.epochs}
        if trained.val_loss is not None:
            summary["training/last_val_loss"] = trained.val_loss
        if best is not None:
            summary["training/best_val_loss"] = float(best)
        for logger in self.trainer.loggers:
            finish(logger, summary)


@rank_zero_only
def _say(what: Any) -> None:
    console.print(what)


# What Lightning warns of and this project means to do.
_EXPECTED = (
    ".*does not have many workers.*",  # batches are cut from memory
    ".*is smaller than the logging interval.*",
    ".*recommended to use `self.log\\(.*sync_dist=True.*",  # LossByNoise sums over processes itself
    ".*treespec, LeafSpec.*",
    "Checkpoint directory .* exists and is not empty.*",
    "Be aware that when using `ckpt_path`.*",  # measuring a loss takes the weights alone
    ".*checkpoint that ended before the epoch ended.*",  # the order of the images goes on
)


def main(args: Sequence[str] | None = None) -> TrainCLI:
    """Run the command line; `args` stands in for sys.argv in tests."""
    for message in _EXPECTED:
        warnings.filterwarnings("ignore", message)
    for library in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    command = Command(sys.argv[0], sys.argv[1:] if args is None else args)
    TrainCLI.command = command
    return TrainCLI(
        Diffusion,
        Images,
        args=command.complete(),
        auto_configure_optimizers=False,
        # Checkpoints describe their network themselves (models/checkpoints.py). Lightning's own way
        # would tie the module to this whole object, and EMA would copy it, data and all.
        load_from_checkpoint_support=False,
        seed_everything_default=0,
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={"description": "Train a network."},
        parser_class=TrainParser,
        trainer_defaults={"log_every_n_steps": 25, "enable_model_summary": False},
    )
