"""Whole modules that `torch.save` pickled, read as inert records.

A pickle is a program. This one is run on a machine that can build plain containers, describe
tensors and note class names with their state, and can do nothing else: no name in the file is ever
imported, and no code of the named classes is called.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from els.errors import InputError, reason

# Classes that may be named; instances of them become records.
_CLASSES = frozenset({
    *(f"models.{name}" for name in ("DDIM", "MinimalResNet", "MinimalUNet", "EmbeddingModule",
                                    "UBlock")),
    *(f"torch.nn.modules.{name}" for name in (
        "activation.ReLU", "container.ModuleList", "container.Sequential", "conv.Conv2d",
        "conv.ConvTranspose2d", "linear.Linear", "normalization.GroupNorm", "pooling.MaxPool2d",
        "sparse.Embedding",
    )),
})  # fmt: skip
# Functions that may be named, but not called: the noise schedule that a model was trained with.
_REFERENCE = re.compile(r"(models|utils|utils\.\w+)\.\w*noise_schedule")
_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Bool": torch.bool,
}  # fmt: skip
# What torch.save writes for a module, in every protocol. Other opcodes have no business there:
# extension codes and INST reach for classes by another road, and a large memo index takes memory.
_OPCODES = frozenset({
    "PROTO", "FRAME", "MARK", "STOP", "GLOBAL", "STACK_GLOBAL", "NEWOBJ", "REDUCE", "BUILD",
    "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM",
    "SETITEMS", "ADDITEMS", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE",
})  # fmt: skip


@dataclass(frozen=True)
class Module:
    """A module of a file: what it was called and what it held.

    Attributes:
        kind: its class, such as "torch.nn.modules.conv.Conv2d".
        attributes: everything else that was set on it; a `Reference` where that was a function.
        weights: its own parameters and buffers.
        children: its sub-modules by name.
    """

    kind: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    children: Mapping[str, Module] = field(default_factory=dict)

    def walk(self, name: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each with its dotted name."""
        yield name, self
        for child, module in self.children.items():
            yield from module.walk(f"{name}.{child}" if name else child)

    def state_dict(self) -> dict[str, Tensor]:
        """Every weight under its dotted name."""
        return {
            f"{name}.{key}" if name else key: value
            for name, module in self.walk()
            for key, value in module.weights.items()
        }


@dataclass(frozen=True)
class Reference:
    """A function or class that a file names without an instance of it."""

    name: str


def read_module(path: Path) -> Module:
    """Read a module that `torch.save(module, path)` wrote, without running anything in it.

    Raises:
        InputError: when the file is damaged or names anything but the modules of the paper's code
            and the layers that they are made of; the message says what.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            storages = _Storages(archive)
            record = _unpickle(storages.member("data.pkl"))
            return _as_module(record, storages, set())
    except _Refusal as error:
        raise InputError(f"'{path}' is not loaded: {error}") from error
    # Hostile bytes can make a parser raise anything; whatever it is, the file is not read.
    except Exception as error:
        raise InputError(
            f"'{path}' is damaged or not a pickled module, and is not loaded: "
            f"{reason(error, named=True)}"
        ) from error


class _Refusal(Exception):  # noqa: N818 - not an error of ours
    """What the file wants, and does not get."""


# --- the machine: what names stand for while the pickle is read -------------------------------


class _Sealed:
    """Something that the file may pass around but not change."""

    __slots__ = ()

    def __setstate__(self, state: object) -> NoReturn:
        raise _Refusal("it sets the state of something that is not a module")


class _Function(_Sealed):
    """One of our functions in place of the one that the file names."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)


class _Storage(_Sealed):
    """Numbers in another member of the archive."""

    __slots__ = ("count", "dtype", "key")

    def __init__(self, dtype: torch.dtype, key: str, count: int) -> None:
        self.dtype, self.key, self.count = dtype, key, count


