"""What the paper's authors released for the networks of its table."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from els.analysis.results import Results

_PATH = Path(__file__).with_name("released_scales.json")
_SIDE = 32  # of the paper's images


def released_sizes(results: Results) -> dict[float, int] | None:
    """The released patch size at each t of the paper's network of this kind, if there is one.

    All are of 32 x 32 pixels and without attention. The paper's networks are wider and trained for
    longer than most.
    """
    facts = results.provenance.network
    if tuple(results.noise.shape[2:]) != (_SIDE, _SIDE) or facts.receptive_field is None:
        return None
    conditional = results.labels is not None
    return sizes_of_row(results.provenance.data.name, facts.name, facts.padding, conditional)


def sizes_of_row(
    data: str, network: str, padding: str, conditional: bool
) -> dict[float, int] | None:
    """The released patch size at each t for a row of the paper's table; None if it has no such."""
    wanted = {"data": data, "network": network, "padding": padding, "conditional": conditional}
    for row in _rows():
        if all(row[key] == value for key, value in wanted.items()):
            n = len(row["sizes"])
            return {(i + 1) / n: size for i, size in enumerate(row["sizes"])}
    return None


@cache
def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(_PATH.read_text(encoding="utf-8"))["rows"]
    return rows
