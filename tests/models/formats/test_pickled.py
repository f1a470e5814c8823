"""Files that would run something, or ask for too much, are refused and do nothing."""

import argparse
import builtins
import contextlib
import os
import pickle
import pickletools
import struct
import time
import tracemalloc
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from copy import copy
from datetime import datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import paper_code
import persistence
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from els.errors import InputError
from els.models.checkpoints import load_denoiser
from els.models.formats.pickled import _STEPS as STEPS
from els.models.formats.pickled import Module, Record, Reference, read
from els.models.networks import build_network

HEAD = b"\x80\x02"
CONV = b"ctorch.nn.modules.conv\nConv2d\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
NEW = b")\x81"  # an instance of the class on the stack
STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def archive(path: Path, data: bytes, *, numbers: int = 4, compress: bool = False) -> Path:
    """A file as torch.save writes it around a pickle of our own making."""
    with zipfile.ZipFile(path, "w") as file:
        kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        file.writestr("archive/data.pkl", data, compress_type=kind)
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/data/0", bytes(4 * numbers))
        file.writestr("archive/version", "3\n")
    return path


class Payload:
    def __init__(self, function: Callable, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


def attacks(target: Path) -> dict[str, bytes]:
    """Pickles that create `target` when they are run, or would if a name were followed."""
    command = f"touch {target}"
    call = text(command) + b"\x85R."

    def stacked(module: str, name: str) -> bytes:  # protocol 4 takes names from the stack
        return b"\x80\x04" + text(module) + text(name) + b"\x93" + call

    found = {
        f"system, protocol {p}": pickle.dumps(Payload(os.system, command), protocol=p)
        for p in range(6)
    }
    code = f"import os; os.mkdir({str(target)!r})"
    return found | {
        "exec": pickle.dumps(Payload(builtins.exec, code)),
        "eval": pickle.dumps(Payload(builtins.eval, f"__import__('os').mkdir({str(target)!r})")),
        "getattr": HEAD + b"c__builtin__\ngetattr\n" + b"cos\nsystem\n" + text("x") + b"\x86R.",
        "models.os": HEAD + b"cmodels.os\nsystem\n" + call,
        "models, os.system": stacked("models", "os.system"),
        "models.checkpoints.torch": stacked("models.checkpoints", "torch.os.system"),
        "torch.nn.modules.os": HEAD + b"ctorch.nn.modules.os\nsystem\n" + call,
        "torch.nn.modules, os.system": stacked("torch.nn.modules", "os.system"),
        "torch.nn.modules.module": stacked("torch.nn.modules.module", "torch.os.system"),
        "Conv2d.__init__": stacked("torch.nn.modules.conv", "Conv2d.__init__.__globals__"),
        "a schedule with a dot": stacked("utils", "os.noise_schedule"),
        "INST": b"(" + f"S'{command}'\n".encode() + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text(command) + b"o.",
        "hidden in a state": HEAD + CONV + NEW + b"}" + text("x") + b"cos\nsystem\n"
        + text(command) + b"\x85Rsb.",
        "as a reduce of BUILD": HEAD + CONV + NEW + b"}" + text("__setstate__")
        + b"cos\nsystem\nsb" + text(command) + b"b.",
    }  # fmt: skip


def test_the_payloads_are_real(tmp_path: Path) -> None:
    target = tmp_path / "made"
    for name in ("system, protocol 0", "system, protocol 5", "exec", "eval", "INST", "OBJ"):
        pickle.loads(attacks(target)[name])
        assert target.exists(), name
        target.rmdir() if target.is_dir() else target.unlink()


@pytest.mark.parametrize("name", attacks(Path("x")))
def test_nothing_in_a_pickle_is_run(name: str, tmp_path: Path) -> None:
    target, data = tmp_path / "made", attacks(tmp_path / "made")[name]
    (tmp_path / "raw.pt").write_bytes(data)
    for path in (archive(tmp_path / "a.pt", data), tmp_path / "raw.pt"):
        with pytest.raises(InputError, match=r"is not loaded|is damaged"):
            load_denoiser(path)
        assert not target.exists()
    with pytest.raises(InputError, match="is not loaded"):
        read(tmp_path / "a.pt")
    assert not target.exists()


def test_a_payload_among_real_weights_is_refused_by_name(tmp_path: Path) -> None:
    target, module = tmp_path / "made", paper_code.resnet()
    module.backbone.extra = Payload(os.mkdir, str(target))
    path = paper_code.save_whole(module, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"it names 'posix\.mkdir', which is no part"):
        load_denoiser(path)
    assert not target.exists()


@pytest.mark.parametrize(("data", "message"), [
    (HEAD + CONV + text("x") + b"\x85R.", "is damaged"),
    (HEAD + CONV + b")R.", r"calls 'torch\.nn\.modules\.conv\.Conv2d'"),
    (HEAD + b"cmodels\ncosine_noise_schedule\n)R.", "calls 'models.cosine_noise_schedule'"),
    (HEAD + TENSOR + b"}" + text("x") + b"K\x01sb.", "sets the state of something"),
    (HEAD + TENSOR + b"N}" + text("_function") + b"K\x01s\x86b.", "sets the state of something"),
    (HEAD + STORAGE + b"}" + text("count") + b"K\x01sb.", "sets the state of something"),
    (HEAD + CONV + b"}" + text("kind") + b"K\x01sb.", "is damaged"),
    (HEAD + CONV + NEW + b"N}" + text("kind") + b"K\x01s\x86b.", "not a table of attributes"),
    (HEAD + CONV + NEW + b"]b.", "not a table of attributes"),
    (HEAD + CONV + NEW + b"}K\x01K\x02sb.", "not a table of attributes"),
    (HEAD + CONV + NEW + b"}" + text("_modules") + b"K\x05sb.", "hold its weights as modules do"),
    (HEAD + CONV + NEW + b"}" + text("_parameters") + b"}" + text("w") + b"K\x01ssb.",
     "a weight that is not a tensor"),
    (HEAD + b"\x82\x01.", "the pickle instruction EXT1"),
    (HEAD + b"Nr\xff\xff\xff\x7f.", "numbers more objects than it has"),
    (HEAD + b"Kc", "is damaged"),
])  # fmt: skip
def test_odd_pickles_are_refused_with_a_reason(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(archive(tmp_path / "a.pt", data))


def weight(size: bytes, stride: bytes, storage: bytes = STORAGE) -> bytes:
    """A module with one tensor of that size and stride."""
    tensor = TENSOR + b"(" + storage + b"K\x00" + size + stride + b"\x89}tR"
    return HEAD + CONV + NEW + b"}" + text("_parameters") + b"}" + text("w") + tensor + b"ssb."


BIG = b"\x8a\x05\x00\x00\x00\x00\x10"  # 2 ** 36


@pytest.mark.parametrize(("data", "message"), [
    (weight(BIG + b"\x85", b"K\x00\x85"), "larger than its storage"),
    (weight(BIG + BIG + b"\x86", b"K\x00K\x00\x86"), "larger than its storage"),
    (weight(b"K\x02\x85", BIG + b"\x85"), "is damaged"),  # reaches beyond its storage
    (weight(b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), "something other than a storage and sizes"),
    (weight(b"K\x05\x85", b"K\x01\x85", STORAGE.replace(b"K\x04", b"K\x05")), "does not have 5"),
    (weight(b"K\x04\x85", b"K\x01\x85", b"N"), "something other than a storage and sizes"),
    (weight(b"K\x04\x85", b"K\x01\x85", STORAGE.replace(b"K\x04", b"N")), "not a storage"),
    (weight(b"K\x04\x85", b"K\x01\x85", STORAGE.replace(b"\x000X", b"\x00.X")), "is damaged"),
])  # fmt: skip
def test_tensors_beyond_their_storage_are_refused(
    data: bytes, message: str, tmp_path: Path
) -> None:
    good = read(archive(tmp_path / "good.pt", weight(b"K\x04\x85", b"K\x01\x85")))
    assert torch.equal(good.state_dict()["w"], torch.zeros(4))
    with pytest.raises(InputError, match=message):
        read(archive(tmp_path / "a.pt", data))


def test_modules_that_hold_themselves_and_packed_members_are_refused(tmp_path: Path) -> None:
    itself = HEAD + CONV + NEW + b"q\x01}" + text("_modules") + b"}" + text("a") + b"h\x01ssb."
    with pytest.raises(InputError, match="do not form a tree"):
        read(archive(tmp_path / "a.pt", itself))
    good = weight(b"K\x04\x85", b"K\x01\x85")
    with pytest.raises(InputError, match=r"'data\.pkl' is compressed"):
        read(archive(tmp_path / "b.pt", good, compress=True))
    with pytest.raises(InputError, match="does not have 4 numbers"):
        read(archive(tmp_path / "c.pt", good, numbers=3))


def test_what_was_set_on_a_module_comes_through(tmp_path: Path) -> None:
    module = read(paper_code.save_whole(paper_code.unet(num_classes=4), tmp_path / "a.pt"))
    assert module.kind == "models.DDIM"
    assert module.attributes["noise_schedule"].name == "utils.idealscore.cosine_noise_schedule"
    assert module.children["backbone"].attributes["fsizes"] == [16, 24, 32]
    expected = paper_code.unet(num_classes=4).state_dict()
    assert module.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())


def test_changed_bytes_never_do_more_than_be_refused(tmp_path: Path) -> None:
    whole = paper_code.save_whole(paper_code.resnet(), tmp_path / "a.pt")
    with zipfile.ZipFile(whole) as file:
        members = {name: file.read(name) for name in file.namelist()}
    (name,) = [n for n in members if n.endswith("data.pkl")]
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(len(members[name]), (300, 2), generator=generator).tolist()
    values = torch.randint(256, (300, 2), generator=generator).tolist()
    refused = 0
    for some, bytes_there in zip(places, values, strict=True):
        changed = bytearray(members[name])
        for place, value in zip(some, bytes_there, strict=True):
            changed[place] = value
        with zipfile.ZipFile(tmp_path / "b.pt", "w") as file:
            for member, data in (members | {name: bytes(changed)}).items():
                file.writestr(member, data)
        try:
            read(tmp_path / "b.pt")
        except InputError:
            refused += 1
    assert 30 < refused < 300


# --- the objects of containers and of EDM, and what is done with any bytes ----------------------


def bare(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


class Config:
    """A class that the reader has never heard of."""

    def __init__(self) -> None:
        self.lr, self.function = 0.1, len


class Table(dict):
    """As EDM's EasyDict."""


def plain_objects() -> dict:
    counts = defaultdict(int)
    counts["a"] = 2
    return {
        "args": argparse.Namespace(lr=1e-3, path=Path("x"), then=datetime(2020, 1, 2), f=len),
        "config": Config(),
        "table": Table(a=1),
        "counts": counts,
        "counter": Counter("aab"),
        "simple": SimpleNamespace(a=1),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "number": np.float64(0.5),
        "half": np.float32(0.25),
        "array": np.arange(3),
        "bytes": b"\x00\xff",
        "set": {1, "a"},
        "pair": {(1, 2): None},
        "generator": torch.Generator().get_state(),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_objects_beside_weights_are_harmless(
    protocol: int, zipped: bool, tmp_path: Path
) -> None:
    weights = nn.Linear(3, 2).state_dict()
    content = {"model": weights, **plain_objects()}
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    torch.save(content, tmp_path / "a.pt", **options)
    found = read(tmp_path / "a.pt")
    assert found.keys() == content.keys()
    assert all(torch.equal(found["model"][name], value) for name, value in weights.items())
    assert found["args"].kind == "argparse.Namespace"
    assert found["args"].attributes["lr"] == 1e-3
    assert found["args"].attributes["f"] == Reference("builtins.len")
    lr_and_function = {"lr": 0.1, "function": Reference("builtins.len")}
    assert found["config"] == Record(f"{__name__}.Config", lr_and_function)
    assert (found["table"], found["counts"], found["counter"]["a"]) == ({"a": 1}, {"a": 2}, 2)
    assert (found["number"], found["half"], found["bytes"]) == (0.5, 0.25, b"\x00\xff")
    assert (found["set"], found["pair"]) == ({1, "a"}, {(1, 2): None})
    assert found["dtype"] == Reference("torch.float16")


def test_the_source_in_a_pickle_of_edm_is_not_looked_at(tmp_path: Path) -> None:
    layer = persistence.as_persistent(nn.Linear(3, 2), "Linear", (3,), {"out_features": 2})
    path = persistence.save(tmp_path / "a.pkl", {"ema": layer, "loss_fn": Config()})
    found = read(path)
    assert found["ema"].kind == "persistent:Linear"
    assert found["ema"].attributes["_init_args"] == (3,)
    assert found["ema"].state_dict()["weight"].shape == (2, 3)
    with pytest.raises(SystemExit), persistence._as_in_edm():
        pickle.loads(path.read_bytes())


BYTES = b"ctorch.storage\n_load_from_bytes\n"


@pytest.mark.parametrize(("data", "message"), [
    (b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}\x85R.", "does not say its class"),
    (b"ctorch_utils.persistence\n_reconstruct_persistent_obj\nK\x01\x85R.", "not say its class"),
    (BYTES + text("x") + b"\x85R.", "a storage of something that is not bytes"),
    (BYTES + b"C\x02N.\x85R.", "a storage in it is not written as storages are"),
    (BYTES + b"C\x00\x85R.", "is damaged"),
    (b"ccollections\nOrderedDict\n]]K\x01K\x02\x86ae\x85R.", "is damaged"),
    (b"}]K\x01s.", "looks things up by a list"),
    (b"c__builtin__\nset\n](]e\x85R.", "looks things up by a list"),
    (b"c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R.", "encodes text otherwise"),
    (b"cos\nsystem\n.", None),
])  # fmt: skip
def test_odd_bare_pickles(data: bytes, message: str | None, tmp_path: Path) -> None:
    path = bare(tmp_path / "a.pkl", HEAD + data)
    if message is None:  # a name that nothing is done with is a name
        assert read(path) == Reference("os.system")
        return
    with pytest.raises(InputError, match=message):
        read(path)


def doubled(levels: int, last: bytes) -> bytes:
    """A pair of twice the same pair of twice the same ..., then something done with it."""
    data = HEAD + b"}K\x01K\x02\x86q\x00"
    for _ in range(levels):
        data += b"h\x00h\x00\x86q\x00"
    return data + last


@pytest.mark.parametrize("last", [b"K\x01s.", b"\x85.", b"c__builtin__\nset\n](h\x00e\x85R."])
def test_what_holds_itself_many_times_takes_no_time(last: bytes, tmp_path: Path) -> None:
    """60 levels are 2 ** 60 objects to who hashes, copies or prints them one by one."""
    start = time.monotonic()
    for path in (
        bare(tmp_path / "a.pkl", doubled(60, last)),
        archive(tmp_path / "a.pt", doubled(60, last)),
    ):
        with contextlib.suppress(InputError):
            read(path)
        with pytest.raises(InputError):
            load_denoiser(path)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("unit", [b"}", b"\x8f", b"]q\x00", b"K\x01\x85", b"N", b"K\x01K\x02K\x03"])
def test_small_instructions_do_not_become_much_memory(unit: bytes, tmp_path: Path) -> None:
    path = bare(tmp_path / "a.pkl", HEAD + unit * (3_000_000 // len(unit)) + b".")
    assert peak_of(path) < (64 << 20)


def peak_of(path: Path) -> int:
    """The most bytes that reading a file takes; what it answers does not matter."""
    tracemalloc.start()
    try:
        with contextlib.suppress(InputError):
            read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lists_that_are_copied_again_and_again_are_refused(tmp_path: Path) -> None:
    data = HEAD + b"](" + b"K\x01" * 10_000 + b"eq\x00" + b"c__builtin__\nlist\nh\x00\x85R" * 10_000
    with pytest.raises(InputError, match="far more memory than it has bytes"):
        read(bare(tmp_path / "a.pkl", data + b"."))


def test_members_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """A zip may list one stretch of bytes a thousand times."""
    torch.save([torch.zeros(50_000) for _ in range(6)], tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as file:
        data = file.read("a/data.pkl")
        with zipfile.ZipFile(tmp_path / "b.pt", "w") as other:
            other.writestr("a/data.pkl", data)
            other.writestr("a/data/0", file.read("a/data/0"))
            for number in range(1, 6):
                info = copy(other.getinfo("a/data/0"))
                info.filename = info.orig_filename = f"a/data/{number}"
                other.filelist.append(info)
                other.NameToInfo[info.filename] = info
    with pytest.raises(InputError, match=r"more bytes than the file|is damaged"):
        read(tmp_path / "b.pt")


@pytest.mark.parametrize("kind", ["archive", "before 1.6", "EDM"])
def test_reading_takes_three_times_the_file_at_most(kind: str, tmp_path: Path) -> None:
    weights = {f"w{i}": torch.ones(250_000) for i in range(16)}
    if kind == "EDM":
        module = nn.ParameterDict(weights)
        persistence.save(tmp_path / "a", {"ema": persistence.as_persistent(module, "Any")})
    else:
        torch.save(weights, tmp_path / "a", _use_new_zipfile_serialization=kind == "archive")
    size = (tmp_path / "a").stat().st_size
    assert size > 16_000_000
    assert peak_of(tmp_path / "a") < 3.1 * size


SCALARS = st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text()
WHOLE = st.integers(1 - 2**60, 2**60 - 1)  # larger ones are no keys
SMALL = st.integers(1 - 2**16, 2**16 - 1)
KEYS = st.text(max_size=5) | WHOLE | st.tuples(SMALL, st.text(max_size=2))
NESTED = st.recursive(
    SCALARS | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(OrderedDict)
    ),
    max_leaves=20,
)


@given(NESTED, st.sampled_from([2, 3, 4, 5]))
@settings(max_examples=60, deadline=None)
def test_nested_containers_come_as_they_are(content: object, protocol: int) -> None:
    with TemporaryDirectory() as folder:
        path = bare(Path(folder, "a.pkl"), pickle.dumps(content, protocol=protocol))
        assert repr(read(path)).replace("OrderedDict", "") == repr(plain(content))


def plain(content: object) -> object:
    """Without OrderedDicts, which are tables to the reader."""
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(plain, content))
    return content


@cache
def whole_files() -> tuple[bytes, ...]:
    """One small file of every kind, each with something in it that would be run."""
    net = build_network("ResNet", {"channels": 1, "width": 16, "depth": 1})
    state = net.state_dict()
    buffers = [BytesIO(), BytesIO()]
    nested = {"ema": {"state_dict": state}, "args": argparse.Namespace(a=[{}, (1, "x")])}
    torch.save(nested, buffers[0])
    torch.save(nested, buffers[1], _use_new_zipfile_serialization=False)
    layer = persistence.as_persistent(nn.Linear(3, 2), "Linear", (3,))
    return (*(b.getvalue() for b in buffers), persistence.dumped({"ema": layer}))


CHANGES = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=6)


@given(st.integers(0, 2), CHANGES, st.none() | st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_no_bytes_do_more_than_be_refused(
    which: int, changes: list[tuple[int, int]], cut: float | None
) -> None:
    """Cut short and changed: read or refused, in no time, with little memory, and nothing run."""
    data = bytearray(whole_files()[which])
    for place, value in changes:
        data[place % len(data)] = value
    data = data[: len(data) if cut is None else int(cut * len(data))]
    with TemporaryDirectory() as folder:
        path = bare(Path(folder, "a.pt"), bytes(data))
        start = time.monotonic()
        assert peak_of(path) < (40 << 20)
        with contextlib.suppress(InputError):
            load_denoiser(path)
        assert time.monotonic() - start < 10


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=40), st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_program_does_more_than_be_refused(names: list[str], arguments: bytes) -> None:
    codes = {opcode.name: opcode.code.encode("latin1") for opcode in pickletools.opcodes}
    parts, data = BytesIO(arguments), HEAD
    for name in names:
        data += codes[name] + parts.read(2)
    with TemporaryDirectory() as folder, contextlib.suppress(InputError):
        read(bare(Path(folder, "a.pkl"), data + b"."))


def test_small_files_do_not_become_large_or_slow(tmp_path: Path) -> None:
    """Names, sizes and keys that a few bytes make long, or that a table takes hours for."""
    text = b"a" * 1_000_000

    def word(value: bytes) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value

    start = b"\x80\x04"
    names = start + b"(" + word(text) + b"q\x00" + word(b"n") + b"q\x01"
    names += b"h\x00h\x01\x93" * 3000 + b"t."
    keys = pickle.dumps({k * (2**61 - 1): 0 for k in range(2000)}, 4)
    parts = pickle.dumps({(None,) * 100_000: 1}, 4)
    for i, content in enumerate((names, keys, parts)):
        path = tmp_path / f"{i}.pkl"
        path.write_bytes(content)
        begin = time.perf_counter()
        with pytest.raises(InputError):
            read(path)
        assert time.perf_counter() - begin < 30  # it took minutes, or all memory


def collection(data: bytes) -> bytes:
    """A table of 20,000 entries, which is remembered as 0."""
    keys = b"".join(text(f"k{i}") + b"N" for i in range(20_000))
    return b"}q\x00(" + keys + b"u" + data


ARGUMENT_LIST = b"(" + b"K\x01" * 50_000 + b"tq\x00"
STEM = text("a" * 150)
HOSTILE = {
    # 50,000 copies of a text that stands there once.
    "encoded": text("x" * 100_000) + b"q\x00" + text("latin1") + b"q\x01"
    + b"c_codecs\nencode\nh\x00h\x01\x86R" * 50_000 + b".",
    # One table is the state of many objects, each of which would have a copy of it.
    "records": collection(b"](" + b"cx\nY\n)\x81h\x00b" * 20_000 + b"e."),
    "modules": collection(b"](" + (CONV + NEW + b"h\x00b") * 20_000 + b"e."),
    # One long tuple is what many calls are given, or many storages are named by.
    "arguments": ARGUMENT_LIST + (TENSOR + b"h\x00R") * 30_000 + b".",
    "storages": b"(" + text("storage") + b"K\x01" * 50_000 + b"tq\x00" + b"h\x00Q" * 30_000 + b".",
    # A name that is no text, but a pair of pairs of pairs.
    "a name": doubled(60, b"h\x00h\x00\x93.")[len(HEAD):],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_written_once_is_not_copied_without_end(name: str, tmp_path: Path) -> None:
    path = bare(tmp_path / "a.pkl", HEAD + HOSTILE[name])
    start = time.monotonic()
    assert peak_of(path) < (32 << 20) + 4 * path.stat().st_size
    with pytest.raises(InputError):
        load_denoiser(path)
    assert time.monotonic() - start < 60  # each took minutes, or all memory


def chain(names: list[bytes], inside: bytes) -> bytes:
    """Modules, each in the one before it under the next of the names, around the innermost."""
    data = CONV + NEW + b"}" + inside
    for name in reversed(names):
        data = CONV + NEW + b"}" + text("_modules") + b"}" + name + data + b"bss"
    return HEAD + data + b"b."


def test_deep_modules_and_long_names_are_refused(tmp_path: Path) -> None:
    tensor = TENSOR + b"(" + STORAGE + b"K\x00K\x04\x85K\x01\x85\x89}tR"
    inside = text("_parameters") + b"}" + text("w") + tensor + b"ss"
    good = read(archive(tmp_path / "a.pt", chain([text("a")] * 60, inside)))
    assert isinstance(good, Module)
    assert list(good.state_dict()) == ["a." * 60 + "w"]
    with pytest.raises(InputError, match="more than 64 levels deep"):
        read(archive(tmp_path / "b.pt", chain([text("a")] * 70, inside)))
    with pytest.raises(InputError, match="the name of a weight in it has more than 1000 letters"):
        read(archive(tmp_path / "c.pt", chain([STEM] * 8, inside)))


def test_zips_of_very_many_members_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", HEAD + b"}.")
    with zipfile.ZipFile(path, "a") as file:
        for i in range(40_000):
            file.writestr(f"archive/{i}", b"")
    tracemalloc.start()
    with pytest.raises(InputError, match="far too many members"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < (8 << 20)
    tracemalloc.stop()


def test_pairs_of_large_numbers_are_no_keys(tmp_path: Path) -> None:
    """Their hashes can be made equal, by which a table takes hours to fill."""
    assert read(bare(tmp_path / "a.pkl", pickle.dumps({(1, "x"): 2}))) == {(1, "x"): 2}
    for key in ((1 << 20, 2), (0.5, 2)):
        with pytest.raises(InputError, match="looks things up by a tuple"):
            read(bare(tmp_path / "b.pkl", pickle.dumps({key: 1})))
