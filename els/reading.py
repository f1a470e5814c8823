"""Files of folders that may be somebody else's: regular ones inside the folder, of bounded size.

A checkpoint, a run's folder or a data set that was passed on may hold links to private files, pipes
that never end, archives that grow a thousandfold and numbers that no memory holds. What is read
from such a folder goes through here; what is refused is named.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import numpy as np
import yaml
from numpy.lib import format as npy

from els.errors import InputError, reason
from els.files import as_record

Record = TypeVar("Record")

TEXT, JSON, ARRAYS = 1 << 20, 1 << 26, 1 << 34  # bytes, at most
# Arrays may take so many bytes whatever their file has, and else so many times its size.
_FREE, _MOST = 1 << 26, 100
_VALUES = 100_000  # of YAML, at most, when every alias is written out
_KINDS = "biufU"  # of arrays: bool, whole numbers, floats, text


def member(folder: Path, name: str | Path) -> Path:
    """The path of a regular file in a folder, by its name there.

    Args:
        folder: the folder, which may itself be a link.
        name: such as "config.yaml", or a path that begins with the folder.

    Raises:
        FileNotFoundError: when nothing is there.
        InputError: when it is no regular file, or a link that leads out of the folder.
    """
    path = within(folder, name)
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"'{path}' is not read: it is no regular file")
    return path


def within(folder: Path, name: str | Path) -> Path:
    """The path of what a folder holds by a name, which may be a folder too.

    Raises:
        InputError: when it is a link that leads out of the folder.
    """
    path = Path(name) if Path(name).is_relative_to(folder) else folder / name
    there = path.resolve()
    if not there.is_relative_to(_bounds(folder)):
        raise InputError(
            f"'{path}' is not read: it is a link that leads out of '{folder}', to '{there}'; if "
            "that is meant, put the file itself there"
        )
    return path


def _bounds(folder: Path) -> Path:
    """What links of a folder may lead to: itself, or the whole repository in the hub's cache."""
    whole = folder.resolve()
    for snapshot in (whole, *whole.parents[:2]):  # of which files are links to ../../blobs
        if snapshot.parent.name == "snapshots" and (snapshot.parents[1] / "blobs").is_dir():
            return snapshot.parents[1]
    return whole


def has(folder: Path, name: str | Path) -> bool:
    """Whether `member` finds a file; what it refuses is not there."""
    try:
        return bool(member(folder, name))
    except (OSError, InputError):
        return False


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading, unless it is a pipe or a device, which could be read for ever.

    Raises:
        OSError: when it cannot be opened.
        InputError: when it is no regular file.
    """
    file = open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"'{path}' is not read: it is no regular file")
    return file


def read_bytes(path: Path, *, most: int = JSON) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        OSError: when it cannot be read.
        InputError: when it is no regular file, or larger.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"'{path}' is not read: it has more than {most:,} bytes")
    return content


def read_text(path: Path, *, most: int = TEXT) -> str:
    """The content of a text file in UTF-8.

    Raises:
        OSError, InputError: as `read_bytes`, and when it is no such text.
    """
    try:
        return read_bytes(path, most=most).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not read: it is no text in UTF-8") from error


def read_json(path: Path, *, most: int = JSON, infinite: bool = False) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        most: bytes, at most.
        infinite: take NaN and Infinity too, which are not JSON.

    Raises:
        OSError, InputError: as `read_text`, and when it is not JSON.
    """
    text = read_text(path, most=most)
    try:
        return json.loads(text, parse_constant=None if infinite else _refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not JSON: {reason(error)}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def read_table(path: Path, *, infinite: bool = False) -> dict[str, Any]:
    """The content of a JSON file that holds a table.

    Raises:
        OSError, InputError: as `read_json`, and when it holds something else.
    """
    content = read_json(path, infinite=infinite)
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds a {type(content).__name__}, not a table")
    return content


def as_options(text: str, name: object) -> dict[str, Any]:
    """The options and their values that a text in YAML holds; none where it is empty.

    Args:
        text: what somebody wrote.
        name: of its file, for messages.

    Raises:
        InputError: when it is no YAML of keys and values, or its aliases stand for far more than
            is written.
    """
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(
            f"'{name}' is not readable as YAML ({reason(error) or 'nested too deep'}); mend it, "
            "or start from one of the configurations that come along"
        ) from error
    if not isinstance(content, dict | None):
        raise InputError(
            f"'{name}' holds a {type(content).__name__}; a configuration is options and their "
            "values, such as 'data: data/digits.yaml'"
        )
    if _values_in(content, {}) > _VALUES:
        raise InputError(
            f"the aliases in '{name}' stand for more than {_VALUES:,} values; write a "
            "configuration without them"
        )
    return content or {}


def _values_in(content: object, known: dict[int, int]) -> int:
    """How many values there are when every alias is written out; `known` by identity."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        known[id(content)] = _VALUES  # of one that holds itself
        inside = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_values_in(one, known) for one in inside)
    return known[id(content)]


def read_record(kind: type[Record], path: Path) -> Record:
    """The dataclass that `els.files.write_record` wrote to a file.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when it holds something else.
    """
    return as_record(kind, read_json(path))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by their names: of numbers and text, and nothing pickled.

    Raises:
        OSError: when the file cannot be read.
        InputError: when it is damaged, holds something else, or would take far more memory than
            its size.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            members = archive.infolist()
            needed = sum(one.file_size for one in members)
            if needed > min(ARRAYS, max(_FREE, _MOST * size)):
                raise InputError(f"it would take {needed:,} bytes of memory, of {size:,} on disk")
            return {one.filename.removesuffix(".npy"): _array(archive, one) for one in members}
    except OSError:
        raise
    # Bytes that numpy did not write can make its parser, and that of zips, raise anything.
    except Exception as error:
        raise InputError(f"'{path}' holds no arrays: {reason(error)}") from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = header(file)
        if dtype.kind not in _KINDS:
            raise ValueError(f"'{info.filename}' is an array of {dtype}")
        count = math.prod(shape)
        if min(shape, default=0) < 0 or count * dtype.itemsize > info.file_size:
            raise ValueError(f"'{info.filename}' is shorter than its shape {shape}")
        content = bytearray(file.read())
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"'{info.filename}' is longer than its shape {shape}")
    values = np.frombuffer(content, dtype) if dtype.itemsize else np.zeros(count, dtype)
    return values.reshape(shape, order="F" if by_columns else "C")


def walk(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder, hidden ones too; folders that are links are not entered.

    Pipes, devices and links to nothing are passed over.

    Raises:
        InputError: when a file is a link that leads out of the folder.
    """
    bounds = _bounds(folder)
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_symlink() and path.exists() and not path.resolve().is_relative_to(bounds):
                within(folder, path)
            if path.is_file():
                yield path
