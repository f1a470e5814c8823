"""The rows of the paper's table: agreement that it reports, and scales that were released."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from els.analysis.results import Results

_PATH = Path(__file__).with_name("published.json")
_SIDE = 32  # of the paper's images
_STEPS = (150, 20)  # of the network, for which there are medians


@dataclass(frozen=True)
class PaperRow:
    """A network of Kamb & Ganguli 2025: wider, and trained for longer, than most.

    Attributes:
        machines: medians of Pearson's r over 100 seeds, with 150 network steps and with 20, by the
            kind of machine.
        sizes: the released patch size at each t.
    """

    machines: dict[str, list[float]]
    sizes: dict[float, int]

    def tells_of(self, steps: int) -> bool:
        """Whether it has medians with so many network steps."""
        return steps in _STEPS

    def pearson_r(self, kind: str, steps: int) -> float | None:
        """The median for a machine at a number of network steps; None if there is none."""
        if kind not in self.machines or not self.tells_of(steps):
            return None
        return self.machines[kind][_STEPS.index(steps)]


def paper_row(results: Results) -> PaperRow | None:
    """The paper's network of the kind that was analysed, if there is one.

    All are of 32 x 32 pixels and without attention.
    """
    facts = results.provenance.network
    if facts.receptive_field is None:
        return None
    return row_of(
        results.provenance.data.name,
        facts.name,
        facts.padding,
        conditional=results.labels is not None,
        shape=results.noise.shape[2:],
    )


def row_of(
    data: str, network: str, padding: str, *, conditional: bool, shape: tuple[int, ...]
) -> PaperRow | None:
    """The paper's network of a kind; None if it has no such.

    Args:
        data: the name of the data set, such as "cifar10".
        network: ResNet or UNet.
        padding: zeros or circular.
        conditional: whether it is told classes.
        shape: height and width of the images.
    """
    if tuple(shape) != (_SIDE, _SIDE):
        return None
    wanted = {"data": data, "network": network, "padding": padding, "conditional": conditional}
    for row in _rows():
        if all(row[key] == value for key, value in wanted.items()):
            n = len(row["sizes"])
            sizes = {(i + 1) / n: size for i, size in enumerate(row["sizes"])}
            return PaperRow(row["pearson_r"], sizes)
    return None


@cache
def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(_PATH.read_text(encoding="utf-8"))["rows"]
    return rows
