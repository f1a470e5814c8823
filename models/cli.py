"""The entry of `train.py` and `els-train`: help at once, and everything else when it is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from els.models.short_help import short_help

if TYPE_CHECKING:
    from els.models.training import TrainCLI


def main(args: Sequence[str] | None = None) -> TrainCLI | None:
    """Run the command line; `args` stands in for sys.argv in tests.

    Returns:
        what was run; None where help was asked for.
    """
    text = short_help(sys.argv[1:] if args is None else args, sys.argv[0])
    if text is not None:
        print(text)
        return None
    from els.models import training  # Lightning takes seconds to import

    return training.main(args)


def command() -> None:
    """The command els-train, and train.py."""
    if short_help(sys.argv[1:]) is not None:
        main()
        return
    from els.console import exit_cleanly

    with exit_cleanly():
        main()
