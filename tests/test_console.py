import subprocess
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console
from rich.table import Table

from els import console as console_module
from els.console import (
    Parser,
    _standard_output,
    duration,
    exit_cleanly,
    key_values,
    plural,
    progress,
)
from els.errors import InputError


def test_facts_are_a_line_each_however_long() -> None:
    file, path = StringIO(), "runs/" + "long" * 50
    Console(file=file, width=40, soft_wrap=True).print(
        key_values({"data": "digits", "results": path})
    )
    assert file.getvalue() == f"data     digits\nresults  {path}\n"


def test_labels_stand_out_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        file = StringIO()
        monkeypatch.setattr(file, "isatty", lambda shown=terminal: shown)
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setenv("TERM", "xterm-256color")
        _standard_output().print(key_values({"data": "[digits]"}))
        assert ("\x1b[" in file.getvalue()) == terminal
        assert "[digits]" in file.getvalue()


def test_names_that_the_output_cannot_show_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    out = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    with exit_cleanly():
        _standard_output().print(key_values({"results": "runs/é"}))
    out.flush()
    assert out.buffer.getvalue() == b"results  runs/\\xe9\n"


def test_counted() -> None:
    assert [plural(1, "class"), plural(2, "class")] == ["1 class", "2 classes"]
    assert [plural(1, "image"), plural(1437, "image")] == ["1 image", "1,437 images"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (130, "2 min"), (9600, "2 h 40 min"), (260_000, "3 days")],
)
def test_time_is_said_in_units_that_fit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_gets_a_line_a_minute_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    file, clock = StringIO(), [0.0]
    monkeypatch.setattr(console_module, "console", Console(file=file))
    monkeypatch.setattr(console_module, "monotonic", lambda: clock[0])
    with progress("sampling", 100) as advance:
        for _ in range(5):
            clock[0] += 25
            advance(10.0)
    assert file.getvalue().splitlines() == [
        "sampling ...",
        "sampling: 30 of 100 images, about 3 min left",  # 75 s for 30
    ]
    with progress("sampling", 0):
        pass
    assert file.getvalue().endswith("sampling: kept from before\n")


def parser() -> Parser:
    made = Parser()
    made.add_argument("-c", "--config", action="config")
    made.add_argument("--seeds", type=int)
    made.add_argument("--sizes", type=list[int])
    made.add_argument("--network_steps", type=list[int])
    made.add_argument("--held_out", type=int)
    made.add_argument("--calibration_seeds", type=int)
    made.add_argument("--kind", type=Literal["a", "b"] | None)
    return made


@pytest.mark.parametrize(
    "args", [["-c", "quick"], ["--config=quick.yaml"], ["--config", "analysis/quick"]]
)
def test_a_configuration_may_be_given_by_its_name(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parser().parse_args(args).sizes == [3, 5, 7, 9, 11, 13]
    monkeypatch.setattr(sys, "argv", ["analyze.py", *args, "--seeds", "5"])
    assert parser().parse_args().seeds == 5
    Path("quick").write_text("sizes: [9]")
    if "quick" in args:  # a file of that name comes first
        assert parser().parse_args(args).sizes == [9]


def test_a_configuration_may_be_written_out() -> None:
    assert parser().parse_args(["--config", "seeds: 3"]).seeds == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config", "slow"], "no configuration 'slow'"),
        (["--config"], "expected one argument"),
        (["--config", "--seeds", "3"], "expected one argument"),
        (["--seeds", "many"], r"^--seeds: Expected int. Got value: many .--help lists"),
        (["--sizes", "3"], "^--sizes: Expected list. Got value: 3"),
        (["--kind", "ice"], r"^--kind: Expected one of 'a', 'b', null. Got value: ice .--help"),
        (["--seed", "3"], "unrecognized arguments: --seed 3; did you mean --seeds"),
        (["--no_such", "3"], r"unrecognized arguments: --no_such 3 \(--help lists the options\)$"),
    ],
)
def test_what_cannot_be_parsed_is_one_line(args: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parser().parse_args(args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["draws"], r"invalid choice: 'draws'.*; did you mean draw\?"),
        (["draw", "--width", "3", "--hieght", "2"], r"--hieght 2; did you mean --height\?"),
        (["draw", "--wid", "3"], "unrecognized arguments: --wid 3"),  # nor is it cut short
    ],
)
def test_sub_commands_have_names_too(args: list[str], message: str) -> None:
    made, draw = Parser(), Parser()
    draw.add_argument("--width", type=int)
    draw.add_argument("--height", type=int)
    made.add_subcommands().add_subcommand("draw", draw)
    with pytest.raises(InputError, match=message):
        made.parse_args(args)


def test_names_of_others_do_not_move_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    hostile = "\x1b[31mred\x1b]0;title\x07 \r\u202egnp \x9b2J"
    for terminal in (True, False):
        file = StringIO()
        monkeypatch.setattr(file, "isatty", lambda shown=terminal: shown)
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setenv("TERM", "xterm-256color")
        table = Table("network")
        table.add_row(hostile)
        for one in (key_values({"run": hostile}), hostile, table):
            _standard_output().print(one)
        said = file.getvalue()
        assert not {"\x07", "\r", "\u202e", "\x9b"} & set(said)
        assert "\x1b[31m" not in said
        assert "\\x1b[31mred" in said
        assert ("\x1b[1;36m" in said) == terminal  # its own colours stay
    monkeypatch.undo()
    with pytest.raises(SystemExit), exit_cleanly():
        raise InputError(f"'{hostile}'\nis refused")
    assert capsys.readouterr().err == (
        "error: '\\x1b[31mred\\x1b]0;title\\x07 \\r\\u202egnp \\x9b2J' is refused\n"
    )


def test_neither_do_their_words_in_warnings_logs_and_tracebacks() -> None:
    code = (
        "import logging, warnings; from els.console import keep_terminal_clean;"
        "keep_terminal_clean(); hostile = '\\x1b[31mred';"
        "warnings.warn(hostile); logging.getLogger('els').warning(hostile);"
        "raise RuntimeError(hostile)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"\x1b" not in done.stderr
    assert done.stderr.count(rb"\x1b[31mred") == 3
    assert b"RuntimeError" in done.stderr
