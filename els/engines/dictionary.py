"""Which training places may stand in for a pixel: the one rule in which the machines differ.

The rule is the same along rows and columns, so it is written for one axis; a machine uses the
product of the two. A window of size k reaches r = k // 2 places to either side of its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

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
