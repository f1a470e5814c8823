"""Image sets in memory, and how to load each data set this project knows by name."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.progress import track
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from els.errors import InputError

SPLITS = ("train", "val", "test", "all")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
_HELD_OUT = 0.1  # share of val, and of test, in a set that comes without such a split


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
        return tuple(self.pixels.shape[1:])

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
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        for chunk in self.pixels.split(4096):
            digest.update(chunk.contiguous().numpy())
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy())
        return digest.hexdigest()


def to_float(pixels: Tensor) -> Tensor:
    """uint8 pixels 0..255 as float32 in [-1, 1], of the same shape."""
    return pixels.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8 pixels, clipped and rounded: the inverse of `to_float`."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class DataSpec:
    """What it takes to load the same images again: the arguments of `load_images`, as plain data.

    Attributes:
        name, root, size, channels, limit, seed: see `load_images`.
        fingerprint: `ImageSet.fingerprint` of the train split, or None when it is not known.
    """

    name: str
    root: str = "data"
    size: int | None = None
    channels: int | None = None
    limit: int | None = None
    seed: int = 0
    fingerprint: str | None = None

    def load(self, split: str = "train", *, download: bool = False) -> ImageSet:
        """Load one split of these images; see `load_images`."""
        return load_images(
            self.name,
            root=self.root,
            split=split,
            size=self.size,
            channels=self.channels,
            limit=self.limit,
            seed=self.seed,
            download=download,
        )

    def verify(self, images: ImageSet) -> None:
        """Check that `images` is the train split that this spec was made from.

        Raises:
            InputError: when its fingerprint is another.
        """
        if self.fingerprint is not None and images.fingerprint() != self.fingerprint:
            raise InputError(
                f"the {len(images)} images that '{self.name}' loads from '{self.root}' are not the "
                "ones the network was trained on (their fingerprints differ); point the data root "
                "at the original files, or turn the check off with --verify_data false"
            )


@dataclass(frozen=True)
class _Source:
    """Images not yet read: how many, their labels, and a way to read some of them.

    Attributes:
        read: (indices, size, channels) -> uint8 (m c size size).
        labels: int64 (n,) or None.
        classes: names, or empty.
        channels: channels of the images as they are stored.
    """

    read: Callable[[Tensor, int, int], Tensor]
    count: int
    labels: Tensor | None
    classes: tuple[str, ...]
    channels: int


def load_images(
    name: str,
    *,
    root: str | Path = "data",
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    download: bool = False,
) -> ImageSet:
    """Load a data set by name.

    Every image is cropped to its central square and resized. A set that comes with a test split
    gives its whole train split as `train`, and its test split, divided in two, as `val` and
    `test`. A set that does not (`digits`, `folder`, `zip`) is divided 80 : 10 : 10. Both divisions,
    and the choice of `limit` images, depend on `seed` alone. `all` is the train split of the former
    and every image of the latter.

    Args:
        name: one of `DATASETS`.
        root: the data root; for "folder" and "zip" the folder or the zip file itself.
        split: "train", "val", "test" or "all".
        size: height and width in pixels; 16 for digits and 32 for the rest unless told.
        channels: 1 (grey) or 3 (colour); as the data set has it unless told.
        limit: keep this many images of the split, chosen at random.
        seed: seed of the divisions and of that choice.
        download: fetch what is missing, where torchvision can.

    Returns:
        the images, as uint8 (n c size size).

    Raises:
        InputError: unknown name or split, missing or damaged files, or a limit out of range.
    """
    if name not in DATASETS:
        raise InputError(f"unknown data set '{name}'; known are {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise InputError(f"unknown split '{split}'; it is one of {', '.join(SPLITS)}")
    if channels not in (None, 1, 3):
        raise InputError(f"channels is {channels}; it must be 1 (grey) or 3 (colour)")
    size = (16 if name == "digits" else 32) if size is None else size
    if size < 4:
        raise InputError(f"size is {size}; images must have at least 4 x 4 pixels")
    source, indices = DATASETS[name](Path(root), split, download, seed)
    indices = _limited(indices, limit, seed)
    labels = None if source.labels is None else source.labels[indices]
    pixels = source.read(indices, size, channels or source.channels)
    return ImageSet(pixels=pixels, labels=labels, classes=source.classes)


def _limited(indices: Tensor, limit: int | None, seed: int) -> Tensor:
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


def _divide(n: int, split: str, seed: int, shares: dict[str, float], what: str) -> Tensor:
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


# --- arrays that come with a library ---------------------------------------------------------


def _array_source(pixels: Tensor, labels: Tensor, classes: Sequence[str]) -> _Source:
    """A source over uint8 (n c h w) in memory."""

    def read(indices: Tensor, size: int, channels: int) -> Tensor:
        images = pixels[indices]
        if images.shape[1] != channels:
            grey = images.shape[1] == 1
            images = (tvf.grayscale_to_rgb if grey else tvf.rgb_to_grayscale)(images)
        if tuple(images.shape[2:]) == (size, size):
            return images.contiguous()
        images = tvf.center_crop(images, [min(images.shape[2:])] * 2)
        resized = [tvf.resize(part, [size, size], antialias=True) for part in images.split(8192)]
        return torch.cat(resized)

    return _Source(read, len(pixels), labels.long(), tuple(classes), pixels.shape[1])


def _digits(root: Path, split: str, download: bool, seed: int) -> tuple[_Source, Tensor]:
    from sklearn.datasets import load_digits  # slow to import, and only this set needs it

    data = load_digits()
    pixels = torch.from_numpy(data.images / 16 * 255).round().to(torch.uint8)
    pixels = rearrange(pixels, "n h w -> n 1 h w")
    source = _array_source(pixels, torch.from_numpy(data.target), [str(i) for i in range(10)])
    return source, _divide(source.count, split, seed, _SHARES, "'digits'")


_SHARES = {"val": _HELD_OUT, "test": _HELD_OUT, "train": 1 - 2 * _HELD_OUT}


def _torchvision(class_name: str, where: str) -> Callable[..., tuple[_Source, Tensor]]:
    """Loader of a torchvision set that has a train and a test split and holds its pixels."""

    def load(root: Path, split: str, download: bool, seed: int) -> tuple[_Source, Tensor]:
        from torchvision import datasets

        with _explain_missing(class_name, root / where, download):
            data = getattr(datasets, class_name)(
                str(root), train=split in ("train", "all"), download=download
            )
        pixels = torch.as_tensor(data.data)
        pattern = "n h w -> n 1 h w" if pixels.ndim == 3 else "n h w c -> n c h w"
        source = _array_source(
            rearrange(pixels, pattern), torch.as_tensor(data.targets), data.classes
        )
        if split in ("train", "all"):
            return source, torch.arange(source.count)
        halves = {"val": 0.5, "test": 0.5}
        return source, _divide(source.count, split, seed, halves, f"the test split of {class_name}")

    return load


@contextmanager
def _explain_missing(class_name: str, where: Path, download: bool) -> Iterator[None]:
    """Turn what torchvision raises for missing or damaged files into one clear line."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # its loaders raise many types for a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        how = (
            f"downloading {class_name} failed; put its files under '{where}' by hand"
            if download
            else f"{class_name} cannot be read: put its files under '{where}', or add "
            "--data.download true to fetch them"
        )
        raise InputError(f"{how} ({reason})") from error


