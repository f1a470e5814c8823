"""Which training places may stand in for a pixel: the one rule in which the machines differ.

The rule is the same along rows and columns, so it is written for one axis; a machine uses the
product of the two. A window of size k reaches r = k // 2 places to either side of its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from els.errors import InputError

Rule = Literal["local", "equivariant", "boundary"]
RULES: tuple[Rule, ...] = get_args(Rule)  # in the order in which native.cpp numbers them


@dataclass(frozen=True)
class Group:
    """Runs of places along an axis, all alike in length.

    Attributes:
        query: (g, q) places of the query image.
        training: (g, p) places of a training image; run i of the query may use run i of these.
    """

    query: Tensor
    training: Tensor

    @property
    def pairs(self) -> int:
        """How many (query place, training place) pairs there are."""
        return self.query.numel() * self.training.shape[1]


def axis_groups(rule: Rule, length: int, size: int) -> list[Group]:
    """The groups of one axis; every query place is in exactly one of them.

    - `local`: a place may use itself alone.
    - `equivariant`: any place may use every place whose window lies wholly inside.
    - `boundary`: places whose window lies inside may use each other. A window that crosses a
      border can be matched only by one that crosses the same border at the same distance, and
      that is the one at the same place.

    Args:
        rule: which of them.
        length: number of places, h or w.
        size: the patch size k, odd.
    """
    everywhere = torch.arange(length)
    inside = everywhere[size // 2 : max(length - size // 2, 0)]
    if rule == "equivariant":
        return [Group(query=everywhere[None], training=inside[None])]
    if rule == "local":
        inside = everywhere[:0]
    crossing = everywhere[~torch.isin(everywhere, inside)]
    alone, together = crossing[:, None], inside[None]
    return [Group(places, places) for places in (alone, together) if places.numel()]


class Span(NamedTuple):
    """Windows along one axis, at all places of a stretch of it.

    Attributes:
        first: where the stretch begins.
        length: of the stretch.
        cells: of a window.
        centre: which of a window's cells is the pixel that it belongs to.
    """

    first: int
    length: int
    cells: int
    centre: int

    @property
    def places(self) -> int:
        """How many windows there are."""
        return self.length - self.cells + 1

    @property
    def pixels(self) -> slice:
        """The pixels that the windows belong to."""
        return slice(self.first + self.centre, self.first + self.centre + self.places)

    @property
    def stretch(self) -> slice:
        """All that the windows see."""
        return slice(self.first, self.first + self.length)


class Region(NamedTuple):
    """Windows of one shape in a rectangle of an image; each may be compared with each."""

    rows: Span
    columns: Span

    @property
    def places(self) -> int:
        """How many windows an image has here."""
        return self.rows.places * self.columns.places

    @property
    def is_cut(self) -> bool:
        """Whether a border cuts these windows."""
        return self.rows.cells != self.columns.cells

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Rows and columns of the pixels that the windows belong to."""
        return self.rows.pixels, self.columns.pixels

    @property
    def rectangle(self) -> tuple[slice, slice]:
        """Rows and columns that the windows see."""
        return self.rows.stretch, self.columns.stretch


def inside(size: int, height: int, width: int) -> Region:
    """The windows of size k that lie wholly inside an image at least as large."""
    r = size // 2
    return Region(Span(0, height, size, r), Span(0, width, size, r))


def along_borders(size: int, height: int, width: int) -> list[Region]:
    """What is left, by the rule `boundary`, of windows that cross one border, not two."""
    rows, columns = inside(size, height, width)
    crossing = [Region(span, columns) for span in _crossing(size, height)]
    return crossing + [Region(rows, span) for span in _crossing(size, width)]


def _crossing(size: int, length: int) -> list[Span]:
    """The windows that one end of an axis cuts off, each alone."""
    r = size // 2
    cut = [Span(0, i + r + 1, i + r + 1, i) for i in range(r)]
    return cut + [Span(length - i - r - 1, i + r + 1, i + r + 1, r) for i in range(r)]


def check_size(rule: Rule, size: int, image_shape: tuple[int, int, int]) -> None:
    """Refuse a patch size that the machine has no meaning for.

    Raises:
        InputError: when it is even, not positive, or too large for these images.
    """
    _, h, w = image_shape
    largest = min(h, w) if rule == "equivariant" else 2 * max(h, w) - 1
    largest -= 1 - largest % 2
    if size < 1 or size % 2 == 0:
        raise InputError(f"patch size {size} is not a positive odd number")
    if size > largest:
        raise InputError(
            f"patch size {size} is too large for the {rule} machine on {h} x {w} images; "
            f"the largest is {largest}"
        )
