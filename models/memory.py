"""How the C library treats the memory of a step of training."""

from __future__ import annotations

import ctypes
import os
import sys

# Of glibc's malloc.h: how many blocks may be mapped one by one, and how much free memory at the end
# of the heap is given back (-1: none).
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1


def keep_freed_memory() -> bool:
    """Let what a step frees serve the next one instead of going back to the system.

    Each step on the CPU frees and allocates the same few hundred megabytes. By itself glibc maps
    large blocks anew, and the system clears them page by page: up to a quarter of a step's time
    with two threads (docs/training.md). MALLOC_MMAP_MAX_ chooses otherwise.

    Returns:
        whether it was changed: not where the C library is another one, or that variable is set.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_MAX_" in os.environ:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
