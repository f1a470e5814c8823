"""How the commands begin: help at once, and what is slow to import only when it is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")
Help = Callable[[Sequence[str]], str | None]


def begin(
    help_of: Help, run: Callable[[Sequence[str]], Result], args: Sequence[str] | None = None
) -> Result | None:
    """Print the help that is asked for, or run a command.

    Args:
        help_of: the help that arguments ask for; None where they ask for none.
        run: what is run otherwise.
        args: stands in for `sys.argv[1:]`.

    Returns:
        what was run returns; None where help was asked for.
    """
    args = list(sys.argv[1:] if args is None else args)
    text = help_of(args)
    if text is not None:
        print(text)
        return None
    return run(args)


def begin_cleanly(help_of: Help, run: Callable[[Sequence[str]], object]) -> None:
    """The same for a person, who is told in a line what can be mended.

    Threads of PyTorch that wait for each other sleep instead of spinning, which takes several times
    as long beside other work (`benchmarks/contention.py`); OMP_WAIT_POLICY chooses otherwise.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when PyTorch is imported

    def cleanly(args: Sequence[str]) -> None:
        # Help does without their libraries.
        from els.console import exit_cleanly, keep_terminal_clean

        keep_terminal_clean()
        with exit_cleanly():
            run(args)

    begin(help_of, cleanly)
