"""Networks that come out of Python of the user's own: `python:my_net.py:load`.

This is the one way in that runs code, and it runs the user's: everything else here is read as data.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

from els.adapters import Adapted, Sigmas
from els.errors import InputError, reason
from els.models.adapted import AdaptedNetwork
from els.models.formats.loaded import Asked, Declared, Loaded

PREFIX = "python:"
_FUNCTION = "load"
_ADAPTERS = "els.adapters.from_eps, from_v, from_x0 or from_edm"


def is_code(source: str) -> bool:
    """Whether this names a function of Python, not a path."""
    return source.startswith(PREFIX)


def code_name(source: str) -> str:
    """The name of the file or module, for a run's folder.

    Raises:
        InputError: when nothing is named.
    """
    return Path(_parse(source)[0]).name.removesuffix(".py").rpartition(".")[2]


def load(source: str, asked: Asked) -> Loaded:
    """The network that a function such as "python:my_net.py:load" returns. Runs that code.

    Args:
        source: a file or an importable module, and a function of it without arguments; default:
            `load`.
        asked: its padding, which no function says; nothing else of it is open.

    Raises:
        InputError: when there is no such file, module or function, its code fails, or what it
            returns does not come from `els.adapters`.
    """
    where, name = _parse(source)
    module = _module(where)
    function = getattr(module, name, None)
    if not callable(function):
        found = [
            key
            for key, one in vars(module).items()
            if inspect.isfunction(one) and one.__module__ == module.__name__
        ]
        raise InputError(
            f"'{where}' has no function '{name}'; it has {', '.join(found[:5]) or 'none'}"
        )
    try:
        adapted = function()
    except (Exception, SystemExit) as error:
        why = reason(error, named=True, length=200)
        raise InputError(f"{name}() of '{where}' failed: {why}") from error
    if not isinstance(adapted, Adapted):
        raise InputError(
            f"{name}() of '{where}' returned a {type(adapted).__name__}; it must return what "
            f"{_ADAPTERS} gives"
        )
    return _loaded(adapted, asked, f"{name}() of '{where}'", _digest(module))


def _loaded(adapted: Adapted, asked: Asked, where: str, code: str) -> Loaded:
    if told := [
        key for key in ("weights", "prediction", "schedule", "image_range") if getattr(asked, key)
    ]:
        raise InputError(
            f"--{told[0]} was given, but the code of {where} says what its network is; leave "
            f"--{told[0]} out"
        )
    schedule = adapted.noise.words
    prediction = "D(y; sigma)" if isinstance(adapted.noise, Sigmas) else adapted.prediction
    net = AdaptedNetwork(
        adapted,
        padding=asked.padding or "zeros",
        details=f"{prediction} over {schedule}",
        code=code,
    )
    assert adapted.image_shape is not None  # else the network had refused it
    return Loaded(
        net=net,
        image_shape=adapted.image_shape,
        declared=Declared("Python", prediction, schedule, adapted.image_range),
        notes=(f"{where} was run: python: runs your own code",),
    )


def _parse(source: str) -> tuple[str, str]:
    """The file or module, and the function."""
    rest = source.removeprefix(PREFIX)
    where, colon, name = rest.rpartition(":")
    if not colon:
        where, name = rest, _FUNCTION
    if not where or not name.isidentifier():
        raise InputError(
            f"'{source}' names no function; write {PREFIX}my_net.py:load, or "
            f"{PREFIX}package.module:load"
        )
    return where, name


def _module(where: str) -> ModuleType:
    """A file or a module, run with what lies beside it in reach, as Python itself would.

    It stays in reach: functions import when they are called, too.
    """
    path = Path(where)
    beside = path.resolve().parent if path.suffix == ".py" else Path.cwd()
    if path.suffix == ".py" and not path.is_file():
        raise InputError(f"there is no file '{where}', which {PREFIX}{where} would run")
    sys.path.insert(0, str(beside))
    try:
        return _run(path) if path.suffix == ".py" else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        why = reason(error, named=True, length=200)
        raise InputError(f"'{where}' cannot be run: {why}") from error


def _run(path: Path) -> ModuleType:
    name = f"els_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _digest(module: ModuleType) -> str:
    """SHA-256 of the text of the file."""
    path = getattr(module, "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
