"""Files that would run something, or ask for too much, are refused and do nothing."""

import builtins
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import paper_code
import pytest
import torch

from els.errors import InputError
from els.models.checkpoints import load_denoiser
from els.models.formats.pickled import read_module

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
        read_module(tmp_path / "a.pt")
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
    (HEAD + b"}.", "it holds a dict, not a module"),
    (HEAD + CONV + b".", "it holds a type, not a module"),
    (HEAD + b"\x82\x01.", "the pickle instruction EXT1"),
    (HEAD + b"Nr\xff\xff\xff\x7f.", "numbers more objects than it has"),
    (HEAD + b"Kc", "is damaged"),
])  # fmt: skip
def test_odd_pickles_are_refused_with_a_reason(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_module(archive(tmp_path / "a.pt", data))


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
    good = read_module(archive(tmp_path / "good.pt", weight(b"K\x04\x85", b"K\x01\x85")))
    assert torch.equal(good.state_dict()["w"], torch.zeros(4))
    with pytest.raises(InputError, match=message):
        read_module(archive(tmp_path / "a.pt", data))


def test_modules_that_hold_themselves_and_packed_members_are_refused(tmp_path: Path) -> None:
    itself = HEAD + CONV + NEW + b"q\x01}" + text("_modules") + b"}" + text("a") + b"h\x01ssb."
    with pytest.raises(InputError, match="do not form a tree"):
        read_module(archive(tmp_path / "a.pt", itself))
    good = weight(b"K\x04\x85", b"K\x01\x85")
    with pytest.raises(InputError, match=r"'data\.pkl' is compressed"):
        read_module(archive(tmp_path / "b.pt", good, compress=True))
    with pytest.raises(InputError, match="does not have 4 numbers"):
        read_module(archive(tmp_path / "c.pt", good, numbers=3))


def test_what_was_set_on_a_module_comes_through(tmp_path: Path) -> None:
    module = read_module(paper_code.save_whole(paper_code.unet(num_classes=4), tmp_path / "a.pt"))
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
            read_module(tmp_path / "b.pt")
        except InputError:
            refused += 1
    assert 30 < refused < 300
