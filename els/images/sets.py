"""Images and their classes, and what their pixels mean."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from els.errors import InputError

_SLACK = 1e-4  # by which floats may be outside of [-1, 1], as rounding leaves them


@dataclass(frozen=True)
class Origin:
    """What is known of where images were loaded from, for people.

    Attributes:
        name: of the data set, with its path where it is the user's own.
        split: "train", "val", "test" or "all".
        count: images of the split, before any limit.
        held_out: images of the train split's set that are in its other splits; 0 where these are
            files of their own.
        passed_over: files that are no images, or hidden.
        several: files with several frames, of which the first was taken.
    """

    name: str
    split: str = "train"
    count: int = 0
    held_out: int = 0
    passed_over: int = 0
    several: int = 0


@dataclass(frozen=True, repr=False)
class ImageSet:
    """Images and their classes.

    Attributes:
        pixels: uint8 (n c h w), in memory or memory-mapped.
        labels: int64 (n,), or None for images without classes.
        classes: the name of each class; empty where there are none.
        origin: where they were loaded from, for people.

    Raises:
        InputError: when the pixels or the labels are of another kind or shape.
    """

    pixels: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, Tensor) or self.pixels.dtype != torch.uint8:
            kind = getattr(self.pixels, "dtype", "no numbers")
            raise InputError(
                f"pixels are a {type(self.pixels).__name__} of {kind}; they must be a tensor of "
                "uint8 (n c h w)"
            )
        if self.pixels.ndim != 4:
            raise InputError(f"pixels have shape {tuple(self.pixels.shape)}; it must be (n c h w)")
        if self.labels is not None and self.labels.shape != self.pixels.shape[:1]:
            raise InputError(
                f"labels have shape {tuple(self.labels.shape)} for {len(self.pixels)} images"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        parts = [self.description, " x ".join(map(str, self.image_shape))]
        if self.labels is not None:
            parts.append(_counted(len(self.classes), "class"))
        return f"ImageSet({', '.join(parts)})"

    @property
    def description(self) -> str:
        """What they are and how many, in a few words; never read by code."""
        found = _counted(len(self), "image")
        if self.origin is None:
            return found
        if len(self) < self.origin.count:
            found = f"{len(self):,} of {_counted(self.origin.count, 'image')}"
        split = "" if self.origin.split == "train" else f" ({self.origin.split})"
        parts = [f"{self.origin.name}{split}", found]
        if self.origin.held_out:
            parts.append(f"{self.origin.held_out:,} held out")
        if self.origin.passed_over:
            parts.append(f"{_counted(self.origin.passed_over, 'file')} passed over")
        if self.origin.several:
            parts.append(f"the first frame of {_counted(self.origin.several, 'file')} with several")
        return ", ".join(parts)

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
    def distinct(self) -> Tensor:
        """Indices of the images that are not the same to the pixel as one before them (m,)."""
        first: dict[bytes, int] = {}
        for i, one in enumerate(self.pixels):
            first.setdefault(hashlib.sha256(one.contiguous().numpy().data).digest(), i)
        return torch.tensor(list(first.values()))

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


def as_images(images: ImageSet | Tensor) -> ImageSet:
    """A set of images, or the pixels of one, as a set.

    Args:
        images: a set; or uint8 pixels, or floats in [-1, 1] (which are rounded to the 256 values of
            a uint8), both (n c h w).

    Raises:
        InputError: when it is something else.
    """
    if isinstance(images, ImageSet):
        return images
    if not isinstance(images, Tensor) or images.ndim != 4:
        shape = tuple(getattr(images, "shape", ()))
        what = f"a {type(images).__name__}" + (f" of shape {shape}" if shape else "")
        raise InputError(
            f"the training images are {what}; they must be what load_images returns, or a tensor "
            "(n c h w)"
        )
    if images.is_floating_point() and len(images):
        low, high = float(images.min()), float(images.max())
        if not (low >= -1 - _SLACK and high <= 1 + _SLACK):  # nor is NaN
            raise InputError(
                f"the training images have values from {low:g} to {high:g}; floats must lie in "
                "[-1, 1], uint8 in 0..255"
            )
        return ImageSet(to_uint8(images))
    return ImageSet(images)


def _counted(number: int, noun: str) -> str:
    """Such as "1 image" and "1,437 images"."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
