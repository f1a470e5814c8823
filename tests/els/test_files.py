import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from els.files import replacing, write_json


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a[1].json"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".a[1].{gone.pid}.partial.json"
    others = [
        tmp_path / f".a[1].{os.getppid()}.partial.json",
        tmp_path / f".b.{gone.pid}.partial.json",
        tmp_path / ".a[1].mine.partial.json",
    ]
    for one in (left, *others):
        one.touch()
    write_json(path, {})
    assert not left.exists()
    assert all(one.exists() for one in others)
    assert path.exists()
