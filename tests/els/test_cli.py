import sys
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from rich.console import Console

from els.cli import counted, entry_console, exit_cleanly, facts


def test_facts_are_a_line_each_however_long() -> None:
    file, path = StringIO(), "runs/" + "long" * 50
    Console(file=file, width=40, soft_wrap=True).print(facts({"data": "digits", "results": path}))
    assert file.getvalue() == f"data     digits\nresults  {path}\n"


def test_labels_stand_out_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        file = StringIO()
        monkeypatch.setattr(file, "isatty", lambda shown=terminal: shown)
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setenv("TERM", "xterm-256color")
        entry_console().print(facts({"data": "[digits]"}))
        assert ("\x1b[" in file.getvalue()) == terminal
        assert "[digits]" in file.getvalue()


def test_names_that_the_output_cannot_show_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    out = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    with exit_cleanly():
        entry_console().print(facts({"results": "runs/é"}))
    out.flush()
    assert out.buffer.getvalue() == b"results  runs/\\xe9\n"


def test_counted() -> None:
    assert [counted(1, "class"), counted(2, "class")] == ["1 class", "2 classes"]
    assert [counted(1, "image"), counted(1437, "image")] == ["1 image", "1,437 images"]
