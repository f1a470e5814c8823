"""Pictures of any mode as 8-bit grey or colour, by what the numbers in them mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO, Generic, TypeVar

import numpy as np
from PIL import Image, ImageOps

from els.errors import InputError, reason

File = TypeVar("File", Path, str)  # in a folder, or the name of one in an archive

VERSION = 2  # raised where pixels come out otherwise than before
_GREY = frozenset({"1", "L", "LA", "I", "F"})
_WHITES = (1.0, 255.0, 65535.0)  # which of them a file of 32 bits a pixel means, it does not say
_BACKGROUND = "white"


@dataclass
class Pictures(Generic[File]):
    """Files of pictures, read one by one, from any number of threads.

    Attributes:
        files: all of them.
        opener: opens one of them.
        several: those read so far that have several frames, of which the first was taken.
    """

    files: Sequence[File]
    opener: Callable[[File], IO[bytes]]
    several: set[File] = field(default_factory=set)
    _whites: dict[str, float] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def is_grey(self, file: File) -> bool:
        """Whether a picture has no colour.

        Raises:
            InputError: as `read`.
        """
        with _explained(file), self.opener(file) as stream:
            mode = Image.open(stream).mode
        return mode in _GREY or mode.startswith("I;16")

    def read(self, file: File, channels: int) -> Image.Image:
        """The first frame of a picture, upright, as 8-bit grey (1 channel) or colour (3).

        16 bits a pixel are scaled, and what is transparent shows white. Whole numbers and floats of
        32 bits are of [0, 1], [0, 255] or [0, 65535], the smallest that holds those of all files.

        Raises:
            InputError: when the file is damaged, or of a mode or with values that say no picture.
        """
        target = "L" if channels == 1 else "RGB"
        image = self._loaded(file)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = self._scaled(image)
        try:
            if image.has_transparency_data:
                image = image.convert("RGBA")
                background = Image.new("RGBA", image.size, _BACKGROUND)
                image = Image.alpha_composite(background, image)
            elif image.mode == "LAB":
                image = image.convert("RGB")  # the only way from there
            return image.convert(target)
        except ValueError as error:
            raise InputError(
                f"'{file}' is a picture of mode {image.mode}, which has no meaning here "
                f"({reason(error)}); save it as 8-bit grey or RGB"
            ) from error

    def _loaded(self, file: File) -> Image.Image:
        with _explained(file), self.opener(file) as stream:
            image = Image.open(stream)
            image.load()
            upright: Image.Image = image
            with suppress(Exception):  # what a camera noted may be damaged where the picture is not
                upright = ImageOps.exif_transpose(image)
                upright.format = image.format
            with suppress(Exception):  # as may later frames
                if getattr(image, "is_animated", False):
                    self.several.add(file)
        return upright

    def _scaled(self, image: Image.Image) -> Image.Image:
        """A picture of more than 8 bits a pixel in 8."""
        values = np.asarray(image)
        # Whole numbers of a PNG have 16 bits, whatever Pillow keeps them in.
        is_16_bit = image.mode.startswith("I;16") or image.format == "PNG"
        white = 65535.0 if is_16_bit else self._white(image.mode)
        grey = np.round(values * (255 / white)).astype(np.uint8)
        if (transparent := image.info.get("transparency")) is not None:
            grey[values == transparent] = 255
        return Image.fromarray(grey)

    def _white(self, mode: str) -> float:
        """What white is in all pictures of a mode that leaves it open."""
        with self._lock:
            if mode not in self._whites:
                with ThreadPoolExecutor() as pool:
                    most = max(pool.map(lambda file: self._most(file, mode), self.files))
                self._whites[mode] = next(white for white in _WHITES if most <= white)
            return self._whites[mode]

    def _most(self, file: File, mode: str) -> float:
        """The largest value of a picture of that mode; 0 of any other.

        Raises:
            InputError: when a value can be none of a picture.
        """
        with _explained(file), self.opener(file) as stream:
            image = Image.open(stream)
            if image.mode != mode:
                return 0.0
            values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= _WHITES[-1]):  # nor is NaN
            raise InputError(
                f"'{file}' (mode {mode}) has values from {low:g} to {high:g}; pictures of 32 bits "
                "a pixel must lie in [0, 1], [0, 255] or [0, 65535]: scale them, or remove it"
            )
        return high


@contextmanager
def _explained(file: Path | str) -> Iterator[None]:
    """Name the file that cannot be read."""
    try:
        yield
    except Exception as error:  # bytes that are no picture can make a parser raise anything
        raise InputError(
            f"'{file}' cannot be read as an image ({reason(error)}); repair or remove it"
        ) from error
