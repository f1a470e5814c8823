import math
import re
import time
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from els.models import progress
from els.models.progress import Pace, PlainProgress, ProgressBar, duration, time_of_end


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (89, "89 s"),
        (170, "3 min"),
        (10_000, "2.8 h"),
        (4.2 * 86400, "4.2 days"),
    ],
)
def test_durations_are_told_in_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_end_names_the_day_when_it_is_not_today() -> None:
    noon = time.mktime((2026, 1, 7, 12, 0, 0, 0, 0, -1))
    assert time_of_end(125 * 60, noon) == "14:05"
    assert time_of_end(26 * 3600, noon) == "Thu 14:00"


def counted(total: float, steps: int, seconds: float = 0.5) -> Pace:
    pace = Pace(total)
    for step in range(1, steps + 1):
        pace.count(step, 32, 100 + seconds * step)
    return pace


def test_the_time_left_is_that_of_all_steps() -> None:
    assert not counted(1000, 19).known
    assert counted(1000, 19).left(0) == counted(1000, 19).speed() == ""
    pace = counted(1000, 40)
    assert pace.seconds_left == pytest.approx(960 * 0.5)
    assert pace.images_per_second == pytest.approx(64)
    assert pace.left(time.time()).startswith("8 min left, ends ")
    assert counted(math.inf, 40).left(0) == ""  # until it is stopped
    assert counted(40, 40).left(0) == ""  # it is over


def test_a_run_that_goes_on_is_measured_from_where_it_does() -> None:
    pace = Pace(1000)
    for step in range(500, 530):
        pace.count(step, 32, step * 2.0)
    assert pace.seconds_left == pytest.approx((1000 - 529) * 2)


def test_validation_takes_time_but_no_speed() -> None:
    pace = counted(1000, 21)
    pace.pause(110.5)
    pace.go_on(120.5)
    pace.count(22, 32, 121)
    assert pace.images_per_second == pytest.approx(64)
    assert pace.seconds_left == pytest.approx(978 * 20.5 / 21)


def trainer(step: int, total: float, **losses: float) -> SimpleNamespace:
    metrics = {name.replace("_", "/"): torch.tensor(value) for name, value in losses.items()}
    return SimpleNamespace(
        global_step=step,
        estimated_stepping_batches=total,
        world_size=1,
        sanity_checking=False,
        callback_metrics=metrics,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr("time.monotonic", lambda: now.seconds)
    return now


def made(shown: PlainProgress, clock: SimpleNamespace, step: int, total: float) -> None:
    """A step that took 10 seconds."""
    clock.seconds += 10
    shown.on_train_batch_end(
        trainer(step, total, train_loss=0.012345), None, None, [torch.zeros(512)], 0
    )


def test_a_pipe_gets_a_line_a_minute_and_after_each_validation(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    shown, total = PlainProgress(), 93_600
    shown.on_train_start(trainer(0, total), None)
    for step in range(1, 41):
        made(shown, clock, step, total)
    lines = capsys.readouterr().out.splitlines()
    (told,) = [line for line in lines if line.startswith("about")]
    assert told.startswith("about 10.8 days left, ends ")
    assert told.endswith(", 51 images/s")
    assert len(lines) - 1 == 400 // 60
    assert lines[-1] == "step 36/93,600  train/loss 0.0123  51 images/s  10.8 days left"
    shown.on_validation_start(trainer(40, total), None)
    clock.seconds += 100
    shown.on_validation_end(trainer(40, total, train_loss=0.5, val_loss=0.25), None)
    assert "step 40/93,600  train/loss 0.5  val/loss 0.25  51 images/s  " in capsys.readouterr().out
    shown.on_train_end(trainer(total, total, train_loss=0.5, val_loss=0.25), None)
    last = capsys.readouterr().out
    assert last == "finished at step 93,600 of 93,600, train/loss 0.5, val/loss 0.25\n"
    assert max(map(len, lines)) <= 80


def test_the_bar_fits_into_80_columns(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StringIO()
    monkeypatch.setattr(file, "isatty", lambda: True)
    terminal = Console(file=file, width=80, height=24, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "console", terminal)
    shown, total = ProgressBar(), 1_400_000
    shown.on_train_start(trainer(0, total), None)
    for step in range(1_399_001, 1_399_041):
        made(shown, clock, step, total)
    shown.on_validation_end(trainer(1_399_040, total, train_loss=0.0123, val_loss=0.0345), None)
    shown._bar.refresh()
    shown.on_train_end(trainer(total, total), None)
    drawn = file.getvalue()
    assert "step 1,399,040 of 1,400,000 ━" in drawn
    assert "2.7 h left, ends " in drawn
    assert "train/loss 0.0123  val/loss 0.0345  51 images/s" in drawn
    assert "v_num" not in drawn
    bare = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", drawn)
    assert max(len(line) for part in bare.split("\n") for line in part.split("\r")) <= 80
    assert drawn.rstrip().endswith("finished at step 1,400,000 of 1,400,000")


def test_nothing_is_drawn_after_training_failed(clock: SimpleNamespace) -> None:
    shown = ProgressBar()
    shown.on_train_start(trainer(0, 10), None)
    shown.on_exception(trainer(0, 10), None, RuntimeError())
    made(shown, clock, 1, 10)
    assert shown._bar is None
