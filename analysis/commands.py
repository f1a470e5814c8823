"""The entry of `analyze.py` and `els-analyze`: help at once, everything else when it is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from els.analysis.short_help import short_help
from els.models.entry import begin, begin_cleanly


def main(args: Sequence[str] | None = None) -> Any:
    """Run the command line.

    Args:
        args: stands in for `sys.argv[1:]`.

    Returns:
        what the command returns: of `run` the results, a list of them for several checkpoints.
    """
    return begin(short_help, _analyse, args)


def command() -> None:
    """The command `els-analyze`, and analyze.py."""
    begin_cleanly(short_help, _analyse)


def _analyse(args: Sequence[str]) -> Any:
    from els.analysis import parsers  # PyTorch and W&B take seconds to import

    return parsers.main(args)
