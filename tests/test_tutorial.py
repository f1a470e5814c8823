"""The tutorial runs from top to bottom, here with a tiny network."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from entry import TINY, fit
from nbclient import NotebookClient

PATH = ROOT / "docs" / "tutorial.ipynb"


@pytest.mark.timeout(240)
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    garments = ["--config", "configs/garments_resnet.yaml", *TINY[2:]]
    fit(tmp_path, "--run.name", "tiny", "--run.logger", "none", base=garments)
    monkeypatch.setenv("ELS_TUTORIAL_RUN", str(tmp_path / "tiny"))
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
