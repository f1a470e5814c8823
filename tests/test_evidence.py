"""The tables of docs/findings.md are what the zoo's files and kept results say."""

from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

from benchmarks import curves, evidence


def test_the_tables_of_findings_are_those_of_the_zoo() -> None:
    page = (ROOT / "docs" / "findings.md").read_text()
    for table in evidence.tables(evidence.read_rows()):
        assert "\n".join(table) in page


def test_rows_of_the_paper_are_matched_at_its_size_alone(tmp_path: Path) -> None:
    rows = evidence.read_rows()
    assert {row.name for row in rows} == {
        path.name for path in evidence.ZOO.iterdir() if path.is_dir()
    }
    for row in rows:
        assert row.paper is None or row.side == 32
    evidence.draw(rows, tmp_path)
    assert Image.open(tmp_path / "evidence.png").size[0] == 2100


@pytest.mark.parametrize("axis", curves.AXES)
def test_curves_of_findings_are_those_of_the_kept_results(axis: str, tmp_path: Path) -> None:
    points = curves.read_points(axis)
    assert len(points) >= 3
    assert "\n".join(curves.table(axis, points)) in (ROOT / "docs" / "findings.md").read_text()
    for point in points:
        found = point.found["images"] if axis == "images" else point.width
        assert found == point.place
    curves.draw(axis, points, tmp_path)
    assert Image.open(tmp_path / f"by_{axis}.png").size == (1020, 780)


def test_fitted_sizes_are_drawn_beside_those_that_were_released(tmp_path: Path) -> None:
    curves.draw_scales(evidence.read_rows(), tmp_path)
    assert (tmp_path / "scales.png").stat().st_size > 10_000
