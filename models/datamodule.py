"""Training and validation batches straight from the images in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from els.console import progress
from els.errors import InputError, check_between
from els.images import DataSpec, ImageSet

Batch = tuple[Tensor, Tensor | None, Tensor]


class Batches(Dataset[Batch]):
    """A whole batch at a time: (uint8 pixels (b c h w), labels (b,) or None, indices (b,))."""

    def __init__(self, images: ImageSet, labelled: bool) -> None:
        self.images = images
        self.labelled = labelled

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.as_tensor(indices)
        labels = self.images.labels if self.labelled else None
        return self.images.pixels[index], None if labels is None else labels[index], index


class Order(DistributedSampler[Batch]):
    """A shuffled order, that of an epoch in which training goes on without what it has done.

    Args:
        batches: the images.
        done: how many images of the epoch this process has been trained on.
        options: those of `DistributedSampler`.
    """

    def __init__(self, batches: Batches, done: Callable[[], int], **options: Any) -> None:
        super().__init__(batches, **options)
        self._done = done

    def __iter__(self) -> Iterator[Any]:
        return islice(super().__iter__(), self._done(), None)


class Images(pl.LightningDataModule):
    """A named image set as batches of uint8 tensors.

    No worker processes: indexing a tensor is faster than passing small images between processes.

    Args:
        name: digits, mnist, fashion_mnist, cifar10, celeba, folder or zip.
        root: the data root; for "folder" and "zip" the folder or the zip file itself.
        size: height and width in pixels; default: 16 for digits, 32 for the rest.
        channels: 1 (grey) or 3 (colour); default: as the data set has it.
        limit: train on this many images, chosen by `seed`; default: all of them.
        val_limit: validate on at most this many held-out images.
        seed: seed of every choice of images, and of their order.
        conditional: give the labels to the network.
        batch_size: images a step in each process.
        download: fetch missing files, where torchvision can.
    """

    def __init__(
        self,
        name: str = "digits",
        root: str = "data",
        size: int | None = None,
        channels: int | None = None,
        limit: int | None = None,
        val_limit: int = 1024,
        seed: int = 0,
        conditional: bool = False,
        batch_size: int = 128,
        download: bool = False,
    ) -> None:
        super().__init__()
        check_between("batch_size", batch_size, 1)
        check_between("val_limit", val_limit, 1)
        self.source = DataSpec(name, root, size, channels, limit, seed)
        self.val_limit = val_limit
        self.conditional = conditional
        self.batch_size = batch_size
        self.download = download

    @cached_property
    def images(self) -> ImageSet:
        """The images that are trained on."""
        return self._load("train")

    @cached_property
    def spec(self) -> DataSpec:
        """What a checkpoint keeps so that the same images can be loaded again."""
        return replace(self.source, fingerprint=self.images.fingerprint())

    @property
    def num_channels(self) -> int:
        """Image channels c."""
        return self.images.image_shape[0]

    @property
    def num_classes(self) -> int | None:
        """Number of classes that the network is told of, or None.

        Raises:
            InputError: when `conditional` is true and the images have no labels.
        """
        if not self.conditional:
            return None
        if self.images.labels is None:
            raise InputError(
                f"data.conditional is true, but the images of '{self.source.root}' have no labels"
            )
        return len(self.images.classes)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the order depends on the seed and the epoch alone."""
        batches = Batches(self.images, self.conditional)
        processes, rank = self._place()
        sampler = Order(
            batches,
            lambda: whole * self._batches_done(),
            num_replicas=processes,
            rank=rank,
            shuffle=True,
            seed=self.source.seed,
        )
        whole = min(self.batch_size, len(sampler))
        return self._loader(batches, sampler, whole, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """Held-out images, each of them once whatever the number of processes."""
        return self._held_out("val")

    def test_dataloader(self) -> DataLoader:
        """Held-out images that no choice was made on."""
        return self._held_out("test")

    def _held_out(self, split: str) -> DataLoader:
        batches = Batches(self._load(split), self.conditional)
        processes, rank = self._place()
        sampler = UnrepeatedDistributedSampler(
            batches, num_replicas=processes, rank=rank, shuffle=False
        )
        return self._loader(batches, sampler, self.batch_size, drop_last=False)

    def _loader(
        self, batches: Batches, sampler: DistributedSampler, batch_size: int, *, drop_last: bool
    ) -> DataLoader:
        return DataLoader(
            batches,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=drop_last,
            collate_fn=lambda batch: batch,
            pin_memory=torch.cuda.is_available(),
        )

    def _load(self, split: str) -> ImageSet:
        spec = self.source
        if split != "train":
            spec = replace(spec, limit=self.val_limit)
        if not self.download:
            return spec.load(split, progress=progress)
        Path(spec.root).mkdir(parents=True, exist_ok=True)
        # The processes of one job start together.
        with FileLock(Path(spec.root) / ".download.lock"):
            return spec.load(split, download=True, progress=progress)

    def _batches_done(self) -> int:
        """Batches of this epoch that training has had, before it was stopped and goes on."""
        assert self.trainer is not None
        return self.trainer.fit_loop.batch_idx + 1

    def _place(self) -> tuple[int, int]:
        """The number of processes, and which of them this is."""
        assert self.trainer is not None
        return self.trainer.world_size, self.trainer.global_rank


def data_of(trainer: pl.Trainer) -> Images:
    """What a trainer trains on."""
    data: Images = trainer.datamodule  # type: ignore[attr-defined] # set by its connectors
    return data
