"""The help of training that people look for: one screen, without importing anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence

MAIN = """usage: {train} fit|validate|test|export [options]

Train a network, or measure the loss of a trained one.

  {train} fit --config digits_resnet
  {train} fit --config digits_resnet --ckpt_path last   (go on)
  {train} fit --config digits_resnet --model network/unet_32_zeros
  {train} validate --run.name digits_resnet   (held-out images)
  {train} test --run.name digits_resnet       (images for tests alone)
  {train} export --checkpoint runs/A --to DIR (for others)

fit --help has the common options, fit --help_all all of them.
"""
USAGE = {
    "fit": "Train a network. A run is kept in <run.dir>/<run.name>.",
    "validate": "Print the loss of a run's last checkpoint on held-out images; log nothing.",
    "test": "Print the loss of a run's last checkpoint on test images; log nothing.",
}
EXPORT = """usage: {train} export --checkpoint RUN --to FOLDER

Write a trained network for others: model.safetensors and config.json, which
analyze.py reads, a program of torch.export, and a model card.

  --checkpoint              a run's folder, or a .ckpt
  --to                      a new folder
"""
# Every option with its default as the parser has it, and what it is for: a test compares them.
OPTIONS: dict[str, dict[str, tuple[object, str]]] = {
    "run": {
        "--config": (None, "a configuration, by name or path; several merge"),
        "--ckpt_path": (None, "go on from this checkpoint; last, best or a path"),
        "--run.name": ("run", "the run's folder in run.dir"),
        "--run.dir": ("runs", "the folder of all runs"),
        "--run.logger": ("wandb", "wandb, tensorboard, csv or none"),
        "--run.project": ("els", "the W&B project"),
        "--run.overwrite": (False, "replace a run of this name"),
        "--run.twin_of": (None, "as that run, from another seed"),
    },
    "data": {
        "--data": (None, "settings of data: data/mnist, ..."),
        "--data.name": ("digits", "digits, mnist, cifar10, folder, zip, ..."),
        "--data.root": ("data", "where they lie; the folder or zip itself"),
        "--data.size": (None, "height and width in pixels"),
        "--data.limit": (None, "train on so many images"),
        "--data.batch_size": (128, "images a step in each process"),
        "--data.conditional": (False, "tell the network the classes"),
        "--data.download": (False, "fetch missing files"),
    },
    "model": {
        "--model": (None, "settings of a network: network/unet_32_zeros, ..."),
        "--model.net": (None, "its class; --model.net.init_args.width 64, ..."),
        "--model.optimizer": (None, "AdamW; --model.optimizer.lr 1e-3, ..."),
        "--ema.decay": (0.999, "of the averaged weights; 0 for none"),
        "--samples.every_n_epochs": (10, "draw samples so often; 0 for never"),
    },
    "trainer": {
        "--trainer.max_epochs": (None, "train for so many epochs"),
        "--trainer.max_steps": (-1, "or so many steps"),
        "--trainer.check_val_every_n_epoch": (1, "validate so often, and at the end"),
        "--trainer.accelerator": ("auto", "cpu, gpu, ..."),
        "--trainer.devices": ("auto", "how many; with --trainer.strategy ddp"),
        "--trainer.precision": (None, "bf16-mixed, 32-true, ..."),
        "--trainer.fast_dev_run": (False, "true: try one step, keep nothing"),
    },
}
_HELP = ("-h", "--help")


def short_help(args: Sequence[str], program: str | None = None) -> str | None:
    """The help that the arguments ask for; None where they ask for none, or for the whole."""
    program = sys.argv[0] if program is None else program
    train = "els-train" if program.endswith("els-train") else "python train.py"
    if not args or (args[0] in _HELP and len(args) == 1):
        return MAIN.format(train=train)
    if args[0] == "export" and any(flag in args[1:] for flag in _HELP):
        return EXPORT.format(train=train)
    if args[0] not in USAGE or not any(flag in args[1:] for flag in _HELP):
        return None
    lines = [f"usage: {train} {args[0]} [options]", "", USAGE[args[0]], ""]
    for group in OPTIONS.values():
        lines += [_line(name, default, text) for name, (default, text) in group.items()]
    lines += ["", f"{train} {args[0]} --help_all lists all options."]
    return "\n".join(lines)


def _line(name: str, default: object, text: str) -> str:
    told = "" if default is None or default is False else f" ({default})"
    return f"  {name:<26}{'' if len(name) < 26 else ' '}{text}{told}"
