"""Data sets by name, and what it takes to load the same images again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from els.errors import InputError, check_whole, reason
from els.images.files import file_source, load_folder, load_zip
from els.images.garments import CLASSES, load_garments
from els.images.pictures import Pictures
from els.images.sets import ImageSet, Origin
from els.images.source import SHARES, Source, array_source, divide, limited
from els.reading import open_regular
from els.work import Progress, silent

SPLITS = ("train", "val", "test", "all")
OWN = ("folder", "zip")  # whose images are the user's, found at the data root
MOST_SIZE = 4096  # pixels a side
MOST_SEED = 2**63 - 1  # what generators of PyTorch take
_SIZES = {"digits": 16, "garments": 28}  # of the sets whose images are smaller than 32 x 32


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

    def __post_init__(self) -> None:
        for what in ("name", "root", "fingerprint"):
            value = getattr(self, what)
            if not (isinstance(value, str) or (value is None and what == "fingerprint")):
                raise InputError(f"{what} of the images is {value!r:.80}; it must be a text")
        if not self.root or "\0" in self.root:
            raise InputError(
                f"the data root is {self.root!r}; it must be the name of a folder or file"
            )
        if self.channels not in (None, 1, 3):
            raise InputError(
                f"channels is {self.channels!r:.80}; it must be 1 (grey) or 3 (colour)"
            )
        if self.size is not None:
            check_whole("size", self.size, 4, MOST_SIZE)
        if self.limit is not None:
            check_whole("limit", self.limit, 1)
        check_whole("seed", self.seed, 0, MOST_SEED)

    def load(
        self, split: str = "train", *, download: bool = False, progress: Progress = silent
    ) -> ImageSet:
        """Load one split of these images; see `load_images`."""
        return _load(self, split, download=download, progress=progress)

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
    progress: Progress = silent,
) -> ImageSet:
    """Load a data set by name.

    Every image is cropped to its central square and resized. A set that comes with a test split
    gives its whole train split as `train`, and its test split, divided in two, as `val` and
    `test`. A set that does not (`garments`, `digits`, `folder`, `zip`) is divided 80 : 10 : 10.
    Both divisions, and the choice of `limit` images, depend on `seed` alone. `all` is the train
    split of the former and every image of the latter.

    Args:
        name: one of `DATASETS`.
        root: the data root; for "folder" and "zip" the folder or the zip file itself.
        split: "train", "val", "test" or "all".
        size: height and width in pixels; default: 16 for digits, 28 for garments, 32 for the rest.
        channels: 1 (grey) or 3 (colour); default: as the data set has it.
        limit: keep this many images of the split, chosen at random.
        seed: seed of the divisions and of that choice.
        download: fetch what is missing, where torchvision can.
        progress: shown while many files are read; see `els.work.Progress`.

    Returns:
        the images, as uint8 (n c size size).

    Raises:
        InputError: unknown name or split, missing or damaged files, or a number out of range.

    Example:
        >>> images = load_images("digits", limit=10)
        >>> len(images), images.image_shape, images.pixels.dtype
        (10, (1, 16, 16), torch.uint8)
    """
    spec = DataSpec(name, str(root), size, channels, limit, seed)
    return _load(spec, split, download=download, progress=progress)


def _load(spec: DataSpec, split: str, *, download: bool, progress: Progress) -> ImageSet:
    name, root, seed = spec.name, Path(spec.root), spec.seed
    if name not in DATASETS:
        raise InputError(f"unknown data set '{name}'; known are {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise InputError(f"unknown split '{split}'; it is one of {', '.join(SPLITS)}")
    size = _SIZES.get(name, 32) if spec.size is None else spec.size
    source, every = DATASETS[name](root, split, download, seed)
    indices = limited(every, spec.limit, seed)
    labels = None if source.labels is None else source.labels[indices]
    pixels = source.read(indices, size, spec.channels or source.channels, progress)
    origin = Origin(
        name=f"{name} '{root}'" if name in OWN else name,
        split=split,
        count=len(every),
        held_out=source.count - len(every) if split == "train" else 0,
        passed_over=source.passed_over,
        several=len(source.several),
    )
    return ImageSet(pixels=pixels, labels=labels, classes=source.classes, origin=origin)


def _digits(root: Path, split: str, download: bool, seed: int) -> tuple[Source, Tensor]:
    from sklearn.datasets import load_digits  # slow to import, and only this set needs it

    data = load_digits()
    pixels = torch.from_numpy(data.images / 16 * 255).round().to(torch.uint8)
    pixels = rearrange(pixels, "n h w -> n 1 h w")
    source = array_source(pixels, torch.from_numpy(data.target), [str(i) for i in range(10)])
    return source, divide(source.count, split, seed, SHARES, "'digits'")


def _garments(root: Path, split: str, download: bool, seed: int) -> tuple[Source, Tensor]:
    pixels, labels = map(torch.from_numpy, load_garments())
    source = array_source(rearrange(pixels, "n h w -> n 1 h w"), labels, CLASSES)
    return source, divide(source.count, split, seed, SHARES, "'garments'")


def _torchvision(class_name: str, where: str) -> Callable[..., tuple[Source, Tensor]]:
    """Loader of a torchvision set that has a train and a test split and holds its pixels."""

    def load(root: Path, split: str, download: bool, seed: int) -> tuple[Source, Tensor]:
        from torchvision import datasets

        with _explain_missing(class_name, root / where, download):
            data = getattr(datasets, class_name)(
                str(root), train=split in ("train", "all"), download=download
            )
        pixels = torch.as_tensor(data.data)
        pattern = "n h w -> n 1 h w" if pixels.ndim == 3 else "n h w c -> n c h w"
        source = array_source(
            rearrange(pixels, pattern), torch.as_tensor(data.targets), data.classes
        )
        if split in ("train", "all"):
            return source, torch.arange(source.count)
        halves = {"val": 0.5, "test": 0.5}
        return source, divide(source.count, split, seed, halves, f"the test split of {class_name}")

    return load


@contextmanager
def _explain_missing(class_name: str, where: Path, download: bool) -> Iterator[None]:
    """Turn what torchvision raises for missing or damaged files into one clear line."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # its loaders raise many types for a damaged file
        why = reason(error, length=200) or type(error).__name__
        how = (
            f"downloading {class_name} failed; put its files under '{where}' by hand"
            if download
            else f"{class_name} cannot be read: put its files under '{where}', or add "
            "--data.download true to fetch them"
        )
        raise InputError(f"{how} ({why})") from error


def _celeba(root: Path, split: str, download: bool, seed: int) -> tuple[Source, Tensor]:
    from torchvision.datasets import CelebA

    official = {"val": "valid", "test": "test"}.get(split, "train")
    with _explain_missing("CelebA", root / "celeba", download):
        data = CelebA(str(root), split=official, download=download)
    folder = root / "celeba" / "img_align_celeba"
    files = [folder / name for name in data.filename]
    source = file_source(Pictures(files, open_regular), None, [], folder)
    return source, torch.arange(source.count)


DATASETS: dict[str, Callable[[Path, str, bool, int], tuple[Source, Tensor]]] = {
    "garments": _garments,
    "digits": _digits,
    "mnist": _torchvision("MNIST", "MNIST/raw"),
    "fashion_mnist": _torchvision("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": _torchvision("CIFAR10", "cifar-10-batches-py"),
    "celeba": _celeba,
    "folder": load_folder,
    "zip": load_zip,
}
