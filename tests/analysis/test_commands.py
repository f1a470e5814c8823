import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from entry import refusal, run
from made_results import made_results
from studies import SMALL, small_results, write_checkpoint

from els.analysis import running
from els.analysis.commands import main
from els.analysis.overwriting import check_earlier
from els.analysis.parsers import build_parser
from els.analysis.results import Results
from els.analysis.short_help import COMMANDS
from els.analysis.short_help import OPTIONS as SHORT
from els.errors import InputError
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
        monkeypatch.setattr(running, name, absent)
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
        ("nowhere", "'nowhere' holds no complete analysis"),
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
    out = ["--out", str(folder.parent), "--no-mosaic", "--force"]
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
    monkeypatch.setattr(running.webbrowser, "open", opened.append)
    monkeypatch.setattr(running.sys, "platform", "linux")
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
    assert (
        "boundary compared with, of all patches at t  1.00: " in capsys.readouterr().out
    ) == bool(results.seen)


def test_the_whole_help_names_every_option_and_machine(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help_all"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in ("--calibration_seeds", "--tolerance", "--num_nodes", "--open_page", *SHORT["run"]):
        assert name in text
    for entry in MACHINES.values():
        assert entry.says in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_short_help_says_what_the_parser_does(
    command: str, capsys: pytest.CaptureFixture
) -> None:
    main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40
    parser = build_parser()._subcommands_action.choices[command]
    known = {flag: action for action in parser._actions for flag in action.option_strings}
    for flag, (default, _) in SHORT[command].items():
        assert any(line.split()[:1] == [flag] for line in lines)
        assert known[flag].default == default or flag == "--config"
    if command != "run":
        assert set(known) - {"-h", "--help"} == set(SHORT[command])


def test_help_comes_without_importing_what_is_slow() -> None:
    code = (
        "import sys; from els.analysis.commands import main; main(sys.argv[1:]); "
        "print([name for name in ('torch', 'wandb', 'lightning_fabric') if name in sys.modules])"
    )
    for args in ([], ["--help"], ["figures", "--help"]):
        done = run("-c", code, *args)
        assert done.stdout.splitlines()[-1] == "[]", done.stderr


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


@pytest.mark.parametrize(
    "args",
    [
        ["--machines", "boundary"],
        ["--machines", "boundary,local", "--force"],
        ["--machines", "boundary", "local", "--no-mosaic"],
        ["--machines=boundary,local", "--network_steps", "3,4", "--mosaic"],
        ["--machines", "all", "--sizes", "3,5", "--force", "false"],
    ],
)
def test_options_are_taken_as_people_type_them(args: list[str]) -> None:
    parsed = build_parser().parse_args(["run", "--checkpoint", "x", *args]).as_dict()["run"]
    machines = parsed["machines"]
    assert machines == "all" or machines[0] == "boundary"
    assert parsed["mosaic"] == ("--no-mosaic" not in args)
    assert parsed["force"] == (args[-1] == "--force")
    assert parsed["network_steps"] == ([3, 4] if "3,4" in args else [20])


def test_runs_stand_for_their_last_checkpoint_and_may_come_first(
    checkpoint: Path, finished: Path, capsys: pytest.CaptureFixture
) -> None:
    capsys.readouterr()
    results = main([str(finished), *OPTIONS])
    assert isinstance(results, Results)
    said = capsys.readouterr().out
    assert "This analysis was finished before" in said
    assert said.splitlines()[-1].startswith(f"open  {finished / 'analysis' / 'report.html'}")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["figure", "runs/x"], "did you mean figures?"),
        (["--checkpont", "x"], "did you mean --checkpoint?"),
        (["--machines", "boundry"], "boundary"),
        (["--name", "../up", "--checkpoint", "x"], "name is '../up'"),
        (["--criterion", "mse", "--checkpoint", "x"], "criterion"),
    ],
)
def test_mistyped_words_are_one_line(
    args: list[str], message: str, checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    if args[0] == "--machines":
        args = [str(checkpoint), *OPTIONS, *args]
    assert message in refusal(main, args, capsys)


def test_a_finished_analysis_is_not_replaced_without_a_word(
    checkpoint: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "tiny"
    shutil.copytree(finished, run)
    before = {path: path.read_bytes() for path in (run / "analysis").iterdir() if path.is_file()}
    other = [*OPTIONS, "--machines", "local", "--no-mosaic"]
    line = refusal(main, [run, *other], capsys)
    assert "machines boundary,local,ideal, now local" in line
    assert "mosaic True, now False" in line
    assert "--name NAME" in line
    assert before == {path: path.read_bytes() for path in before}
    named = main([str(run), *other, "--name", "quick"])
    assert named.provenance.run == "tiny-quick"
    assert (run / "analysis-quick" / "report.html").exists()
    assert before == {path: path.read_bytes() for path in before}
    capsys.readouterr()
    replaced = main([str(run), *other, "--force"])
    assert "calibrating local: kept from before" in capsys.readouterr().out
    assert list(replaced.machines) == ["local"]
    assert list(Results.load(run / "analysis").machines) == ["local"]


def test_the_checkpoints_of_a_run_have_an_analysis_each(
    checkpoint: Path, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "tiny"
    shutil.copytree(finished, run)
    write_checkpoint(run / "checkpoints" / "best.ckpt", seed=1)
    files = [str(run / "checkpoints" / name) for name in ("last.ckpt", "best.ckpt")]
    last, best = main([*files, *OPTIONS])
    assert (last.provenance.run, best.provenance.run) == ("tiny", "tiny-best")
    assert (run / "analysis-best" / "agreement.json").exists()
    assert (tmp_path / "comparison" / "tiny_vs_tiny-best" / "report.html").exists()


def test_finished_analyses_are_compared_and_listed_from_what_is_saved(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a", "b"):
        shutil.copytree(finished, tmp_path / "runs" / name)
    (tmp_path / "runs" / "empty").mkdir()
    runs = [str(tmp_path / "runs" / name) for name in ("a", "b")]
    main(["compare", *runs, "--logger", "none"])
    folder = tmp_path / "runs" / "comparison" / "a_vs_b"
    assert (folder / "comparison.csv").exists()
    assert str(folder / "report.html") in capsys.readouterr().out.splitlines()[-1]
    table = tmp_path / "all.csv"
    main(["list", str(tmp_path / "runs"), "--csv", str(table)])
    with open(table) as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["a", "b"]
    assert all(float(row["parameters"]) > 0 and float(row["boundary/R2"]) > -1 for row in rows)
    assert "ResNet, zeros" in capsys.readouterr().out
    assert "holds no runs" in refusal(main, ["list", tmp_path / "runs" / "empty"], capsys)
    assert "is one run" in refusal(main, ["compare", runs[0]], capsys)


def test_an_analysis_of_the_same_file_that_is_read_otherwise_is_not_replaced(
    checkpoint: Path, tmp_path: Path
) -> None:
    """The bytes of the checkpoint are the same; what is taken from them is not."""
    results = small_results(checkpoint)
    results.save(tmp_path)
    known = results.provenance
    assert known.declared is not None
    assert not check_earlier(tmp_path, known, force=False)
    for changes, message in (
        ({"weights": "ema"}, "weights online, now ema"),
        ({"prediction": "v"}, "prediction eps, now v"),
        ({"schedule": "linear"}, "schedule cosine, now linear"),
        ({"image_range": (0.0, 1.0)}, r"image_range -1\.0,1\.0, now 0\.0,1\.0"),
    ):
        other = replace(known, declared=replace(known.declared, **changes))
        with pytest.raises(InputError, match=message):
            check_earlier(tmp_path, other, force=False)
        assert check_earlier(tmp_path, other, force=True)
    assert not check_earlier(tmp_path, replace(known, declared=None), force=False)


def test_the_agreement_of_another_folder_is_no_analysis_that_could_be_lost(
    checkpoint: Path, tmp_path: Path
) -> None:
    """It names the digests of files that are not there; where one is, or all are gone, it stays."""
    results = small_results(checkpoint)
    results.save(tmp_path / "own")
    made_results(["boundary", "ideal"]).save(tmp_path / "other")
    with pytest.raises(InputError, match="of other weights"):
        check_earlier(tmp_path / "other", results.provenance, force=False)
    shutil.copy(tmp_path / "other" / "agreement.json", tmp_path / "own")
    assert not check_earlier(tmp_path / "own", results.provenance, force=False)
    (tmp_path / "other" / "samples.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="of other weights"):
        check_earlier(tmp_path / "other", results.provenance, force=False)
    for path in (tmp_path / "other").glob("*"):
        if path.name != "agreement.json":
            path.unlink()
    with pytest.raises(InputError, match="of other weights"):
        check_earlier(tmp_path / "other", results.provenance, force=False)
