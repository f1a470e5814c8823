import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb
from entry import refusal, wandb_records, wandb_summary

from els.analysis import commands
from els.analysis.tracking import dashboard

needs_library = pytest.mark.skipif(
    find_spec("wandb_workspaces") is None, reason="needs the optional package wandb-workspaces"
)


@pytest.fixture(scope="module")
def logged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What a training and an analysis have really logged, by the section that shows it."""
    folder = tmp_path_factory.mktemp("analysed")
    twin = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    twin["state_dict"] = {name: 1.01 * value for name, value in twin["state_dict"].items()}
    torch.save(twin, folder / "twin.ckpt")
    commands.main([
        "--checkpoint", str(trained / "checkpoints" / "last.ckpt"), "--out", str(folder),
        "--seeds", "4", "--calibration_seeds", "1", "--steps", "2", "--network_steps", "[2]",
        "--sizes", "[3,5]", "--held_out", "4", "--device", "cpu", "--information", "1",
        "--denoising", "2",
        "--same_x", "1", "--twin", str(folder / "twin.ckpt"), "--self_check", "off",
    ])  # fmt: skip
    keys = {}
    for job_type, place in (("train", trained), ("analysis", folder)):
        records = wandb_records(place, job_type)
        names = {name for row in records["history"] for name in row["item"]}
        told = records["run"][0]["config"]["update"]
        keys[job_type] = {
            *names,
            *(name.removesuffix("._type") for name in names),
            *wandb_summary(records),
            *(
                f"config:{group}.value.{name}"
                for group, options in told.items()
                if isinstance(options, dict)
                for name in options
            ),
        }
    return {name: keys["train" if name == "Training" else "analysis"]
            for name in dashboard.SECTIONS}  # fmt: skip


def asked(panel: dict[str, Any]) -> list[str]:
    """Patterns, of each of which a panel needs a logged key."""
    config = panel["config"]
    if panel["viewType"] == "Weave":
        return [re.escape(config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]) + "$"]
    names = [re.escape(name) + "$" for name in config.get("mediaKeys", config.get("metrics", []))]
    if panel["viewType"] == "Bar Chart":  # a bar for each that there is
        names = ["|".join(names)]
    for axis in ("xAxis", "yAxis"):
        if axis in config:
            names.append(re.escape(config[axis].removeprefix("summary:")) + "$")
    return names + [config[key] for key in ("metricRegex",) if key in config]


@needs_library
def test_no_panel_is_empty(logged: dict[str, set[str]]) -> None:
    spec = dashboard.specification(dashboard.workspace("p", "e"))["spec"]
    sections = spec["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == list(logged)
    for section in sections:
        assert section["panels"]
        for panel in section["panels"]:
            patterns = asked(panel)
            assert patterns, panel
            for pattern in patterns:
                found = [key for key in logged[section["name"]] if re.match(pattern, key)]
                assert found, (panel["config"].get("chartTitle"), pattern)


@needs_library
def test_runs_are_grouped_and_without_a_login_the_view_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    commands.main(["dashboard", "--project", "p"])
    said = capsys.readouterr().out
    assert said.startswith("runs/dashboard.json: the workspace, not saved")
    assert "Offline, the page of an analysis is its dashboard" in said
    written = json.loads((tmp_path / "runs" / "dashboard.json").read_text())
    assert (written["project"], written["name"]) == ("p", "Training and analysis")
    (runs,) = written["spec"]["section"]["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "group"}]
    (only,) = runs["filters"]["filters"]
    assert (only["key"]["name"], only["op"], only["value"]) == (
        "jobType", "IN", ["train", "analysis"],
    )  # fmt: skip


@needs_library
def test_with_a_login_the_view_is_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from wandb_workspaces.workspaces import internal

    saved = []

    def upsert(view: internal.View) -> dict[str, Any]:
        saved.append(view)
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "1"}}}

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda **options: True)
    service = SimpleNamespace(execute_graphql=None, app_url="https://w.example")
    api = SimpleNamespace(default_entity="me", _service_api=service)
    monkeypatch.setattr(wandb, "Api", lambda: api)
    monkeypatch.setattr(internal, "upsert_view2", upsert)
    commands.main(["dashboard", "--project", "p"])
    assert [(view.entity, view.project) for view in saved] == [("me", "p")]
    out = capsys.readouterr().out
    assert "W&B workspace: https://w.example/me/p?nw=abc" in out

    def fail(view: internal.View) -> None:
        raise ValueError("no\nsuch project")

    monkeypatch.setattr(internal, "upsert_view2", fail)
    line = refusal(commands.main, ["dashboard", "--project", "p"], capsys)
    assert "W&B did not take the workspace (no such project); --out FILE" in line


def test_what_is_missing_or_unknown_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("workspaces", "reports.v2"):
        monkeypatch.setitem(sys.modules, f"wandb_workspaces.{name}", None)
    line = refusal(commands.main, ["dashboard", "--out", tmp_path / "x.json"], capsys)
    assert line.endswith("pip install wandb-workspaces")
    assert not list(tmp_path.iterdir())
    assert "--nope" in refusal(commands.main, ["dashboard", "--nope", "1"], capsys)
