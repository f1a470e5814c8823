import sys
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from rich.console import Console

from els.console import _standard_output, exit_cleanly, key_values, plural


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
