"""The tutorial runs from top to bottom, here with the tests' own tiny network."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

PATH = ROOT / "docs" / "tutorial.ipynb"


@pytest.mark.timeout(240)
def test_the_tutorial_runs(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELS_TUTORIAL_RUN", str(trained))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(PATH, as_version=4)
    where = {"metadata": {"path": str(PATH.parent)}}
    NotebookClient(notebook, timeout=200, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 6
    assert not [output for output in outputs if output["output_type"] == "error"]


def test_the_tutorial_is_short_and_uses_public_functions() -> None:
    cells = nbformat.read(PATH, as_version=4).cells
    assert len(cells) <= 25
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert not re.search(r"\bels[\w.]*\._|import _", code)
    assert not re.search(r"\.\._?/(?:shared|tests)", code)
