"""Checkpoints of every kind to denoisers; they are data, and nothing in them is ever executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from els.errors import InputError
from els.files import as_record
from els.images import DataSpec
from els.models import artifacts
from els.models.blocks import PADDINGS, Network, Trained
from els.models.denoiser import NetworkDenoiser
from els.models.formats import diffusers, paper, pickled
from els.models.networks import restore_network
from els.schedule import CosineSchedule

METADATA_KEY = "els"
READABLE = (
    "a checkpoint of train.py or its run's folder, wandb:entity/project/name:alias, a network that "
    "the paper's code saved whole or as a state dict, or a folder of a diffusers pipeline or "
    "UNet2DModel"
)
_FORMAT = 1
_PREFERRED = ("last.ckpt", "best.ckpt")
_ZIP = b"PK\x03\x04"
_PICKLE = "a pickle, of PyTorch before 1.6 or of something else"


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


def find_checkpoint(source: str | Path) -> Path:
    """The file, or the folder of diffusers, that `source` stands for; artifacts are downloaded.

    Args:
        source: a file; a run's folder, such as runs/digits_resnet; a folder of diffusers; a folder
            with a `last.ckpt`, a `best.ckpt` or a single `.ckpt` file; or
            "wandb:entity/project/name:alias" for such a folder.

    Raises:
        InputError: when there is no checkpoint there, or the artifact could not be downloaded.
    """
    path = Path(source)
    if artifacts.is_artifact(str(source)):
        path = artifacts.download(str(source))
    if not path.exists():
        raise InputError(f"there is no checkpoint '{path}'; it may be {READABLE}")
    if path.is_file() or diffusers.is_pipeline(path):
        return path
    if (path / "checkpoints").is_dir():
        path = path / "checkpoints"
    files = sorted(path.glob("*.ckpt"))
    named = [path / name for name in _PREFERRED if path / name in files]
    if named or len(files) == 1:
        return (named or files)[0]
    found = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
    if files:
        raise InputError(f"the folder '{path}' holds several checkpoints; name one of: {found}")
    raise InputError(f"the folder '{path}' holds no checkpoint, but {found}. Give {READABLE}")


def load_denoiser(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    data_root: str | Path | None = None,
    padding: str | None = None,
    image_size: int | None = None,
) -> NetworkDenoiser:
    """Bring a trained network back, in evaluation mode.

    Args:
        source: what `find_checkpoint` takes. Of a checkpoint of `train.py` with EMA the averaged
            weights are taken.
        device: where the network is put.
        data_root: where the training images are now, if they have moved.
        padding: "zeros" or "circular", for a state dict, which does not say; default: zeros.
        image_size: height and width in pixels, for a network of the paper; default: what its file
            says, or 32.

    Returns:
        the denoiser; its `data` is None where the checkpoint does not know its training images.

    Raises:
        InputError: when the file is missing, damaged, of an unknown kind, or its weights are not
            finite numbers; or when an option contradicts what it says.
    """
    path = find_checkpoint(source)
    if padding is not None and padding not in PADDINGS:
        raise InputError(f"padding is '{padding}'; it must be one of {', '.join(PADDINGS)}")
    data: DataSpec | None = None
    trained: Trained | None = None
    net: Network
    if path.is_dir():
        net, image_shape = diffusers.load_pipeline(path)
    else:
        content = _read(path)
        if _is_own(content):
            net, image_shape, data, trained = _own(content, path)
        else:
            net, image_shape = _papers(content, path, padding, image_size)
    _check_told(path, "padding", padding, net.padding)
    if image_size is not None:
        _check_told(path, "image_size", (image_size, image_size), image_shape[1:])
    if data is not None and data_root is not None:
        data = replace(data, root=str(data_root))
    net.requires_grad_(False).eval().to(device)
    return NetworkDenoiser(
        net, schedule=CosineSchedule(), image_shape=image_shape, data=data, trained=trained
    )


def _check_told(path: Path, what: str, told: object, known: object) -> None:
    if told not in (None, known):
        raise InputError(f"{what} {told} was given, but '{path}' says {known}; leave {what} out")


# --- this project's own -----------------------------------------------------------------------


def _is_own(content: Any) -> bool:
    meta = content.get(METADATA_KEY) if isinstance(content, Mapping) else None
    return isinstance(meta, dict) and meta.get("format") == _FORMAT


_Own = tuple[Network, tuple[int, int, int], DataSpec, Trained | None]


def _own(content: dict[str, Any], path: Path) -> _Own:
    try:
        meta = content[METADATA_KEY]
        weights = {
            name.removeprefix("net."): value
            for name, value in content["state_dict"].items()
            if name.startswith("net.")
        }
        net = restore_network(meta["network"]["name"], meta["network"]["config"], weights)
        trained = _trained(content)
        return net, tuple(meta["image_shape"]), DataSpec(**meta["data"]), trained
    except InputError as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"'{path}' is not a complete checkpoint of train.py: {error!r}") from error


def read_training(path: Path) -> tuple[dict[str, Any], Trained | None]:
    """What training goes on from: the network's name and arguments, and what it has learned.

    Raises:
        InputError: when the file is damaged, or no checkpoint of training.
    """
    content = _read(path)
    if not (_is_own(content) and "optimizer_states" in content):
        raise InputError(f"'{path}' is no checkpoint of train.py, which training could go on from")
    network = content[METADATA_KEY]["network"]
    return {"name": network["name"], **network["config"]}, _trained(content)


def _trained(content: Mapping[str, Any]) -> Trained | None:
    """What a checkpoint of this project says of its training; else what Lightning says."""
    trained = content[METADATA_KEY].get("trained")
    if trained is not None:
        return as_record(Trained, trained)
    if not {"global_step", "epoch"} <= content.keys():
        return None
    # Lightning counts epochs from 0, and those checkpoints were written at the ends of epochs.
    return Trained(steps=content["global_step"], epochs=content["epoch"] + 1)


# --- the paper's ------------------------------------------------------------------------------


def _papers(
    content: Any, path: Path, padding: str | None, image_size: int | None
) -> tuple[Network, tuple[int, int, int]]:
    """A network of the paper's code: its whole module, or a state dict."""
    try:
        if isinstance(content, pickled.Module):
            net, size = paper.network_from_module(content)
        elif isinstance(content, Mapping):
            net = paper.network_from_weights(content, padding=padding or "zeros")
            size = paper.IMAGE_SIZE
        else:
            raise InputError("it is no table")
    except InputError as error:
        raise InputError(
            f"'{path}' cannot be read: {error}. It may be {READABLE}; it holds: {_held(content)}"
        ) from error
    size = image_size or size
    return net, (net.channels, size, size)


