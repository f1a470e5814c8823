import os
import queue
import sys
from pathlib import Path

import pytest
import wandb
import yaml
from conftest import ROOT
from entry import TINY, wandb_records
from wandb.wandb_agent import Agent

from els.analysis.options import Output, Source
from els.models.runs import Run

SWEEP = ROOT / "configs" / "sweep.yaml"
RUN_ID = "abcd1234"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The file, in the environment that wandb's agent makes for a run."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("WANDB_SWEEP_ID", "swp12345")
    monkeypatch.setenv("WANDB_RUN_ID", RUN_ID)
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    monkeypatch.setenv("WANDB_PROJECT", "els")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "agent"))
    return yaml.safe_load(SWEEP.read_text())


def test_the_agents_command_trains_with_the_parameters_it_was_given(
    sweep: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = {name: {"value": spec["values"][0] if "values" in spec else spec["min"]}
            for name, spec in sweep["parameters"].items()}  # fmt: skip
    place = sweep["command"].index("${args}")
    sweep["command"][place:place] = [*TINY[2:], "--trainer.max_epochs", "1", "--run.dir",
                                     str(tmp_path), "--data.limit", "40"]  # fmt: skip
    monkeypatch.setenv("PATH", bin_first(tmp_path))
    agent = Agent(None, queue.Queue(), sweep_id="swp12345")
    agent._sweep_command = sweep["command"]
    agent._command_run({"run_id": RUN_ID, "program": sweep["program"], "args": args})
    assert agent._run_processes[RUN_ID].wait(timeout=240) == 0

    folder = tmp_path / f"digits_resnet-{RUN_ID}"
    assert (folder / "checkpoints" / "last.ckpt").exists()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["optimizer"]["init_args"]["lr"] == 3e-4
    assert config["model"]["net"]["init_args"]["width"] == 16
    assert config["ema"]["decay"] == 0.98
    records = wandb_records(folder, "train")
    assert records["run"][0]["run_id"] == RUN_ID
    assert records["run"][0]["run_group"] == folder.name
    assert records["run"][0]["sweep_id"] == "swp12345"
    told = records["run"][0]["config"]["update"]
    assert {name: told[name] for name in args} == {name: arg["value"] for name, arg in args.items()}
    assert any(sweep["metric"]["name"] in row["item"] for row in records["history"])


def bin_first(folder: Path) -> str:
    """A PATH on which `python` is the one that runs this test."""
    link = folder / "bin" / "python"
    link.parent.mkdir()
    link.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    link.chmod(0o755)
    return f"{link.parent}{os.pathsep}{os.environ['PATH']}"


def test_only_runs_of_a_sweep_get_their_id_in_their_name(
    sweep: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = Source("wandb:team/els/a:v0"), Output(out="x/a")
    assert Run(name="a").folder == Path("runs", f"a-{RUN_ID}")
    assert output.folder(source) == Path("x", f"a-{RUN_ID}")
    assert source.home == Path("runs", "a")  # by which the checkpoint is known
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert Run(name="a").folder == Path("runs", "a")
    assert output.folder(source) == Path("x", "a")
    assert wandb.env.SWEEP_ID == "WANDB_SWEEP_ID"
    assert wandb.env.RUN_ID == "WANDB_RUN_ID"
