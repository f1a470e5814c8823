"""`benchmarks/large_images.py` on the few photos that are at hand, cut into many."""

import json
import sys
from pathlib import Path

import pytest
from conftest import SHARED
from PIL import Image

from benchmarks import large_images

PHOTOS = SHARED / "data" / "celeba-sample"


def test_every_machine_named_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, out = tmp_path / "crops", tmp_path / "costs.json"
    options = [PHOTOS, "--crops", 12, "--size", 16, "--keep", kept, "--out", out]
    asked = ["--machines", "local", "mixture"]
    monkeypatch.setattr(sys, "argv", ["large_images.py", *map(str, options), *asked])
    large_images.main()
    costs = json.loads(out.read_text())
    assert list(costs) == ["local", "mixture"]
    for found in costs.values():
        assert found["first"] > 0
        assert found["gigabytes"] > 0.1
    assert costs["local"]["values"] > 1
    assert costs["mixture"]["values"] == 0
    assert len(list(kept.iterdir())) == 12
    assert "| `local` |" in capsys.readouterr().out


def test_crops_are_squares_of_the_size_and_the_same_again(tmp_path: Path) -> None:
    for name in ("one", "another"):
        large_images.cut(PHOTOS, tmp_path / name, 6, 16)
    made = sorted((tmp_path / "one").iterdir())
    assert len(made) == 6
    assert len({path.read_bytes() for path in made}) == 6
    for path in made:
        assert Image.open(path).size == (16, 16)
        assert path.read_bytes() == (tmp_path / "another" / path.name).read_bytes()


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no image"):
        large_images.cut(tmp_path, tmp_path / "out", 1, 16)


def test_an_answer_that_takes_too_long_is_asked_once(tmp_path: Path) -> None:
    large_images.cut(PHOTOS, tmp_path, 6, 16)
    images = large_images.load_images("folder", root=tmp_path, split="all", size=16)
    found = large_images.cost("local", images, patience=0)
    assert found.again == found.first
    assert found.values == found.calibration == 0
