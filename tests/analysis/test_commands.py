import csv
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from entry import refusal
from studies import SMALL, write_checkpoint

from els.analysis import commands
from els.analysis.commands import build_parser, main
from els.analysis.results import Results
from els.machines import MACHINES

OPTIONS = [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]
OPTIONS += ["--device", "cpu", "--logger", "none"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands") / "tiny"
    return write_checkpoint(folder / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def finished(checkpoint: Path) -> Path:
    """The run's folder, with an analysis in it."""
    main(["--checkpoint", str(checkpoint), *OPTIONS])
    return checkpoint.parents[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--sizes [3,4]", "patch size 4 is not a positive odd number"),
        ("--sizes [41]", "patch size 41 is too large"),
        ("--calibration_seeds 7", "no seeds are left for agreement"),
        ("--label 1", "the network is not class-conditional"),
        ("--checkpoint nowhere.ckpt", "there is no checkpoint 'nowhere.ckpt'"),
        ("--device warp", "device 'warp' is not available"),
        ("--engine triton", "the triton engine cannot be used"),
        ("--machines [magic]", "magic"),
        ("--colour 1", "colour"),
        ("--steps 0", "steps is 0"),
        ("--network_steps [0]", "network_steps is [0]"),
        ("--figures gif", "give one or more of png, pdf, svg"),
        ("--data_name mnist", "the checkpoint says that it was trained on 'digits'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: str, message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    line = refusal(
        main, ["--checkpoint", checkpoint, *OPTIONS, "--out", out, *args.split()], capsys
    )
    assert message in line
    assert not (out / "analysis" / "agreement.json").exists()


def test_networks_of_the_same_name_are_not_compared(
    checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    line = refusal(main, ["--checkpoint", checkpoint, checkpoint, *OPTIONS], capsys)
    assert "the runs have the same name" in line


def test_several_networks_make_one_table(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = write_checkpoint(tmp_path / "other" / "checkpoints" / "last.ckpt", seed=1)
    args = ["--checkpoint", str(checkpoint), str(other), *OPTIONS, "--out", str(tmp_path / "out")]
    first, second = main(args)
    with open(tmp_path / "out" / "comparison" / "comparison.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == ["tiny", "other"]
    for row, results in zip(rows, (first, second), strict=True):
        for kind, values in results.summary["machines"].items():
            assert float(row[f"{kind}/R2"]) == pytest.approx(values["R2"]["median"])
    assert {path.suffix for path in (tmp_path / "out" / "comparison").iterdir()} == {
        ".csv", ".html", ".png",
    }  # fmt: skip
    assert "Agreement with each network" in capsys.readouterr().out
    assert (tmp_path / "out" / "other" / "analysis" / "report.html").exists()
    main(args)
    assert capsys.readouterr().out.count("This analysis was finished before") == 2


def test_figures_are_drawn_again_from_the_analysis_alone(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*args: object, **options: object) -> None:
        raise AssertionError("nothing but the saved results is there")

    for name in ("load_study", "analyse", "launch"):
        monkeypatch.setattr(commands, name, absent)
    copied = tmp_path / "tiny"
    shutil.copytree(finished / "analysis", copied / "analysis")
    names = {path.name for path in (copied / "analysis").glob("*.png")}
    for path in (copied / "analysis").glob("*.png"):
        path.unlink()
    paths = main(["figures", str(copied)])
    assert {path.name for path in paths} == names
    assert all(path.parent == copied / "analysis" and path.exists() for path in paths)
    out = tmp_path / "paper"
    paths = main(["figures", str(copied), "--formats", "pdf,svg", "--out", str(out)])
    assert len(paths) == 2 * len(names)
    assert {path.suffix for path in out.iterdir()} == {".pdf", ".svg"}
    shutil.copytree(copied, tmp_path / "other")
    runs = [str(copied), str(tmp_path / "other")]
    main(["figures", *runs, "--formats", "pdf", "--out", str(out)])
    for name in ("tiny", "other", "comparison"):
        assert (out / name / "by_t.pdf").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("{run} --formats gif", "give one or more of png, pdf, svg"),
        ("{run} {run}", "the runs have the same name"),
        ("nowhere", "'nowhere/analysis' holds no complete analysis"),
        ("", "runs"),
        ("{run} --colour 1", "colour"),
    ],
)
def test_bad_figures_are_one_line_and_exit_code_2(
    args: str, message: str, finished: Path, capsys: pytest.CaptureFixture
) -> None:
    assert message in refusal(main, ["figures", *args.format(run=finished).split()], capsys)


def test_figures_of_an_earlier_analysis_do_not_stay(
    finished: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny" / "analysis"
    shutil.copytree(finished / "analysis", folder)
    assert (folder / "mosaic.png").exists()
    out = ["--out", str(folder.parent), "--mosaic", "false"]
    main(["--checkpoint", str(checkpoint), *OPTIONS, *out])
    assert (folder / "samples.png").exists()
    left = {"mosaic.png", "novelty.png", "consistency.png", "attribution.npz", "origins.npz"}
    assert not left & {path.name for path in folder.iterdir()}
    assert Results.load(folder).attribution is None


@pytest.mark.parametrize(("display", "shown"), [(":0", True), (None, False)])
def test_the_page_is_opened_where_there_is_a_desktop(
    finished: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, display: str | None,
    shown: bool,
) -> None:  # fmt: skip
    opened: list[str] = []
    monkeypatch.setattr(commands.webbrowser, "open", opened.append)
    monkeypatch.setattr(commands.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    main(["--checkpoint", str(checkpoint), *OPTIONS, "--open_page", "true"])
    page = (finished / "analysis" / "report.html").resolve().as_uri()
    assert opened == ([page] if shown else [])


def test_a_tolerance_is_reported(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    args = ["--tolerance", "0.3", "--out", str(tmp_path / "out"), "--machines", "[boundary]"]
    results = main(["--checkpoint", str(checkpoint), *OPTIONS, *args])
    assert ("boundary compared with, at t  1.00: " in capsys.readouterr().out) == bool(results.seen)


def test_help_names_every_option_and_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in ("--calibration_seeds", "--tolerance", "--num_nodes", "--open_page"):
        assert name in text
    for entry in MACHINES.values():
        assert entry.says in text
    for command in ("figures", "dashboard"):
        assert f"analyze.py {command} " in text
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "--out" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "analysis").glob("*.yaml")), ids=str)
def test_configurations_are_read(path: Path) -> None:
    args = ["run", "--config", str(path), "--checkpoint", "x"]
    options = build_parser().parse_args(args).as_dict()["run"]
    expected = yaml.safe_load(path.read_text())
    assert {name: options[name] for name in expected} == expected


def test_a_configuration_can_be_printed(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--checkpoint", "x", "--seeds", "9", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["seeds"], printed["checkpoint"]) == (9, ["x"])
