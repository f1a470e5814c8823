"""Make garments.npz.xz from FashionMNIST: python -m els.images.garments.make path/to/data."""

from __future__ import annotations

import lzma
import sys
from io import BytesIO
from pathlib import Path

import numpy as np

from els.files import replacing
from els.images import load_images
from els.images.garments import FILE

COUNT = 2500  # as many as a file of less than 1 MB holds


def make(root: str | Path) -> bytes:
    """The content of the file: `COUNT` images of the train split, chosen by seed 0.

    Args:
        root: the data root, which holds FashionMNIST/raw.

    Raises:
        InputError: when FashionMNIST is not there.
    """
    images = load_images("fashion_mnist", root=root, size=28, limit=COUNT, seed=0)
    assert images.labels is not None
    arrays = BytesIO()
    np.savez(
        arrays,
        pixels=images.pixels[:, 0].numpy(),
        labels=images.labels.numpy().astype(np.uint8),
    )
    return lzma.compress(arrays.getvalue(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    with replacing(FILE) as partial:
        partial.write_bytes(make(sys.argv[1]))
