"""The command line of analyses: `run`, which needs not be named, and the other commands."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from els.analysis.again import compare, figures
from els.analysis.inventory import list_runs
from els.analysis.options import FORMATS, Compute, Output, Protocol, Source
from els.analysis.running import is_first, run
from els.analysis.short_help import COMMANDS
from els.analysis.tracking.dashboard import write_dashboard
from els.console import Parser, console
from els.errors import InputError
from els.machines.registry import described
from els.models.tracking import LoggerName

GROUPS = (Source, Protocol, Compute, Output)


def main(args: Sequence[str]) -> Any:
    """Run the command line; returns what its command does."""
    console.quiet = not is_first()
    options = build_parser().parse_args(_with_command(args)).as_dict()
    own = options[options["command"]]
    if options["command"] == "run":  # which also takes configurations
        own["told"] = {arg.partition("=")[0].removeprefix("--") for arg in args if arg[:2] == "--"}
    return _RUN[options["command"]](own)


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(prog="analyze.py", description="Analyses of trained networks.")
    parser.switches = frozenset(f"--{name}" for name, kind in _options() if kind is bool)
    parser.lists = frozenset(f"--{name}" for name, kind in _options() if "list[" in str(kind))
    commands = parser.add_subcommands(dest="command")
    for name, (make, about) in _PARSERS.items():
        commands.add_subcommand(name, make(), help=about)
    return parser


def _options() -> list[tuple[str, Any]]:
    return [pair for group in GROUPS for pair in get_type_hints(group).items()]


def _with_command(args: Sequence[str]) -> list[str]:
    """The arguments with the command that was left out, and checkpoints under their flag."""
    args = [arg if arg != "--help_all" else "--help" for arg in args]
    if args[:1] and args[0] in COMMANDS:
        command, *rest = args
    else:
        command, rest = "run", args
        _check_is_no_command(args)
    if command != "run":
        return [command, *rest]
    named = next((i for i, arg in enumerate(rest) if arg.startswith("-")), len(rest))
    return [command, *(["--checkpoint", *rest[:named]] if named else []), *rest[named:]]


def _check_is_no_command(args: Sequence[str]) -> None:
    for word in args[:1]:
        near = difflib.get_close_matches(word, COMMANDS, n=1)
        if near and not Path(word).exists():
            raise InputError(
                f"there is no run and no command '{word}'; did you mean {near[0]}? "
                "(--help lists the commands)"
            )


def _run_parser() -> Parser:
    parser = Parser(description="Analyse networks.", epilog=f"Machines:\n\n{described()}")
    parser.add_argument("-c", "--config", action="config", help="a YAML file of these options")
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=str,
        required=True,
        help="what to analyse; the flag may be left out in front of all other options. A folder or "
        "a checkpoint of train.py, wandb:entity/project/name:alias, a pickle of EDM, a network of "
        "the paper's code, a state dict in a container of training, a file of lucidrains' Trainer, "
        "a folder of diffusers, hf:owner/name, zoo:name (a network that comes along), or "
        "python:my_net.py:load, which runs your own code; several are compared",
    )
    parser.add_class_arguments(Source, None, skip={"checkpoint"})
    for group in (Protocol, Compute, Output):
        parser.add_class_arguments(group, None)
    return parser


def _formats(parser: Parser) -> None:
    parser.add_argument("--formats", default="png", help=f"some of {', '.join(FORMATS)}: pdf,png")


def _figures_parser() -> Parser:
    parser = Parser(description="Draw the figures of finished analyses again, from what is saved.")
    parser.add_argument("runs", nargs="+", type=str, help="runs' folders, such as runs/digits")
    _formats(parser)
    parser.add_argument("--out", type=str | None, help="a folder; default: beside the results")
    return parser


def _compare_parser() -> Parser:
    parser = Parser(description="Compare finished analyses, from what is saved.")
    parser.add_argument("runs", nargs="+", type=str, help="runs' folders, such as runs/digits")
    parser.add_argument(
        "--out", type=str | None, help="a folder; default: comparison/<names>, beside the runs"
    )
    _formats(parser)
    parser.add_argument("--logger", type=LoggerName, default="wandb", help="as of analyses")
    parser.add_argument("--project", type=str, default="els", help="the W&B project")
    parser.add_argument(
        "--relog", type=bool, default=False, help="log to W&B again what it has already"
    )
    return parser


def _list_parser() -> Parser:
    parser = Parser(description="A table of all runs in a folder.")
    parser.add_argument("folder", nargs="?", type=str, default="runs", help="the folder of runs")
    parser.add_argument("--csv", type=str | None, help="write the table to this file too")
    return parser


def _dashboard_parser() -> Parser:
    parser = Parser(
        description="Save a workspace for training and analysis to W&B; without a login, write it "
        "to a file."
    )
    parser.add_argument("--project", type=str, default="els", help="the W&B project")
    parser.add_argument("--entity", type=str | None, help="user or team; default: your own")
    parser.add_argument(
        "--out",
        type=str | None,
        help="write it to this file, logged in or not; default: runs/dashboard.json without a "
        "login",
    )
    return parser


def _dashboard(options: dict[str, Any]) -> None:
    write_dashboard(**options)


_PARSERS: dict[str, tuple[Callable[[], Parser], str]] = {
    "run": (_run_parser, "analyse networks; the default"),
    "figures": (_figures_parser, "draw figures again"),
    "compare": (_compare_parser, "compare finished analyses"),
    "list": (_list_parser, "a table of all runs"),
    "dashboard": (_dashboard_parser, "a workspace of W&B"),
}
_RUN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "run": run,
    "figures": figures,
    "compare": compare,
    "list": list_runs,
    "dashboard": _dashboard,
}
