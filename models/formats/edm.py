"""Pickles of EDM (NVlabs/edm), and of the repositories that keep its format.

They hold whole objects of torch_utils.persistence: the class's name, the text of its source, and
its state with the constructor's arguments. The source is not looked at. The network is built anew
from the arguments, and takes the weights by their names.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch

from els.errors import InputError, shown
from els.models.edm import PRECONDITIONINGS, Preconditioned
from els.models.edm_unets import UNETS
from els.models.formats.loaded import WAY_IN, Asked, Declared, Loaded, choose, explained, note_of
from els.models.formats.pickled import PERSISTENT, Module
from els.models.networks import fill

_FORMAT = "EDM pickle"
# Where the averaged network is in what training saves as network-snapshot, and the one that is
# trained in its training-state.
_PLACES = {"ema": "ema", "net": "online"}
# The constructors' arguments in order, for those that are given by place.
_COMMON = ("img_resolution", "img_channels", "label_dim", "use_fp16")
_COMMON_OF_UNETS = (
    "img_resolution",
    "in_channels",
    "out_channels",
    "label_dim",
    "augment_dim",
    "model_channels",
    "channel_mult",
    "channel_mult_emb",
    "num_blocks",
    "attn_resolutions",
    "dropout",
    "label_dropout",
)
_ORDER = {
    "EDMPrecond": (*_COMMON, "sigma_min", "sigma_max", "sigma_data", "model_type"),
    "VPPrecond": (*_COMMON, "beta_d", "beta_min", "M", "epsilon_t", "model_type"),
    "VEPrecond": (*_COMMON, "sigma_min", "sigma_max", "model_type"),
    "iDDPMPrecond": (*_COMMON, "C_1", "C_2", "M", "model_type"),
    "SongUNet": (
        *_COMMON_OF_UNETS,
        "embedding_type",
        "channel_mult_noise",
        "encoder_type",
        "decoder_type",
        "resample_filter",
    ),
    "DhariwalUNet": _COMMON_OF_UNETS,
}
_MOST = 65_536  # of any number that says how many


def claims(content: object) -> bool:
    """Whether a file holds objects of torch_utils.persistence."""
    parts = [content, *content.values()] if isinstance(content, dict) else [content]
    return any(isinstance(one, Module) and one.kind.startswith(PERSISTENT) for one in parts)


def load(content: Any, asked: Asked) -> Loaded:
    """The network in a pickle of EDM.

    Args:
        content: as `els.models.formats.pickled.read` gives it.
        asked: `weights` decides where there is more than one network.

    Raises:
        InputError: when its classes or their arguments are unknown, or its weights do not fit.
    """
    found = _networks(content)
    chosen = choose("ema" in found, "online" in found, asked.weights)
    precond = found[chosen]
    kind = precond.kind.removeprefix(PERSISTENT)
    if kind not in PRECONDITIONINGS:
        raise InputError(
            f"it holds a network of the class {shown(kind)}; of EDM's, "
            f"{', '.join(PRECONDITIONINGS)} can be read. {WAY_IN}"
        )
    net = _build(precond, kind)
    fill(net, precond.state_dict())
    size = net.config["size"]
    levels = f"sigma {net.sigma_min:.4g} to {net.sigma_max:.4g}"
    return Loaded(
        net=net,
        image_shape=(net.channels, size, size),
        declared=Declared(_FORMAT, "D(y; sigma)", levels, weights=chosen),
        notes=(note_of(chosen, f"from an {_FORMAT}", others=len(found) > 1),),
    )


def _networks(content: Any) -> dict[str, Module]:
    """The networks of a file by which weights they have."""
    if isinstance(content, Module):
        return {"ema": content}
    found = {
        which: content[key]
        for key, which in _PLACES.items()
        if isinstance(content.get(key), Module)
    }
    if not found:
        (key, first), *_ = ((key, one) for key, one in content.items() if isinstance(one, Module))
        raise InputError(
            f"its {shown(key)} is of the class "
            f"{shown(first.kind.removeprefix(PERSISTENT))}; the network of an EDM pickle "
            f"stands under {' or '.join(_PLACES)}. {WAY_IN}"
        )
    return found


def _build(precond: Module, kind: str) -> Preconditioned:
    """The network on the meta device, without weights."""
    unet = precond.children.get("model")
    name = "" if unet is None else unet.kind.removeprefix(PERSISTENT)
    if unet is None or name not in UNETS:
        raise InputError(
            f"its {kind} is around a network of the class {shown(name)}; of EDM's, "
            f"{', '.join(UNETS)} can be read. {WAY_IN}"
        )
    outer, inner = _arguments(precond, kind), _arguments(unet, name)
    shape = _whole(inner, "img_resolution"), _whole(inner, "in_channels")
    classes, dropout = _whole(inner, "label_dim", 0), inner.pop("label_dropout", 0)
    size, channels = shape
    answers = inner.pop("out_channels", None)
    for known in ("img_resolution", "in_channels", "label_dim", "dropout"):
        inner.pop(known, None)
    _check_arguments(inner, name, len(precond.state_dict()))
    maker = PRECONDITIONINGS[kind]
    constants = _constants(maker, outer | dict(precond.attributes))
    with explained(f"its {name} cannot be built from its arguments"), torch.device("meta"):
        net = maker(name, inner, channels, size, classes or None, float(dropout), **constants)
    _check_levels(net)
    if answers != net.answers * channels:
        raise InputError(
            f"its {name} answers with {shown(answers)} channels for {channels}; a {kind} "
            f"answers with {net.answers * channels}"
        )
    return net


def _arguments(module: Module, kind: str) -> dict[str, Any]:
    """The constructor's arguments by name."""
    args, named = (module.attributes.get(f"_init_{what}") or () for what in ("args", "kwargs"))
    if not isinstance(args, tuple) or not isinstance(named or {}, dict):
        raise InputError(f"its {kind} does not say what it was built from")
    if len(args) > len(_ORDER[kind]):
        raise InputError(f"its {kind} has {len(args)} arguments, more than EDM's")
    return dict(zip(_ORDER[kind], args, strict=False)) | dict(named)


