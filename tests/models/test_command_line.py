import shlex
from pathlib import Path

import pytest

from els.errors import InputError
from els.models.command_line import Command


def command(line: str, program: str = "train.py") -> Command:
    return Command(program, shlex.split(line))


@pytest.mark.parametrize(
    "extra",
    [
        "",
        "--ckpt_path last",
        "--ckpt_path=x.ckpt",
        "--run.overwrite true",
        "--run.overwrite",
        "--run.overwrite=true --ckpt_path a",
    ],
)
def test_the_command_that_goes_on_is_the_same_with_one_checkpoint(extra: str) -> None:
    line = "fit --config a.yaml --run.name 'my run' --data.root \"it's\" --model.net.init_args.x 3"
    going_on = command(f"{line} {extra} --trainer.max_epochs 5").going_on()
    args = [*shlex.split(line), "--trainer.max_epochs", "5", "--ckpt_path", "last"]
    assert shlex.split(going_on.replace("\\\n", " ")) == ["python", "train.py", *args]
    assert max(map(len, going_on.splitlines())) <= 68
    assert not any(part.rstrip(" \\").endswith("--data.root") for part in going_on.splitlines())


def test_the_command_is_the_one_that_was_called() -> None:
    assert command("fit", "/usr/bin/els-train").going_on() == "els-train fit --ckpt_path last"
    assert command("fit", "/usr/bin/els-train").analyze == "els-analyze"
    assert command("fit").analyze == "python analyze.py"


def test_a_run_that_is_only_named_is_read_from_its_own_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "config.yaml").write_text("run:\n")
    own = str(Path("runs", "x", "config.yaml"))
    for line in ("fit --run.name x --ckpt_path last", "validate --run.name=x", "test --run.name x"):
        args = shlex.split(line)
        assert command(line).complete() == [args[0], "--config", own, *args[1:]]
    for line in (
        "fit --run.name x",
        "fit --run.name x --ckpt_path last --config digits_resnet",
        "fit --run.name y --ckpt_path last",
        "fit --run.name x --run.dir z --ckpt_path last",
        "validate",
    ):
        assert command(line).complete() == shlex.split(line)
    assert command("fit --help_all").complete() == ["fit", "--help"]


def test_a_twin_is_the_same_run_from_the_next_seed(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text("seed_everything: 4\nrun:\n  name: x\nmodel:\n  seed: 2\n")
    base = ["fit", "--config", str(config)]
    named = ["--run.dir", str(tmp_path), "--run.name"]
    line = f"fit --run.twin_of {folder} --trainer.max_steps 3"
    rest = shlex.split(line)[1:]
    seeds = ["--seed_everything", "5", "--model.seed", "3"]  # of the weights, and of the noise
    assert command(line).complete() == [*base, *seeds, *named, "x_seed5", *rest]
    seeds = ["--seed_everything", "9", "--model.seed", "7"]
    other = command(f"{line} --seed_everything 9").complete()
    assert other[:11] == [*base, *seeds, *named, "x_seed9"]
    for text, message in (("run:\n", "is no run"), (":", "is no run"), (None, "is no run")):
        if text is None:
            config.unlink()
        else:
            config.write_text(text)
        with pytest.raises(InputError, match=message):
            command(line).complete()


def test_the_same_seed_makes_no_twin(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed_everything: 4\nrun:\n  name: x\n")
    with pytest.raises(InputError, match="has a seed other than 4"):
        command(f"fit --run.twin_of {tmp_path} --seed_everything 4").complete()
