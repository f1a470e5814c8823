"""Results that are whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError

from els.errors import InputError

Record = TypeVar("Record")

LOCK = ".lock"  # in a folder that a process is alone in
CACHE = "ELS_CACHE"  # the variable of the environment that names the cache folder


def cache_folder() -> Path:
    """Where what is built or downloaded once is kept: $ELS_CACHE, or ~/.cache/els.

    A user without a home has a folder of their own among the temporary files.
    """
    if told := os.environ.get(CACHE):
        return Path(told)
    try:
        return Path.home() / ".cache" / "els"
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"els-{os.getuid()}")


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The temporary name keeps the suffix, which many writers choose the format by.

    Args:
        path: of the file.
        durable: wait for the disk, so that even after a power cut it is the old file or the new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        if durable:
            _sync(partial)
        partial.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that is renamed to it when the block ends without an error.

    Raises:
        OSError: when there is something at `path` that is no empty folder.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Remove what processes that were killed have left of writing the same file."""
    for left in path.parent.glob(f".{escape(path.stem)}.*.partial{escape(path.suffix)}"):
        number = left.name.removeprefix(f".{path.stem}.").partition(".")[0]
        if number.isdecimal() and not _is_running(int(number)):
            left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the system can.

    Raises:
        OSError: when the disk is full or fails, which some file systems notice only here.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # a folder that may be written to, and not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EROFS):
            raise
    finally:
        os.close(handle)


@contextmanager
def alone_in(folder: Path, doing: str) -> Iterator[None]:
    """Keep other processes out of a folder; its lock is gone when the process is, however it ends.

    Where the file system knows no locks, nobody is kept out.

    Args:
        folder: made if it is not there.
        doing: what is done there, such as "training".

    Raises:
        InputError: when another process is there.
        OSError: when the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = _locked(path, doing)
    try:
        yield
    finally:
        if _is_same(handle, path):
            path.unlink(missing_ok=True)
        os.close(handle)


def _locked(path: Path, doing: str) -> int:
    """An open file that this process alone has locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise InputError(
                f"another process is {doing} in '{path.parent}'; wait until it has ended, or name "
                "another folder"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
                os.close(handle)
                raise
        if _is_same(handle, path):  # else who had it before has just taken it away
            return handle
        os.close(handle)


def _is_same(handle: int, path: Path) -> bool:
    """Whether an open file is the one that has a path now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """Digest of a file, or of the names and digests of all files in a folder."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = [f"{file.relative_to(path)} {sha256_of(file)}" for file in files]
        return hashlib.sha256("\n".join(listing).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_tensor(values: torch.Tensor) -> str:
    """Digest of a tensor's numbers, whatever its device."""
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().data).hexdigest()


def tensor_bytes(content: Any) -> memoryview:
    """Tensors and plain data as bytes for `torch.load(..., weights_only=True)`."""
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def write_tensors(path: Path, content: Any) -> None:
    """Write tensors and plain data for `torch.load(..., weights_only=True)`.

    By way of memory: `torch.save` to a file reports a full disk as an internal error.
    """
    data = tensor_bytes(content)
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_json(path: Path, content: Any) -> None:
    """Write plain data as indented JSON. NaN is refused: it is not JSON."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def as_plain(record: object) -> dict[str, Any]:
    """A dataclass of plain data as JSON holds it."""
    plain: dict[str, Any] = TypeAdapter(type(record)).dump_python(
        record, mode="json", by_alias=True
    )
    return plain


def write_record(path: Path, record: object) -> None:
    """Write a dataclass of plain data as JSON, whole or not at all."""
    write_json(path, as_plain(record))


def as_record(kind: type[Record], content: object) -> Record:
    """The dataclass that `write_record` wrote, from what was read.

    Raises:
        ValueError: when the content does not fit it.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or kind.__name__
        raise ValueError(f"{where}: {first['msg']}") from error
