"""The examples run as they stand, at a tiny setting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT
from entry import run

import els

TINY = ("--limit", 60, "--seeds", 2, "--steps", 3)
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def said(name: str, *args: object) -> str:
    """What an example prints; fails where it fails."""
    done = run("-m", f"examples.{name}", *TINY, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_sample_machine_saves_the_samples_side_by_side(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "samples.png"
    assert str(picture) in said("sample_machine", "--out", picture)
    assert Image.open(picture).size == (32, 16)


def test_fit_scales_finds_the_size_that_the_denoiser_has() -> None:
    assert re.findall(r"size (\d+) ", said("fit_scales", "--true_size", 7))[:3] == ["7", "7", "7"]


def test_copying_counts_the_copies_of_the_network_and_of_every_machine() -> None:
    told = said("copying")
    found = re.findall(r"^ +60 images  (\w+) +copied (\d+)% \[\d+%, \d+%\]$", told, re.MULTILINE)
    assert [kind for kind, _ in found] == ["network", "boundary", "local", "ideal"]
    assert dict(found)["ideal"] == "100"  # that machine can only return its images
    assert re.search(
        r"boundary above k_mem at \d+ of 20 t  local above k_mem at \d+ of 20 t$", told
    )


def test_agreement_is_found_for_a_trained_run(trained: Path) -> None:
    done = run("-m", "examples.agreement", trained)
    assert done.returncode == 0, done.stdout + done.stderr
    for metric in ("pearson_r", "r2", "R2"):
        assert re.search(
            rf"^{metric} -?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\]$", done.stdout, re.MULTILINE
        ), done.stdout
    assert re.search(r"^sizes of boundary: \d+ at t = 1 to \d+ at t = 0.05$", done.stdout, re.M)


def test_agreement_has_twelve_lines_of_code_and_imports_only_els() -> None:
    lines = (ROOT / "examples" / "agreement.py").read_text().split('"""')[2].splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    assert len(code) <= 12
    assert [line for line in code if "import" in line] == ["import sys", "import els"]
    named = set(re.findall(r"els\.(\w+)", "\n".join(code)))
    assert named <= set(els.__all__)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_short(name: str) -> None:
    lines = (ROOT / "examples" / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 60, f"{name} has {len(lines)} lines"


def test_every_example_is_tested() -> None:
    assert EXAMPLES == ["agreement", "copying", "fit_scales", "sample_machine", "third_party"]
