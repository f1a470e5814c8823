"""Every bad input of the table is one line that says what was wrong; nothing is left behind."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from bad_inputs import GOOD, TABLE, Bad
from studies import write_checkpoint

from els.analysis.commands import main as analyze
from els.analysis.short_help import COMMANDS
from els.console import exit_cleanly
from els.engines import native_engine
from els.models.cli import main as train

_LONGEST = 900  # a line that a person reads


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose checkpoint is whole."""
    folder = tmp_path_factory.mktemp("good")
    write_checkpoint(folder / GOOD)
    return folder / "good"


def everything(folder: Path) -> dict[str, int]:
    """All that is in a folder, with the sizes of the files."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*")}


def arguments(case: Bad, folder: Path) -> list[str]:
    """The words of a command, with what keeps it in the folder and off W&B."""
    entry, *args = (word.replace("@", str(folder)) for word in shlex.split(case.command))
    begins = args[:1] == ["fit"]
    if entry == "train" and args[0] in ("fit", "validate", "test") and "--run.dir" not in args:
        args += ["--run.dir", str(folder / "runs")]
    if begins and "--run.logger" not in args and "WANDB_MODE" not in case.environment:
        args += ["--run.logger", "none"]
    analyses = entry == "analyze" and len(args) > 1 and args[0] not in COMMANDS
    if analyses and "--logger" not in args and "WANDB_MODE" not in case.environment:
        args += ["--logger", "none"]
    return args


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_bad_input_is_one_line(
    case: Bad,
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(good, tmp_path / "good")
    case.make(tmp_path)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value.replace("@", str(tmp_path)))
    for kept in (native_engine.library, native_engine.missing):
        kept.cache_clear()  # a case may name another compiler or cache
    before, main = everything(tmp_path), train if case.command.startswith("train") else analyze
    with pytest.raises(SystemExit) as stop, exit_cleanly():
        main(arguments(case, tmp_path))
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("error: ")
    for words in case.says:
        assert words.replace("@", str(tmp_path)) in line
    assert len(line) < _LONGEST + len(str(tmp_path)) * line.count(str(tmp_path))
    assert everything(tmp_path) == before


def test_the_table_is_of_many_kinds() -> None:
    names = [case.name + str(case.says) for case in TABLE]
    assert len(set(names)) == len(names) >= 150
    assert all(case.says for case in TABLE)
