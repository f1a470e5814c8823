"""The entry of `analyze.py` and `els-analyze`: help at once, everything else when it is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from els.analysis.short_help import short_help


def main(args: Sequence[str] | None = None) -> Any:
    """Run the command line.

    Args:
        args: stands in for `sys.argv[1:]`.

    Returns:
        what the command returns: of `run` the results, a list of them for several checkpoints.
    """
    args = list(sys.argv[1:] if args is None else args)
    text = short_help(args)
    if text is not None:
        print(text)
        return None
    from els.analysis import parsers  # PyTorch and W&B take seconds to import

    return parsers.main(args)


def command() -> None:
    """The command `els-analyze`, and analyze.py."""
    if short_help(sys.argv[1:]) is not None:
        main()
        return
    from els.console import exit_cleanly

    with exit_cleanly():
        main()
