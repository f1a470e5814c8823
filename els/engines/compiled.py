"""Compiled code in the cache folder: loaded only where it is whole, and nobody else's.

Loading a shared library runs it. So the folder and its files must belong to this user, and nobody
else may be able to write them; a digest beside each tells one that was cut short, which would end
the process without a word, from one that is whole.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from els.files import CACHE, cache_folder, replacing, sha256_of
from els.reading import read_bytes

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_BUILDING, _SECONDS = "build-", 3600  # how long a build may take


class UntrustedError(OSError):
    """A folder or a file that somebody else could have put there; the message says why."""


def own_folder() -> Path:
    """The folder of compiled code in the cache, which only this user can write to.

    Raises:
        UntrustedError: when it belongs to somebody else, or others may write to it or replace it.
        OSError: when it cannot be made.
    """
    cache = cache_folder()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = cache / "compiled"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = cache.stat()
    if hasattr(os, "geteuid") and found.st_uid not in (0, os.geteuid()):
        raise UntrustedError(f"'{cache}' belongs to another user")
    # Others could put a folder of theirs in its place.
    if found.st_mode & _WRITABLE and not found.st_mode & stat.S_ISVTX:
        if os.environ.get(CACHE):
            raise UntrustedError(f"others may write to '{cache}'")
        cache.chmod(0o700)  # it was made so by an umask
    _check_own(folder)
    return folder


def is_whole(path: Path) -> bool:
    """Whether there is a library that `store` has put there, as it was.

    Raises:
        UntrustedError: when others could have written it.
        OSError: when it cannot be read.
    """
    digest = _digest_of(path)
    try:
        _check_own(path)
        _check_own(digest)
    except FileNotFoundError:
        return False
    return path.is_file() and read_bytes(digest).strip() == sha256_of(path).encode()


def load(path: Path) -> ctypes.CDLL:
    """Load a shared library that is whole.

    Raises:
        OSError: when the system refuses it, as on a disk without permission to run code.
    """
    return ctypes.CDLL(str(path))


def store(path: Path, build: Callable[[Path], None]) -> None:
    """Build a shared library and put it there, whole or not at all, with its digest.

    Args:
        path: where, in a folder of `own_folder`.
        build: makes the library at the path that it is given.

    Raises:
        OSError: when it cannot be stored. Other errors are those of `build`.
    """
    _tidy(path.parent)
    with tempfile.TemporaryDirectory(prefix=_BUILDING, dir=path.parent) as folder:
        built = Path(folder) / path.name
        build(built)
        built.chmod(0o700)
        if is_whole(path):  # another process was faster
            return
        digest = sha256_of(built)
        # Until the digest is there too, a reader finds nothing whole and builds its own.
        with replacing(path) as partial:
            built.rename(partial)
        with replacing(_digest_of(path)) as partial:
            partial.write_text(f"{digest}\n", encoding="utf-8")
            partial.chmod(0o600)


def _tidy(folder: Path) -> None:
    """Remove what builds left that were killed."""
    for left in folder.glob(f"{_BUILDING}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _SECONDS:
                shutil.rmtree(left)


def _digest_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _check_own(path: Path) -> None:
    """Refuse what somebody else could have written.

    Raises:
        UntrustedError: when it is another user's, a link, or others may write to it.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise UntrustedError(f"'{path}' is a link")
    if not hasattr(os, "geteuid"):
        return
    if found.st_uid != os.geteuid():
        raise UntrustedError(f"'{path}' belongs to another user")
    if found.st_mode & _WRITABLE:
        raise UntrustedError(f"others may write to '{path}'")
