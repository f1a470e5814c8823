import subprocess
import sys
import time

import pytest
from conftest import ROOT

from els.models import export
from els.models.short_help import OPTIONS, short_help
from els.models.training import TrainCLI, TrainParser, main


def test_every_option_is_one_of_the_parser_with_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def parse(cli: TrainCLI, parser: TrainParser, args: list[str]) -> None:
        made.append(cli._subcommand_parsers["fit"])
        sys.exit(0)

    monkeypatch.setattr(TrainCLI, "parse_arguments", parse)
    with pytest.raises(SystemExit):
        main(["fit"])
    (parser,) = made
    defaults = parser.get_defaults()
    for group in OPTIONS.values():
        for name, (default, _) in group.items():
            assert name in parser.known_names(), name
            if default is not None:
                assert defaults[name.removeprefix("--")] == default, name


@pytest.mark.parametrize("line", ["--help", "fit --help", "test -h", "validate --help", ""])
def test_the_help_is_a_screen_of_80_columns(line: str) -> None:
    lines = short_help(line.split()).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 79
    assert lines[0].startswith("usage: python train.py ")
    assert any("--help_all" in line for line in lines)


def test_the_help_of_export_has_the_options_of_its_parser(
    capsys: pytest.CaptureFixture,
) -> None:
    told = short_help(["export", "--help"])
    assert max(map(len, told.splitlines())) <= 79
    with pytest.raises(SystemExit):
        export.main(["--help_all"])
    whole = capsys.readouterr().out
    for name in ("--checkpoint", "--to"):
        assert name in told
        assert name in whole


def test_other_arguments_are_not_of_the_help() -> None:
    for line in ("fit", "fit --help_all", "fit --model.help x", "nothing --help"):
        assert short_help(line.split()) is None
    assert "els-train fit" in short_help([], "/usr/bin/els-train")


def test_the_help_takes_less_than_a_second() -> None:
    took = []
    for _ in range(3):
        start = time.monotonic()
        said = subprocess.run(
            [sys.executable, "train.py", "fit", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        took.append(time.monotonic() - start)
    assert "--run.name" in said.stdout
    assert min(took) < 1


def test_the_help_imports_no_library() -> None:
    code = (
        "import sys; from els.models import cli; cli.main(['fit', '--help'])\n"
        "assert not {'torch', 'pytorch_lightning', 'wandb', 'jsonargparse'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
