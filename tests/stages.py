"""One tester for all stages: the functions of els that own a loop and are handed a `Work`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from els.work import Work

# Calls the stage with a `Work`, and other arguments than the usual ones where given.
Stage = Callable[..., Any]


class StageTester:
    """Holds a stage to what every stage promises.

    Attributes:
        stage: stage(work, **changes) -> result.
        changes: arguments that change the result, by name; each must be computed anew.
        harmless: arguments that change nothing; with these nothing is computed.
        atol: what rounding with another batch may amount to.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        changes: Mapping[str, object],
        harmless: Mapping[str, object] = {},
        atol: float = 1e-4,
    ) -> None:
        self.stage = stage
        self.changes = changes
        self.harmless = harmless
        self.atol = atol

    def check(self, folder: Path) -> None:
        """Run every check."""
        whole = self.stage(Work(batch=16))
        self.batches_agree(whole)
        self.processes_agree(whole, folder / "processes")
        self.a_killed_stage_goes_on(whole, folder / "killed")
        self.nothing_is_computed_twice(folder / "twice")
        self.every_argument_counts(folder / "arguments")

    def batches_agree(self, whole: object) -> None:
        """Batches of 2 and of 5 give what one batch does."""
        for batch in (2, 5):
            assert_alike(self.stage(Work(batch=batch)), whole, self.atol)

    def processes_agree(self, whole: object, folder: Path) -> None:
        """Two processes, here threads, give what one does, and both have all of it."""
        barrier = threading.Barrier(2, timeout=60)
        found: dict[int, object] = {}

        def process(rank: int) -> None:
            found[rank] = self.stage(Work(folder, rank=rank, world=2, barrier=barrier.wait))

        threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert_alike(found[0], whole, self.atol)
        assert_alike(found[1], found[0], 0)

    def a_killed_stage_goes_on(self, whole: object, folder: Path) -> None:
        """What was kept before a stage was stopped is taken up; the rest is computed."""
        stopped = _Stopping(folder, batch=1)
        with pytest.raises(KeyboardInterrupt):
            self.stage(stopped)
        kept = len(list(folder.glob("*.pt")))
        assert kept == 1
        work = Work(folder, batch=1)
        assert_alike(self.stage(work), whole, self.atol)
        assert sum(work.computed.values()) == len(list(folder.glob("*.pt"))) - kept

    def nothing_is_computed_twice(self, folder: Path) -> None:
        """A second call finds everything, with harmless arguments too."""
        first = self.stage(Work(folder, batch=3))
        for changes in ({}, *({name: value} for name, value in self.harmless.items())):
            work = Work(folder, batch=16)
            assert_alike(self.stage(work, **changes), first, 0)
            assert not work.computed, changes

    def every_argument_counts(self, folder: Path) -> None:
        """With another value of any argument that can change a number, it is computed anew."""
        self.stage(Work(folder, context="one"))
        others: dict[str, Work] = {name: Work(folder, context="one") for name in self.changes}
        for name, value in self.changes.items():
            self.stage(others[name], **{name: value})
            assert others[name].computed, f"{name} = {value!r} was not computed anew"
        other = Work(folder, context="two")
        self.stage(other)
        assert other.computed


class _Stopping(Work):
    """Stops after one batch has been kept."""

    def _write(self, path: Path | None, row: dict[str, Tensor], batch: list[str]) -> None:
        super()._write(path, row, batch)
        raise KeyboardInterrupt


def assert_alike(got: object, want: object, atol: float) -> None:
    """Compare results whatever they are made of."""
    if isinstance(want, Tensor):
        assert isinstance(got, Tensor)
        if want.is_floating_point():
            torch.testing.assert_close(got, want, atol=atol, rtol=atol, equal_nan=True)
        else:  # where equal weights meet, rounding decides
            assert (got == want).double().mean() > (0.98 if atol else 0.999999)
    elif is_dataclass(want):
        for one in fields(want):
            assert_alike(getattr(got, one.name), getattr(want, one.name), atol)
    elif isinstance(want, Mapping):
        assert list(got) == list(want)
        for name in want:
            assert_alike(got[name], want[name], atol)
    elif isinstance(want, tuple):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert_alike(a, b, atol)
    elif isinstance(want, float):
        assert got == pytest.approx(want, abs=max(atol, 1e-12), nan_ok=True)
    else:
        assert got == want
