"""Runs of W&B are really made, offline, and read back; what only online has is stood in for."""

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import wandb
from entry import wandb_runs, wandb_summary
from made_results import made_results
from studies import SMALL, small_study, write_checkpoint

from els.analysis import commands, pipeline
from els.analysis.comparison import Comparison
from els.analysis.options import Output, Source
from els.analysis.report.write import write_comparison, write_report
from els.analysis.tracking.content import MOST_NUMBERS
from els.analysis.tracking.log import log_comparison, tracked, use_checkpoint
from els.analysis.tracking.record import RECORD, LoggedRun
from els.analysis.tracking.tracker import LiveRun
from els.errors import InputError
from els.models.tracking import Patience
from els.work import silent

Records = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Story:
    """An analysis that was interrupted, gone on with, repeated, and logged again.

    Attributes:
        home: the run's folder.
        runs: what W&B has of each time that anything was logged.
        repeated: what was printed when it was repeated.
        grown: the files that were there after the repetition and not before.
    """

    home: Path
    runs: list[Records]
    repeated: str
    grown: set[Path]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    home = tmp_path_factory.mktemp("log") / "tiny"
    checkpoint = write_checkpoint(home / "checkpoints" / "last.ckpt")
    asked = {**SMALL, "held_out": 2, "device": "cpu", "checkpoint": checkpoint}
    args = [part for name, value in asked.items() for part in (f"--{name}", str(value))]

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "sample_paths", interrupted)
        with pytest.raises(KeyboardInterrupt):
            commands.main(args)
    commands.main(args)
    before = set(home.rglob("*"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        commands.main(args)
    grown = set(home.rglob("*")) - before
    commands.main([*args, "--relog"])
    return Story(home, wandb_runs(home, "analysis"), said.getvalue(), grown)


def rows_of(records: Records, key: str) -> list[dict[str, Any]]:
    """The rows of the history that have a key."""
    return [row["item"] for row in records["history"] if key in row["item"]]


def test_an_interrupted_analysis_goes_on_as_the_same_run(story: Story) -> None:
    interrupted, resumed, again = story.runs
    ids = [run["run"][0]["run_id"] for run in story.runs]
    assert ids[0] == ids[1] != ids[2]
    assert all(run["run"][0]["resume"] for run in story.runs)
    exits = [run["exit"][0].get("exit_code", 0) for run in story.runs]
    assert exits == [130, 0, 0]
    for name, there in (("scale/boundary", (3, 3, 3)), ("pearson_r/boundary", (0, 3, 3))):
        counts = [len(rows_of(run, f"analysis/{name}")) for run in story.runs]
        assert counts == list(there), name
    assert rows_of(interrupted, "report.path") == []
    for run in (resumed, again):
        assert len(rows_of(run, "report.path")) == 1


def test_a_running_analysis_shows_how_far_it_is(story: Story) -> None:
    interrupted, *rest = story.runs
    stages = [record["update"].get("progress/stage") for record in interrupted["summary"]]
    assert [stage for stage in stages if stage] == [
        "calibrating boundary",
        "calibrating local",
        "calibrating boundary on held-out images",
    ]
    shares = [row["progress/share"] for row in rows_of(interrupted, "progress/share")]
    assert shares[:2] == [0, 1]
    kinds = list(interrupted)
    assert kinds.index("history") < kinds.index("exit")
    assert {"stats", "output_raw"} <= set(interrupted)  # of the machine, and the console
    said = "".join(record["line"] for record in interrupted["output_raw"])
    assert "calibrating boundary on held-out images" in said
    for run in rest:
        assert wandb_summary(run)["progress/stage"] == "finished"


def test_a_repeated_analysis_is_not_logged_twice(story: Story) -> None:
    run_id = story.runs[1]["run"][0]["run_id"]
    (line,) = [line for line in story.repeated.splitlines() if "W&B" in line]
    assert line.startswith(f"W&B has this already, run {run_id} (offline: wandb sync ")
    assert line.endswith("--relog logs it again")
    assert story.grown == set()


def test_the_summary_has_few_numbers_and_none_of_the_last_t(story: Story) -> None:
    for run in story.runs[1:]:
        summary = {k: v for k, v in wandb_summary(run).items() if not k.startswith("_")}
        numbers = {k for k, v in summary.items() if isinstance(v, int | float) and "." not in k}
        assert len(numbers) <= MOST_NUMBERS
        expected = {
            "agreement/pearson_r",
            "agreement/R2_high",
            "agreement/beats_ideal",
            "agreement/ideal/pearson_r",
            "novelty/held_out/distance",
            "network/parameters",
        }
        assert expected <= numbers
        assert not [name for name in summary if name.startswith(("analysis/", "boundary/"))]
        stored = json.loads((story.home / "analysis" / "agreement.json").read_text())
        median = stored["machines"]["boundary"]["pearson_r"]["median"]
        assert summary["agreement/pearson_r"] == pytest.approx(median)


def test_the_history_has_curves_and_panels_and_no_single_points(story: Story) -> None:
    rows = [row["item"] for row in story.runs[2]["history"]]
    names = [name for row in rows for name, value in row.items() if isinstance(value, int | float)]
    once = {name for name in names if names.count(name) == 1 and "." not in name}
    assert once <= {name for name in names if name.startswith("_")}
    tables = {name.split(".")[0] for row in rows for name in row if "_table." in name}
    assert tables
    assert all(name.startswith("charts/") for name in tables)
    assert rows_of(story.runs[2], "agreement/machines.path")


def test_a_run_says_what_it_is_of_and_what_came_out(story: Story) -> None:
    begun, *_, ended = story.runs[1]["run"]
    assert begun["tags"] == ["digits", "zeros", "boundary"]
    assert ended["notes"].startswith("From the same noise the boundary machine")
    told = begun["config"]["update"]
    assert told["network"]["width"] == 16
    assert told["protocol"]["seeds"] == SMALL["seeds"]
    assert "seeds" not in told


def test_what_waits_to_be_uploaded_is_all_there(story: Story) -> None:
    for run in story.runs[1:]:
        for artifact in run["artifact"]:
            for entry in artifact["manifest"]["contents"]:
                file = Path(entry["local_path"])
                assert file.stat().st_size == int(entry.get("size", 0)), file


def test_a_run_fails_with_its_analysis_and_can_go_on(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "tiny" / "checkpoints" / "last.ckpt")
    study, source, output = small_study(checkpoint), Source(str(checkpoint)), Output()
    folder = tmp_path / "tiny" / "analysis"
    with (
        pytest.raises(ZeroDivisionError),
        tracked(study, folder, source, output) as tracker,
    ):
        assert isinstance(tracker, LiveRun)
        tracker.stage("calibrating")
        raise ZeroDivisionError
    (failed,) = wandb_runs(folder.parent, "analysis")
    assert failed["exit"][0]["exit_code"] == 1
    begun = failed["run"][0]
    assert (begun["display_name"], begun["run_group"]) == (
        f"{study.provenance.run}-analysis",
        "tiny",
    )
    assert wandb_summary(failed)["progress/stage"] == "calibrating"
    with tracked(study, folder, source, output, anew=True) as tracker:
        pass
    anew = wandb_runs(folder.parent, "analysis")[1]
    assert anew["run"][0]["run_id"] != failed["run"][0]["run_id"]
    with tracked(study, folder, source, output):  # which nothing has been finished of
        pass
    ids = [run["run"][0]["run_id"] for run in wandb_runs(folder.parent, "analysis")]
    assert ids[2] == ids[1]


@pytest.mark.parametrize(
    ("logger", "mode", "first"),
    [
        ("csv", "offline", True),
        ("none", "offline", True),
        ("wandb", "disabled", True),
        ("wandb", "offline", False),
    ],
)
def test_nothing_is_logged_where_it_is_not_wanted_or_by_another_process(
    logger: Any, mode: str, first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    checkpoint = write_checkpoint(tmp_path / "tiny" / "last.ckpt")
    folder, output = tmp_path / "analysis", Output(logger=logger)
    source = Source(str(checkpoint))
    with tracked(small_study(checkpoint), folder, source, output, first=first) as tracker:
        assert tracker.progress(print) is print
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["last.ckpt"]


def test_a_run_that_is_refused_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**settings: object) -> None:
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login`")

    monkeypatch.setattr(wandb, "init", init)
    checkpoint = write_checkpoint(tmp_path / "tiny" / "last.ckpt")
    study = small_study(checkpoint)
    with (
        pytest.raises(InputError, match=r"refuses the run \(No API key.*--logger none") as caught,
        tracked(study, tmp_path / "analysis", Source(str(checkpoint)), Output()),
    ):
        raise AssertionError("nothing begins")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "analysis" / RECORD).exists()


def test_a_run_begins_offline_where_nobody_answers_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    begin, tried = wandb.init, []

    def init(**settings: object) -> object:
        tried.append((settings["mode"], settings["settings"].init_timeout))
        if settings["mode"] == "online":
            raise wandb.errors.CommError("Timed out while retrying: dial tcp 127.0.0.1:9: refused")
        return begin(**settings)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    checkpoint = write_checkpoint(tmp_path / "tiny" / "last.ckpt")
    study = small_study(checkpoint)
    with tracked(study, tmp_path / "analysis", Source(str(checkpoint)), Output()) as tracker:
        assert tracker.run.settings.mode == "offline"
    assert [mode for mode, _ in tried] == ["online", "offline"]
    assert all(0 < seconds <= 30 for _, seconds in tried)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "cannot be reached" in x]
    assert "this run is logged offline" in line


def test_what_cannot_be_logged_is_said_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    class Broken:
        """A run whose process has died."""

        summary: ClassVar[dict] = {}
        settings = SimpleNamespace(mode="offline")

        def define_metric(self, *args: object, **options: object) -> None: ...

        def log(self, row: dict) -> None:
            raise ConnectionResetError("Connection lost")

    live = LiveRun(Patience(Broken()), LoggedRun("id", "digest"), tmp_path)
    results = made_results(("boundary", "local"))
    live.fitted(results.scales["boundary"])
    with live.progress(silent)("sampling", 4) as advance:
        advance(4)
    live.finished(results, None)
    assert live.report is None  # so that the next start logs it
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert all("(ConnectionResetError: Connection lost)" in line for line in said)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[None]:
    """The environment that wandb's agent makes for a run; W&B reads it once in a process."""
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nseeds: {value: 5}\n")
    wandb.teardown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SWEEP_ID", "swp12345")
        patch.setenv("WANDB_RUN_ID", "abcd1234")
        patch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
        yield
    wandb.teardown()


@pytest.mark.usefixtures("sweep")
def test_an_analysis_in_a_sweep_is_the_sweeps_run(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "tiny" / "last.ckpt")
    output = Output(out=str(tmp_path / "out"))
    folder = output.folder(Source(str(checkpoint))) / "analysis"
    with tracked(small_study(checkpoint), folder, Source(str(checkpoint)), output):
        pass
    (records,) = wandb_runs(folder.parent, "analysis")
    run = records["run"][0]
    assert (run["run_id"], run["sweep_id"]) == ("abcd1234", "swp12345")
    told = run["config"]["update"]
    assert told["seeds"] == told["protocol"]["seeds"] == 5


def test_the_same_comparison_is_not_logged_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    comparison = Comparison((made_results(["boundary", "ideal"]), made_results(["local"])))
    files = write_comparison(comparison, tmp_path, ("png",))
    for _ in range(2):
        log_comparison(comparison, files, tmp_path, Output())
    assert len(wandb_runs(tmp_path, "comparison")) == 1
    assert "W&B has this already, run " in capsys.readouterr().out
    log_comparison(comparison, files, tmp_path, Output(relog=True))
    assert len(wandb_runs(tmp_path, "comparison")) == 2


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

    def __init__(self, job_type: str, folder: Path) -> None:
        self.id = job_type
        self.job_type = job_type
        self.settings = SimpleNamespace(mode="online", sync_dir=str(folder))
        self.used: list[object] = []
        self.logged: list[wandb.Artifact] = []
        self.summary: dict[str, object] = {}

    def define_metric(self, *names: object, **options: object) -> None: ...

    def log(self, row: dict[str, object]) -> None: ...

    def finish(self, exit_code: int = 0) -> None: ...

    def use_artifact(self, artifact: object) -> SimpleNamespace:
        self.used.append(artifact)
        return SimpleNamespace(qualified_name="checkpoint:v0")

    def log_artifact(self, artifact: wandb.Artifact) -> SimpleNamespace:
        self.logged.append(artifact)
        return SimpleNamespace(wait=lambda: f"{artifact.name}:v0")


def test_online_the_report_follows_from_the_scales_and_nothing_stays_staged(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def init(*, job_type: str, **settings: object) -> Recorded:
        runs.append(Recorded(job_type, tmp_path / "synced"))
        return runs[-1]

    monkeypatch.setattr(wandb, "init", init)
    results, home = made_results(["boundary", "ideal"]), checkpoint.parents[1]
    folder = home / "analysis"
    results.save(folder)
    files = write_report(results, folder, ("png",))
    with tracked(
        small_study(checkpoint),
        folder,
        Source("wandb:team/els/tiny-checkpoint:v0"),
        Output(out=str(home)),
    ) as tracker:
        tracker.finished(results, files)
    assert [run.job_type for run in runs] == ["analysis", "report"]
    assert [run.used for run in runs] == [["team/els/tiny-checkpoint:v0"], ["last-scales:v0"]]
    assert [[one.type for one in run.logged] for run in runs] == [["scales"], ["report"]]
    assert not (tmp_path / "synced" / "artifacts").exists()
    assert files.page.exists()
    kept = json.loads((folder / RECORD).read_text())
    assert (kept["finished"], kept["where"]) == (True, "here")
