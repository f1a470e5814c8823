"""Checkpoints of train.py, which say what their network and its images are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from els.errors import shown
from els.files import as_record
from els.images import DataSpec
from els.models.blocks import Network, Trained
from els.models.formats.loaded import Asked, Declared, Loaded, choose, explained, note_of
from els.models.networks import restore_network

METADATA_KEY = "els"
FORMAT = 1
_INCOMPLETE = "it is not a complete checkpoint of train.py"
_AVERAGED, _ONLINE = "state_dict", "current_model_state"  # with averaging; else the first alone


@dataclass(frozen=True)
class Architecture:
    """Which network it is.

    Attributes:
        name: of its class, one of `els.models.networks.NETWORKS`.
        config: the arguments of its constructor.
    """

    name: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Description:
    """What `describe` wrote, checked.

    Attributes:
        network: which it is.
        image_shape: (c, h, w).
        data: its training images.
        trained: how long and how well it was trained, or None.
    """

    network: Architecture
    image_shape: tuple[int, int, int]
    data: DataSpec
    trained: Trained | None = None


def described(meta: Any) -> Description:
    """What `describe` wrote.

    Raises:
        ValueError: when it is something else.
    """
    if meta["format"] != FORMAT:
        raise ValueError(
            f"format is {shown(meta['format'])}, and this version reads {FORMAT}; load it with the "
            "version of this project that wrote it"
        )
    found = as_record(Description, meta)
    known = {field.name for field in fields(DataSpec)}
    if strange := [key for key in meta["data"] if key not in known]:
        raise ValueError(f"data: there is no {shown(strange[0])}")
    return found


def describe(
    net: Network,
    *,
    image_shape: tuple[int, int, int],
    data: dict[str, Any],
    trained: Trained | None = None,
) -> dict[str, Any]:
    """What a checkpoint says about its network, its images and its training, as plain data."""
    return {
        "format": FORMAT,
        "network": {"name": type(net).__name__, "config": dict(net.config)},
        "image_shape": list(image_shape),
        "data": data,
        "trained": None if trained is None else asdict(trained),
    }


def claims(content: Any) -> bool:
    """Whether a file is a checkpoint of train.py."""
    meta = content.get(METADATA_KEY) if isinstance(content, Mapping) else None
    return isinstance(meta, dict) and "format" in meta


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
    with explained(_INCOMPLETE):
        told = described(content[METADATA_KEY])
        weights = {
            name.removeprefix("net."): value
            for name, value in content[part].items()
            if name.startswith("net.")
        }
        return Loaded(
            net=restore_network(told.network.name, told.network.config, weights),
            image_shape=told.image_shape,
            declared=Declared("checkpoint of train.py", "eps", "cosine", weights=chosen),
            data=told.data,
            trained=told.trained or _by_lightning(content),
            notes=(note_of(chosen, "as asked", others=averaged),) if asked.weights else (),
        )


def training(content: Mapping[str, Any]) -> tuple[Architecture, Trained | None]:
    """Which network a checkpoint of this project is of, and what it says of its training.

    Raises:
        InputError: when it is not complete.
    """
    with explained(_INCOMPLETE):
        told = described(content[METADATA_KEY])
        return told.network, told.trained or _by_lightning(content)


def _by_lightning(content: Mapping[str, Any]) -> Trained | None:
    if not {"global_step", "epoch"} <= content.keys():
        return None
    # Lightning counts epochs from 0, and those checkpoints were written at the ends of epochs.
    found = as_record(Trained, {"steps": content["global_step"], "epochs": content["epoch"]})
    return replace(found, epochs=found.epochs + 1)
