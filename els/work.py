"""Long computations over items: kept on disk as they go, shared over processes, with progress."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from els.errors import InputError
from els.files import replacing, tensor_bytes
from els.reading import read_bytes

# What was found for some items: the first axis of every tensor runs over them.
Tensors = dict[str, Tensor]
Advance = Callable[[float], None]
# (what is done, how many images in all) -> a context that gives what to call as images are done;
# of no images where all was kept from before.
Progress = Callable[[str, int], AbstractContextManager[Advance]]
Compute = Callable[[list[int], Advance], Tensors]

_Part = tuple[Tensors, list[str]]  # of an item, and the files of all items of its batch
_MARK = b"els part 2\n"  # a kept part begins with it, then a digest of its name and what follows
_MOST = 1 << 34  # bytes of a part

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
    these. Files are known by what they depend on, never by when or where they were made; one that
    is damaged, or was put in the place of another, is dropped and its item is computed again, with
    the others of its batch, so that it comes out the same to the byte.
    Several processes that see the same folder share the items; which process or batch an item is
    computed in changes its result by rounding at most.

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
        kept = [self._read(path) for path in paths]
        found = [None if one is None else one[0] for one in kept]
        if not _alike(found):  # and then nobody knows which of them are as they should be
            found = [None] * len(items)
        missing = [i for i, one in enumerate(found) if one is None]
        self.barrier()  # all processes have looked before any of them writes
        size = max(1, min(batch or self.batch, math.ceil(len(missing) / self.world)))

        def fill(batches: list[list[int]]) -> None:
            with self.progress(name, steps * sum(map(len, batches))) as advance:
                for some in batches:
                    with _ticking(advance, len(some)) as ticking:
                        rows = _rows(compute([items[i] for i in some], ticking), len(some))
                    names = [path.name for i in some if (path := paths[i]) is not None]
                    for i, row in zip(some, rows, strict=True):
                        if found[i] is None:
                            found[i] = row
                            self._write(paths[i], row, names)
                            self.computed[name] += 1

        mine = _batches(missing, size, paths, kept)[self.rank :: self.world]
        if mine or (items and not missing):
            fill(mine)
        self.barrier()
        for i, path in enumerate(paths):
            if found[i] is None and (one := self._read(path)) is not None:
                found[i] = one[0]
        # What another process should have written, and a file system lost.
        if lost := [i for i, one in enumerate(found) if one is None]:
            fill(_batches(lost, size, paths, kept))
        whole = [row for row in found if row is not None]
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

    def _read(self, path: Path | None) -> _Part | None:
        """What was kept; None where there is nothing, or nothing whole."""
        if path is None:
            return None
        try:
            content = read_bytes(path, most=_MOST)
            start = len(_MARK) + hashlib.sha256().digest_size
            if content[:start] != _MARK + _digest(path, content[start:]):
                raise ValueError("damaged, or of another computation")
            part = torch.load(BytesIO(content[start:]), weights_only=True)
            return part["row"], part["batch"]
        except FileNotFoundError:
            return None
        except Exception:  # nobody knows what a file that is damaged makes of its reader
            _remove(path)
            return None

    def _write(self, path: Path | None, row: Tensors, batch: list[str]) -> None:
        if path is not None:
            data = tensor_bytes({"row": row, "batch": batch})
            # Not durable: what a power cut leaves of it is not taken up.
            with replacing(path, durable=False) as partial, open(partial, "wb") as file:
                file.write(_MARK + _digest(path, data))
                file.write(data)


IN_MEMORY = Work()


def _digest(path: Path, data: bytes | memoryview) -> bytes:
    """Of a part's name, which tells all that it depends on, and of its content."""
    digest = hashlib.sha256(path.name.encode() + b"\0")
    digest.update(data)
    return digest.digest()


def _remove(path: Path) -> None:
    """Drop what stands in the place of a part, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _batches(
    missing: list[int], size: int, paths: Sequence[Path | None], kept: Sequence[_Part | None]
) -> list[list[int]]:
    """The batches in which missing items are computed.

    One that was in a batch of which others are still there is computed with them again: alone it
    would come out otherwise by rounding.
    """
    places = {path.name: i for i, path in enumerate(paths) if path is not None}
    before = {tuple(one[1]) for one in kept if one is not None}
    again = [
        [places[name] for name in names] for names in sorted(before) if places.keys() >= {*names}
    ]
    again = [some for some in again if {*some} & {*missing}]
    alone = [i for i in missing if not any(i in some for some in again)]
    return [*again, *(alone[i : i + size] for i in range(0, len(alone), size))]


def _alike(found: Sequence[Tensors | None]) -> bool:
    """Whether the tensors of all that was found have the same names, shapes and types."""
    forms = {
        tuple((key, value.shape, value.dtype) for key, value in row.items())
        for row in found
        if row is not None
    }
    return len(forms) <= 1


def _rows(found: Tensors, count: int) -> list[Tensors]:
    """What was found for each of `count` items, copied: a view would be kept with all the rest."""
    return [{key: value[i].cpu().clone() for key, value in found.items()} for i in range(count)]
