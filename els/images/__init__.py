"""Image sets in memory, and how to load each data set this project knows by name."""

from els.images.named import DATASETS, MOST_SIZE, SPLITS, DataSpec, load_images
from els.images.sets import ImageSet, as_images, to_float, to_uint8

__all__ = [
    "DATASETS",
    "MOST_SIZE",
    "SPLITS",
    "DataSpec",
    "ImageSet",
    "as_images",
    "load_images",
    "to_float",
    "to_uint8",
]
