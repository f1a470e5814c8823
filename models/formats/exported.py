"""Folders of `train.py export`: weights in safetensors, and what they are of in config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from els.errors import InputError, reason
from els.files import as_record, write_json
from els.images import DataSpec
from els.models.blocks import Network, Trained
from els.models.formats.loaded import Asked, Declared, Loaded
from els.models.networks import restore_network

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KIND = "els"
_FORMAT = 1


def described(meta: dict[str, Any]) -> dict[str, Any]:
    """The content of config.json, from what a checkpoint says of itself."""
    return {"kind": KIND, **meta, "format": _FORMAT, "prediction": "eps", "schedule": "cosine"}


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
    if not isinstance(content, Path) or not (content / CONFIG).is_file():
        return False
    try:
        config = json.loads((content / CONFIG).read_text())
    except (ValueError, OSError):
        return False
    return isinstance(config, dict) and config.get("kind") == KIND


def load(content: Path, asked: Asked) -> Loaded:
    """The network in such a folder.

    Args:
        content: the folder, with config.json and model.safetensors.
        asked: nothing of it: the folder says it all.

    Raises:
        InputError: when a file is missing, damaged or of a later version, or the weights do not
            fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if asked.weights is not None:
        raise InputError(
            f"--weights {asked.weights} was given, but '{content}' has one network; leave "
            "--weights out"
        )
    config = json.loads((content / CONFIG).read_text())
    if config.get("format") != _FORMAT:
        raise InputError(f"'{content / CONFIG}' is of format {config.get('format')}, not {_FORMAT}")
    if not (content / WEIGHTS).is_file():
        raise InputError(f"there is no file '{content / WEIGHTS}', which belongs to {CONFIG}")
    try:
        weights = load_file(content / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"'{content / WEIGHTS}' is damaged: {reason(error)}") from error
    try:
        network, trained = config["network"], config["trained"]
        channels, height, width = map(int, config["image_shape"])
        return Loaded(
            net=restore_network(network["name"], network["config"], weights),
            image_shape=(channels, height, width),
            declared=Declared("folder of train.py export", "eps", "cosine"),
            data=as_record(DataSpec, config["data"]),
            trained=None if trained is None else as_record(Trained, trained),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{content / CONFIG}' is not complete: {error!r}") from error
