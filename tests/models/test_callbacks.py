from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from els.errors import InputError
from els.models import callbacks
from els.models.callbacks import (
    EMA,
    FinalValidation,
    ImagesPerSecond,
    LastCheckpoint,
    SampleGrid,
    Threads,
    WholeFiles,
    is_last_step,
    is_log_step,
)
from els.models.denoiser import NetworkDenoiser
from els.models.networks import build_network
from els.schedule import CosineSchedule


def trainer(folder: Path | None = None, **facts: object) -> SimpleNamespace:
    """As much of a trainer as callbacks ask."""
    usual = {
        "sanity_checking": False,
        "is_global_zero": True,
        "global_step": 0,
        "world_size": 2,
        "current_epoch": 0,
        "log_every_n_steps": 2,
        "callback_metrics": {},
        "loggers": [],
        "default_root_dir": folder,
        "should_stop": False,
        "max_steps": -1,
        "max_epochs": 50,
        "is_last_batch": False,
    }
    return SimpleNamespace(**usual | facts)


class Module:
    """As much of a training module as callbacks ask; keeps what is logged."""

    device = "cpu"

    def __init__(self, num_classes: int | None = None) -> None:
        config = {"channels": 1, "num_classes": num_classes, "width": 16, "depth": 1}
        self.net = build_network("ResNet", config)
        self.logged: dict[str, float] = {}

    def denoiser(self) -> NetworkDenoiser:
        return NetworkDenoiser(
            self.net, schedule=CosineSchedule(), image_shape=(1, 8, 8), data=None
        )

    def log(self, name: str, value: float) -> None:
        self.logged[name] = value


@pytest.mark.parametrize("num_classes", [None, 3])
def test_samples_are_always_of_the_same_seeds(num_classes: int | None) -> None:
    module, grid = Module(num_classes), SampleGrid(count=4, steps=2)
    picture = grid.draw(module)
    assert picture.shape == (3, 22, 22)  # 2 x 2 images of 8 x 8, with a border of 2
    assert torch.equal(picture, grid.draw(module))


def test_samples_are_drawn_every_so_many_epochs(tmp_path: Path) -> None:
    module, grid = Module(), SampleGrid(every_n_epochs=2, count=1, steps=1)
    for epoch in range(4):
        grid.on_validation_epoch_end(trainer(tmp_path, current_epoch=epoch), module)
    grid.on_validation_epoch_end(trainer(tmp_path, current_epoch=8, sanity_checking=True), module)
    last = trainer(tmp_path, current_epoch=5, max_epochs=6, is_last_batch=True)
    grid._last_epoch = 4
    grid.on_validation_epoch_end(last, module)
    never = SampleGrid(every_n_epochs=0)
    never.on_validation_epoch_end(trainer(tmp_path, current_epoch=9), module)
    files = sorted((tmp_path / "samples").iterdir())
    assert [file.stem for file in files] == ["epoch00000", "epoch00002", "epoch00005"]
    assert Image.open(files[0]).size == (8, 8)


def test_an_average_follows_the_first_steps_closely() -> None:
    ema = EMA(decay=0.9)
    zero, one = torch.zeros(1), torch.ones(1)
    assert ema._average(zero, one, 0).item() == pytest.approx(1 - 1 / 10)
    assert ema._average(zero, one, 10).item() == pytest.approx(1 - 11 / 20)
    assert ema._average(zero, one, 10_000).item() == pytest.approx(1 - 0.9)
    assert torch.equal(EMA(decay=0)._average(zero, one, 5), one)
    with pytest.raises(InputError, match=r"ema.decay is 1; .* below 1"):
        EMA(decay=1)


def test_a_checkpoint_holds_the_averaged_weights(trained: Path) -> None:
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    name = "net.last.weight"
    assert not torch.equal(content["state_dict"][name], content["current_model_state"][name])


def test_loggers_are_told_the_last_checkpoint_as_the_last() -> None:
    last = LastCheckpoint()
    last.teardown(trainer(), Module(), "fit")  # nothing was saved
    last.best_model_path = "last.ckpt"
    last.teardown(trainer(), Module(), "fit")
    assert (last.last_model_path, last.best_model_path) == ("last.ckpt", "")


