"""The entry of `train.py` and `els-train`: help at once, and everything else when it is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from els.models.entry import begin, begin_cleanly
from els.models.memory import keep_freed_memory
from els.models.short_help import short_help

if TYPE_CHECKING:
    from els.models.training import TrainCLI


def main(args: Sequence[str] | None = None) -> TrainCLI | None:
    """Run the command line; `args` stands in for sys.argv in tests.

    Returns:
        what was trained or measured; None where help was asked for, or a network exported.
    """
    return begin(short_help, _train, args)


def command() -> None:
    """The command els-train, and train.py."""
    keep_freed_memory()
    begin_cleanly(short_help, _train)


def _train(args: Sequence[str]) -> TrainCLI | None:
    if args[0] == "export":
        from els.models import export  # with PyTorch, which takes seconds to import

        export.main(args[1:])
        return None
    from els.models import training  # Lightning takes seconds to import

    return training.main(args)
