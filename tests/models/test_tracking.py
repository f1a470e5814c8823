import csv
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from pytorch_lightning.loggers import CSVLogger

from els.errors import InputError
from els.models import tracking


def test_the_mode_is_the_environments_else_online_with_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.wandb_mode() == "disabled"
    monkeypatch.delenv("WANDB_MODE")
    for key, mode in ((True, "online"), (False, "offline")):
        monkeypatch.setattr(wandb, "login", lambda found=key, **_: found)
        assert tracking.wandb_mode() == mode


def test_training_and_analysis_are_one_group_that_stays_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    train, analysis = (
        tracking.wandb_settings("digits", tmp_path / "digits", "els", job)
        for job in ("train", "analysis")
    )
    assert train["group"] == analysis["group"] == "digits"
    assert (train["name"], analysis["name"]) == ("digits-train", "digits-analysis")
    assert train["dir"] == str(tmp_path / "digits")
    assert Path(os.environ["WANDB_DATA_DIR"]) == tmp_path / "digits" / "wandb-data"


def test_a_run_of_a_sweep_has_its_id_in_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abcd")
    assert tracking.name_in_sweep("digits") == "digits"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert tracking.name_in_sweep("digits") == "digits-abcd"
    assert tracking.checkpoint_name("digits-abcd") == "digits-abcd-checkpoint"


def test_the_names_of_artifacts_have_the_characters_that_wandb_allows() -> None:
    assert tracking.checkpoint_name("mnist 2, \xe9") == "mnist_2___-checkpoint"


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("on", "WANDB_MODE is 'on'; it must be online"),
        ("online", "there is no key; run `wandb"),
    ],
)
def test_a_mode_that_cannot_be_had_is_one_line(
    mode: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    with pytest.raises(InputError, match=message):
        tracking.wandb_mode()


def test_a_run_may_be_logged_as_csv_or_not_at_all(tmp_path: Path) -> None:
    logger = tracking.training_logger("csv", "digits", tmp_path, "els")
    assert isinstance(logger, CSVLogger)
    assert tracking.where_logged(logger) == f"CSV, {tmp_path / 'csv'}"
    assert tracking.training_logger("none", "digits", tmp_path, "els") is False
    assert tracking.where_logged(None) == "nowhere"


def logged(folder: Path, steps: Iterable[int], *, goes_on: bool, **more: float) -> list[dict]:
    """Log some steps, and read the whole file."""
    logger = tracking.training_logger("csv", "digits", folder, "els", goes_on=goes_on)
    for step in steps:
        logger.log_metrics({"loss": float(step), **more}, step)
    logger.finalize("success")
    with open(folder / "csv" / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_goes_on_as_one_curve(tmp_path: Path) -> None:
    rows = logged(tmp_path, range(6), goes_on=True)  # there is none yet
    assert [int(row["step"]) for row in rows] == list(range(6))
    rows = logged(tmp_path, range(4, 8), goes_on=True, speed=2.0)  # from the checkpoint of step 4
    assert [int(row["step"]) for row in rows] == list(range(8))
    assert [row["loss"] for row in rows] == [str(float(step)) for step in range(8)]
    assert [row["speed"] for row in rows] == [""] * 4 + ["2.0"] * 4
    rows = logged(tmp_path, range(2), goes_on=False)  # begun again
    assert [int(row["step"]) for row in rows] == [0, 1]


def test_tensorboard_writes_below_the_run_or_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX"))
    if available:
        logger = tracking.training_logger("tensorboard", "digits", tmp_path, "els")
        logger.log_metrics({"loss": 1.0}, 0)
        logger.finalize("success")
        assert list((tmp_path / "tensorboard").glob("events.*"))
        assert tracking.where_logged(logger) == f"TensorBoard, {tmp_path / 'tensorboard'}"

    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr(tracking, "TensorBoardLogger", missing)
    with pytest.raises(InputError, match="needs TensorBoard; pip install tensorboard"):
        tracking.training_logger("tensorboard", "digits", tmp_path, "els")


def test_a_run_of_wandb_that_goes_on_has_the_id_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    made = [tracking.training_logger("wandb", "digits", tmp_path, "els") for _ in range(2)]
    made[0]._experiment = SimpleNamespace(id="abcd1234")
    tracking.remember_run(made[0], tmp_path)
    tracking.remember_run(CSVLogger(tmp_path), tmp_path)
    again = tracking.training_logger("wandb", "digits", tmp_path, "els", goes_on=True)
    assert again.version == "abcd1234"
    assert made[1].version is None  # a new run
