from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from made_results import made_scales

from els.analysis.tracking import tracker
from els.analysis.tracking.record import LoggedRun, run_of
from els.analysis.tracking.tracker import LiveRun, Tracker
from els.models.tracking import Patience
from els.work import Advance, Work, silent


class Recorded:
    """A run that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.summary: dict[str, object] = {}
        self.settings = SimpleNamespace(mode="offline")

    def define_metric(self, name: str, **options: object) -> None: ...

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)


@pytest.fixture
def run() -> Recorded:
    return Recorded()


@pytest.fixture
def live(run: Recorded, tmp_path: Path) -> LiveRun:
    return LiveRun(Patience(run), LoggedRun("abc", "digest", where="here"), tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which stands still."""
    now = [0.0]
    monkeypatch.setattr(tracker.time, "monotonic", lambda: now[0])
    return now


def test_progress_is_shown_and_told_at_most_every_few_seconds(
    live: LiveRun, run: Recorded, clock: list[float]
) -> None:
    shown = []

    @contextmanager
    def bar(name: str, total: int) -> Iterator[Advance]:
        shown.append((name, total))
        yield shown.append

    with live.progress(bar)("calibrating boundary", 40) as advance:
        for _ in range(10):
            clock[0] += 2
            advance(4)
    assert shown == [("calibrating boundary", 40), *[4] * 10]
    assert run.summary["progress/stage"] == "calibrating boundary"
    assert [row["progress/share"] for row in run.rows] == pytest.approx([0, 0.3, 0.6, 0.9, 1])
    left = [60 * row["progress/minutes_left"] for row in run.rows[1:]]
    assert left == pytest.approx([14, 8, 2, 0])


def test_every_stage_of_the_work_is_told(live: LiveRun, run: Recorded, tmp_path: Path) -> None:
    def compute(some: list[int], advance: Advance) -> dict:
        advance(len(some))
        return {"x": torch.zeros(len(some))}

    for _ in range(2):  # the second time all is kept from before
        work = Work(tmp_path / ".work", batch=2, progress=live.progress(silent))
        for name in ("one", "two"):
            work.map(name, range(4), compute, depends=name)
        assert [row["progress/share"] for row in run.rows] == [0, 1] * 2
        assert run.summary["progress/stage"] == "two"


def test_each_scale_is_logged_as_it_is_fitted(live: LiveRun, run: Recorded, tmp_path: Path) -> None:
    assert run_of(tmp_path, "digest").id == "abc"  # kept before anything is logged
    live.fitted(made_scales("boundary"))
    assert [row["analysis/scale/boundary"] for row in run.rows] == [7, 5, 5, 3]
    live.fitted(made_scales("local"))
    assert [row["analysis/scale/local"] for row in run.rows[4:]] == [7, 5, 5, 3]


def test_without_a_run_progress_is_shown_alone() -> None:
    assert Tracker().progress(print) is print
