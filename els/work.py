"""Long computations cut into tasks: kept on disk as they finish, shared out over processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor

from els.files import write_tensors

Tensors = dict[str, Tensor]
Advance = Callable[[int], None]
# (what is done, how many images in all) -> a context that gives what to call as images are done.
Progress = Callable[[str, int], AbstractContextManager[Advance]]


@contextmanager
def silent(name: str, total: int) -> Iterator[Advance]:
    """No progress bar."""
    yield lambda count: None


class Work:
    """A folder of finished tasks, which all processes see.

    A computation that was killed takes up where it was; several processes each do a share of the
    tasks and read the rest. Which process does which task changes no result.

    Args:
        folder: where finished tasks are kept until `clear`.
        rank: the index of this process.
        world: the number of processes.
        barrier: returns when every process has called it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank: int = 0,
        world: int = 1,
        barrier: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.rank = rank
        self.world = world
        self.barrier = barrier

    def share(self, count: int) -> range:
        """The indices of this process among `count` tasks."""
        return range(self.rank, count, self.world)

    def all(self, tasks: Mapping[str, Callable[[], Tensors]]) -> list[Tensors]:
        """Have every task done, once, and return all the results in order.

        Args:
            tasks: by a name that says all that the result depends on.
        """
        paths = [self.folder / f"{name}.pt" for name in tasks]
        computations = list(tasks.values())
        for i in self.share(len(tasks)):
            if not paths[i].exists():
                write_tensors(paths[i], computations[i]())
        self.barrier()
        return [torch.load(path, weights_only=True) for path in paths]

    def clear(self) -> None:
        """Throw the finished tasks away, when every process is done with them."""
        self.barrier()
        if self.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.barrier()
