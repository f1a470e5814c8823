"""Snapshots along training: at which steps, of which weights, and the same after a kill."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from entry import TINY, refusal

from els.models.checkpoints import load_denoiser
from els.models.cli import main
from els.models.snapshots import Snapshots, is_snapshot, snapshot_steps, snapshots_in

QUICK = [*TINY, "--run.logger", "none", "--samples.every_n_epochs", "0"]  # nine steps


def fit(folder: Path, *args: str) -> Path:
    main(["fit", *QUICK, "--run.dir", str(folder), "--run.name", "a", *args])
    return folder / "a" / "snapshots"


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        path.name: load_denoiser(path).net.state_dict() for path in snapshots_in(folder).values()
    }


@pytest.mark.parametrize(
    ("count", "total", "steps"),
    [
        (5, 10_000, (1, 10, 100, 1_000, 10_000)),
        (4, 8, (1, 2, 4, 8)),
        (1, 7, (7,)),
        (2, 7, (1, 7)),
        (9, 9, tuple(range(1, 10))),
        (50, 3, (1, 2, 3)),
        (6, 10, (1, 2, 3, 4, 6, 10)),  # 10^(1/5) = 1.6, 10^(2/5) = 2.5, 4.0, 6.3
    ],
)
def test_steps_are_even_in_log_and_each_is_another(
    count: int, total: int, steps: tuple[int, ...]
) -> None:
    assert snapshot_steps(count, total) == steps


def test_steps_rise_to_the_last_whatever_the_counts() -> None:
    for total in (1, 2, 5, 17, 300, 7_040):
        for count in (1, 2, 3, 8, 40):
            steps = snapshot_steps(count, total)
            assert len(steps) == min(count, total)
            assert steps[-1] == total
            assert list(steps) == sorted(set(steps))


def test_snapshots_are_networks_with_the_averaged_weights(tmp_path: Path) -> None:
    folder = fit(tmp_path, "--run.snapshots", "4")
    assert list(snapshots_in(folder)) == [1, 2, 4, 9]  # powers of 9^(1/3) = 2.08
    assert sorted(path.name for path in folder.iterdir()) == [f"step-{n:06d}" for n in (1, 2, 4, 9)]
    last = load_denoiser(tmp_path / "a")
    found = load_denoiser(folder / "step-000009")
    assert found.identity == last.identity  # that of the averaged weights in last.ckpt
    assert found.data == last.data
    for step, path in snapshots_in(folder).items():
        assert load_denoiser(path).trained.steps == step
    online = load_denoiser(tmp_path / "a", weights="online")
    assert found.identity != online.identity


def test_a_snapshot_holds_the_average_at_its_step_and_not_later(tmp_path: Path) -> None:
    """That of step 1 is the average of a training that ends there."""
    (short, long) = tmp_path / "short", tmp_path / "long"
    found = fit(long, "--run.snapshots", "2")
    fit(short, "--trainer.max_steps", "1", "--trainer.max_epochs", "-1")
    assert load_denoiser(found / "step-000001").identity == load_denoiser(short / "a").identity


def test_a_training_that_was_killed_leaves_the_same_snapshots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(fit(tmp_path / "whole", "--run.snapshots", "4"))
    keep = Snapshots.keep

    def killed(self: Snapshots, trainer: Any, pl_module: Any) -> Path:
        path = keep(self, trainer, pl_module)
        if trainer.global_step == 4:  # last.ckpt is of step 3
            # As if the weights had been others, which what is left over must not hide.
            (path / "model.safetensors").write_bytes(b"")
            raise SystemExit(9)
        return path

    monkeypatch.setattr(Snapshots, "keep", killed)
    with pytest.raises(SystemExit):
        fit(tmp_path / "killed", "--run.snapshots", "4")
    monkeypatch.undo()
    found = weights(
        fit(tmp_path / "killed", "--run.snapshots", "4", "--ckpt_path", "last"),
    )
    assert found.keys() == whole.keys()
    for name, net in whole.items():
        for key, value in net.items():
            assert torch.equal(found[name][key], value), (name, key)


def test_a_snapshot_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("els.models.formats.exported.write_json", full)
    module = SimpleNamespace(net=torch.nn.Linear(1, 1), described=dict)
    trainer = SimpleNamespace(global_step=3, callbacks=[])
    with pytest.raises(OSError, match="No space"):
        Snapshots(tmp_path, 1).keep(trainer, module)
    assert list(tmp_path.iterdir()) == []


def test_a_training_without_an_end_has_no_snapshots(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    endless = ["--trainer.max_epochs", "-1", "--run.snapshots", "3", "--run.name", "a"]
    line = refusal(main, ["fit", *QUICK, "--run.dir", tmp_path, *endless], capsys)
    assert "run.snapshots is 3, whose steps depend on how long training is; give" in line
    assert not (tmp_path / "a").exists()
    line = refusal(main, ["fit", *QUICK, "--run.snapshots", "-2"], capsys)
    assert "run.snapshots is -2; it must be at least 0" in line


def test_a_snapshot_is_known_by_its_place(tmp_path: Path) -> None:
    assert is_snapshot(tmp_path / "snapshots" / "step-000128")
    assert not is_snapshot(tmp_path / "step-000128")
    assert not is_snapshot(tmp_path / "snapshots" / "step-last")
    assert snapshots_in(tmp_path) == {}