def _held(content: Any) -> str:
    if isinstance(content, pickled.Module):
        kinds = dict.fromkeys(module.kind for _, module in content.walk())
        return ", ".join(list(kinds)[:8])
    if isinstance(content, Mapping):
        return ", ".join(map(str, list(content)[:8])) or "nothing"
    return type(content).__name__


# --- bytes ------------------------------------------------------------------------------------


def _read(path: Path) -> Any:
    """What a file holds: plain data and tensors, or a whole module as a record of it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # Bytes that are no checkpoint can make the parser raise anything.
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            return pickled.read_module(path)
        found = _sniff(path)
        if found == _PICKLE:
            raise InputError(
                f"'{path}' is not loaded: {found}, that is cut short or holds more than tensors. "
                "If you trust it, load it with the PyTorch that wrote it and save its "
                "state_dict() anew"
            ) from error
        raise InputError(
            f"'{path}' is damaged or not a checkpoint: {found}. It may be {READABLE}"
        ) from error


def _sniff(path: Path) -> str:
    """What a file that torch cannot read looks like."""
    with open(path, "rb") as file:
        start = file.read(16)
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return f"a zip of {', '.join(archive.namelist()[:5]) or 'nothing'}"
    if start.startswith(_ZIP):
        return f"{size} bytes of a zip without its end, as of a copy that was cut short"
    if start[:1] == b"\x80":
        return _PICKLE
    return f"{size} bytes that start with {start!r}" if size else "an empty file"
