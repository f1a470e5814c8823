"""Checkpoints of train.py, which say what their network and its images are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from els.errors import InputError
from els.files import as_record
from els.images import DataSpec
from els.models.blocks import Network, Trained
from els.models.formats.loaded import Asked, Declared, Loaded, choose, note_of
from els.models.networks import restore_network

METADATA_KEY = "els"
_FORMAT = 1
_AVERAGED, _ONLINE = "state_dict", "current_model_state"  # with averaging; else the first alone


def describe(
    net: Network,
    *,
    image_shape: tuple[int, int, int],
    data: dict[str, Any],
    trained: Trained | None = None,
) -> dict[str, Any]:
    """What a checkpoint says about its network, its images and its training, as plain data."""
    return {
        "format": _FORMAT,
        "network": {"name": type(net).__name__, "config": dict(net.config)},
        "image_shape": list(image_shape),
        "data": data,
        "trained": None if trained is None else asdict(trained),
    }


def claims(content: Any) -> bool:
    """Whether a file is a checkpoint of train.py."""
    meta = content.get(METADATA_KEY) if isinstance(content, Mapping) else None
    return isinstance(meta, dict) and meta.get("format") == _FORMAT


def load(content: Any, asked: Asked) -> Loaded:
    """The network of a checkpoint of train.py.

    Args:
        content: as `els.models.formats.pickled.read` gives it.
        asked: `weights` decides between the averaged and the raw ones.

    Raises:
        InputError: when something is missing, or the weights do not fit.
    """
    averaged = _ONLINE in content
    chosen = choose(averaged, True, asked.weights)
    part = _ONLINE if averaged and chosen == "online" else _AVERAGED
    try:
        meta = content[METADATA_KEY]
        weights = {
            name.removeprefix("net."): value
            for name, value in content[part].items()
            if name.startswith("net.")
        }
        net = restore_network(meta["network"]["name"], meta["network"]["config"], weights)
        return Loaded(
            net=net,
            image_shape=tuple(meta["image_shape"]),
            declared=Declared("checkpoint of train.py", "eps", "cosine", weights=chosen),
            data=DataSpec(**meta["data"]),
            trained=training(content),
            notes=(note_of(chosen, "as asked", others=averaged),) if asked.weights else (),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"it is not a complete checkpoint of train.py: {error!r}") from error


def training(content: Mapping[str, Any]) -> Trained | None:
    """What a checkpoint of this project says of its training; else what Lightning says."""
    trained = content[METADATA_KEY].get("trained")
    if trained is not None:
        return as_record(Trained, trained)
    if not {"global_step", "epoch"} <= content.keys():
        return None
    # Lightning counts epochs from 0, and those checkpoints were written at the ends of epochs.
    return Trained(steps=content["global_step"], epochs=content["epoch"] + 1)
