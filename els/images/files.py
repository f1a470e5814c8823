"""Sets of image files: a folder tree, or a zip as the tools of EDM and StyleGAN write it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from els.errors import InputError, reason
from els.images.pictures import VERSION, Pictures
from els.images.source import SHARES, Source, divide, materialise
from els.reading import JSON, open_regular, walk
from els.work import Progress, silent

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
_LABELS = "dataset.json"
_MOST_CLASSES = 100_000
_MANY = 2000  # files that take long enough to read for progress to be shown


def file_source(
    pictures: Pictures,
    labels: Tensor | None,
    classes: Sequence[str],
    origin: Path,
    *,
    passed_over: int = 0,
) -> Source:
    """A source over image files.

    Args:
        pictures: the files.
        labels: int64 (n,) or None.
        classes: names, or empty.
        origin: the folder or archive that they are in.
        passed_over: how many other files are in it.
    """
    files = pictures.files

    def read(indices: Tensor, size: int, channels: int, progress: Progress) -> Tensor:
        chosen = [files[i] for i in indices.tolist()]
        key = hashlib.sha256(
            f"{VERSION} {origin.resolve()} {origin.stat().st_mtime_ns} {size} {channels} "
            f"{[str(file) for file in chosen]}".encode()
        ).hexdigest()

        def fill(out: Tensor) -> None:
            def decode(i: int) -> None:
                """Central square, then an antialiased resize."""
                image = pictures.read(chosen[i], channels)
                image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
                out[i] = tvf.pil_to_tensor(image)

            shown = progress if len(chosen) >= _MANY else silent
            with ThreadPoolExecutor() as pool, shown(f"reading {origin.name}", len(chosen)) as step:
                for _ in pool.map(decode, range(len(chosen))):
                    step(1)

        return materialise((len(chosen), channels, size, size), key, fill)

    return Source(
        read,
        len(files),
        labels,
        tuple(classes),
        1 if pictures.is_grey(files[0]) else 3,
        passed_over=passed_over,
        several=pictures.several,
    )


def is_image(path: PurePath) -> bool:
    """Whether a file, by its path from the root, is an image that a person put there.

    The copies and notes that systems leave behind (`._x.png`, `__MACOSX/x.png`) are not.
    """
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def load_folder(root: Path, split: str, download: bool, seed: int) -> tuple[Source, Tensor]:
    """The images below a folder, and which of them are of the split; sub-folders are classes."""
    if not root.is_dir():
        raise InputError(f"there is no folder '{root}'; give the folder of images as the data root")
    there = list(walk(root))
    files = sorted(path for path in there if is_image(path.relative_to(root)))
    if not files:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"'{root}' holds no image; files ending in {kinds} are looked for")
    # Class folders, as in torchvision's ImageFolder: only when every image lies in one.
    tops = [file.relative_to(root).parts[0] for file in files]
    labelled = all(len(file.relative_to(root).parts) > 1 for file in files) and len(set(tops)) > 1
    classes = sorted(set(tops)) if labelled else []
    labels = torch.tensor([classes.index(top) for top in tops]) if labelled else None
    others = len(there) - len(files)
    source = file_source(Pictures(files, open_regular), labels, classes, root, passed_over=others)
    return source, divide(source.count, split, seed, SHARES, f"'{root}'")


def load_zip(root: Path, split: str, download: bool, seed: int) -> tuple[Source, Tensor]:
    """The images in a zip file, and which of them are of the split; dataset.json has labels."""
    if not root.is_file():
        raise InputError(f"there is no file '{root}'; give the zip file itself as the data root")
    try:
        archive = zipfile.ZipFile(root)
        there = [one.filename for one in archive.infolist() if not one.is_dir()]
        names = sorted(name for name in there if is_image(PurePosixPath(name)))
        meta = json.loads(_content(archive, _LABELS)) if _LABELS in there else {}
    except Exception as error:  # a damaged list of its members can raise anything
        raise InputError(f"'{root}' is not a readable zip of images: {reason(error)}") from error
    if not names:
        raise InputError(f"'{root}' holds no image")
    labels = _zip_labels(meta, names, root)
    classes = [] if labels is None else [str(i) for i in range(int(labels.max()) + 1)]
    pictures = Pictures(names, lambda name: BytesIO(_content(archive, name)))
    others = len(there) - len(names) - (_LABELS in there)
    source = file_source(pictures, labels, classes, root, passed_over=others)
    return source, divide(source.count, split, seed, SHARES, f"'{root}'")


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of an archive, which says how large it is."""
    size = archive.getinfo(name).file_size
    if size > JSON:
        raise InputError(f"'{name}' has {size:,} bytes; files of at most {JSON:,} are read")
    return archive.read(name)


def _zip_labels(meta: Any, names: Sequence[str], root: Path) -> Tensor | None:
    """Labels in the layout of EDM and StyleGAN: {"labels": [[file, class], ...]} or null.

    Raises:
        InputError: when it is of another form, a label is missing, or is no class.
    """
    try:
        pairs = meta.get("labels")
        if not pairs:
            return None
        by_name = dict(pairs)
        missing = [name for name in names if name not in by_name]
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"dataset.json in '{root}' must hold {{\"labels\": [[file, class], ...]}}, and holds "
            f"something else ({reason(error)})"
        ) from error
    if missing:
        raise InputError(
            f"dataset.json in '{root}' has no label for {len(missing)} images, the "
            f"first of them '{missing[0]}'"
        )
    labels = [by_name[name] for name in names]
    for name, label in zip(names, labels, strict=True):
        if type(label) is not int or not 0 <= label < _MOST_CLASSES:
            raise InputError(
                f"dataset.json in '{root}' says that '{name}' is of class "
                f"{str(label)[:40]}; classes are whole numbers from 0 to {_MOST_CLASSES - 1:,}"
            )
    return torch.tensor(labels)
