import os
from pathlib import Path

import pytest
import wandb
from pytorch_lightning.loggers import CSVLogger

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


def test_a_run_may_be_logged_as_csv_or_not_at_all(tmp_path: Path) -> None:
    logger = tracking.training_logger("csv", "digits", tmp_path, "els")
    assert isinstance(logger, CSVLogger)
    assert tracking.where_logged(logger) == f"CSV, {tmp_path / 'csv' / 'version_0'}"
    assert tracking.training_logger("none", "digits", tmp_path, "els") is False
    assert tracking.where_logged(None) == "nowhere"
