import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from entry import TINY, fit, on_terminal, run, wandb_records

from els.models.checkpoints import load_denoiser
from els.models.cli import main


def losses(folder: Path) -> dict[int, float]:
    """train/loss by step of a run logged as CSV."""
    (file, *_) = sorted(folder.glob("csv/version_*/metrics.csv"), reverse=True)
    header, *rows = (line.split(",") for line in file.read_text().splitlines())
    step, loss = header.index("step"), header.index("train/loss")
    return {int(row[step]): float(row[loss]) for row in rows if row[loss]}


def test_a_run_leaves_checkpoints_config_and_samples(trained: Path) -> None:
    assert {p.name for p in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert yaml.safe_load((trained / "config.yaml").read_text())["data"]["limit"] == 96
    assert len(list((trained / "samples").glob("*.png"))) == 3
    denoiser = load_denoiser(trained / "checkpoints" / "last.ckpt")
    images = denoiser.data.load()
    denoiser.data.verify(images)
    assert len(images) == 96
    assert denoiser.image_shape == (1, 16, 16)
    assert (denoiser.trained.steps, denoiser.trained.epochs) == (9, 3)
    assert 0 < denoiser.trained.val_loss < 2
    best = load_denoiser(trained / "checkpoints" / "best.ckpt").trained
    assert best.steps == 3 * best.epochs


def test_wandb_has_history_samples_config_and_the_checkpoint(trained: Path) -> None:
    records = wandb_records(trained, "train")
    assert records["run"][0]["run_group"] == "tiny"
    logged = {key for record in records["history"] for key in record["item"]}
    for key in ("train/loss", "train/grad_norm", "train/images_per_second", "val/loss",
                "val/loss_t0.0-0.2", "val/loss_t0.8-1.0", "samples"):  # fmt: skip
        assert any(name == key or name.startswith(f"{key}.") for name in logged), key
    artifacts = [a for a in records["artifact"] if a["type"] == "model"]
    assert {artifact["name"] for artifact in artifacts} == {"tiny-checkpoint"}
    aliases = {json.loads(a["metadata"])["original_filename"]: set(a["aliases"])
               for a in artifacts}  # fmt: skip
    assert aliases == {"best.ckpt": {"latest", "best"}, "last.ckpt": {"latest"}}
    assert artifacts[-1]["aliases"] == ["latest"]  # which is then the last's alone


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    for name, epochs, *more in (
        ("whole", "4"), ("parts", "2"), ("parts", "4", "--ckpt_path", "last")
    ):  # fmt: skip
        main([
            "fit", *TINY, "--run.dir", str(tmp_path), "--run.name", name, "--run.logger", "csv",
            "--model.scheduler.init_args.total_steps", "12", "--trainer.max_epochs", epochs, *more,
        ])  # fmt: skip
    whole, resumed = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert set(resumed) == set(range(6, 12))
    for step, value in resumed.items():
        assert value == pytest.approx(whole[step], rel=1e-4)
    a, b = (load_denoiser(tmp_path / name / "checkpoints" / "last.ckpt").net.state_dict()
            for name in ("whole", "parts"))  # fmt: skip
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-4, atol=1e-5)


def test_a_terminal_shows_bars_and_a_pipe_plain_lines(tmp_path: Path) -> None:
    args = ("train.py", "fit", *TINY, "--trainer.max_epochs", "1", "--run.dir", tmp_path)
    terminal = on_terminal(*args, "--run.name", "t", "--run.logger", "csv")
    assert "\x1b[?25l" in terminal  # the cursor is hidden while a bar runs
    for text in ("receptive field", "1 epoch, 3 steps", "CSV, ", "━", "python analyze.py"):
        assert text in terminal
    assert terminal.index("receptive field") < terminal.index("━")
    folder = tmp_path / "é"
    piped = run(
        *args[:-1], folder, "--run.name", "p", PYTHONIOENCODING="ascii", WANDB_SILENT="false"
    )
    assert piped.returncode == 0, piped.stderr
    said = piped.stdout + piped.stderr
    assert said.isascii()
    assert "\x1b" not in said
    assert "\r" not in said
    assert "W&B project els, offline" in said
    assert re.search(r"\nepoch 0 step 3  train/loss [\d.]+  val/loss [\d.]+", said)
    assert len(piped.stdout.splitlines()) < 20


def test_two_processes_train_together(tmp_path: Path) -> None:
    done = fit(tmp_path, "--run.name", "ddp", "--run.logger", "csv", "--trainer.devices", "2",
               "--trainer.strategy", "ddp", "--data.val_limit", "25")  # fmt: skip
    assert "2 processes" in done.stdout
    assert "batch size 32 in each process\n" in done.stdout
    assert load_denoiser(tmp_path / "ddp" / "checkpoints" / "last.ckpt").image_shape == (1, 16, 16)


def test_validation_is_the_same_with_any_number_of_processes(
    trained: Path, capsys: pytest.CaptureFixture
) -> None:
    args = [
        "validate", *TINY, "--ckpt_path", str(trained / "checkpoints" / "last.ckpt"), "--run.dir",
        str(trained.parent), "--run.name", "validated", "--run.logger", "none", "--data.val_limit",
        "25",
    ]  # fmt: skip
    main([*args, "--trainer.devices", "1"])
    alone = capsys.readouterr().out
    done = run("train.py", *args, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert done.returncode == 0, done.stderr
    one, two = (float(re.search(r"val/loss ([\d.]+)", said).group(1))
                for said in (alone, done.stdout))  # fmt: skip
    assert one == pytest.approx(two, rel=1e-3)


def test_ctrl_c_leaves_the_last_checkpoint_usable(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "fit", *TINY, "--run.dir", str(tmp_path), "--run.name",
               "stopped", "--run.logger", "none", "--trainer.max_epochs", "100000"]  # fmt: skip
    quiet = subprocess.DEVNULL  # a pipe that nobody reads would stop it
    process = subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet)
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    while process.poll() is None:  # Python drops one that comes in a destructor: press again
        assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
    load_denoiser(last)
    assert not [p for p in last.parent.iterdir() if p.name not in ("last.ckpt", "best.ckpt")]


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler on a CPU")
def test_a_compiled_network_trains_alike_and_leaves_an_ordinary_checkpoint(tmp_path: Path) -> None:
    for name in ("false", "true"):
        main([
            "fit", *TINY, "--model.compile_net", name, "--run.dir", str(tmp_path), "--run.name",
            name, "--run.logger", "csv", "--trainer.max_epochs", "1",
        ])  # fmt: skip
    plain, compiled = (losses(tmp_path / name) for name in ("false", "true"))
    assert plain == pytest.approx(compiled, rel=1e-4)
    denoiser = load_denoiser(tmp_path / "true" / "checkpoints" / "last.ckpt")
    assert denoiser.image_shape == (1, 16, 16)
