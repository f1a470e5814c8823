from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import wandb
from made_results import made_results
from studies import write_checkpoint

from els.analysis.options import Output, Source
from els.analysis.report.write import write_report
from els.analysis.tracking.log import log_analysis, use_checkpoint


class OnlineRun:
    """As much of an online run as lineage needs."""

    entity, project, settings = "team", "els", SimpleNamespace(mode="online")

    def use_artifact(self, artifact: object) -> SimpleNamespace:
        self.used = artifact
        return SimpleNamespace(qualified_name=getattr(artifact, "qualified_name", artifact))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny" / "checkpoints" / "last.ckpt")


def test_online_the_checkpoint_that_training_logged_is_an_input(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def version(number: int, file: Path) -> SimpleNamespace:
        artifact = wandb.Artifact("tiny-checkpoint", "model")
        artifact.add_file(str(file), name="model.ckpt")
        name = f"team/els/tiny-checkpoint:v{number}"
        return SimpleNamespace(manifest=artifact.manifest, qualified_name=name)

    asked = []

    def artifacts(api: object, kind: str, name: str) -> list[SimpleNamespace]:
        asked.append((kind, name))
        return versions

    other = write_checkpoint(checkpoint.with_name("best.ckpt"), seed=1)
    versions = [version(1, other), version(0, checkpoint)]
    monkeypatch.setattr(wandb, "Api", type("Api", (), {"artifacts": artifacts}))
    online = OnlineRun()
    assert use_checkpoint(online, Source(str(checkpoint))) == "team/els/tiny-checkpoint:v0"
    assert online.used is versions[1]
    assert asked == [("model", "team/els/tiny-checkpoint")]
    assert capsys.readouterr().out == ""
    versions.pop()
    assert use_checkpoint(OnlineRun(), Source(str(checkpoint))) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert "without its checkpoint 'tiny-checkpoint' (no version of" in line


def test_online_an_artifact_that_was_named_is_the_input(tmp_path: Path) -> None:
    source = Source("wandb:team/els/tiny-checkpoint:best")
    online = OnlineRun()
    assert use_checkpoint(online, source) == "team/els/tiny-checkpoint:best"
    assert online.used == "team/els/tiny-checkpoint:best"
    torch.save({}, tmp_path / "w.pt")
    elsewhere = OnlineRun()
    assert use_checkpoint(elsewhere, Source(str(tmp_path / "w.pt"))) is None
    assert not hasattr(elsewhere, "used")


def test_offline_the_checkpoint_has_the_name_that_training_gave_it(checkpoint: Path) -> None:
    offline = SimpleNamespace(settings=SimpleNamespace(mode="offline"))
    assert use_checkpoint(offline, Source(str(checkpoint))) == "tiny-checkpoint"


class Recorded:
    """An online run that keeps what it is told and answers nothing."""

    entity, project, url = "team", "els", "here"
    settings = SimpleNamespace(mode="online")

    def __init__(self, job_type: str) -> None:
        self.job_type = job_type
        self.used: list[object] = []
        self.logged: list[wandb.Artifact] = []
        self.summary: dict[str, object] = {}

    def __enter__(self) -> "Recorded":
        return self

    def __exit__(self, *error: object) -> None: ...

    def define_metric(self, *names: object, **options: object) -> None: ...

    def log(self, row: dict[str, object]) -> None: ...

    def finish(self) -> None: ...

    def use_artifact(self, artifact: object) -> SimpleNamespace:
        self.used.append(artifact)
        return SimpleNamespace(qualified_name="checkpoint:v0")

    def log_artifact(self, artifact: wandb.Artifact) -> SimpleNamespace:
        self.logged.append(artifact)
        return SimpleNamespace(wait=lambda: f"{artifact.name}:v0")


def test_online_the_report_follows_from_the_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def init(*, job_type: str, **settings: object) -> Recorded:
        runs.append(Recorded(job_type))
        return runs[-1]

    monkeypatch.setattr(wandb, "init", init)
    results = made_results(["boundary", "ideal"])
    results.save(tmp_path / "tiny" / "analysis")
    files = write_report(results, tmp_path / "tiny" / "analysis", ("png",))
    source = Source("wandb:team/els/tiny-checkpoint:v0")
    log_analysis(results, files, source, Output(out=str(tmp_path / "tiny")))
    assert [run.job_type for run in runs] == ["analysis", "report"]
    assert [run.used for run in runs] == [["team/els/tiny-checkpoint:v0"], ["tiny-scales:v0"]]
    assert [[one.type for one in run.logged] for run in runs] == [["scales"], ["report"]]
