"""Calls of the compiled code in strata.cpp: sorting patches into strata, and sampling them."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from els.engines.native_engine import library

LANES = 16  # floats that a row of what the code reads is a multiple of
SHORT = 32  # numbers that stand for a patch in the first comparison
_GOLDEN = (math.sqrt(5) - 1) / 2

_TENSORS = ("images", "order", "start", "queries", "features", "terms_of", "means", "basis",
            "shift", "centre", "spread", "keys", "mean", "variance", "draws")  # fmt: skip
_NUMBERS = ("terms", "components", "strata", "channels", "height", "width", "window_rows",
            "window_columns", "centre_row", "centre_column", "stride", "threads")  # fmt: skip


class _Task(ctypes.Structure):
    """`Task` in strata.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _TENSORS),
        ("count", ctypes.c_int64),
        ("group", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in _NUMBERS),
        ("alpha", ctypes.c_float),
        ("unit", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("tolerance", ctypes.c_float),
        ("most", ctypes.c_double),
        ("dear", ctypes.c_double),
    ]


def estimate(tensors: dict[str, Tensor], **numbers: float) -> bool:
    """Fill in `mean`, `variance` and `draws`; see `Task` in strata.cpp for all names.

    Returns:
        whether that was done: False where all patches are the better way.
    """
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    task = _Task(**pointers, **numbers, threads=torch.get_num_threads())
    outcome = library().els_estimate(ctypes.byref(task))
    if outcome not in (0, 3):
        raise MemoryError("the compiled engine ran out of memory")
    return bool(outcome == 0)


def assign(points: Tensor, branches: Tensor, leaves: Tensor, stratum: Tensor) -> None:
    """Write the stratum of each point (n d) to `stratum`, int32 (n,).

    Args:
        points: float32, contiguous.
        branches: centres as columns (d + 1, B), with half their square below.
        leaves: the same for the leaves of each branch (B, d + 1, L); B and L are multiples of
            `LANES`.
        stratum: stratum branch * L + leaf.
    """
    library().els_assign(
        *(ctypes.c_void_p(points.data_ptr()), ctypes.c_int64(len(points)), points.shape[1]),
        *(ctypes.c_void_p(branches.data_ptr()), branches.shape[1]),
        *(ctypes.c_void_p(leaves.data_ptr()), leaves.shape[2]),
        *(ctypes.c_void_p(stratum.data_ptr()), torch.get_num_threads()),
    )


def sort_patches(
    stratum: Tensor, start: Tensor, *, rows: int, columns: int, height: int, width: int
) -> Tensor:
    """Patches by stratum, in an order that has nothing to do with where they are from.

    Args:
        stratum: of each patch, int32 (n,): all rows x columns places of every image.
        start: where each stratum begins, int64.
        rows, columns: number of places.
        height, width: of the images.

    Returns:
        the index of each patch's first pixel among all pixels, int32 (n,).
    """
    order, at = torch.empty_like(stratum), start.clone()
    step = max(1, int(len(stratum) * _GOLDEN))
    while math.gcd(step, len(stratum)) > 1:
        step += 1
    library().els_sort(
        *(ctypes.c_void_p(stratum.data_ptr()), ctypes.c_int64(len(stratum)), ctypes.c_int64(step)),
        *(ctypes.c_void_p(at.data_ptr()), ctypes.c_void_p(order.data_ptr())),
        *(rows, columns, height, width),
    )
    return order
