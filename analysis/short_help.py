"""The help of analyses that people look for: one screen, without importing anything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = ("run", "figures", "compare", "list", "dashboard")
USAGE = {
    "run": """usage: {analyze} RUN [RUN ...] [options]

Measure how well closed-form machines predict what trained networks draw.

  {analyze} runs/garments_resnet
  {analyze} runs/A runs/B --machines all   (several are compared)
  {analyze} runs/A --config quick          (or standard, or paper)
  {analyze} figures|compare|list|dashboard --help

RUN is a folder of train.py, a checkpoint, wandb:entity/project/name:alias, a
network of somebody else (docs/checkpoints.md), hf:owner/name, or zoo:name for
one that comes along (zoo/).
""",
    "figures": """usage: {analyze} figures RUN [RUN ...] [options]

Draw the figures of finished analyses again, from what is saved.
""",
    "compare": """usage: {analyze} compare RUN RUN [RUN ...] [options]

Compare finished analyses, from what is saved: a table, figures and a page.
""",
    "list": """usage: {analyze} list [FOLDER] [options]

A table of all runs in a folder (default: runs): how they were trained, their
losses, and how well a machine predicts them.
""",
    "dashboard": """usage: {analyze} dashboard [options]

Save a workspace for training and analysis to W&B; without a login, to a file.
""",
}
# Every option with its default as the parser has it, and what it is for: a test compares them.
OPTIONS: dict[str, dict[str, tuple[object, str]]] = {
    "run": {
        "--config": (None, "quick, standard, paper (1, 2, 7 min) or a file"),
        "--machines": (None, "all, or names: boundary,local,ideal"),
        "--seeds": (40, "how many noises, from 0"),
        "--calibration_seeds": (8, "so many of them, the first, to fit scales on"),
        "--network_steps": ([20], "DDIM steps of the network: 150,20"),
        "--steps": (20, "DDIM steps of the machines"),
        "--sizes": (None, "odd patch sizes to try: 3,5,7"),
        "--held_out": (4, "fit the first on so many held-out images, too; 0: not"),
        "--twin": ([], "networks of other seeds, to measure machines by"),
        "--denoising": (0, "errors on so many held-out and training images"),
        "--same_x": (0, "ask at the same x, on so many seeds and images"),
        "--tolerance": ("auto", "error of x0_hat that is good enough; 0: exact"),
        "--clip": (False, "clamp x0_hat to the data's range in every step"),
        "--dry_run": (False, "only say what will be done, and how long it takes"),
        "--mosaic": (True, "--no-mosaic: do not trace where samples come from"),
        "--name": (None, "write to analysis-NAME, beside other analyses"),
        "--force": (False, "compute again, and replace what is finished"),
        "--out": (None, "the run's folder, if not where the checkpoint is"),
        "--data_name": (None, "the training set, if the checkpoint does not say"),
        "--data_root": (None, "where the training images are now"),
        "--self_check": ("error", "or warn, off: whether the network was understood"),
        "--device": ("auto", "cpu, cuda, cuda:1, ..."),
        "--logger": ("wandb", "wandb, csv or none"),
        "--open_page": (False, "show the page in a browser when it is done"),
    },
    "figures": {
        "--formats": ("png", "some of png, pdf, svg: pdf,png"),
        "--out": (None, "a folder; default: beside the results"),
    },
    "compare": {
        "--out": (None, "a folder; default: comparison/ beside the runs"),
        "--formats": ("png", "some of png, pdf, svg: pdf,png"),
        "--logger": ("wandb", "wandb, csv or none"),
        "--project": ("els", "the W&B project"),
        "--relog": (False, "log to W&B again what it has already"),
    },
    "list": {
        "--csv": (None, "write the table to this file too"),
    },
    "dashboard": {
        "--project": ("els", "the W&B project"),
        "--entity": (None, "user or team; default: your own"),
        "--out": (None, "write it to this file, logged in or not"),
    },
}
_HELP = ("-h", "--help")


def short_help(args: Sequence[str]) -> str | None:
    """The help that the arguments ask for; None where they ask for none, or for the whole."""
    if args and not any(flag in args for flag in _HELP):
        return None
    in_clone = Path(sys.argv[0]).name != "els-analyze"
    analyze = "python analyze.py" if in_clone else "els-analyze"
    command = args[0] if args and args[0] in COMMANDS else "run"
    lines = [USAGE[command].format(analyze=analyze)]
    lines += [f"  {name:<20} {text}" for name, (_, text) in OPTIONS[command].items()]
    if command == "run":
        lines += ["", f"{analyze} run --help_all lists all options, and the machines."]
    return "\n".join(lines)
