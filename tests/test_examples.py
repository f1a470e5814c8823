"""The examples run as they stand, at a tiny setting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT
from entry import run

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


def test_compare_samples_finds_a_machine_equal_to_itself() -> None:
    printed = said("compare_samples", "--machine", "ideal", "--other", "ideal")
    for metric in ("pearson_r", "r2", "R2"):
        assert re.search(rf"^{metric} +1\.00 \[1\.00, 1\.00\]$", printed, re.MULTILINE), printed


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_short(name: str) -> None:
    lines = (ROOT / "examples" / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 55, f"{name} has {len(lines)} lines"


def test_every_example_is_tested() -> None:
    assert EXAMPLES == ["compare_samples", "fit_scales", "sample_machine"]
