"""Pickles, read as data: archives of `torch.save` of every age, and bare pickles such as EDM's.

A pickle is a program. This one is run on a machine of its own that can build plain containers,
describe tensors and note class names with their state, and can do nothing else: no name in the
file is ever imported, and no code of the named classes, or text of their source, is run. What it
may use is counted as it goes, so that no file takes more memory than a few times its size.
"""

from __future__ import annotations

import os
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from els.errors import InputError, reason, shown
from els.models.formats.loaded import WAY_IN

# How objects of EDM's torch_utils.persistence begin in `Module.kind`; their class's name follows.
PERSISTENT = "persistent:"
# What a refusal of a pickle ends with.
ANEW = (
    ". If you trust it, load it with the PyTorch that wrote it and save its state_dict() anew. "
    f"{WAY_IN}"
)
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LEGACY = 0x1950A86A20F9469CFC6C  # the first object in a file of PyTorch before 1.6
_LEGACY_VERSION = 1001
_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
}  # fmt: skip
# Classes and functions whose call makes plain data; here it makes a record of nothing.
_PLAIN = frozenset({
    "argparse.Namespace", "builtins.complex", "builtins.range", "builtins.slice",
    "datetime.date", "datetime.datetime", "datetime.timedelta", "datetime.timezone",
    "decimal.Decimal", "fractions.Fraction", "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray._reconstruct", "numpy._core.numeric._frombuffer",
    "numpy.core.numeric._frombuffer", "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random._pickle.__generator_ctor", "pathlib.Path", "pathlib.PosixPath",
    "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "pathlib.WindowsPath",
    "pathlib._local.PosixPath", "pathlib._local.WindowsPath", "torch.Generator", "torch.device",
    "torch.serialization._get_layout", "types.SimpleNamespace", "uuid.UUID",
})  # fmt: skip
# What an object costs in memory, at most; other instructions push a pointer or a small number.
_COSTS = {"EMPTY_DICT": 240, "EMPTY_LIST": 120, "EMPTY_SET": 240, "NEWOBJ": 400, "REDUCE": 400}
_SMALL, _FREE = 64, 1 << 25  # of a pointer with what it is for, and what any file may use
_LONGEST_LIST = 1 << 20  # bytes of the list of members that any zip may have
_NUMPY_TYPES = re.compile(r"[biuf]\d{1,2}")
# An object is a key of a table where it holds no other object: hashing what holds others, which
# hold others, can take forever.
_KEYS = (str, int, float, bool, bytes, type(None))
_PARTS = (str, int, bool, bytes, type(None))  # of pairs and longer keys
# Modules in modules, and characters of the dotted name of a weight.
_DEEPEST, _LONGEST_PATH = 64, 1000
_TOO_LONG = _LONGEST_PATH + 1


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
        """Every weight under its dotted name, which `read` has kept short."""
        return {
            f"{name}.{key}" if name else key: value
            for name, module in self.walk()
            for key, value in module.weights.items()
        }


@dataclass(frozen=True)
class Reference:
    """A function or class that a file names without an instance of it."""

    name: str


@dataclass(frozen=True)
class Record:
    """Some other object of a file: its class, and what was set on it, where that is a table."""

    kind: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Any:
    """What a pickled file holds, without running anything in it.

    Args:
        path: an archive of `torch.save`, a file of PyTorch before 1.6, or a bare pickle.

    Returns:
        plain containers, numbers and strings as they are; tensors on the CPU, wherever they were;
        a `Module` for a module of any class, a `Reference` for a name, and a `Record` for any other
        object.

    Raises:
        NotPickledError: when the file is neither.
        InputError: when the file is damaged, wants something run, or would take more memory than a
            few times its size; the message says what.
    """
    with open(path, "rb") as file:
        start = file.read(16)
    budget = _Budget(path.stat().st_size)
    try:
        if start.startswith(_ZIP):
            with _Listed(FileIO(path)) as file, _opened(file) as archive:
                file.is_listed = True
                members = _Members(archive, path.stat().st_size)
                content = _run(BytesIO(members.member("data.pkl")), budget)
                return _Resolver(members, budget).resolve(content)
        if start[:1] == _PICKLE:
            return _read_stream(path.read_bytes(), budget)
    except NotPickledError as error:
        raise NotPickledError(f"'{path}' is damaged or not a checkpoint: {error}") from error
    except _Refusal as error:
        raise InputError(f"'{path}' is not loaded: {error}{ANEW}") from error
    # Hostile bytes can make a parser raise anything; whatever it is, the file is not read.
    except Exception as error:
        raise InputError(
            f"'{path}' is damaged or not a pickled module, and is not loaded: "
            f"{reason(error, named=True)}"
        ) from error
    size = path.stat().st_size
    what = f"{size} bytes that start with {start!r}" if size else "an empty file"
    raise NotPickledError(f"'{path}' is damaged or not a checkpoint: {what}")


