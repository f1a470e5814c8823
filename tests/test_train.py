import json
import math
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
from entry import TINY, fit, on_terminal, refusal, run, wandb_records

from els.images import DATASETS
from els.models.checkpoints import load_denoiser

CONFIGS = sorted(set(ROOT.glob("configs/*.yaml")) - {ROOT / "configs" / "sweep.yaml"})
PAPER_ROWS = {
    "mnist_unet_zeros", "cifar10_unet_zeros", "fashion_mnist_unet_zeros", "celeba_unet_zeros",
    "mnist_resnet_zeros", "mnist_resnet_circular", "cifar10_resnet_zeros",
    "cifar10_resnet_circular", "fashion_mnist_resnet_zeros", "celeba_resnet_zeros",
}  # fmt: skip


def losses(folder: Path) -> dict[int, float]:
    """train/loss by step of a run logged as CSV."""
    (file, *_) = sorted(folder.glob("csv/version_*/metrics.csv"), reverse=True)
    header, *rows = (line.split(",") for line in file.read_text().splitlines())
    step, loss = header.index("step"), header.index("train/loss")
    return {int(row[step]): float(row[loss]) for row in rows if row[loss]}


def test_there_is_a_config_for_each_row_of_the_papers_table() -> None:
    assert {path.stem for path in CONFIGS} >= PAPER_ROWS
    for piece in ROOT.glob("configs/data/*.yaml"):
        assert yaml.safe_load(piece.read_text())["name"] in DATASETS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_its_objects(path: Path, capsys: pytest.CaptureFixture) -> None:
    # Digits stand in for the data, which may not be at hand; the rest is as the file says.
    from train import main

    cli = main([
        "validate", "--config", str(path), "--trainer.fast_dev_run", "true",
        "--trainer.accelerator", "cpu", "--trainer.precision", "32",
        "--data.name", "digits", "--data.size", "32", "--data.batch_size", "2",
        "--samples.every_n_epochs", "0",
    ])  # fmt: skip
    config = yaml.safe_load(path.read_text())
    expected = config["model"].removeprefix("network/").split("_")
    assert type(cli.model.net).__name__.lower() == expected[0]
    assert cli.model.net.padding == expected[-1].removesuffix(".yaml")
    assert ("attention" in expected) == (cli.model.net.receptive_field is None)
    assert (cli.model.net.num_classes == 10) == cli.datamodule.conditional


@pytest.mark.parametrize("network", ["resnet", "unet", "unet_attention"])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_fast_dev_run(network: str, padding: str, capsys: pytest.CaptureFixture) -> None:
    from train import main

    name = f"digits_{network}.yaml"
    cli = main([
        "fit", "--config", str(ROOT / "configs" / name), "--trainer.fast_dev_run", "true",
        "--trainer.accelerator", "cpu", "--data.batch_size", "4", "--data.conditional", "true",
        "--model.net.init_args.padding", padding,
    ])  # fmt: skip
    assert cli.model.net.padding == padding
    said = capsys.readouterr().out  # what is trained is said before it is
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in said.splitlines() if "  " in line)
    net = cli.model.net
    field = "the whole image" if net.receptive_field is None else f"{net.receptive_field} px"
    assert rows["data"] == "digits, 1,437 images, 1 x 16 x 16, 10 classes"
    assert rows["network"] == f"{type(net).__name__}, {padding} padding"
    assert rows["parameters"] == f"{net.parameter_count:,}"
    assert rows["receptive field"] == field
    assert rows["training"] == "1 epoch, 1 step, batch size 4"
    assert rows["device"].startswith("cpu, 1 process, precision ")
    assert rows["logged to"] == "nowhere"
    assert rows["results"] == cli.trainer.default_root_dir
    assert math.isfinite(cli.trainer.callback_metrics["train/loss"])


