"""State dicts in what training loops save around them, and what a stranger's keys look like.

A state dict lies under one of a few names, beside an optimiser, a step and other plain objects, and
its own names may begin with those of wrappers. Averaged weights (EMA) are taken where there are
any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from els.errors import InputError, shown
from els.models.formats.loaded import Which, choose, note_of
from els.models.formats.pickled import Module
from els.models.networks import listed

# Names under which averages of the weights stand, also in prefixes of the weights' own names.
_EMA = (
    "ema", "ema_model", "model_ema", "ema_state_dict", "model_ema_state_dict", "net_ema", "ema_net",
    "ema_network", "state_dict_ema", "averaged_model", "ema_weights", "ema_params", "params_ema",
    "shadow", "averaged",
)  # fmt: skip
_AVERAGE = re.compile(r"(.*[._])?(ema|shadow|averaged|swa)([._\d].*)?")  # any other
_ONLINE = (
    "model", "net_model", "state_dict", "network", "model_state_dict", "net", "module", "unet",
    "denoiser", "weights", "params",
)  # fmt: skip
_EMA_PREFIXES = tuple(f"{name}." for name in _EMA)
_PREFIXES = (
    "module.", "_orig_mod.", "model.", "net.", "backbone.", "online_model.", "network.",
    *_EMA_PREFIXES,
)  # fmt: skip
_LONGEST = 80  # letters of a name of such a place
# What averages keep beside the weights, under names of their own.
_COUNTERS = {"initted", "step", "n_averaged", "num_updates", "decay"}


@dataclass(frozen=True)
class Weights:
    """A state dict that was found in a file.

    Attributes:
        table: the weights by name, without the wrappers' prefixes.
        which: "ema" or "online"; None where the file is a state dict alone, which does not say.
        note: what to tell the user of the choice, or "".
    """

    table: dict[str, Tensor]
    which: Which | None
    note: str = ""


def unpack(content: Any, asked: Which | None) -> Weights | Module:
    """The weights in a file, or the whole module where that is what it holds.

    Args:
        content: as `els.models.formats.pickled.read` gives it.
        asked: which weights are wanted; None: the averaged ones where there are any.

    Raises:
        InputError: when there are none, or not those that are asked for.
    """
    if not isinstance(content, Mapping | Module):
        raise InputError("it is no table")
    alone: _Found = {None: ("", content)}
    found = alone if isinstance(content, Module) else _found(content, {})
    if not found:
        raise InputError(_why_nothing(content))
    if None in found:
        if asked is not None:
            raise InputError(
                f"--weights {asked} was given, but it is a network alone, which does not say which "
                "weights it has; leave --weights out"
            )
        inside = found[None][1]
        return inside if isinstance(inside, Module) else _as_weights(inside, None, "")
    chosen = choose("ema" in found, "online" in found, asked)
    where, inside = found[chosen]
    if isinstance(inside, list):
        inside = _named(inside, found.get("online", ("", None))[1])
    if isinstance(inside, Module):
        return inside
    note = note_of(chosen, f"from '{where}'", others=len(found) > 1)
    return _as_weights(inside, chosen, note)


_Found = dict[Which | None, tuple[str, Any]]  # where it stands, and the table or module


def _found(content: Mapping[Any, Any], known: dict[int, _Found]) -> _Found:
    """The state dicts in a table, by which weights they are.

    Args:
        content: the table.
        known: what was found in tables before, by their identity: one may hold another many times.
    """
    if id(content) in known:
        return known[id(content)]
    known[id(content)] = {}  # it may hold itself
    found: _Found = {}
    for which, key in _places(content):
        inside = content.get(key)
        if isinstance(inside, Module):
            found.setdefault(which, (key, inside))
        elif isinstance(inside, Mapping):
            _add(found, which, key, _found(inside, known), inside)
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    if not found and tensors > len(content) / 2:
        found = _divided(content)
    known[id(content)] = found
    return found


def _places(content: Mapping[Any, Any]) -> Iterator[tuple[Which, str]]:
    """Where weights may stand in a table, and which; the usual names first."""
    texts = [key for key in content if type(key) is str and len(key) <= _LONGEST]
    others = [key for key in texts if _AVERAGE.fullmatch(key.lower()) and key not in _EMA]
    yield from (("ema", key) for key in (*_EMA, *others))
    yield from (("online", key) for key in _ONLINE)


def _add(found: _Found, which: Any, key: str, inner: _Found, inside: Mapping[Any, Any]) -> None:
    """Add what was found under a key; what does not say which weights it is, is as the key says."""
    if not inner and which == "ema" and isinstance(inside.get("shadow_params"), list):
        found.setdefault(which, (key, inside["shadow_params"]))
    for kind, (where, table) in inner.items():
        path = f"{key}/{where}" if where else key
        if which == "ema" and kind == "online" and "ema" in inner:
            continue  # the online copy that an average keeps, which stands elsewhere too
        found.setdefault(which if which == "ema" or kind is None else kind, (path, table))


def _named(values: list[Any], online: Any) -> dict[str, Any]:
    """Averaged weights that torch-ema lists without names, by those of the online ones."""
    names = [] if not isinstance(online, Mapping) else [n for n in online if n not in _COUNTERS]
    shapes = [getattr(value, "shape", None) for value in values]
    if not names or shapes != [getattr(online[name], "shape", None) for name in names]:
        raise InputError(
            "its averaged weights are a list without names, which are not as many as the online "
            "ones; --weights online takes those"
        )
    return dict(zip(names, values, strict=True))


def _divided(table: Mapping[Any, Any]) -> _Found:
    """A state dict, apart where it has averaged weights beside the others."""
    names = {name: value for name, value in table.items() if name not in _COUNTERS}
    if "n_averaged" in table:
        return {"ema": ("", names)}
    averaged = {
        name: value
        for name, value in names.items()
        if type(name) is str and name.startswith(_EMA_PREFIXES)
    }
    if not averaged:
        return {None: ("", names)}
    prefix = next(p for p in _EMA_PREFIXES if next(iter(averaged)).startswith(p))
    others = {name: value for name, value in names.items() if name not in averaged}
    found: _Found = {"ema": (f"{prefix}*", averaged)}
    if others:
        found["online"] = ("the rest", others)
    return found


def _as_weights(table: Mapping[str, Any], which: Which | None, note: str) -> Weights:
    names = {name: value for name, value in table.items() if name not in _COUNTERS}
    if strange := [name for name in names if type(name) is not str]:
        raise InputError(f"it is not a table of weights alone: it has the key {shown(strange[0])}")
    while prefix := next(
        (p for p in _PREFIXES if names and all(n.startswith(p) for n in names)), None
    ):
        names = {name.removeprefix(prefix): value for name, value in names.items()}
    odd = [name for name, value in names.items() if not isinstance(value, Tensor)]
    if odd:
        raise InputError(
            f"it is not a table of weights alone: {shown(odd[0])} is a "
            f"{type(names[odd[0]]).__name__}"
        )
    return Weights(names, which, note)


def _why_nothing(content: Any) -> str:
    if {"state", "param_groups"} <= content.keys():
        return "it is the state of an optimiser alone, without a network"
    parts = [key for key, value in content.items() if isinstance(value, Mapping)]
    if any({"state", "param_groups"} <= content[key].keys() for key in parts):
        return "it holds the state of an optimiser, but no network"
    return "it does not hold the weights of a network"


# --- strangers ----------------------------------------------------------------------------------

# What networks of other projects call their weights. The first that fits is named.
_FAMILIES = {
    "latent diffusion (CompVis)": r"(.*\.)?"
    r"(first_stage_model|cond_stage_model|diffusion_model)\..+",
    "EDM2 (NVlabs/edm2)": r"(.*\.)?(emb_noise\.weight|emb_label\.weight|out_gain|"
    r"(enc|dec)\.\d+x\d+_\w+\.(conv_res0\.weight|emb_gain))",
    "EDM (NVlabs/edm; give its .pkl, which has the network's arguments)": r"(.*\.)?"
    r"(map_layer0\.weight|(enc|dec)\.\d+x\d+_\w+\..+)",
    "DiT or SiT": r"(.*\.)?(x_embedder\.proj\.weight|blocks\.\d+\.adaLN_modulation\..+)",
    "U-ViT": r"(.*\.)?(in_blocks\.\d+\.attn\..+|mid_block\.attn\.qkv\..+)",
    "score_sde (yang-song)": r"(.*\.)?all_modules\.\d+\..+",
    "k-diffusion": r"(.*\.)?(inner_model\..+|timestep_embed\.weight|u_net\.[du]_blocks\..+)",
    "improved-diffusion or guided-diffusion (OpenAI)": r"(.*\.)?"
    r"(input_blocks\.\d+\.\d+\..+|output_blocks\.\d+\.\d+\..+)",
    "diffusers (give the folder with its config.json)": r"(.*\.)?"
    r"(down_blocks\.\d+\.(resnets|attentions)\..+|time_embedding\.linear_1\.weight)",
    "denoising-diffusion-pytorch (lucidrains)": r"(.*\.)?(downs\.\d+\.\d+\.block1\.proj\.weight|"
    r"downs\.\d+\.\d+\.fn\..+)",
    "DDPM in PyTorch (pesser, ermongroup/ddim)": r"(.*\.)?(temb\.dense\.\d\.weight|"
    r"down\.\d+\.block\.\d+\..+)",
}


def family(content: object) -> str | None:
    """The project whose networks have such keys, or None."""
    names = _names(content, set())
    for name, pattern in _FAMILIES.items():
        if any(re.fullmatch(pattern, one) for one in names):
            return name
    return None


def _names(content: object, seen: set[int]) -> list[str]:
    """The names of all tensors in a table and the tables in it."""
    if isinstance(content, Module):
        return list(content.state_dict())
    if not isinstance(content, Mapping) or id(content) in seen:
        return []
    seen.add(id(content))
    tensors = (key for key, value in content.items() if isinstance(value, Tensor))
    names = [key[:200] for key in tensors if type(key) is str]
    for _, key in _places(content):
        names += _names(content.get(key), seen)
    return names


def held(content: object) -> str:
    """What a file holds: a few of its keys or classes."""
    if isinstance(content, Module):
        kinds = dict.fromkeys(module.kind for _, module in content.walk())
        return listed(list(kinds))
    if isinstance(content, Mapping):
        return listed(list(content)) or "nothing"
    return type(content).__name__
