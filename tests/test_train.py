import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from entry import TINY, fit, on_terminal, run, wandb_records

from els.models.checkpoints import load_denoiser
from els.models.cli import main


def losses(folder: Path) -> dict[int, float]:
    """train/loss by step of a run logged as CSV, where each step stands once."""
    with open(folder / "csv" / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    return {step: float(row["train/loss"]) for step, row in zip(steps, rows, strict=True)}


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
    expected = "train/loss train/grad_norm train/images_per_second val/loss samples"
    for key in (*expected.split(), "val/loss_t0.0-0.2", "val/loss_t0.8-1.0"):
        assert any(name == key or name.startswith(f"{key}.") for name in logged), key
    artifacts = [a for a in records["artifact"] if a["type"] == "model"]
    assert {artifact["name"] for artifact in artifacts} == {"tiny-checkpoint"}
    aliases = {
        json.loads(artifact["metadata"])["original_filename"]: set(artifact["aliases"])
        for artifact in artifacts
    }
    assert aliases == {"best.ckpt": {"latest", "best"}, "last.ckpt": {"latest"}}
    assert artifacts[-1]["aliases"] == ["latest"]  # which is then the last's alone


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    common = "--run.logger csv --model.scheduler.init_args.total_steps 12 --trainer.max_epochs"
    for name, epochs in (("whole", "4"), ("parts", "2"), ("parts", "4 --ckpt_path last")):
        more = f"--run.name {name} {common} {epochs}".split()
        main(["fit", *TINY, "--run.dir", str(tmp_path), *more])
    whole, resumed = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert set(resumed) == set(range(12))  # one curve
    assert resumed == pytest.approx(whole, rel=1e-4)
    assert_same_network(tmp_path / "whole", tmp_path / "parts")


def assert_same_network(one: Path, other: Path) -> None:
    weights = load_denoiser(other).net.state_dict()
    for name, value in load_denoiser(one).net.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


def test_a_terminal_shows_bars_and_a_pipe_plain_lines(tmp_path: Path) -> None:
    args = ("train.py", "fit", *TINY, "--trainer.max_epochs", "1", "--run.dir", tmp_path)
    terminal = on_terminal(*args, "--run.name", "t", "--run.logger", "csv")
    assert "\x1b[?25l" in terminal  # the cursor is hidden while a bar runs
    said = ("1 epoch, 3 steps", "CSV, ", "━", "finished at step 3 of 3, ", "python analyze.py")
    for text in ("receptive field", *said):
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
    assert re.search(r"\nstep 3/3  train/loss [\d.]+  val/loss [\d.]+\n", said)
    assert re.search(r"\nfinished at step 3 of 3, train/loss [\d.]+, val/loss [\d.]+\n", said)
    assert len(piped.stdout.splitlines()) < 20
    assert not [line for line in said.splitlines() if line.startswith("wandb:")]


def test_two_processes_train_together(tmp_path: Path) -> None:
    both = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.val_limit", "25"]
    done = fit(tmp_path, "--run.name", "ddp", "--run.logger", "csv", *both)
    assert "2 processes" in done.stdout
    assert "batch size 32 in each process\n" in done.stdout
    assert load_denoiser(tmp_path / "ddp" / "checkpoints" / "last.ckpt").image_shape == (1, 16, 16)


def test_validation_is_the_same_with_any_number_of_processes(
    trained: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    args = ["validate", *TINY, "--ckpt_path", checkpoint, "--run.dir", str(trained.parent)]
    args += ["--run.name", "validated", "--run.logger", "none", "--data.val_limit", "25"]
    main([*args, "--trainer.devices", "1"])
    alone = capsys.readouterr().out
    done = run("train.py", *args, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert done.returncode == 0, done.stderr
    one, two = (
        float(re.search(r"val/loss +([\d.]+)", said).group(1)) for said in (alone, done.stdout)
    )
    assert one == pytest.approx(two, rel=1e-3)


QUIET = ("--run.logger", "csv", "--samples.every_n_epochs", "0")


class Training:
    """`train.py fit` in a process of its own, of which one reads what it says as it goes."""

    def __init__(self, folder: Path, *args: str, base: Sequence[str] = ()) -> None:
        words = [*(base or TINY), "--run.dir", str(folder), *QUIET, *args]
        self.process = subprocess.Popen(
            [sys.executable, "train.py", "fit", *words],
            cwd=ROOT,
            text=True,
            bufsize=1,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.said = ""

    def until(self, pattern: str) -> str:
        """Read on until a line matches, which is returned."""
        for line in self.process.stdout:
            self.said += line
            if re.search(pattern, line):
                return line
        raise AssertionError(self.said)

    def stop(self, number: signal.Signals) -> str:
        """Send a signal and read to the end; the exit code must be that of the signal."""
        self.process.send_signal(number)
        said = self.process.stdout.read()
        self.said += said
        assert self.process.wait(timeout=60) == 128 + number, self.said
        return said


def command_in(said: str) -> list[str]:
    """The words of the command that goes on, as one would paste them into a shell."""
    command = re.search(r"go on with +(python train.py .*--ckpt_path last)\n", said, re.DOTALL)[1]
    return shlex.split(command.replace("\\\n", " "))[1:]


LONG = ("--trainer.max_epochs", "10000", "--trainer.check_val_every_n_epoch", "10000")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_what_is_kept_and_goes_on_exactly(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Stopped in epoch 0, which is 24 steps long, it goes on in the middle of the epoch."""
    long = ["--data.batch_size", "4", "--model.scheduler.init_args.total_steps", "48"]
    base = [*TINY, *long]
    training = Training(tmp_path, "--run.name", "parts", *LONG, base=base)
    training.until("about .* left")  # after 20 steps
    said = training.stop(number)
    stopped = re.search(r"stopped +at step ([\d,]+), epoch ([\d,]+) of 10,000\n", said)
    step, epoch = (int(text.replace(",", "")) for text in stopped.groups())
    assert f"kept        {tmp_path}/parts/checkpoints/last.ckpt (step {step:,})\n" in said
    assert load_denoiser(tmp_path / "parts").trained.steps == step
    assert step // 24 + (step % 24 > 0) == epoch
    assert max(map(len, training.said.splitlines())) <= max(80, len(str(tmp_path)) + 50)
    goal = str(epoch + 1)
    words = [*command_in(said), "--trainer.max_epochs", goal]
    assert words.count("--ckpt_path") == 1
    going_on = run(*words)
    assert going_on.returncode == 0, going_on.stderr
    assert f"goes on from     step {step:,}, epoch {epoch:,} of {goal}\n" in going_on.stdout
    assert "Warning" not in going_on.stderr
    unbroken = ["--run.name", "whole", *QUIET, *LONG, "--trainer.max_epochs", goal]
    fit(tmp_path, *unbroken, base=base)
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert set(whole) - set(parts) <= {step - 1}  # it was made, and stopped before it was logged
    assert parts == pytest.approx({step: whole[step] for step in parts}, rel=1e-3)
    assert_same_network(tmp_path / "whole", tmp_path / "parts")


def test_stopping_before_the_first_step_and_twice(tmp_path: Path) -> None:
    training = Training(tmp_path, "--run.name", "a", *LONG)
    training.until("about .* left")
    training.process.send_signal(signal.SIGINT)
    training.until("press Ctrl-C again to stop at once|stopped +at step")
    training.process.send_signal(signal.SIGINT)
    said = training.process.stdout.read()
    assert training.process.wait(timeout=60) == 130
    assert "Traceback" not in training.said + said
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]


def test_two_processes_stop_together(tmp_path: Path) -> None:
    """Only the first is told, as by SLURM; it speaks for both."""
    both = ["--run.name", "ddp", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    training = Training(tmp_path, *both, *LONG)
    training.until("about .* left")
    said = training.stop(signal.SIGTERM)
    assert len(re.findall("stopped +at step", training.said)) == 1
    step = int(re.search(r"stopped +at step ([\d,]+)", said)[1].replace(",", ""))
    assert load_denoiser(tmp_path / "ddp").trained.steps == step
    again = run(*command_in(said), "--trainer.max_steps", str(step + 3))
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"goes on from     step {step:,}, epoch" in again.stdout
    assert f"finished at step {step + 3:,} of {step + 3:,}" in again.stdout


def test_a_run_is_replaced_when_the_new_one_has_begun_and_kept_something(tmp_path: Path) -> None:
    old = tmp_path / "a" / "checkpoints" / "last.ckpt"
    fit(tmp_path, "--run.name", "a", "--run.logger", "none", "--trainer.max_epochs", "1")
    (tmp_path / "a" / "analysis").mkdir()
    before = old.read_bytes()
    again = ["--run.name", "a", "--run.overwrite", "true"]
    for typo in (
        ["--data.name", "mnist", "--data.root", "nowhere"],
        ["--model.net.init_args.padding", "mirror"],
        ["--run.logger", "tensorbord"],
    ):
        refused = run("train.py", "fit", *TINY, "--run.dir", tmp_path, *again, *typo)
        assert refused.returncode == 2
        assert old.read_bytes() == before
    training = Training(tmp_path, *again, *LONG, "--data.limit", "960", "--data.batch_size", "2")
    told = training.until("the run before is now")
    assert f"{tmp_path}/a.old\n" in told
    training.until("about .* left")  # in the first epoch, before a checkpoint
    training.process.kill()
    training.process.wait()
    assert (tmp_path / "a.old" / "checkpoints" / "last.ckpt").read_bytes() == before
    assert (tmp_path / "a.old" / "analysis").is_dir()
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert config["run"]["overwrite"] is False
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a.old").rename(tmp_path / "a")
    done = fit(tmp_path, *again, "--run.logger", "none", "--trainer.max_epochs", "1")
    assert "and is deleted when the new one has kept its first checkpoint" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert not (tmp_path / "a" / "analysis").exists()


@pytest.mark.parametrize(
    ("length", "steps"), [(["--trainer.max_steps", "2"], 2), (["--trainer.max_epochs", "1"], 3)]
)
def test_a_short_run_is_validated_at_its_end(
    length: list[str], steps: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seldom = ["--trainer.check_val_every_n_epoch", "10", "--samples.every_n_epochs", "10"]
    run_options = ["--run.dir", str(tmp_path), "--run.name", "a", "--run.logger", "none"]
    main(["fit", *TINY, *run_options, *seldom, *length])
    (line,) = re.findall(r"finished at .*", capsys.readouterr().out)
    assert re.fullmatch(rf"finished at step {steps} of {steps}, train/loss \S+, val/loss \S+", line)
    folder = tmp_path / "a"
    for name in ("best", "last"):
        trained = load_denoiser(folder / "checkpoints" / f"{name}.ckpt").trained
        assert trained.steps == steps
        assert f"val/loss {trained.val_loss:.3g}" in line
    assert len(list((folder / "samples").iterdir())) == 1


def test_a_run_that_goes_on_is_one_run_of_wandb(tmp_path: Path) -> None:
    first = fit(tmp_path, "--run.name", "a", "--trainer.max_epochs", "1")
    assert "\n  wandb sync " in first.stdout
    more = ["--run.name", "a", "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    again = run("train.py", "fit", "--run.dir", tmp_path, *more)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "goes on from     step 3, epoch 1 of 2\n" in again.stdout
    parts = sorted((tmp_path / "a" / "wandb").glob("offline-run-*"))
    ids = {part.name.rsplit("-", 1)[1] for part in parts}
    assert (len(parts), len(ids)) == (2, 1)
    assert f"wandb sync {tmp_path}/a/wandb/offline-run-*-{ids.pop()}\n" in again.stdout
    records = wandb_records(tmp_path / "a", "train")
    config = records["run"][0]["config"]["update"]
    for record in records["config"]:
        config |= record["update"]
    assert config["network"] == {
        "class": "ResNet",
        "channels": 1,
        "width": 16,
        "depth": 2,
        "kernel": 3,
        "last_kernel": 3,
        "padding": "zeros",
        "norm": "none",
        "classes": None,
        "parameters": 5857,
        "receptive_field": 9,
    }
    assert config["training"]["data"] == "digits"
    assert config["run"]["overwrite"] is False


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler on a CPU")
def test_a_compiled_network_trains_alike_and_leaves_an_ordinary_checkpoint(tmp_path: Path) -> None:
    for name in ("false", "true"):
        more = f"--model.compile_net {name} --run.name {name} --run.logger csv".split()
        main(["fit", *TINY, *more, "--run.dir", str(tmp_path), "--trainer.max_epochs", "1"])
    plain, compiled = (losses(tmp_path / name) for name in ("false", "true"))
    assert plain == pytest.approx(compiled, rel=1e-4)
    denoiser = load_denoiser(tmp_path / "true" / "checkpoints" / "last.ckpt")
    assert denoiser.image_shape == (1, 16, 16)
