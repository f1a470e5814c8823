"""What every loader gives: images not yet read, their division into splits, and room for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from els.errors import InputError
from els.files import cache_folder, replacing
from els.work import Progress

HELD_OUT = 0.1  # share of val, and of test, in a set that comes without such a split
SHARES = {"val": HELD_OUT, "test": HELD_OUT, "train": 1 - 2 * HELD_OUT}


@dataclass(frozen=True)
class Source:
    """Images not yet read: how many, their labels, and a way to read some of them.

    Attributes:
        read: (indices, size, channels, progress) -> uint8 (m c size size).
        labels: int64 (n,) or None.
        classes: names, or empty.
        channels: channels of the images as they are stored.
        passed_over: how many files beside them are no images.
        several: the files read so far that have several frames, of which the first is taken.
    """

    read: Callable[[Tensor, int, int, Progress], Tensor]
    count: int
    labels: Tensor | None
    classes: tuple[str, ...]
    channels: int
    passed_over: int = 0
    several: Set[object] = frozenset()


def limited(indices: Tensor, limit: int | None, seed: int) -> Tensor:
    """`limit` of the indices, chosen by seed, in their original order."""
    if limit is None:
        return indices
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1 image")
    if limit >= len(indices):
        return indices
    return indices[_permutation(len(indices), seed)[:limit].sort().values]


def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def divide(n: int, split: str, seed: int, shares: dict[str, float], what: str) -> Tensor:
    """The sorted indices of one part of n images divided at random into named shares.

    Raises:
        InputError: when that part would be empty.
    """
    if split == "all":
        return torch.arange(n)
    order = _permutation(n, seed)
    start = 0
    for part, share in shares.items():
        stop = n if part == "train" else start + max(1, round(share * n))
        if part == split:
            break
        start = stop
    if start >= stop or stop > n:
        raise InputError(
            f"{what} has {n} images, too few for a train, a val and a test split; it needs 3"
        )
    return order[start:stop].sort().values


def array_source(pixels: Tensor, labels: Tensor, classes: Sequence[str]) -> Source:
    """A source over uint8 (n c h w) in memory."""

    def read(indices: Tensor, size: int, channels: int, progress: Progress) -> Tensor:
        images = pixels[indices]
        if images.shape[1] != channels:
            grey = images.shape[1] == 1
            images = (tvf.grayscale_to_rgb if grey else tvf.rgb_to_grayscale)(images)
        if tuple(images.shape[2:]) == (size, size):
            return images.contiguous()
        images = tvf.center_crop(images, [min(images.shape[2:])] * 2)
        resized = [tvf.resize(part, [size, size], antialias=True) for part in images.split(8192)]
        return torch.cat(resized)

    return Source(read, len(pixels), labels.long(), tuple(classes), pixels.shape[1])


def materialise(shape: tuple[int, ...], key: str, fill: Callable[[Tensor], None]) -> Tensor:
    """A filled uint8 tensor: in memory, or memory-mapped when it would take half of what is free.

    A memory-mapped set is decoded once into the cache folder ($ELS_CACHE, else ~/.cache/els) under
    a temporary name, and found there again by `key`.
    """
    if np.prod(shape, dtype=np.int64) < _free_memory() // 2:
        out = torch.empty(shape, dtype=torch.uint8)
        fill(out)
        return out
    path = cache_folder() / f"{key}.npy"
    if not path.exists():
        with replacing(path) as partial:
            mapped = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            fill(torch.from_numpy(mapped))
            mapped.flush()
    # Copy-on-write: torch wants a writable buffer, and the cached file must stay as it is.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _free_memory() -> int:
    """Bytes of free memory, where the system tells; otherwise 4 GiB."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 << 30
