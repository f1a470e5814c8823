"""How much the cells around a pixel count when patches are compared."""

from __future__ import annotations

import math
from typing import Literal

WindowName = Literal["hard", "flat", "gaussian"]

# A Gaussian window ends where its weight is below exp(-2).
_REACH = 2.0


def window(name: WindowName, width: float) -> tuple[int, tuple[float, ...] | None]:
    """The patch size k of a window, and the weight of its rows and columns by their distance.

    A cell weighs the product of its row's and its column's weight in the squared distance.

    - "hard": width is k, an odd number; None stands for weights of 1 throughout.
    - "flat": width is the side of a square, at least 1; between odd numbers the outermost ring
      weighs partly. The weights are continuous in the width; which places a pixel may use goes by
      k, and changes where k does.
    - "gaussian": width is the standard deviation in pixels; weights are exp(-d^2 / (2 width^2)).
    """
    if name == "hard":
        return int(width), None
    if name == "gaussian":
        radius = max(1, math.ceil(_REACH * width))
        return 2 * radius + 1, tuple(math.exp(-(d**2) / (2 * width**2)) for d in range(radius + 1))
    radius = math.ceil((width - 1) / 2)
    edge = (width - 1) / 2 - (radius - 1) if radius else 1.0
    return 2 * radius + 1, (*(1.0,) * radius, edge)
