"""Pickles as EDM's torch_utils.persistence writes them, of this project's own networks."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from torch import nn

from els.models.edm import Preconditioned

SOURCE = "raise SystemExit('the source in this pickle was executed')\n"
_BOOKKEEPING = ("_backward_hooks", "_forward_hooks", "_non_persistent_buffers_set")


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise SystemExit("the reader called torch_utils.persistence")


class Persistent:
    """An object that pickles as one of torch_utils.persistence of some class."""

    def __init__(self, class_name: str, state: dict) -> None:
        self.class_name, self.state = class_name, state

    def __reduce__(self) -> tuple:
        meta = {"type": "class", "version": 6, "module_src": SOURCE}
        meta |= {"class_name": self.class_name, "state": self.state}
        return _reconstruct_persistent_obj, (meta,)


def as_persistent(
    module: nn.Module, class_name: str, args: tuple = (), kwargs: dict | None = None
) -> Persistent:
    """A module with all that is in it, and what it was built from."""
    children = {
        name: as_persistent(child, type(child).__name__) for name, child in module.named_children()
    }
    state = {
        "training": False,
        "_parameters": dict(module._parameters),
        "_buffers": dict(module._buffers),
        "_modules": children,
        **{name: getattr(module, name) for name in _BOOKKEEPING},
        "_init_args": args,
        "_init_kwargs": kwargs or {},
    }
    return Persistent(class_name, state)


def network(net: Preconditioned, *, by_place: bool = False, **changes: object) -> Persistent:
    """A whole network as EDM saves it; `changes` are of its UNet's arguments."""
    config, kind = net.config, type(net).__name__
    named = {
        "img_resolution": config["size"],
        "in_channels": net.channels,
        "out_channels": net.answers * net.channels,
        "label_dim": net.num_classes or 0,
        **config["arguments"],
        "dropout": 0.1,
        "label_dropout": net.label_dropout,
        **changes,
    }
    places = ("img_resolution", "in_channels", "out_channels", "label_dim") if by_place else ()
    args = tuple(named.pop(name) for name in places)
    whole = as_persistent(net, kind, (), {"model_type": config["unet"], "use_fp16": True})
    whole.state["_modules"]["model"] = as_persistent(net.model, config["unet"], args, named)
    constants = ("sigma_min", "sigma_max", "sigma_data", "beta_d", "beta_min", "M", "C_1", "C_2")
    whole.state |= {name: config[name] for name in constants if name in config}
    return whole


@contextmanager
def _as_in_edm() -> Iterator[None]:
    modules = {name: ModuleType(name) for name in ("torch_utils", "torch_utils.persistence")}
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    with patch.dict(sys.modules, modules):
        yield


def dumped(content: object, protocol: int = 4) -> bytes:
    with _as_in_edm():
        return pickle.dumps(content, protocol=protocol)


def save(path: Path, content: object) -> Path:
    path.write_bytes(dumped(content))
    return path
