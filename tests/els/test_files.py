import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from els import files
from els.errors import InputError
from els.files import alone_in, replacing, replacing_folder, write_json


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


HOLD = (
    "import sys; from pathlib import Path; from els.files import alone_in;"
    "context = alone_in(Path(sys.argv[1]), 'training'); context.__enter__();"
    "print('in', flush=True); sys.stdin.read(); context.__exit__(None, None, None)"
)


@pytest.mark.timeout(120)
def test_one_process_at_a_time_is_in_a_folder_and_a_killed_one_leaves_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout.readline() == "in\n"
    for _ in range(2):  # being refused takes nothing away
        refused = pytest.raises(InputError, match=f"process is training in '{folder}'; wait until")
        with refused, alone_in(folder, "training"):
            pass
    other.kill()
    other.wait()
    with alone_in(folder, "training"):
        (folder / "a").touch()
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, what: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with alone_in(tmp_path, "training"), alone_in(tmp_path, "training"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to("../mine")
    with pytest.raises(OSError, match="symbolic links"), alone_in(tmp_path / "run", "training"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_folder_that_is_moved_away_meanwhile_is_left_in_peace(tmp_path: Path) -> None:
    with alone_in(tmp_path / "a", "training"):
        (tmp_path / "a").rename(tmp_path / "b")
        with alone_in(tmp_path / "a", "training"):
            assert (tmp_path / "a" / ".lock").exists()
    assert not list((tmp_path / "a").iterdir())


def test_a_disk_that_is_full_when_it_is_waited_for_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "last.ckpt"
    path.write_text("old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"), replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "old"
    monkeypatch.setattr(
        files.os,
        "fsync",
        lambda handle: (_ for _ in ()).throw(OSError(errno.EINVAL, "Invalid argument")),
    )
    with replacing(path) as partial:  # where the file system cannot say
        partial.write_text("new")
    assert path.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ELS_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert files.cache_folder().name == f"els-{os.getuid()}"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "made" / "folder") as partial:
        (partial / "file").write_text("whole")
        assert not (tmp_path / "made" / "folder").exists()
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["folder"]
    with pytest.raises(KeyError), replacing_folder(tmp_path / "other") as partial:
        (partial / "file").write_text("half")
        raise KeyError
    with (
        pytest.raises(OSError, match="not empty"),
        replacing_folder(tmp_path / "made" / "folder") as partial,
    ):
        (partial / "file").write_text("another")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "folder" / "file").read_text() == "whole"
