"""What is read from folders of others: never beyond them, within bounds, and as what it is."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from els import reading
from els.errors import InputError
from els.reading import (
    as_options,
    has,
    member,
    read_arrays,
    read_bytes,
    read_json,
    read_table,
    read_text,
    walk,
    within,
)

# A billion values in a hundred bytes.
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, and a private one outside."""
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "run" / "inner").mkdir(parents=True)
    (tmp_path / "run" / "a.json").write_text("{}")
    return tmp_path / "run"


def test_files_of_a_folder_and_links_within_it_are_read(folder: Path) -> None:
    (folder / "b.json").symlink_to("a.json")
    (folder / "inner" / "c.json").symlink_to("../a.json")
    for name in ("a.json", "b.json", "inner/c.json", folder / "a.json"):
        assert read_table(member(folder, name)) == {}
    (folder.parent / "link").symlink_to(folder)
    assert has(folder.parent / "link", "a.json")  # the folder itself may be a link


def test_links_that_leave_a_folder_are_refused_by_name(folder: Path) -> None:
    (folder / "x").symlink_to("../secret")
    (folder / "y").symlink_to(folder.parent / "secret")
    (folder / "z").symlink_to("..")
    for name in ("x", "y", "z/secret", "../secret", "/etc/passwd"):
        with pytest.raises(InputError, match="is a link that leads out of"):
            member(folder, name)
        assert not has(folder, name)
    with pytest.raises(InputError, match=f"'{folder}/z' is not read"):
        within(folder, "z")
    with pytest.raises(InputError, match=f"'{folder}/x'"):
        list(walk(folder))


def test_links_into_the_cache_of_the_hub_are_read(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    (snapshot / "unet").mkdir(parents=True)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    (blobs / "1").write_text("{}")
    (snapshot / "unet" / "config.json").symlink_to("../../../blobs/1")
    assert has(snapshot, "unet/config.json")
    assert has(snapshot / "unet", "config.json")
    (tmp_path / "secret").write_text("")
    (snapshot / "s").symlink_to(tmp_path / "secret")
    assert not has(snapshot, "s")


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_refused_and_never_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "lost").symlink_to("nowhere")
    for name in ("pipe", "inner"):
        with pytest.raises(InputError, match="no regular file"):
            member(folder, name)
    for path in (folder / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="no regular file"):
            read_bytes(path)
    for name in ("lost", "none"):
        with pytest.raises(FileNotFoundError):
            member(folder, name)
    assert list(walk(folder)) == [folder / "a.json"]


def test_sizes_and_encodings_are_bounded(folder: Path) -> None:
    path = folder / "t"
    path.write_bytes(bytes(11))
    assert read_bytes(path, most=11) == bytes(11)
    with pytest.raises(InputError, match="more than 10 bytes"):
        read_bytes(path, most=10)
    path.write_bytes("é".encode("latin-1"))
    with pytest.raises(InputError, match="no text in UTF-8"):
        read_text(path)
    path.write_bytes("é".encode())
    assert read_text(path) == "é"


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a": NaN}', "-Infinity", "1" * 10_000, "\ufeff{}"]
)
def test_what_is_not_json_is_one_line(text: str, folder: Path) -> None:
    path = folder / "t.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"'{path}' is not JSON: ") as error:
        read_json(path)
    assert "\n" not in str(error.value)
    path.write_text("[1]")
    with pytest.raises(InputError, match="holds a list, not a table"):
        read_table(path)


def test_infinite_numbers_are_taken_where_they_are_usual(folder: Path) -> None:
    (folder / "a.json").write_text('{"lambda_min_clipped": -Infinity}')
    assert read_table(folder / "a.json", infinite=True) == {"lambda_min_clipped": -np.inf}


def test_arrays_come_back_as_they_were_written(tmp_path: Path) -> None:
    arrays = {
        "x/y": np.arange(6.0).reshape(2, 3),
        "none": np.zeros((0, 3)),
        "one": np.array(4),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "text": np.array(["a", "bc"]),
        "flag": np.array([True]),
        "empty": np.array([], dtype=str),
        "b": np.arange(3, dtype="u1"),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_arrays(tmp_path / "a.npz")
        assert list(found) == list(arrays)
        for name, values in arrays.items():
            assert found[name].dtype == values.dtype
            assert found[name].shape == values.shape
            assert (found[name] == values).all()
            assert found[name].flags.writeable


def _header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        _header((10**12,)),
        _header((-1,)),
        _header((2,)) + bytes(24),
        _header((2,), "|O") + bytes(16),
        b"\x93NUMPY\x09\x00",
        _header((1,))[:40],
        _header((1,)).replace(b"'shape'", b"'shame'") + bytes(8),
    ],
)
def test_hostile_arrays_are_one_line_and_take_no_memory(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(InputError, match=f"'{path}' holds no arrays: ."):
        read_arrays(path)


def test_archives_that_are_damaged_pickled_or_grow_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random(100))
    whole = path.read_bytes()
    for content in (b"", whole[:-30], whole[:60] + b"\xff\xff" + whole[62:], b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="holds no arrays"):
            read_arrays(path)
    np.savez(path, x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="is an array of object"):
        read_arrays(path)
    np.savez_compressed(path, x=np.zeros(1 << 20))
    assert read_arrays(path)["x"].shape == (1 << 20,)
    monkeypatch.setattr(reading, "_FREE", 1 << 20)
    with pytest.raises(InputError, match="it would take 8,388,736 bytes of memory, of"):
        read_arrays(path)


def test_options_are_read_and_aliases_bounded() -> None:
    assert as_options("a: [1, 2]\nb: {c: x}", "c.yaml") == {"a": [1, 2], "b": {"c": "x"}}
    assert as_options("", "c.yaml") == {}
    with pytest.raises(InputError, match=r"'c\.yaml' holds a list"):
        as_options("- a", "c.yaml")
    with pytest.raises(InputError, match=r"'c\.yaml' is not readable as YAML"):
        as_options("a: [", "c.yaml")
    with pytest.raises(InputError, match=r"the aliases in 'c\.yaml' stand for more than 100,000"):
        as_options(LAUGHS, "c.yaml")
    with pytest.raises(InputError, match="aliases"):
        as_options("a: &a [*a, *a]", "c.yaml")
