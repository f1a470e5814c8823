"""What is computed again, and what is not: results are known by what they depend on."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table
from studies import SMALL, write_checkpoint

from els.analysis import pipeline, study
from els.analysis.commands import main
from els.analysis.report.write import ReportFiles
from els.analysis.results import Results
from els.errors import InputError
from els.machines import Scale
from els.machines.tempered import Tempered
from els.work import Work


class Counting:
    """Analyses in one folder, and how many items each of them computed."""

    def __init__(self, folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        self.counts: dict[str, int] = {}
        self.computed: dict[str, int] = {}

        def counted(one: study.Study, work: Work, **options: Any) -> Results:
            found = pipeline.analyse(one, work, **options)
            self.counts = dict(work.computed)
            return found

        monkeypatch.setattr("els.analysis.running.analyse", counted)
        monkeypatch.setattr("els.analysis.running.write_report", self.no_report)

    @staticmethod
    def no_report(results: Results, folder: Path, formats: Sequence[str]) -> ReportFiles:
        """Figures and pages take most of the time, and are drawn anew every time."""
        return ReportFiles(folder / "report.html", (), (), (), ())

    def run(self, name: str, checkpoint: object = None, **options: Any) -> int:
        """Analyse with other options than the usual; how many items were computed."""
        asked = {**SMALL, "machines": ["boundary", "ideal"], "held_out": 4, "logger": "none",
                 "device": "cpu", "batch": 3, **options}  # fmt: skip
        args = ["--checkpoint", str(checkpoint or self.checkpoint), "--out", str(self.folder)]
        for option, value in asked.items():
            args += [f"--{option}", str(value).lower() if isinstance(value, bool) else str(value)]
        try:
            main(args)
        except InputError:  # it would replace a finished one of other settings
            main([*args, "--force"])
        self.computed[name] = sum(self.counts.values())
        return self.computed[name]


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    checkpoint = write_checkpoint(tmp_path / "tiny" / "checkpoints" / "last.ckpt", classes=10)
    return Counting(tmp_path / "out", checkpoint, monkeypatch)


def test_only_what_is_new_is_computed(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = counting.run("first run")
    assert first == 46
    assert counting.run("second run") == 0
    assert counting.run("one machine less", machines=["boundary"]) == 0
    assert counting.run("the same machine again", machines=["boundary", "ideal"]) == 6
    assert counting.run("one machine more", machines=["boundary", "ideal", "local"]) == 3 + 2 + 3
    made = {"calibrating local", "sampling local, 3 steps", "nearest images of local"}
    assert set(counting.counts) == made
    copied = tmp_path / "copy.ckpt"
    shutil.copy(counting.checkpoint, copied)
    assert counting.run("a copy elsewhere", copied, machines=["boundary", "ideal", "local"]) == 0
    with monkeypatch.context() as patched:
        patched.chdir(tmp_path)
        relative = os.path.relpath(counting.checkpoint, tmp_path)
        same = {"machines": ["boundary", "ideal", "local"]}
        assert counting.run("a relative path, from another folder", relative, **same) == 0
    assert counting.run("another batch size", batch=5, **same) == 0
    assert counting.run("another engine", engine="torch", chunk=7, **same) == 0
    assert counting.run("two seeds more", seeds=7, **same) > 0
    assert set(counting.counts.values()) == {2}  # of each computation on evaluation seeds
    assert (
        counting.run("another count of network steps", network_steps=[3, 4], seeds=7, **same) == 5
    )
    assert counting.run("a tolerance", seeds=7, tolerance=0.1, **same) > 0
    assert not any(name.startswith("calibrating") for name in counting.counts)
    everything = counting.run("another label", label=3, **same)
    assert everything > first
    assert counting.run("--force true", label=3, force=True, **same) >= everything
    table = Table("analysis", "items computed", title="What an analysis computes")
    for name, count in counting.computed.items():
        table.add_row(name, str(count))
    Console(width=80).print(table)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"criterion": "l2"}, {"probing the network", "sampling network, 3 steps"}),
        ({"sizes": [3, 7]}, {"probing the network", "sampling network, 3 steps",
                             "sampling ideal, 3 steps"}),
        ({"symmetries": ["flip"]}, {"probing the network", "sampling network, 3 steps",
                                    "sampling ideal, 3 steps"}),
        ({"held_out": 5}, {"calibrating boundary", "sampling network, 3 steps"}),
    ],
)  # fmt: skip
def test_nothing_else_than_what_depends_on_an_option_is_computed(
    counting: Counting, options: dict[str, Any], kept: set[str]
) -> None:
    counting.run("first")
    everything = set(counting.counts)
    assert kept <= everything
    assert counting.run("changed", **options) > 0
    assert not kept & set(counting.counts)


def test_a_clipped_analysis_and_one_that_is_not_never_mix(counting: Counting) -> None:
    counting.run("first", held_out=0)
    everything = dict(counting.counts)
    counting.run("clipped", held_out=0, clip=True)
    kept = everything.keys() - counting.counts.keys()
    assert not {name for name in kept if not name.startswith("nearest")}  # of the same samples
    summary = json.loads((counting.folder / "analysis" / "agreement.json").read_text())
    assert summary["protocol"]["clip"] is True
    args = ["--checkpoint", str(counting.checkpoint), "--out", str(counting.folder)]
    with pytest.raises(InputError, match="clip True, now False"):
        main([*args, "--logger", "none", "--device", "cpu"])


def test_results_of_other_scales_or_other_code_are_not_taken_up(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = counting.run("first", machines=["tempered"], mosaic=False, held_out=0)
    with monkeypatch.context() as patched:
        patched.setattr(Tempered, "scale", Scale("temperature", (3.0, 5.0)))
        counting.run("other values", machines=["tempered"], mosaic=False, held_out=0)
    assert counting.counts["calibrating tempered"] == 2
    monkeypatch.setattr("els.analysis.launch.RESULTS_VERSION", -1)
    again = counting.run("other code", machines=["tempered"], mosaic=False, held_out=0)
    assert again == first


def test_an_analysis_that_is_stopped_leaves_the_finished_one_as_it_was(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting.run("first")
    folder = counting.folder / "analysis"
    before = {path.name: path.read_bytes() for path in folder.glob("*.json")}

    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pipeline, "nearest_images", stop)
        counting.run("stopped", sizes=[5])
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")} == before
    assert counting.run("second") == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")} == before


def test_mosaics_are_of_the_machine_that_was_asked_for(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pipeline, "nearest_images", stop)
        counting.run("stopped", machines=["boundary"])
    counting.run("local", machines=["local"])
    tracing = Results.load(counting.folder / "analysis").attribution.tracing
    _, row, column = tracing.mosaics["network"].best[-1].unbind(dim=1)
    assert (row == torch.arange(8)[:, None]).all()
    assert (column == torch.arange(8)).all()


def test_an_analysis_whose_parts_are_gone_is_computed_anew_and_says_so(
    counting: Counting, capsys: pytest.CaptureFixture
) -> None:
    first = counting.run("first")
    assert "computed anew" not in capsys.readouterr().out
    shutil.rmtree(counting.folder / "analysis" / ".work")
    assert counting.run("again") == first
    assert "has no parts to take up" in capsys.readouterr().out
    counting.run("once more")
    assert "finished before" in capsys.readouterr().out
