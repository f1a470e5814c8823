"""Folders of `train.py export`: weights in safetensors, and what they are of in config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from els.errors import InputError, shown
from els.files import write_json
from els.models.blocks import Network
from els.models.formats import own
from els.models.formats.loaded import Asked, Declared, Loaded, explained
from els.models.networks import restore_network
from els.reading import member, read_table

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KIND = "els"


def described(meta: dict[str, Any]) -> dict[str, Any]:
    """The content of config.json, from what a checkpoint says of itself."""
    return {"kind": KIND, **meta, "prediction": "eps", "schedule": "cosine"}


def write(folder: Path, net: Network, meta: dict[str, Any]) -> None:
    """Write a network to a folder that is there.

    Args:
        folder: gets config.json and model.safetensors.
        net: the network.
        meta: what a checkpoint says of it, see `els.models.formats.own.describe`.
    """
    from safetensors.torch import save

    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(weights))
    write_json(folder / CONFIG, described(meta))


def claims(content: object) -> bool:
    """Whether this is a folder that `train.py export` wrote."""
    try:
        return isinstance(content, Path) and _config(content).get("kind") == KIND
    except (ValueError, OSError):
        return False


def _config(folder: Path) -> dict[str, Any]:
    return read_table(member(folder, CONFIG), infinite=True)  # which of others may be diffusers'


def load(content: Path, asked: Asked) -> Loaded:
    """The network in such a folder.

    Args:
        content: the folder, with config.json and model.safetensors.
        asked: nothing of it: the folder says it all.

    Raises:
        InputError: when a file is missing, damaged or of a later version, or the weights do not
            fit.
    """
    from safetensors.torch import load_file

    if asked.weights is not None:
        raise InputError(
            f"--weights {asked.weights} was given, but '{content}' has one network; leave "
            "--weights out"
        )
    config = _config(content)
    if config.get("format") != own.FORMAT:
        was = shown(config.get("format"))
        raise InputError(f"'{content / CONFIG}' is of format {was}, not {own.FORMAT}")
    try:
        path = member(content, WEIGHTS)
    except FileNotFoundError as error:
        raise InputError(
            f"there is no file '{content / WEIGHTS}', which belongs to {CONFIG}"
        ) from error
    with explained(f"'{content / WEIGHTS}' is damaged"):
        weights = load_file(path)
    with explained(f"'{content / CONFIG}' is not complete"):
        told = own.described(config)
        return Loaded(
            net=restore_network(told.network.name, told.network.config, weights),
            image_shape=told.image_shape,
            declared=Declared("folder of train.py export", "eps", "cosine"),
            data=told.data,
            trained=told.trained,
        )
