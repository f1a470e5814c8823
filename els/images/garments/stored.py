"""The garments as they are kept: one compressed file."""

from __future__ import annotations

import lzma
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).parent / "garments.npz.xz"
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat",
           "sandal", "shirt", "sneaker", "bag", "ankle boot")  # fmt: skip


def load_garments() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels (n 28 28) and classes (n,), both uint8."""
    with np.load(BytesIO(lzma.decompress(FILE.read_bytes())), allow_pickle=False) as arrays:
        return arrays["pixels"], arrays["labels"]
