"""Sets of image files: a folder tree, or a zip as the tools of EDM and StyleGAN write it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, TypeVar

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from els.errors import InputError, reason
from els.images.source import SHARES, Source, divide, materialise
from els.work import Progress, silent

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
File = TypeVar("File", Path, str)  # in a folder, or the name of one in an archive
_MANY = 2000  # files that take long enough to read for progress to be shown


def file_source(
    files: Sequence[File],
    opener: Callable[[File], IO[bytes]],
    labels: Tensor | None,
    classes: Sequence[str],
    origin: Path,
) -> Source:
    """A source over image files; `origin` is the folder or archive they are in."""

    def read(indices: Tensor, size: int, channels: int, progress: Progress) -> Tensor:
        chosen = [files[i] for i in indices.tolist()]
        key = hashlib.sha256(
            f"{origin.resolve()} {origin.stat().st_mtime_ns} {size} {channels} "
            f"{[str(file) for file in chosen]}".encode()
        ).hexdigest()

        def fill(out: Tensor) -> None:
            def decode(i: int) -> None:
                out[i] = _decode(chosen[i], opener, size, channels)

            shown = progress if len(chosen) >= _MANY else silent
            with ThreadPoolExecutor() as pool, shown(f"reading {origin.name}", len(chosen)) as step:
                for _ in pool.map(decode, range(len(chosen))):
                    step(1)

        return materialise((len(chosen), channels, size, size), key, fill)

    channels = 1 if _mode(files[0], opener) in {"1", "L", "I;16", "LA"} else 3
    return Source(read, len(files), labels, tuple(classes), channels)


def open_file(path: Path) -> IO[bytes]:
    """How the files of a folder are opened."""
    return path.open("rb")


@contextmanager
def _explain_corrupt(file: Path | str) -> Iterator[None]:
    try:
        yield
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(
            f"'{file}' cannot be read as an image ({reason(error)}); repair or remove it"
        ) from error


def _mode(file: File, opener: Callable[[File], IO[bytes]]) -> str:
    with _explain_corrupt(file), opener(file) as stream:
        return Image.open(stream).mode


def _decode(file: File, opener: Callable[[File], IO[bytes]], size: int, channels: int) -> Tensor:
    """One image as uint8 (c size size): central square, then an antialiased resize."""
    with _explain_corrupt(file), opener(file) as stream:
        image = Image.open(stream).convert("L" if channels == 1 else "RGB")
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return tvf.pil_to_tensor(image)


def load_folder(root: Path, split: str, download: bool, seed: int) -> tuple[Source, Tensor]:
    """The images below a folder, and which of them are of the split; sub-folders are classes."""
    if not root.is_dir():
        raise InputError(f"there is no folder '{root}'; give the folder of images as the data root")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"'{root}' holds no image; files ending in {kinds} are looked for")
    # Class folders, as in torchvision's ImageFolder: only when every image lies in one.
    tops = [file.relative_to(root).parts[0] for file in files]
    labelled = all(len(file.relative_to(root).parts) > 1 for file in files) and len(set(tops)) > 1
    classes = sorted(set(tops)) if labelled else []
    labels = torch.tensor([classes.index(top) for top in tops]) if labelled else None
    source = file_source(files, open_file, labels, classes, root)
    return source, divide(source.count, split, seed, SHARES, f"'{root}'")


def load_zip(root: Path, split: str, download: bool, seed: int) -> tuple[Source, Tensor]:
    """The images in a zip file, and which of them are of the split; dataset.json has labels."""
    if not root.is_file():
        raise InputError(f"there is no file '{root}'; give the zip file itself as the data root")
    try:
        archive = zipfile.ZipFile(root)
        names = sorted(n for n in archive.namelist() if Path(n).suffix.lower() in IMAGE_SUFFIXES)
        meta = (
            json.loads(archive.read("dataset.json")) if "dataset.json" in archive.namelist() else {}
        )
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"'{root}' is not a readable zip of images: {error}") from error
    if not names:
        raise InputError(f"'{root}' holds no image")
    labels = _zip_labels(meta, names, root)
    classes = [] if labels is None else [str(i) for i in range(int(labels.max()) + 1)]
    source = file_source(names, lambda name: BytesIO(archive.read(name)), labels, classes, root)
    return source, divide(source.count, split, seed, SHARES, f"'{root}'")


def _zip_labels(meta: dict, names: Sequence[str], root: Path) -> Tensor | None:
    """Labels in the layout of EDM and StyleGAN: {"labels": [[file, class], ...]} or null."""
    if not meta.get("labels"):
        return None
    by_name = dict(meta["labels"])
    missing = [name for name in names if name not in by_name]
    if missing:
        raise InputError(
            f"dataset.json in '{root}' has no label for {len(missing)} images, the "
            f"first of them '{missing[0]}'"
        )
    return torch.tensor([int(by_name[name]) for name in names])