class NotPickledError(InputError):
    """A file is neither an archive of `torch.save` nor a pickle."""


class _Refusal(Exception):  # noqa: N818 - not an error of ours
    """What the file wants, and does not get."""


class _Budget:
    """The bytes of memory that reading a file may take beside the file itself."""

    def __init__(self, size: int) -> None:
        self.left = _FREE + 2 * size

    def pay(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise _Refusal("it would take far more memory than it has bytes")


class _Listed(BufferedReader):
    """A zip whose list of members, each of which becomes an object, is no longer than it may be."""

    is_listed = False

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.BufferedReader.read`."""
        if (
            not self.is_listed
            and (size or 0) > _LONGEST_LIST + os.fstat(self.fileno()).st_size // 32
        ):
            raise _Refusal("it has far too many members")
        return super().read(size)


def _opened(file: _Listed) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except _Refusal:
        raise
    except Exception as error:  # a damaged list of its members can raise anything
        size, whole = os.fstat(file.fileno()).st_size, zipfile.is_zipfile(file)
        what = (
            "whose list of members is damaged"
            if whole
            else "without its end, as of a copy cut short"
        )
        raise NotPickledError(f"{size} bytes of a zip {what}") from error


def _read_stream(data: bytes, budget: _Budget) -> Any:
    """What a file that is no archive holds: several pickles and numbers, or one pickle."""
    stream = BytesIO(data)
    first = _run(stream, budget)
    if first != _LEGACY or type(first) is not int:
        del data, stream  # the numbers stand in the pickle itself
        return _Resolver(None, budget).resolve(first)
    return _Resolver(None, budget).resolve(_legacy(stream, budget))


# --- what stands for the objects of the file while it is read -----------------------------------


class _Class:
    """A name of the file."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Instance:
    """An instance of a class that has a name and nothing else."""

    __slots__ = ("items", "kind", "state")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.state: Any = {}
        self.items: dict[Any, Any] = {}


class _Builder:
    """A function of ours in place of the one that the file names."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


class _Storage:
    """Numbers elsewhere: in another member of the archive, or in a part of the file."""

    __slots__ = ("bytes", "count", "dtype", "key")

    def __init__(self, dtype: torch.dtype, key: str, count: int) -> None:
        self.dtype, self.key, self.count = dtype, key, count
        self.bytes: memoryview | None = None


class _Weight:
    """A tensor, as the file describes it."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class _NumpyType:
    """A type of numpy's numbers: "f8", and ">" where they are big-endian."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        if type(code) is not str or not _NUMPY_TYPES.fullmatch(code):
            code = ""
        self.code, self.order = code, "<"


def _tensor(storage: object, offset: Any, size: Any, stride: Any, *_: object) -> _Weight:
    """In place of torch._utils._rebuild_tensor_v2 and its predecessor."""
    sizes = all(
        type(one) in (tuple, list) and len(one) <= _MOST_DIMENSIONS for one in (size, stride)
    )
    numbers = [offset, *size, *stride] if sizes else [None]
    whole = all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)
    if type(storage) is not _Storage or not whole:
        raise _Refusal("it describes a tensor by something other than a storage and sizes")
    return _Weight(storage, offset, tuple(size), tuple(stride))


def _parameter(data: object, *_: object) -> _Weight:
    """In place of torch._utils._rebuild_parameter."""
    if type(data) is not _Weight:
        raise _Refusal("it makes a parameter of something that is not a tensor")
    return data


def _number(kind: object, data: object) -> object:
    """In place of numpy's constructor of a single number."""
    if type(kind) is not _NumpyType or not kind.code or type(data) is not bytes:
        return _Instance("numpy.generic")
    return np.frombuffer(data, kind.order + kind.code, count=1)[0].item()


def _persistent(meta: object) -> object:
    """In place of EDM's torch_utils.persistence, which would execute the source in `meta`."""
    if type(meta) is not dict or type(meta.get("class_name")) is not str:
        raise _Refusal("an object of torch_utils.persistence in it does not say its class")
    if len(meta["class_name"]) > _LONGEST_NAME:
        raise _Refusal("the name of a class in it is too long")
    instance = _Instance(PERSISTENT + meta["class_name"])
    instance.state = meta.get("state")
    return instance


def _encoded(text: object, encoding: object) -> bytes:
    """In place of _codecs.encode, by which the older protocols write bytes."""
    if type(text) is not str or encoding != "latin1":
        raise _Refusal("it encodes text otherwise than pickles do")
    return text.encode("latin1")


def _bytes(data: object = b"") -> bytes:
    if type(data) is not bytes:  # a number would be so many zeros
        raise _Refusal("it makes bytes of something else")
    return data


def _table(items: object = ()) -> dict[Any, Any]:
    pairs = items.items() if type(items) is dict else items
    table: dict[Any, Any] = {}
    for key, value in pairs:  # type: ignore[attr-defined]
        table[_as_key(key)] = value
    return table


def _listed(items: Any = ()) -> list[Any]:
    return list(items)


def _joined(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


def _set(items: Any = ()) -> set[Any]:
    return {_as_key(item) for item in items}


def _default_table(factory: object = None, items: object = ()) -> dict[Any, Any]:
    return _table(items)


def _as_key(key: Any) -> Any:
    together = type(key) is tuple and len(key) <= _MOST_PARTS
    # Larger numbers, and pairs of large ones, can all have one hash: a table takes hours to fill.
    bits, kinds = (16, _PARTS) if together else (60, _KEYS)
    parts = key if together else (key,)
    if all(type(part) in kinds and not (type(part) is int and abs(part) >> bits) for part in parts):
        return key
    raise _Refusal(f"it looks things up by a {type(key).__name__}, which saved networks do not")


_LONGEST_NAME, _MOST_DIMENSIONS, _MOST_PARTS, _MOST_ARGUMENTS = 200, 16, 8, 100
_RECONSTRUCT = "torch_utils.persistence._reconstruct_persistent_obj"
_BUILDERS: dict[str, object] = {
    "collections.OrderedDict": _Builder(_table),
    "collections.Counter": _Builder(_table),
    "collections.defaultdict": _Builder(_default_table),
    "torch.Size": _Builder(_joined),
    "torch._utils._rebuild_tensor": _Builder(_tensor),
    "torch._utils._rebuild_tensor_v2": _Builder(_tensor),
    "torch._utils._rebuild_parameter": _Builder(_parameter),
    "torch._utils._rebuild_parameter_with_state": _Builder(_parameter),
    "_codecs.encode": _Builder(_encoded),
    "numpy.dtype": _Builder(_NumpyType),
    **{f"numpy.{core}.multiarray.scalar": _Builder(_number) for core in ("core", "_core")},
    **{f"builtins.{name}": _Builder(function)
       for name, function in (("dict", _table), ("list", _listed), ("set", _set),
                              ("frozenset", _set), ("bytes", _bytes), ("bytearray", _bytes))},
    **{f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()},
}  # fmt: skip
_BUILDERS[_RECONSTRUCT] = _Builder(_persistent)
_COPYING = (_table, _listed, _joined, _set, _default_table)


# --- the machine ------------------------------------------------------------------------------


class _Machine:
    """The stack, the memo and the marks of a pickle that is being read."""

    def __init__(self, size: int, budget: _Budget, *, inner: bool) -> None:
        self.size, self.inner, self.budget = size, inner, budget
        self.pay = budget.pay
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[tuple[str, torch.dtype], _Storage] = {}
        self.bytes_read: dict[int, tuple[bytes, _Storage]] = {}

    def run(self, opcodes: Iterator[tuple[Any, Any, int | None]]) -> Any:
        """What the instructions leave."""
        for opcode, arg, _ in opcodes:
            self.pay(_COSTS.get(opcode.name, _SMALL) + (sys.getsizeof(arg) if arg else 0))
            if opcode.name == "STOP":
                return self.stack.pop()
            step = _STEPS.get(opcode.name)
            if step is None:
                what = "" if arg is None else f" {shown(arg)}"
                raise _Refusal(
                    f"it uses the pickle instruction {opcode.name}{what}, which saved "
                    "modules do not need"
                )
            step(self, arg)
        raise EOFError("it ends too early")

    def to_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_tuple(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise IndexError("the stack is empty")
        self.stack[-count:] = [items]

    def remember(self, index: int | None) -> None:
        index = len(self.memo) if index is None else index
        if index > self.size:
            raise _Refusal("it numbers more objects than it has")
        self.memo[index] = self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        if not all(type(part) is str and len(part) <= _LONGEST_NAME for part in (module, name)):
            raise _Refusal("a name in it is too long, or no text")
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        # A dot in the name itself would reach through an object; nothing that is saved needs it.
        if "." in name:
            raise _unknown(full)
        if full.endswith(_RECONSTRUCT):  # some repositories have it in a package of their own
            full = _RECONSTRUCT
        self.stack.append(_BUILDERS.get(full) or _Class(full))

    def set_items(self, pairs: list[Any]) -> None:
        table = self.stack[-1]
        table = table.items if type(table) is _Instance else table
        if type(table) is not dict or len(pairs) % 2:
            raise TypeError(f"a {type(table).__name__} has no items")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            table[_as_key(key)] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(map(_as_key, items))
        elif type(target) is not _Instance:
            raise TypeError(f"nothing can be added to a {type(target).__name__}")

    def new(self) -> None:
        _, kind = self.stack.pop(), self.stack.pop()
        if type(kind) is not _Class:
            raise TypeError("it makes an instance of something that is not a class")
        self.stack.append(_Instance(kind.name))

    def call(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if type(args) is not tuple or len(args) > _MOST_ARGUMENTS:
            raise TypeError("it calls something without arguments, or with far too many")
        if type(function) is _Builder:
            if function.function in _COPYING:
                self.pay(sum(len(arg) * _SMALL for arg in args if hasattr(arg, "__len__")))
            made = function.function(*args)
            self.pay(sys.getsizeof(made))
            self.stack.append(made)
        elif type(function) is _Class and function.name == _FROM_BYTES and not self.inner:
            (data,) = args
            self.stack.append(self.storage_in(data))
        elif type(function) is _Class and function.name in _PLAIN:
            self.stack.append(_Instance(function.name))
        elif type(function) is _Class and _is_network(function.name):
            if args:
                raise TypeError(f"a '{function.name}' is not made of arguments")
            raise _Refusal(f"it calls '{function.name}'")
        else:
            raise _unknown(getattr(function, "name", type(function).__name__))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _Instance:
            self.pay(8 * len(state) if type(state) is dict else 0)  # may be looked at many times
            table = type(state) is dict and all(type(key) is str for key in state)
            if not table and _is_network(target.kind):
                raise _Refusal(f"the state of a '{target.kind}' is not a table of attributes")
            target.state = state
        elif type(target) is _NumpyType:
            target.order = ">" if type(state) is tuple and state[1:2] == (">",) else "<"
        elif type(target) is _Class:
            raise TypeError("it sets the state of a class")
        elif type(target) is not dict:  # a table of weights has metadata, which nothing here needs
            raise _Refusal("it sets the state of something that is not a module")

    def outside(self, pid: Any) -> None:
        if type(pid) is not tuple or len(pid) > _MOST_PARTS:
            raise _Refusal("it refers to something outside the file that is not a storage")
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count), *view):
                storage = self.storages.setdefault((key, dtype), _Storage(dtype, key, count))
                if storage.count != count or any(view):
                    raise _Refusal(f"it says two things of the storage {shown(key)}")
                self.stack.append(storage)
            case ("module", _Class() as kind, *_):  # PyTorch before 1.6, with the class's source
                self.stack.append(kind)
            case _:
                raise _Refusal("it refers to something outside the file that is not a storage")

    def storage_in(self, data: Any) -> _Storage:
        """The storage in bytes that torch.storage._load_from_bytes would read, once for each."""
        if type(data) is not bytes:
            raise _Refusal("it makes a storage of something that is not bytes")
        if id(data) not in self.bytes_read:
            stream = BytesIO(data)
            if _run(stream, self.budget, inner=True) != _LEGACY:
                raise _Refusal("a storage in it is not written as storages are")
            storage = _legacy(stream, self.budget)
            if type(storage) is not _Storage:
                raise _Refusal("a storage in it is something else")
            self.bytes_read[id(data)] = data, storage
        return self.bytes_read[id(data)][1]


_FROM_BYTES = "torch.storage._load_from_bytes"
_CONSTANTS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINUNICODE8",
              "SHORT_BINUNICODE", "BINBYTES", "BINBYTES8", "SHORT_BINBYTES")  # fmt: skip
# What torch.save and EDM write, in every protocol. Other instructions have no business there:
# extension codes and INST reach for classes by another road.
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, arg: None,
    "FRAME": lambda machine, arg: None,
    "NONE": lambda machine, arg: machine.push(None),
    "NEWTRUE": lambda machine, arg: machine.push(True),
    "NEWFALSE": lambda machine, arg: machine.push(False),
    **dict.fromkeys(_CONSTANTS, lambda machine, arg: machine.push(arg)),
    "BYTEARRAY8": lambda machine, arg: machine.push(bytes(arg)),
    "MARK": lambda machine, arg: machine.marks.append(len(machine.stack)),
    "EMPTY_DICT": lambda machine, arg: machine.push({}),
    "EMPTY_LIST": lambda machine, arg: machine.push([]),
    "EMPTY_SET": lambda machine, arg: machine.push(set()),
    "EMPTY_TUPLE": lambda machine, arg: machine.push(()),
    "TUPLE": lambda machine, arg: machine.push(tuple(machine.to_mark())),
    "TUPLE1": lambda machine, arg: machine.push_tuple(1),
    "TUPLE2": lambda machine, arg: machine.push_tuple(2),
    "TUPLE3": lambda machine, arg: machine.push_tuple(3),
    "FROZENSET": lambda machine, arg: machine.push(_set(machine.to_mark())),
    "APPEND": lambda machine, arg: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, arg: machine.append(machine.to_mark()),
    "ADDITEMS": lambda machine, arg: machine.append(machine.to_mark()),
    "SETITEM": lambda machine, arg: machine.set_items(
        [machine.stack.pop(), machine.stack.pop()][::-1]
    ),
    "SETITEMS": lambda machine, arg: machine.set_items(machine.to_mark()),
    "BINGET": lambda machine, arg: machine.push(machine.memo[arg]),
    "LONG_BINGET": lambda machine, arg: machine.push(machine.memo[arg]),
    "BINPUT": lambda machine, arg: machine.remember(arg),
    "LONG_BINPUT": lambda machine, arg: machine.remember(arg),
    "MEMOIZE": lambda machine, arg: machine.remember(None),
    "GLOBAL": lambda machine, arg: machine.name(*arg.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, arg: machine.name(
        *[machine.stack.pop(), machine.stack.pop()][::-1]
    ),
    "NEWOBJ": lambda machine, arg: machine.new(),
    "REDUCE": lambda machine, arg: machine.call(),
    "BUILD": lambda machine, arg: machine.build(),
    "BINPERSID": lambda machine, arg: machine.outside(machine.stack.pop()),
}  # fmt: skip
_NETWORK = re.compile(
    r"torch\.nn\.modules\.\w+\.\w+|models\.(DDIM|MinimalResNet|MinimalUNet|EmbeddingModule|UBlock)|"
    r"(models|utils|utils\.\w+)\.\w*noise_schedule"
)


def _is_network(name: str) -> bool:
    """Whether it is a part of PyTorch's or of the paper's networks, which are never called."""
    return _NETWORK.fullmatch(name) is not None


def _unknown(name: str) -> _Refusal:
    return _Refusal(
        f"it names {shown(name)}, which is no part of the networks known here, and calls it; "
        "nothing in it was run"
    )


def _run(stream: BytesIO, budget: _Budget, *, inner: bool = False) -> Any:
    """What the next pickle of a stream leaves, after which the stream stands behind it."""
    machine = _Machine(len(stream.getvalue()), budget, inner=inner)
    return machine.run(pickletools.genops(stream))


def _legacy(stream: BytesIO, budget: _Budget) -> Any:
    """The object in a file of PyTorch before 1.6, behind its first number.

    After it stand the names of its storages, and then, for each of them, how many numbers it has
    in 8 bytes, and the numbers.
    """
    if _run(stream, budget) != _LEGACY_VERSION:
        raise _Refusal("it is of another version of PyTorch's files before 1.6")
    about, data = _run(stream, budget), stream.getvalue()
    if type(about) is not dict or about.get("little_endian") is not True:
        raise _Refusal(_BIG_ENDIAN)
    machine = _Machine(len(data), budget, inner=True)
    content, keys = machine.run(pickletools.genops(stream)), _run(stream, budget)
    storages = {storage.key: storage for storage in machine.storages.values()}
    for key in keys:
        storage = storages[key]
        count, start = int.from_bytes(stream.read(8), "little"), stream.tell()
        stop = start + count * storage.dtype.itemsize
        if count != storage.count or stop > len(data):
            raise _Refusal(f"the storage {shown(key)} does not have {storage.count} numbers")
        storage.bytes = memoryview(data)[start:stop]
        stream.seek(stop)
    return content


# --- from what stands for them to tensors and modules -------------------------------------------


class _Members:
    """The members of an archive of `torch.save`."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive, self.left = archive, size
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise NotPickledError(f"a zip of {', '.join(map(shown, names[:5])) or 'nothing'}")
        self.root = roots[0]
        if f"{self.root}byteorder" in names and self.member("byteorder") != b"little":
            raise _Refusal(_BIG_ENDIAN)

    def member(self, name: str) -> bytes:
        """The bytes of a member, which torch.save never compresses."""
        info = self.archive.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise _Refusal(f"its member {shown(name)} is compressed, which torch.save does not do")
        self.left -= info.file_size
        if self.left < 0:
            raise _Refusal("its members have more bytes than the file")
        if not info.CRC:  # PyTorch leaves it out when it is told to
            del info.CRC
        return self.archive.read(info)


_BIG_ENDIAN = "its numbers are big-endian; save it again on a little-endian machine"


class _Resolver:
    """Turns what the machine left into plain data, tensors, modules and records."""

    def __init__(self, members: _Members | None, budget: _Budget) -> None:
        self.members, self.pay = members, budget.pay
        self._numbers: dict[int, Tensor] = {}
        # By the identity of what stands for an object, which is kept so that no other takes it.
        self._done: dict[int, tuple[Any, Any]] = {}

    def resolve(self, value: Any) -> Any:
        """The object that `value` stands for; shared ones once, so that no file takes forever."""
        if type(value) in (str, int, float, bool, bytes, type(None), set):
            return value
        if id(value) not in self._done:
            if type(value) in (dict, list):
                self._done[id(value)] = value, value  # they may hold themselves
            self._done[id(value)] = value, self._made(value)
        return self._done[id(value)][1]

    def _made(self, value: Any) -> Any:
        match value:
            case dict():
                for key, one in value.items():
                    value[key] = self.resolve(one)
                return value
            case list():
                value[:] = map(self.resolve, value)
                return value
            case tuple():
                return tuple(map(self.resolve, value))
            case _Weight():
                return self.tensor(value)
            case _Instance():
                return self._instance(value)
            case _Class():
                return Reference(value.name)
        return Record(type(value).__name__.strip("_"))

    def tensor(self, weight: _Weight) -> Tensor:
        """The tensor that a file describes: a view of its storage."""
        storage, count = weight.storage, 1
        for n in weight.size:
            count *= n
        if count > storage.count:  # an expanded view: small on disk, without bound in memory
            raise _Refusal(f"a tensor of size {weight.size} is larger than its storage")
        if id(storage) not in self._numbers:
            self._numbers[id(storage)] = self._storage(storage)
        numbers = self._numbers[id(storage)]
        if len(numbers) != storage.count:
            raise _Refusal(
                f"the storage {shown(storage.key)} does not have {storage.count} numbers"
            )
        return numbers.as_strided(weight.size, weight.stride, weight.offset)

    def _storage(self, storage: _Storage) -> Tensor:
        self.pay(storage.count * storage.dtype.itemsize)
        if storage.bytes is not None:
            data = bytearray(storage.bytes)
        elif self.members is not None:
            data = bytearray(self.members.member(f"data/{storage.key}"))
        else:
            raise _Refusal(f"the storage {shown(storage.key)} is not in it")
        return (
            torch.frombuffer(data, dtype=storage.dtype)
            if data
            else (torch.empty(0, dtype=storage.dtype))
        )

    def _instance(self, instance: _Instance) -> Any:
        state = instance.state if type(instance.state) is dict else {}
        if _is_network(instance.kind) or "_parameters" in state or "_modules" in state:
            return self._module(instance, set())
        if instance.items:
            return self.resolve(instance.items)
        self.pay(_SMALL * len(state))
        table = {name: self.resolve(value) for name, value in state.items() if type(name) is str}
        return Record(instance.kind, table)

    def _module(self, instance: object, known: set[int], path: str = "", depth: int = 0) -> Module:
        """The module that an instance stands for.

        Args:
            instance: what should stand for one.
            known: the identities of those that were met before: each has one place.
            path: its dotted name.
            depth: how many are above it.
        """
        if not isinstance(instance, _Instance) or id(instance) in known:
            raise _Refusal("its modules do not form a tree")
        if depth > _DEEPEST:
            raise _Refusal(f"its modules are more than {_DEEPEST} levels deep")
        known.add(id(instance))
        kind = instance.kind.removeprefix(PERSISTENT)
        state = instance.state if type(instance.state) is dict else {}
        parameters, buffers, modules = (
            state.get(name) or {} for name in ("_parameters", "_buffers", "_modules")
        )
        if not all(
            type(table) is dict and all(type(key) is str for key in table)
            for table in (parameters, buffers, modules)
        ):
            raise _Refusal(f"a '{kind}' does not hold its weights as modules do")
        self.pay(_SMALL * sum(map(len, (state, parameters, buffers, modules))))
        weights = parameters | buffers
        self._pay_names(path, weights)
        if not all(value is None or type(value) is _Weight for value in weights.values()):
            raise _Refusal(f"a '{kind}' has a weight that is not a tensor")
        return Module(
            kind=instance.kind,
            attributes={
                name: self.resolve(value)
                for name, value in state.items()
                if not str(name).startswith("_") or name in ("_init_args", "_init_kwargs")
            },
            weights={n: self.tensor(value) for n, value in weights.items() if value is not None},
            children={
                name: self._module(child, known, f"{path}.{name}"[:_TOO_LONG], depth + 1)
                for name, child in modules.items()
                if child is not None
            },
        )

    def _pay_names(self, path: str, weights: Mapping[str, Any]) -> None:
        """Refuse names of weights that a file could make much longer than it is."""
        for name in weights:
            length = len(path) + len(name)
            if length > _LONGEST_PATH:
                raise _Refusal(f"the name of a weight in it has more than {_LONGEST_PATH} letters")
            self.pay(_SMALL + length)
