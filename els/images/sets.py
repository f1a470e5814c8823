"""Images and their classes, and what their pixels mean."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from els.errors import InputError


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes.

    Attributes:
        pixels: uint8 (n c h w), in memory or memory-mapped.
        labels: int64 (n,), or None for images without classes.
        classes: the name of each class; empty where there are none.
    """

    pixels: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(c, h, w)."""
        c, h, w = self.pixels.shape[1:]
        return c, h, w

    def take(self, indices: Tensor) -> ImageSet:
        """The images at `indices` (m,), copied."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, pixels=self.pixels[indices], labels=labels)

    def of_class(self, label: int) -> ImageSet:
        """The images of one class.

        Raises:
            InputError: when the set has no classes, or no image of that class.
        """
        if self.labels is None:
            raise InputError(f"label {label} was asked for, but these images have no labels")
        indices = torch.nonzero(self.labels == label).flatten()
        if not len(indices):
            known = sorted(set(self.labels.tolist()))
            raise InputError(f"no image has label {label}; the labels are {known}")
        return self.take(indices)

    def fingerprint(self) -> str:
        """SHA-256 of pixels, labels and shape: equal only for the same images in the same order."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        for chunk in self.pixels.split(4096):
            digest.update(chunk.contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()


def to_float(pixels: Tensor) -> Tensor:
    """uint8 pixels 0..255 as float32 in [-1, 1], of the same shape."""
    return pixels.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8 pixels, clipped and rounded: the inverse of `to_float`."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