def test_a_run_leaves_checkpoints_config_and_samples(trained: Path) -> None:
    assert {p.name for p in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert yaml.safe_load((trained / "config.yaml").read_text())["data"]["limit"] == 96
    assert len(list((trained / "samples").glob("*.png"))) == 3
    denoiser = load_denoiser(trained / "checkpoints" / "last.ckpt")
    images = denoiser.data.load()
    denoiser.data.verify(images)
    assert len(images) == 96
    assert denoiser.image_shape == (1, 16, 16)


def test_a_checkpoint_holds_the_averaged_weights(trained: Path) -> None:
    content = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    name = "net.last.weight"
    assert not torch.equal(content["state_dict"][name], content["current_model_state"][name])


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


def test_a_second_run_of_the_same_name_is_refused(trained: Path) -> None:
    done = run("train.py", "fit", *TINY, "--run.dir", trained.parent, "--run.name", "tiny")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "already holds a trained run; add --ckpt_path last" in line


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    csv = ("--run.logger", "csv", "--model.scheduler.init_args.total_steps", "12")
    fit(tmp_path, *csv, "--run.name", "whole", "--trainer.max_epochs", "4")
    fit(tmp_path, *csv, "--run.name", "parts", "--trainer.max_epochs", "2")
    fit(tmp_path, *csv, "--run.name", "parts", "--trainer.max_epochs", "4", "--ckpt_path", "last")
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
    one = fit(tmp_path, "--run.name", "one", "--run.logger", "csv", "--data.batch_size", "64",
              "--data.val_limit", "25", "--trainer.max_epochs", "1")  # fmt: skip
    assert "2 processes" in done.stdout
    assert "batch size 32 in each process\n" in done.stdout
    assert "1 process," in one.stdout
    assert load_denoiser(tmp_path / "ddp" / "checkpoints" / "last.ckpt").image_shape == (1, 16, 16)


def test_validation_is_the_same_with_any_number_of_processes(trained: Path) -> None:
    values = []
    for devices in ("1", "2"):
        done = run(
            "train.py", "validate", *TINY, "--ckpt_path", trained / "checkpoints" / "last.ckpt",
            "--run.dir", trained.parent, "--run.name", f"validated{devices}", "--run.logger",
            "none", "--trainer.devices", devices, "--trainer.strategy", "ddp" if devices == "2"
            else "auto", "--data.val_limit", "25",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        values.append(float(re.search(r"val/loss ([\d.]+)", done.stdout).group(1)))
    assert values[0] == pytest.approx(values[1], rel=1e-3)


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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.name", "imagenet"], "unknown data set 'imagenet'"),
        (["--data.name", "mnist", "--data.root", "nowhere"], "MNIST/raw"),
        (["--data.name", "folder", "--data.root", "nowhere"], "there is no folder 'nowhere'"),
        (["--model.net.init_args.padding", "mirror"], "padding is 'mirror'"),
        (["--data.colour", "1"], "data.colour"),
        (["--model.net", "models.resnet.VGG"], "has no attribute 'VGG'"),
        (["--trainer.max_epochs", "many"], "max_epochs"),
        (["--data.batch_size", "0"], "batch_size is 0"),
        (["--ema.decay", "2"], "ema.decay is 2"),
        (["--model.optimizer.init_args.lr", "1e30"], "the training loss is"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from train import main

    base = ["fit", *TINY, "--run.dir", tmp_path, "--run.logger", "none"]
    assert message in refusal(main, [*base, *args], capsys)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_help_and_print_config_are_useful() -> None:
    assert "held-out" in run("train.py", "fit", "--help").stdout
    printed = yaml.safe_load(run("train.py", "fit", *TINY, "--print_config").stdout)
    assert printed["model"]["net"]["init_args"]["width"] == 16
    assert printed["data"]["batch_size"] == 32


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler on a CPU")
def test_a_compiled_network_trains_alike_and_leaves_an_ordinary_checkpoint(tmp_path: Path) -> None:
    for name in ("false", "true"):
        fit(tmp_path, "--model.compile_net", name, "--run.name", name, "--run.logger", "csv",
            "--trainer.max_epochs", "1")  # fmt: skip
    plain, compiled = (losses(tmp_path / name) for name in ("false", "true"))
    assert plain == pytest.approx(compiled, rel=1e-4)
    denoiser = load_denoiser(tmp_path / "true" / "checkpoints" / "last.ckpt")
    assert denoiser.image_shape == (1, 16, 16)