class _Weight(_Sealed):
    """A tensor, as the file describes it."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _Record:
    """An instance of a class that has a name and nothing else; subclassed for each name."""

    __slots__ = ("state",)
    kind = ""

    def __new__(cls) -> _Record:
        record = super().__new__(cls)
        record.state = {}
        return record

    def __init__(self) -> None:  # NEWOBJ, which pickled modules use, does not come here
        raise _Refusal(f"it calls '{self.kind}'")

    def __setstate__(self, state: object) -> None:
        if type(state) is not dict or not all(type(key) is str for key in state):
            raise _Refusal(f"the state of a '{self.kind}' is not a table of attributes")
        self.state = state


def _tensor(
    storage: object,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
) -> _Weight:
    """In place of torch._utils._rebuild_tensor_v2."""
    numbers = [offset, *size, *stride]
    if type(storage) is not _Storage or not all(type(n) is int and n >= 0 for n in numbers):
        raise _Refusal("it describes a tensor by something other than a storage and sizes")
    return _Weight(storage, offset, tuple(size), tuple(stride))


def _parameter(data: object, requires_grad: object = True, hooks: object = None) -> _Weight:
    """In place of torch._utils._rebuild_parameter."""
    if type(data) is not _Weight:
        raise _Refusal("it makes a parameter of something that is not a tensor")
    return data


_ADMITTED: dict[str, object] = {
    "collections.OrderedDict": _Function(dict),
    "torch.Size": _Function(tuple),
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    **{f"{module}.{kind.__name__}": _Function(kind)
       for module in ("builtins", "__builtin__") for kind in (dict, list, set)},
    **{f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()},
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """Python's unpickler, with names that stand for inert things only."""

    def __init__(self, data: bytes) -> None:
        super().__init__(BytesIO(data))
        self._records: dict[str, type[_Record]] = {}

    def find_class(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        # A dot in the name itself would reach through an object; nothing that is saved needs it.
        if "." not in name:
            if full in _ADMITTED:
                return _ADMITTED[full]
            if full in _CLASSES or _REFERENCE.fullmatch(full):
                if full not in self._records:
                    body = {"kind": full, "__slots__": ()}
                    self._records[full] = type("_Record", (_Record,), body)
                return self._records[full]
        raise _Refusal(
            f"it names '{full}', which is no part of the paper's networks; nothing in it was run"
        )

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count)):
                return _Storage(dtype, key, count)
        raise _Refusal("it refers to something outside the file that is not a storage")


def _unpickle(data: bytes) -> _Record:
    for opcode, arg, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            what = "" if arg is None else f" '{str(arg)[:80]}'"
            raise _Refusal(f"it uses the pickle instruction {opcode.name}{what}, which saved "
                           "modules do not need")  # fmt: skip
        if opcode.name == "LONG_BINPUT" and (arg or 0) > len(data):
            raise _Refusal("it numbers more objects than it has")
    record = _Unpickler(data).load()
    if not isinstance(record, _Record):
        raise _Refusal(f"it holds a {type(record).__name__}, not a module")
    return record


# --- from records to modules ---------------------------------------------------------------------


class _Storages:
    """The members of a torch archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        roots = [n.removesuffix("data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise _Refusal(f"it is a zip of {', '.join(archive.namelist()[:5]) or 'nothing'}, "
                           "not of torch.save")  # fmt: skip
        self.root = roots[0]
        if f"{self.root}byteorder" in archive.namelist() and self.member("byteorder") != b"little":
            raise _Refusal("its numbers are big-endian; save it again on a little-endian machine")
        self._read: dict[tuple[str, torch.dtype], Tensor] = {}

    def member(self, name: str) -> bytes:
        """The bytes of a member, which torch.save never compresses."""
        info = self.archive.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise _Refusal(f"its member '{name}' is compressed, which torch.save does not do")
        return self.archive.read(info)

    def tensor(self, weight: _Weight) -> Tensor:
        """The tensor that a file describes: a view of its storage."""
        storage, count = weight.storage, 1
        for n in weight.size:
            count *= n
        if count > storage.count:  # an expanded view: small on disk, without bound in memory
            raise _Refusal(f"a tensor of size {weight.size} is larger than its storage")
        key = (storage.key, storage.dtype)
        if key not in self._read:
            data = bytearray(self.member(f"data/{storage.key}"))
            self._read[key] = torch.frombuffer(data, dtype=storage.dtype) if data else (
                torch.empty(0, dtype=storage.dtype))  # fmt: skip
        if len(self._read[key]) != storage.count:
            raise _Refusal(f"the storage '{storage.key}' does not have {storage.count} numbers")
        return self._read[key].as_strided(weight.size, weight.stride, weight.offset)


def _as_module(record: object, storages: _Storages, seen: set[int]) -> Module:
    if not isinstance(record, _Record) or id(record) in seen:
        raise _Refusal("its modules do not form a tree")
    seen.add(id(record))
    tables = {name: record.state.get(name) or {} for name in ("_parameters", "_buffers",
                                                              "_modules")}  # fmt: skip
    if not all(type(table) is dict and all(type(key) is str for key in table)
               for table in tables.values()):  # fmt: skip
        raise _Refusal(f"a '{record.kind}' does not hold its weights as modules do")
    weights = tables["_parameters"] | tables["_buffers"]
    if not all(value is None or type(value) is _Weight for value in weights.values()):
        raise _Refusal(f"a '{record.kind}' has a weight that is not a tensor")
    return Module(
        kind=record.kind,
        attributes={
            name: Reference(value.kind)
            if isinstance(value, type) and issubclass(value, _Record)
            else value
            for name, value in record.state.items()
            if not name.startswith("_")
        },
        weights={n: storages.tensor(value) for n, value in weights.items() if value is not None},
        children={
            name: _as_module(child, storages, seen)
            for name, child in tables["_modules"].items()
            if child is not None
        },
    )
