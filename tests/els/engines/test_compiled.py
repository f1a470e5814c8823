"""How compiled code is kept, with a library of one function."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from els.engines import compiled
from els.engines.compiled import UntrustedError, is_whole, load, own_folder, store

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


def _build(path: Path) -> None:
    source = path.with_suffix(".c")
    source.write_text("int three(void) { return 3; }")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source], check=True)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a library is kept, in a cache of its own."""
    monkeypatch.setenv("ELS_CACHE", str(tmp_path / "cache"))
    return own_folder() / "three.so"


def test_what_is_stored_is_whole_and_ones_own(library: Path) -> None:
    assert not is_whole(library)
    store(library, _build)
    assert is_whole(library)
    assert load(library).three() == 3
    names = {path.name for path in library.parent.iterdir()}
    assert names == {"three.so", "three.so.sha256"}
    for path, mode in ((library.parent, 0o700), (library, 0o700), (library.parents[1], 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def _cut(library: Path) -> None:
    library.write_bytes(library.read_bytes()[:5000])


def _planted(library: Path) -> None:
    """Another library under the name that is looked for."""
    library.write_bytes(library.read_bytes() + b"0")


def _folder(library: Path) -> None:
    library.unlink()
    library.mkdir(mode=0o700)


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _planted,
        _folder,
        Path.unlink,
        lambda library: library.write_bytes(b""),
        lambda library: library.with_name("three.so.sha256").unlink(),
        lambda library: library.with_name("three.so.sha256").write_bytes(b"\xff"),
    ],
)
def test_what_is_not_as_it_was_stored_is_not_whole(
    damage: Callable[[Path], None], library: Path
) -> None:
    store(library, _build)
    damage(library)
    assert not is_whole(library)


def test_what_is_not_whole_is_replaced_and_what_is_stays(library: Path) -> None:
    store(library, _build)
    before = library.stat().st_mtime_ns
    store(library, _build)  # as a slower process does
    assert library.stat().st_mtime_ns == before
    _cut(library)
    store(library, _build)
    # In a process of its own: this one must not map what was changed under it.
    code = f"import ctypes; print(ctypes.CDLL({str(library)!r}).three())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_what_others_could_have_written_is_refused(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(library, _build)
    digest, cache = library.with_name("three.so.sha256"), library.parents[1]
    for path in (library, digest):
        path.chmod(0o720)
        with pytest.raises(UntrustedError, match=f"others may write to '{path}'"):
            is_whole(library)
        path.chmod(0o700)
    for path in (library.parent, cache):
        path.chmod(0o777)
        with pytest.raises(UntrustedError, match=f"others may write to '{path}'"):
            own_folder()
        path.chmod(0o700)
    cache.chmod(0o1777)  # as /tmp, where nobody can rename the folder of another
    assert own_folder() == library.parent
    library.rename(cache / "elsewhere")
    library.symlink_to(cache / "elsewhere")
    with pytest.raises(UntrustedError, match=f"'{library}' is a link"):
        is_whole(library)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 12345)
    for check in (own_folder, lambda: is_whole(digest)):
        with pytest.raises(UntrustedError, match="belongs to another user"):
            check()


def test_the_default_cache_is_made_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ELS_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = tmp_path / ".cache" / "els"
    cache.mkdir(parents=True)
    cache.chmod(0o775)  # as an umask of 002 makes it
    assert own_folder() == cache / "compiled"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_what_a_killed_build_left_is_removed_when_it_is_old(library: Path) -> None:
    old, new = (library.with_name(f"build-{name}") for name in ("old", "new"))
    for path in (old, new):
        path.mkdir()
    os.utime(old, (0, 0))
    store(library, _build)
    assert not old.exists()
    assert new.exists()


def test_a_failed_build_and_a_full_disk_leave_nothing(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store(library, fail)
    assert not list(library.parent.iterdir())


def test_a_planted_library_runs_nothing(library: Path) -> None:
    """As somebody would who knows the name of the engine's library, in a process that loads it."""
    source, proof = library.with_suffix(".c"), library.parents[1] / "ran"
    source.write_text(
        "#include <stdio.h>\n__attribute__((constructor)) static void run(void)"
        f'{{ fclose(fopen("{proof}", "w")); }}'
    )
    code = (
        "import sys; from pathlib import Path;"
        "from els.engines import compiled, native_engine as n;"
        "path = compiled.own_folder() / f'native-{n._fingerprint(n._compiler())}.so';"
        "Path(sys.argv[1]).rename(path); n.compile_library = lambda *a: sys.exit('builds its own');"
        "n.available()"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", code, library], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "builds its own" in done.stderr
    assert not proof.exists()
    assert compiled.load(library.with_name(next(library.parent.glob("native-*.so")).name))
    assert proof.exists()  # the library is one that would have run
