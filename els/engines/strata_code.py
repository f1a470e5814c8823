"""Calls of the compiled code in sorting.cpp and strata.cpp: sorting patches, and sampling them."""

from __future__ import annotations

import ctypes
import math
from typing import NamedTuple

import torch
from torch import Tensor

from els.engines.dictionary import Region
from els.engines.native_engine import library
from els.work import tick

SHORT = 32  # numbers in a row of the basis that patches are projected on, as in sorting.cpp
_IMAGES_AT_A_TIME = 500
_GOLDEN = (math.sqrt(5) - 1) / 2

_TENSORS = (
    "images",
    "order",
    "start",
    "codes",
    "centres",
    "steps",
    "x",
    "at",
    "features",
    "terms_of",
    "means",
    "variances",
    "lowest",
    "highest",
    "reach",
    "centre",
    "spread",
    "keys",
    "mean",
    "variance",
    "draws",
)
_NUMBERS = (
    "terms",
    "components",
    "strata",
    "channels",
    "height",
    "width",
    "window_rows",
    "window_columns",
    "x_width",
    "threads",
)


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
        ("alone", ctypes.c_double),
    ]


class _Sorting(ctypes.Structure):
    """`Sorting` in sorting.cpp."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                "images",
                "basis",
                "shift",
                "branches",
                "leaves",
                "centres",
                "steps",
                "stratum",
                "codes",
                "lowest",
                "highest",
            )
        ),
        ("count", ctypes.c_int64),
        *(
            (name, ctypes.c_int32)
            for name in (
                "height",
                "width",
                "channels",
                "first_row",
                "first_column",
                "rows",
                "columns",
                "window_rows",
                "window_columns",
                "centre_row",
                "centre_column",
                "components",
                "many",
                "few",
                "threads",
            )
        ),
    ]


class Sorted(NamedTuple):
    """Patches in L strata.

    Attributes:
        start: where each of the strata begins, int64 (L + 1,).
        order: the index of each patch's first pixel among all pixels, int32 (patches,).
        codes: of d + 1 + c bytes, uint8 (patches x bytes,), for each stratum one byte of all its
            members after another.
        sums, squares: of each byte and of its square over the members, int64 (L bytes).
        least, largest: of each byte over the members, uint8 (L bytes); 255 and 0 of none.
        lowest, highest: the same of what the first d + 1 bytes stand for where one of them does not
            fit, in units of a code (L, d + 1); 3e38 and -3e38 of none.
    """

    start: Tensor
    order: Tensor
    codes: Tensor
    sums: Tensor
    squares: Tensor
    least: Tensor
    largest: Tensor
    lowest: Tensor
    highest: Tensor


def estimate(tensors: dict[str, Tensor], **numbers: float) -> None:
    """Fill in `mean`, `variance` and `draws`; see `Task` in strata.cpp for all names."""
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    task = _Task(**pointers, **numbers, threads=torch.get_num_threads())
    _check(library().els_estimate(ctypes.byref(task)) == 0)


def sort_patches(images: Tensor, region: Region, tensors: dict[str, Tensor]) -> Sorted:
    """Sort the patches of a region of all images into strata, in an order that has nothing to do
    with where they are from.

    Args:
        images: as bytes (n h w c), contiguous.
        region: where the patches are.
        tensors: what tells the strata: `basis`, `shift`, `branches`, `leaves`, `centres` and
            `steps` of `Sorting` in sorting.cpp, the number of branches and leaves being multiples
            of 16.
    """
    n, h, w, c = images.shape
    rows, columns = region
    strata, d = tensors["centres"].shape
    bytes_each = d + 1 + c
    stratum = torch.empty(n * region.places, dtype=torch.int32)
    codes = torch.empty(len(stratum) * bytes_each, dtype=torch.uint8)
    lowest = torch.full((strata, d + 1), 3e38)  # compiled code knows no infinity
    highest = -lowest
    tensors = {**tensors, "lowest": lowest, "highest": highest}
    task = _Sorting(
        **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        height=h,
        width=w,
        channels=c,
        first_row=rows.first,
        first_column=columns.first,
        rows=rows.places,
        columns=columns.places,
        window_rows=rows.cells,
        window_columns=columns.cells,
        centre_row=rows.centre,
        centre_column=columns.centre,
        components=d,
        many=tensors["branches"].shape[1],
        few=tensors["leaves"].shape[2],
        threads=torch.get_num_threads(),
    )
    code = library()
    for first in range(0, n, _IMAGES_AT_A_TIME):
        task.count = min(_IMAGES_AT_A_TIME, n - first)
        task.images = images[first:].data_ptr()
        task.stratum = stratum[first * region.places :].data_ptr()
        task.codes = codes[first * region.places * bytes_each :].data_ptr()
        _check(code.els_encode(ctypes.byref(task)))
        tick(task.count / n)
    start = torch.bincount(stratum, minlength=strata).cumsum(0)
    start = torch.cat([torch.zeros(1, dtype=torch.int64), start])
    order, at = torch.empty_like(stratum), start.clone()
    step = max(1, int(len(stratum) * _GOLDEN))
    while math.gcd(step, len(stratum)) > 1:
        step += 1
    code.els_sort(
        _pointer(stratum), *map(ctypes.c_int64, (len(stratum), step)), _pointer(at), _pointer(order)
    )
    del stratum
    task.codes = codes.data_ptr()
    each = (strata, bytes_each)
    sums, squares = (torch.zeros(each, dtype=torch.int64) for _ in range(2))
    least, largest = (torch.zeros(each, dtype=torch.uint8) for _ in range(2))
    arranged = (start, order, torch.empty_like(codes), sums, squares, least, largest)
    _check(code.els_arrange(ctypes.byref(task), strata, *map(_pointer, arranged)))
    return Sorted(*arranged, lowest, highest)


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _check(done: int) -> None:
    if not done:
        raise MemoryError("the compiled engine ran out of memory")