# --- images in files ---------------------------------------------------------------------------


def _file_source(
    files: Sequence[Path | str],
    opener: Callable[[Path | str], IO[bytes]],
    labels: Tensor | None,
    classes: Sequence[str],
    origin: Path,
) -> _Source:
    """A source over image files; `origin` is the folder or archive they are in."""

    def read(indices: Tensor, size: int, channels: int) -> Tensor:
        chosen = [files[i] for i in indices.tolist()]
        key = hashlib.sha256(
            f"{origin.resolve()} {origin.stat().st_mtime_ns} {size} {channels} "
            f"{[str(file) for file in chosen]}".encode()
        ).hexdigest()

        def fill(out: Tensor) -> None:
            def decode(i: int) -> None:
                out[i] = _decode(chosen[i], opener, size, channels)

            with ThreadPoolExecutor() as pool:
                done = pool.map(decode, range(len(chosen)))
                for _ in track(
                    done,
                    f"Reading {origin.name}",
                    total=len(chosen),
                    transient=True,
                    disable=len(chosen) < 2000,
                ):
                    pass

        return _materialise((len(chosen), channels, size, size), key, fill)

    channels = 1 if _mode(files[0], opener) in {"1", "L", "I;16", "LA"} else 3
    return _Source(read, len(files), labels, tuple(classes), channels)


