"""The tables of docs/findings.md are what the zoo's files say."""

from pathlib import Path

from conftest import ROOT
from PIL import Image

from benchmarks import evidence


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