def _whole(arguments: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = arguments.get(name, default)
    if type(value) is not int or not 0 <= value <= _MOST:
        raise InputError(f"its {name} is {shown(value)}, not a number up to {_MOST}")
    return value


def _check_arguments(arguments: Mapping[str, Any], kind: str, weights: int) -> None:
    """Refuse arguments that EDM's UNets do not have, or that would take forever to build."""
    known = inspect.signature(UNETS[kind]).parameters
    for name, value in arguments.items():
        if name not in known:
            raise InputError(
                f"its {kind} has an argument {shown(name)}, which EDM's has not. {WAY_IN}"
            )
        if not _fits(value, known[name].annotation):
            raise InputError(f"its {name} is {shown(value)}, of which no network can be built")
    levels, blocks = (
        arguments.get(name, known[name].default) for name in ("channel_mult", "num_blocks")
    )
    if len(levels) * blocks > weights:
        raise InputError(f"its num_blocks is {blocks}, for which it has too few weights")


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value is what a constructor's argument is annotated with, and not too much."""
    if annotation == "str":
        return type(value) is str
    if annotation == "int":
        return type(value) is int and 0 <= value <= _MOST
    numbers = (int, float) if annotation == "Sequence[float]" else (int,)
    return (
        isinstance(value, list | tuple)
        and len(value) <= 64
        and all(type(part) in numbers and 0 <= part <= _MOST for part in value)
    )


def _constants(maker: type[Preconditioned], said: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a preconditioning: those that the object had in the end."""
    known = inspect.signature(maker).parameters
    names = (
        "sigma_min",
        "sigma_max",
        "sigma_data",
        "beta_d",
        "beta_min",
        "M",
        "epsilon_t",
        "C_1",
        "C_2",
    )
    found = {name: said[name] for name in names if name in known and name in said}
    for name, value in found.items():
        # EDM's own preconditioning takes sigma of 0 to infinity.
        low, high = value == 0 and name == "sigma_min", value == math.inf and name == "sigma_max"
        if type(value) not in (int, float) or not (0 < value < math.inf or low or high):
            raise InputError(f"its {name} is {shown(value)}, not a number above 0")
    return found


def _check_levels(net: Preconditioned) -> None:
    """Refuse a network that was trained for no noise level at all."""
    if not net.sigma_min < net.sigma_max:
        raise InputError(
            f"its sigma_min is {net.sigma_min:g} and its sigma_max {net.sigma_max:g}; it must be "
            "more"
        )
