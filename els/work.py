"""Long computations over items: kept on disk as they go, shared over processes, with progress."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor

from els.errors import InputError
from els.files import write_tensors

# What was found for some items: the first axis of every tensor runs over them.
Tensors = dict[str, Tensor]
Advance = Callable[[float], None]
# (what is done, how many images in all) -> a context that gives what to call as images are done;
# of no images where all was kept from before.
Progress = Callable[[str, int], AbstractContextManager[Advance]]
Compute = Callable[[list[int], Advance], Tensors]


_on_tick: ContextVar[Advance] = ContextVar("on_tick", default=lambda images: None)


def tick(images: float) -> None:
    """Say that work worth so many images is done, in the middle of a batch.

    Called by what takes long over a few images, such as a pass over a large training set, so that
    progress moves before a whole batch has advanced.
    """
    _on_tick.get()(images)


@contextmanager
def _ticking(advance: Advance, most: int) -> Iterator[Advance]:
    """Let `tick` move the progress by up to `most` images ahead of what advances."""
    ahead = 0.0

    def on_tick(images: float) -> None:
        nonlocal ahead
        images = min(images, most - ahead)
        ahead += images
        advance(images)

    def whole(images: float) -> None:
        nonlocal ahead
        advance(images - ahead)
        ahead = 0.0

    token = _on_tick.set(on_tick)
    try:
        yield whole
    finally:
        _on_tick.reset(token)


@contextmanager
def silent(name: str, total: int) -> Iterator[Advance]:
    """No progress bar."""
    yield lambda count: None


class Work:
    """Computes functions of items (seeds, images, steps), each item once.

    With a folder, what was found for an item is kept there as soon as its batch is done: a
    computation that was killed goes on where it was, and one that asks for more items computes only
    these. Files are known by what they depend on, never by when or where they were made. Several
    processes that see the same folder share the items; which process or batch an item is computed
    in changes its result by rounding at most.

    Attributes:
        computed: how many items were computed, by the name of the computation; those that were
            found in the folder do not count.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        context: object = (),
        batch: int = 16,
        rank: int = 0,
        world: int = 1,
        barrier: Callable[[], None] = lambda: None,
        progress: Progress = silent,
    ) -> None:
        """Describe where and how to compute.

        Args:
            folder: where results are kept; None keeps nothing.
            context: plain data that tells what every computation depends on beside its own
                arguments, such as the digests of the network and of the training images.
            batch: items at a time.
            rank: the index of this process.
            world: the number of processes; more than one need a folder.
            barrier: returns when every process has called it.
            progress: shown while items are computed.
        """
        self.folder = None if folder is None else Path(folder)
        self.context = context
        self.batch = batch
        self.rank = rank
        self.world = world
        self.barrier = barrier
        self.progress = progress
        self.computed: Counter[str] = Counter()
        self._used: set[Path] = set()

    def map(
        self,
        name: str,
        items: Sequence[int],
        compute: Compute,
        *,
        depends: object,
        keys: Sequence[object] | None = None,
        steps: int = 1,
        batch: int | None = None,
    ) -> Tensors:
        """What `compute` finds for the items, joined along the first axis in their order.

        Args:
            name: of the computation, for its progress.
            items: what it is computed for.
            compute: (some items, advance) -> tensors whose first axis runs over these items.
            depends: plain data that tells all that the result for an item depends on, beside the
                item and `context`.
            keys: plain data for each item that tells it from others; default: the items.
            steps: by how much `compute` advances for each item.
            batch: items at a time; default: that of this object.
        """
        keys = items if keys is None else keys
        paths = [self._path(depends, key) for key in keys]
        found = [self._read(path) for path in paths]
        missing = [i for i, one in enumerate(found) if one is None]
        self.barrier()  # all processes have looked before any of them writes
        size = max(1, min(batch or self.batch, math.ceil(len(missing) / self.world)))
        batches = [missing[i : i + size] for i in range(0, len(missing), size)]
        mine = batches[self.rank :: self.world]
        if mine:
            with self.progress(name, steps * sum(map(len, mine))) as advance:
                for some in mine:
                    with _ticking(advance, len(some)) as whole:
                        rows = _rows(compute([items[i] for i in some], whole), len(some))
                    for i, row in zip(some, rows, strict=True):
                        found[i] = row
                        self._write(paths[i], row)
            self.computed[name] += sum(map(len, mine))
        elif items and not missing:
            with self.progress(name, 0):
                pass
        self.barrier()
        every = [self._read(paths[i]) if one is None else one for i, one in enumerate(found)]
        whole = [row for row in every if row is not None]
        if len(whole) < len(every):
            raise RuntimeError(f"{name}: another process has not written what it computed")
        return {key: torch.stack([row[key] for row in whole]) for key in whole[0]}

    def prune(self) -> None:
        """Drop what this object has not used from the folder, when every process is done."""
        self.barrier()
        if self.rank == 0 and self.folder is not None:
            for path in set(self.folder.glob("*.pt")) - self._used:
                path.unlink()
        self.barrier()

    def clear(self) -> None:
        """Drop everything from the folder, when every process is here."""
        self.barrier()
        if self.rank == 0 and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.barrier()

    def _path(self, depends: object, key: object) -> Path | None:
        if self.folder is None:
            return None
        try:
            told = json.dumps([self.context, depends, key])
        except TypeError as error:
            raise InputError(
                "results of a denoiser without an `identity` cannot be kept in a folder: give it "
                "one, plain data that tells it from others, or compute in memory (Work())"
            ) from error
        digest = hashlib.sha256(told.encode()).hexdigest()[:32]
        path = self.folder / f"{digest}.pt"
        self._used.add(path)
        return path

    def _read(self, path: Path | None) -> Tensors | None:
        """What was kept; None where there is nothing, or nothing whole."""
        if path is None:
            return None
        try:
            return torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None

    def _write(self, path: Path | None, row: Tensors) -> None:
        if path is not None:
            write_tensors(path, row)


IN_MEMORY = Work()


def _rows(found: Tensors, count: int) -> list[Tensors]:
    """What was found for each of `count` items, copied: a view would be kept with all the rest."""
    return [{key: value[i].cpu().clone() for key, value in found.items()} for i in range(count)]
