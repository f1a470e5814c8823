"""The inner loop of `els/machines/native.cpp` in numba: what the choice of C++ was made against.

Not part of the package; `bench.py` measures it where numba is installed. Interior places of
`boundary` alone, one query and one size: 16 images in the lanes, e_s along rows, sums of k rows,
sums of k columns, and a softmax that is streamed by blocks of displacements.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

LANES = 16
BLOCK = 8  # column displacements at a time
MATH = {"contract", "nsz", "nnan"}


def patch_mean(x: Tensor, pixels: Tensor, alpha: Tensor, sigma: Tensor, size: int) -> Tensor:
    """x0_hat (c h w) of one query x (1 c h w) at the places whose window lies inside, else 0."""
    c, h, w = x.shape[1:]
    groups = -(-len(pixels) // LANES)
    unit = 1 / (float(sigma) * math.sqrt(2 * math.log(2)))
    y = np.full((groups * LANES, c, h, w), 1e9, dtype=np.float32)  # absent: no weight
    y[: len(pixels)] = (pixels.numpy() / 127.5 - 1) * (float(alpha) * unit)
    y = np.ascontiguousarray(y.reshape(groups, LANES, c, h, w).transpose(0, 3, 4, 2, 1))
    query = np.ascontiguousarray(x[0].permute(1, 2, 0).numpy() * np.float32(unit))
    least, mass, moment = _scan(query, y, size // 2, torch.get_num_threads())
    weight = np.exp2(least.min(axis=(0, 3), keepdims=True) - least)
    total = (mass * weight).sum(axis=(0, 3))
    summed = (moment * weight[:, :, :, None]).sum(axis=(0, 4))
    mean = np.divide(
        summed, total[..., None], out=np.zeros_like(summed), where=total[..., None] > 0
    )
    return torch.from_numpy(mean / (float(alpha) * unit)).permute(2, 0, 1)


@numba.njit(parallel=True, fastmath=MATH, cache=True)
def _scan(query, y, r, threads):
    groups, h, w, c, lanes = y.shape
    least = np.full((threads, h, w, lanes), np.float32(1e30), dtype=np.float32)
    mass = np.zeros((threads, h, w, lanes), dtype=np.float32)
    moment = np.zeros((threads, h, w, c, lanes), dtype=np.float32)
    for thread in numba.prange(threads):
        for group in range(thread, groups, threads):
            for s in range(-(h - 1 - 2 * r), h - 2 * r):
                for first in range(-(w - 1 - 2 * r), w - 2 * r, BLOCK):
                    _sweep(query, y[group], r, s, first, least[thread], mass[thread],
                           moment[thread])  # fmt: skip
    return least, mass, moment


@numba.njit(fastmath=MATH, cache=True)
def _sweep(query, y, r, s, first, least, mass, moment):
    h, w, c, lanes = y.shape
    squares = np.zeros((h, w, BLOCK, LANES), dtype=np.float32)
    for u in range(max(0, -s), min(h, h - s)):
        for i in range(w):
            for j in range(max(0, -first - i), min(BLOCK, w - first - i)):
                for ch in range(c):
                    centre = query[u, i, ch]
                    for lane in range(LANES):
                        d = centre - y[u + s, i + first + j, ch, lane]
                        squares[u, i, j, lane] += d * d
    stack = np.zeros((w, BLOCK, LANES), dtype=np.float32)
    box = np.zeros((BLOCK, LANES), dtype=np.float32)
    begin_row, end_row = max(r, r - s), min(h - r, h - r - s)
    for u in range(begin_row, end_row):
        for row in range(u - r if u == begin_row else u + r, u + r + 1):
            _add(stack, squares[row])
        for i in range(r, w - r):
            if i == r:
                box[:] = 0
                for column in range(2 * r):
                    _add(box, stack[column])
            _add(box, stack[i + r])
            begin, end = max(0, r - i - first), min(BLOCK, w - r - i - first)
            if begin < end:
                _absorb(box, y[u + s], i + first, begin, end, least[u, i], mass[u, i], moment[u, i])
            _subtract(box, stack[i - r])
        _subtract(stack, squares[u - r])


@numba.njit(fastmath=MATH, cache=True, inline="always")
def _add(total, part):
    a, b = total.ravel(), part.ravel()
    for i in range(a.size):
        a[i] += b[i]


@numba.njit(fastmath=MATH, cache=True, inline="always")
def _subtract(total, part):
    a, b = total.ravel(), part.ravel()
    for i in range(a.size):
        a[i] -= b[i]


@numba.njit(fastmath=MATH, cache=True, inline="always")
def _exp2(x):
    x = max(x, np.float32(-125))
    rounded = np.int32(x - np.float32(0.5))
    f = x - np.float32(rounded)
    p = np.float32(1.327645461e-3)
    p = p * f + np.float32(9.675540368e-3)
    p = p * f + np.float32(5.55071331e-2)
    p = p * f + np.float32(2.402211974e-1)
    p = p * f + np.float32(6.931469671e-1)
    p = p * f + np.float32(1)
    return p * np.int32((rounded + np.int32(127)) << np.int32(23)).view(np.float32)


@numba.njit(fastmath=MATH, cache=True, inline="always")
def _absorb(box, row, column, begin, end, least, mass, moment):
    weight = np.empty(LANES, dtype=np.float32)
    for lane in range(LANES):
        lowest = least[lane]
        for j in range(begin, end):
            lowest = min(lowest, box[j, lane])
        weight[lane] = _exp2(lowest - least[lane])
        least[lane] = lowest
        mass[lane] *= weight[lane]
    for ch in range(moment.shape[0]):
        for lane in range(LANES):
            moment[ch, lane] *= weight[lane]
    for j in range(begin, end):
        for lane in range(LANES):
            weight[lane] = _exp2(least[lane] - box[j, lane])
            mass[lane] += weight[lane]
        for ch in range(moment.shape[0]):
            for lane in range(LANES):
                moment[ch, lane] += weight[lane] * row[column + j, ch, lane]
