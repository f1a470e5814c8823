"""The command on a folder of snapshots: what it writes, takes up again and refuses."""

import json
from pathlib import Path

import pytest
import torch
from entry import refusal
from studies import write_checkpoint

from els.analysis.along import ALONG, Along
from els.analysis.commands import main
from els.analysis.options import Output, Source
from els.analysis.results import AGREEMENT
from els.models.checkpoints import load_denoiser
from els.models.formats import exported
from els.models.formats.own import METADATA_KEY

_OPTIONS = (
    "--seeds 4 --calibration_seeds 2 --steps 3 --sizes 3,5 --held_out 0 --denoising 2 "
    "--logger none --device cpu --machines boundary,ideal"
)
QUICK = _OPTIONS.split()


def write_snapshots(run: Path, *steps: int, size: int = 8, padding: str = "zeros") -> Path:
    """Snapshots of a training: networks with random weights, another for each step."""
    for step in steps:
        path = write_checkpoint(run / f"{step}.tmp", size=size, seed=step, padding=padding)
        meta = torch.load(path, weights_only=True)[METADATA_KEY]
        folder = run / "snapshots" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        exported.write(folder, load_denoiser(path).net, meta)
        path.unlink()
    return run / "snapshots"


def analyse(*args: object) -> Along:
    return main([str(arg) for arg in (*args, *QUICK)])


def test_a_folder_of_snapshots_becomes_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    snapshots = write_snapshots(tmp_path / "a", 1, 20)
    found = analyse(snapshots)
    assert found.steps == (1, 20)
    folder = tmp_path / "a" / "analysis-snapshots"
    assert {"report.html", ALONG, "along.csv", "along.png"} <= {
        path.name for path in folder.iterdir()
    }
    assert Along.load(folder) == found
    said = capsys.readouterr().out
    assert "2 snapshots" in said
    assert "has its highest median pearson_r with the network at step" in said
    assert analyse(snapshots) == found
    assert "This analysis was finished before" in capsys.readouterr().out


def test_another_protocol_is_refused_and_a_longer_training_too(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    snapshots = write_snapshots(tmp_path / "a", 1)
    analyse(snapshots)
    before = json.loads((tmp_path / "a" / "analysis-snapshots" / ALONG).read_text())
    line = refusal(main, [snapshots, *QUICK, "--steps", "4"], capsys)
    assert "holds a finished analysis that was made otherwise: steps 3, now 4" in line
    write_snapshots(tmp_path / "a", 5)
    line = refusal(main, [snapshots, *QUICK], capsys)
    assert "of other weights" in line
    assert json.loads((tmp_path / "a" / "analysis-snapshots" / ALONG).read_text()) == before
    capsys.readouterr()
    assert analyse(snapshots, "--force").steps == (1, 5)
    said = capsys.readouterr().out
    assert "sampling ideal, 3 steps: kept from before" in said


def test_snapshots_of_two_networks_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    snapshots = write_snapshots(tmp_path / "a", 9)
    write_snapshots(tmp_path / "a", 2, padding="circular")
    line = refusal(main, [snapshots, *QUICK], capsys)
    assert "step-000002' is not of the training that" in line


@pytest.mark.parametrize(
    ("option", "said"),
    [("--twin x.ckpt", "twin is ['x.ckpt']"), ("--same_x 2", "same_x is 2"),
     ("--information 1", "information is 1"), ("--network_steps 7,3", "network_steps is [7, 3]")],
)  # fmt: skip
def test_what_is_not_measured_along_training_is_refused(
    option: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    snapshots = write_snapshots(tmp_path / "a", 9)
    line = refusal(main, [snapshots, *QUICK, *option.split()], capsys)
    assert f"{said}, which is not measured along the snapshots of a training" in line
    assert not (tmp_path / "a" / "analysis-snapshots").exists()


def test_a_configuration_leaves_out_what_is_not_measured_and_the_command_line_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    snapshots = write_snapshots(tmp_path / "a", 9)
    config = ["--config", "paper", "--dry_run"]
    assert analyse(snapshots, *config) is None
    line = "are left out: that is not measured along a training"
    assert f"of the configuration same_x and network_steps {line}" in capsys.readouterr().out
    told = [snapshots, *config, *QUICK, "--same_x=16"]
    assert "same_x is 16, which is not" in refusal(main, told, capsys)
    # Both sides take the same steps, which may be said, and 20 is what is said anywhere else.
    for steps in ("3", "20"):
        assert analyse(snapshots, "--dry_run", "--network_steps", steps) is None
        assert line not in capsys.readouterr().out


def test_analyses_of_a_network_and_of_a_training_share_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    snapshots = write_snapshots(tmp_path / "a", 9)
    line = refusal(main, [snapshots / "step-000009", *QUICK, "--name", "snapshots"], capsys)
    assert "name is 'snapshots', which the analysis of a training's snapshots has" in line
    assert not (tmp_path / "a" / "analysis-snapshots").exists()
    kept = tmp_path / "a" / "analysis-x"
    kept.mkdir()
    for file, analysed, said in (
        (ALONG, snapshots / "step-000009", "that of the snapshots of a training"),
        (AGREEMENT, snapshots, "the analysis of one network"),
    ):
        (kept / file).write_text("{}")
        line = refusal(main, [analysed, *QUICK, "--name", "x", "--force"], capsys)
        assert f"analysis-x' holds {said}, of which nothing is replaced" in line
        (kept / file).unlink()


def test_snapshots_are_analysed_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    snapshots = write_snapshots(tmp_path / "a", 9)
    line = refusal(main, [snapshots, snapshots / "step-000009", *QUICK], capsys)
    assert "holds the snapshots of a training, which are analysed by themselves" in line


def test_a_dry_run_says_what_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    snapshots = write_snapshots(tmp_path / "a", 1, 2)
    assert analyse(snapshots, "--dry_run", "--no-refit") is None
    said = capsys.readouterr().out
    assert "sample the machines" in said
    assert "fitted to the last snapshot" in said
    assert not (tmp_path / "a" / "analysis-snapshots" / ALONG).exists()


def test_one_snapshot_is_a_checkpoint_of_its_run(tmp_path: Path) -> None:
    snapshots = write_snapshots(tmp_path / "a", 9)
    source = Source(str(snapshots / "step-000009"))
    assert source.home == tmp_path / "a"
    assert Output().analysis(source) == tmp_path / "a" / "analysis-step-000009"