def test_speed_counts_the_images_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([10.0, 12.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    speed, module = ImagesPerSecond(), Module()
    for step in range(2, 5):  # logged at 2, for the first time, and at 4
        speed.on_train_batch_end(trainer(global_step=step), module, None, [torch.zeros(5)], 0)
        assert bool(module.logged) == (step == 4)
    assert module.logged == {"train/images_per_second": 2 * 2 * 5 / 2}
    speed.on_validation_start(trainer(), module)
    module.logged.clear()
    speed.on_train_batch_end(trainer(global_step=6), module, None, [torch.zeros(5)], 0)
    assert not module.logged  # the time that validation took is left out
    assert [is_log_step(trainer(global_step=step)) for step in range(3)] == [True, False, True]


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def on_fit_start(callback: Threads, batch: int = 4, device: str = "cpu") -> int:
    """How many threads there are then."""
    training = trainer(
        datamodule=SimpleNamespace(images=SimpleNamespace(image_shape=(1, 8, 8)), batch_size=batch),
        strategy=SimpleNamespace(root_device=torch.device(device)),
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )
    module, state = Module(), torch.get_rng_state()
    callback.on_fit_start(training, module)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(one.grad is None for one in module.net.parameters())
    found = torch.get_num_threads()
    callback.teardown(training, module, "fit")
    assert torch.get_num_threads() == 3
    return found


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("seconds", "threads"), [((1.0, 0.95), 1), ((1.0, 0.85), 3)])
def test_several_threads_are_used_where_they_are_clearly_faster(
    seconds: tuple[float, float], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = dict(zip((1, 3), seconds, strict=True))
    monkeypatch.setattr(callbacks, "_seconds", lambda step, count: step() or said[count])
    callback = Threads()
    assert on_fit_start(callback) == threads
    goes_on = Threads()
    goes_on.load_state_dict(callback.state_dict())
    monkeypatch.setattr(callbacks, "_seconds", lambda step, count: {1: 0.5, 3: 0.5}[count])
    assert on_fit_start(goes_on) == threads


@pytest.mark.usefixtures("three_threads")
def test_threads_are_left_where_there_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "_seconds", lambda step, count: float(count))  # one is faster
    assert on_fit_start(Threads()) == 1
    assert on_fit_start(Threads(), batch=1 << 16) == 3
    assert on_fit_start(Threads(), device="cuda") == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert on_fit_start(Threads()) == 3


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"max_epochs": 4, "current_epoch": 3, "is_last_batch": True}, True),
        ({"max_epochs": 4, "current_epoch": 3}, False),
        ({"max_epochs": 4, "current_epoch": 2, "is_last_batch": True}, False),
        ({"max_epochs": None, "max_steps": 7, "global_step": 7}, True),
        ({"max_epochs": 4, "max_steps": 7, "global_step": 6}, False),
        ({"max_epochs": -1, "is_last_batch": True}, False),
        ({"should_stop": True}, True),  # by early stopping, or after the longest time
    ],
)
def test_the_last_step_is_known_and_validated(facts: dict, expected: bool) -> None:
    now = trainer(**facts, fit_loop=SimpleNamespace(batch_idx=4))
    now.check_val_every_n_epoch, now.val_check_batch = 10, 45
    assert is_last_step(now) == expected
    FinalValidation().on_train_batch_end(now, Module(), None, None, 4)
    due = (now.check_val_every_n_epoch, now.val_check_batch)
    assert due == ((1, 5) if expected else (10, 45))


def test_a_checkpoint_that_is_not_written_whole_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, path)

    def cut_short(self: Path, content: bytes) -> None:
        self.open("wb").write(content[:9])
        raise SystemExit(130)  # a second Ctrl-C

    monkeypatch.setattr(Path, "write_bytes", cut_short)
    with pytest.raises(SystemExit):
        WholeFiles().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