def _open_file(path: Path) -> IO[bytes]:
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
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"'{file}' cannot be read as an image ({reason}); repair or remove it"
        ) from error


def _mode(file: Path | str, opener: Callable) -> str:
    with _explain_corrupt(file), opener(file) as stream:
        return Image.open(stream).mode


def _decode(file: Path | str, opener: Callable, size: int, channels: int) -> Tensor:
    """One image as uint8 (c size size): central square, then an antialiased resize."""
    with _explain_corrupt(file), opener(file) as stream:
        image = Image.open(stream).convert("L" if channels == 1 else "RGB")
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return tvf.pil_to_tensor(image)


def _folder(root: Path, split: str, download: bool, seed: int) -> tuple[_Source, Tensor]:
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
    source = _file_source(files, _open_file, labels, classes, root)
    return source, _divide(source.count, split, seed, _SHARES, f"'{root}'")


def _zip(root: Path, split: str, download: bool, seed: int) -> tuple[_Source, Tensor]:
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
    source = _file_source(names, lambda name: BytesIO(archive.read(name)), labels, classes, root)
    return source, _divide(source.count, split, seed, _SHARES, f"'{root}'")


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


def _celeba(root: Path, split: str, download: bool, seed: int) -> tuple[_Source, Tensor]:
    from torchvision.datasets import CelebA

    official = {"val": "valid", "test": "test"}.get(split, "train")
    with _explain_missing("CelebA", root / "celeba", download):
        data = CelebA(str(root), split=official, download=download)
    folder = root / "celeba" / "img_align_celeba"
    files = [folder / name for name in data.filename]
    source = _file_source(files, _open_file, None, [], folder)
    return source, torch.arange(source.count)


DATASETS: dict[str, Callable[[Path, str, bool, int], tuple[_Source, Tensor]]] = {
    "digits": _digits,
    "mnist": _torchvision("MNIST", "MNIST/raw"),
    "fashion_mnist": _torchvision("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": _torchvision("CIFAR10", "cifar-10-batches-py"),
    "celeba": _celeba,
    "folder": _folder,
    "zip": _zip,
}


# --- sets larger than memory ---------------------------------------------------------------------


def _materialise(shape: tuple[int, ...], key: str, fill: Callable[[Tensor], None]) -> Tensor:
    """A filled uint8 tensor: in memory, or memory-mapped when it would take half of what is free.

    A memory-mapped set is decoded once into the cache folder ($ELS_CACHE, else ~/.cache/els) under
    a temporary name, and found there again by `key`.
    """
    if np.prod(shape, dtype=np.int64) < _free_memory() // 2:
        out = torch.empty(shape, dtype=torch.uint8)
        fill(out)
        return out
    folder = Path(os.environ.get("ELS_CACHE", Path.home() / ".cache" / "els"))
    path = folder / f"{key}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{key}.{os.getpid()}.partial"
        try:
            out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            fill(torch.from_numpy(out))
            out.flush()
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    # Copy-on-write: torch wants a writable buffer, and the cached file must stay as it is.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _free_memory() -> int:
    """Bytes of memory that can be had, where the system tells; otherwise 4 GiB."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 << 30
