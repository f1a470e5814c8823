import math
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from entry import TINY, refusal

from els.errors import InputError
from els.models.checkpoints import load_denoiser
from els.models.cli import main


@pytest.mark.parametrize("network", ["resnet", "unet", "unet_attention"])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_fast_dev_run(network: str, padding: str, capsys: pytest.CaptureFixture) -> None:
    name = f"digits_{network}.yaml"
    trial = ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    small = ["--data.batch_size", "4", "--data.conditional", "true"]
    padded = ["--model.net.init_args.padding", padding]
    cli = main(["fit", "--config", str(ROOT / "configs" / name), *trial, *small, *padded])
    assert cli.model.net.padding == padding
    summary = capsys.readouterr().out
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in summary.splitlines() if "  " in line)
    net = cli.model.net
    field = "the whole image" if net.receptive_field is None else f"{net.receptive_field} px"
    assert rows["data"] == "digits, 1,437 images, 360 held out, 1 x 16 x 16, 10 classes"
    assert rows["network"] == f"{type(net).__name__}, {padding} padding"
    assert rows["parameters"] == f"{net.parameter_count:,}"
    assert rows["receptive field"] == field
    assert rows["training"] == "1 step, batch size 4"
    assert rows["device"].startswith("cpu, 1 process, precision ")
    assert rows["logged to"] == "nowhere"
    assert rows["results"] == cli.trainer.default_root_dir
    assert math.isfinite(cli.trainer.callback_metrics["train/loss"])


def test_a_second_run_of_the_same_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    last = tmp_path / "tiny" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_text("trained")
    args = ["fit", *TINY, "--run.dir", tmp_path, "--run.name", "tiny"]
    line = refusal(main, args, capsys)
    assert "already holds a trained run; add --ckpt_path last" in line
    assert last.read_text() == "trained"


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
        (["--run.name", "../x"], "run.name is '../x'; it must be the name of one folder"),
        (["--run.logger", "tensorbord"], "'wandb', 'tensorboard', 'csv', 'none'. Got value: tens"),
        (
            ["--trainer.logger", "TensorBoardLogger"],
            "with --run.logger wandb, tensorboard",
        ),
        (["--trainer.logger", "true"], "--trainer.logger takes false alone"),
        (["--model.optimizer.learning_rate", "3"], "is not accepted; did you mean lr?"),
        (["--trainer.max_epoch", "3"], "did you mean --trainer.max_epochs?"),
        (
            ["--model.net.init_args.widht", "3"],
            "is not accepted; did you mean width?",
        ),
        (["--ckpt_path", "last"], "has no checkpoints/last.ckpt to go on from"),
        (["--config", "trainer/cpu_bf16"], "give it as --trainer trainer/cpu_bf16"),
        (["--model.optimizer.init_args.lr", "1e30"], "the training loss is"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = ["fit", *TINY, "--run.dir", tmp_path, "--run.logger", "none"]
    assert message in refusal(main, [*base, *args], capsys)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_network_may_be_given_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", "digits_resnet", "--model", "unet_32_zeros", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["net"]["class_path"] == "els.models.unet.UNet"
    assert printed["data"]["batch_size"] == 32  # as configs/digits_resnet.yaml says


def test_an_unknown_configuration_lists_those_that_there_are(capsys: pytest.CaptureFixture) -> None:
    line = refusal(main, ["fit", "--config", "digit_resnet"], capsys)
    assert "no configuration 'digit_resnet'" in line
    assert "digits_resnet, " in line


def test_the_whole_help_describes_all_options_this_projects_first(
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help_all"])
    told = capsys.readouterr().out
    assert "held-out" in told
    order = ["--run.name", "--data.name", "--samples.count", "--ema.decay", "--model.net"]
    order.append("--trainer.max_epochs")
    assert [told.index(name) for name in order] == sorted(map(told.index, order))


def test_a_trial_of_a_step_leaves_a_finished_run_as_it_is(
    trained: Path, capsys: pytest.CaptureFixture
) -> None:
    before = files(trained)
    trial = ["--run.name", "tiny", "--trainer.fast_dev_run", "true", "--run.overwrite", "true"]
    main(["fit", *TINY, "--run.dir", str(trained.parent), *trial])
    told = capsys.readouterr().out
    assert "finished at step 1 of 1, train/loss " in told
    assert "checkpoint" not in told
    assert files(trained) == before


@pytest.mark.parametrize("command", ["validate", "test"])
def test_losses_are_those_of_the_last_checkpoint_and_nothing_is_logged(
    command: str, trained: Path, capsys: pytest.CaptureFixture
) -> None:
    before = files(trained)
    main([command, "--run.dir", str(trained.parent), "--run.name", "tiny"])
    told = capsys.readouterr().out
    last = load_denoiser(trained)
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in told.splitlines())
    assert rows["checkpoint"] == str(trained / "checkpoints" / "last.ckpt")
    assert rows["trained"] == "9 steps"
    stage = "val" if command == "validate" else "test"
    loss = float(rows[f"{stage}/loss"])
    if command == "validate":
        assert loss == pytest.approx(last.trained.val_loss, rel=1e-3)
    assert "\x1b" not in told
    assert files(trained) == before


def files(folder: Path) -> dict[Path, int]:
    """Every file below a folder, and when it was last written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_random_weights_are_never_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    args = ["validate", *TINY, "--run.dir", tmp_path, "--run.name", "tiny"]
    assert "tiny' has no checkpoints/last.ckpt" in refusal(main, args, capsys)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"invalid choice: 'predict' .* 'validate', 'test'\)"):
        main(["predict"])


def test_a_switch_needs_no_value(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").touch()
    args = ["fit", *TINY, "--run.dir", tmp_path, "--run.name", "precious", "--run.overwrite"]
    assert "precious' is not a run of train.py" in refusal(main, args, capsys)


def test_another_network_cannot_go_on(trained: Path, capsys: pytest.CaptureFixture) -> None:
    args = ["fit", *TINY, "--run.dir", trained.parent, "--run.name", "tiny", "--ckpt_path", "last"]
    line = refusal(main, [*args, "--model.net.init_args.width", "24"], capsys)
    assert "was trained with width 16, and the network now has width 24; give the same" in line
    assert f"--config {trained / 'config.yaml'}" in line


def test_a_run_bounded_by_steps_alone_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    args = ["fit", *TINY, "--run.dir", str(tmp_path), "--run.name", "tiny"]
    bound = ["--trainer.max_epochs", "-1", "--trainer.max_steps"]
    main([*map(str, args), *bound, "3"])
    main([*map(str, args), *bound, "5", "--ckpt_path", "last"])
    assert re.search(r"goes on from +step 3, epoch", capsys.readouterr().out)
    assert load_denoiser(tmp_path / "tiny").trained.steps == 5


def test_a_finished_run_says_so(trained: Path, capsys: pytest.CaptureFixture) -> None:
    before = files(trained)
    main(["fit", "--run.dir", str(trained.parent), "--run.name", "tiny", "--ckpt_path", "last"])
    told = capsys.readouterr().out
    assert told == (
        "nothing to do: 'tiny' is already at epoch 3 of 3; raise --trainer.max_epochs\n"
    )
    assert files(trained) == before
