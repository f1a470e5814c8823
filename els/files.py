"""Results that are whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError

Record = TypeVar("Record")


def cache_folder() -> Path:
    """Where what is built or downloaded once is kept: $ELS_CACHE, or ~/.cache/els."""
    return Path(os.environ.get("ELS_CACHE") or Path.home() / ".cache" / "els")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The temporary name keeps the suffix, which many writers choose the format by.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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


def write_tensors(path: Path, content: Any) -> None:
    """Write tensors and plain data for `torch.load(..., weights_only=True)`.

    By way of memory: `torch.save` to a file reports a full disk as an internal error.
    """
    buffer = BytesIO()
    torch.save(content, buffer)
    with replacing(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def write_json(path: Path, content: Any) -> None:
    """Write plain data as indented JSON. NaN is refused: it is not JSON."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


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


def read_record(kind: type[Record], path: Path) -> Record:
    """The dataclass that `write_record` wrote to a file.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when it holds something else.
    """
    return as_record(kind, json.loads(path.read_text()))
