"""Checkpoints on disk to denoisers; they are data, and nothing in them is ever executed."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from els.errors import InputError
from els.images import DataSpec
from els.schedule import CosineSchedule
from models.blocks import Network
from models.denoiser import NetworkDenoiser
from models.networks import build_network

METADATA_KEY = "els"
_FORMAT = 1


def describe(
    net: Network, *, image_shape: tuple[int, int, int], data: dict[str, Any]
) -> dict[str, Any]:
    """What a checkpoint says about its network and its images, as plain data."""
    return {
        "format": _FORMAT,
        "network": {"name": type(net).__name__, "config": dict(net.config)},
        "image_shape": list(image_shape),
        "data": data,
    }


def load_denoiser(
    path: str | Path, *, device: str | torch.device = "cpu", data_root: str | Path | None = None
) -> NetworkDenoiser:
    """Bring a trained network back, in evaluation mode.

    Args:
        path: a checkpoint that `train.py` wrote; with EMA its averaged weights are taken.
        device: where the network is to live.
        data_root: where the training images are now, if not where they were.

    Raises:
        InputError: when the file is missing, damaged, from something else, or its weights are not
            finite numbers.
    """
    path = Path(path)
    checkpoint = _read(path)
    meta = checkpoint.get(METADATA_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        found = (
            ", ".join(map(str, list(checkpoint)[:8]))
            if isinstance(checkpoint, dict)
            else (type(checkpoint).__name__)
        )
        raise InputError(
            f"'{path}' is not a checkpoint of train.py (no '{METADATA_KEY}' entry of format "
            f"{_FORMAT}); it holds: {found}"
        )
    net = build_network(meta["network"]["name"], meta["network"]["config"])
    weights = {
        name.removeprefix("net."): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("net.")
    }
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the weights in '{path}' do not fit its network: {reason}") from error
    for name, value in net.named_parameters():
        if not value.isfinite().all():
            raise InputError(f"'{path}' holds NaN or infinite weights, first in '{name}'; use an "
                             "earlier checkpoint")  # fmt: skip
    data = DataSpec(**meta["data"])
    if data_root is not None:
        data = replace(data, root=str(data_root))
    net.requires_grad_(False).eval().to(device)
    return NetworkDenoiser(
        net, schedule=CosineSchedule(), image_shape=tuple(meta["image_shape"]), data=data
    )


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"there is no checkpoint '{path}'")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"'{path}' is not a checkpoint of plain tensors and is not loaded: "
                         f"{reason}") from error  # fmt: skip
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"'{path}' is damaged or not a checkpoint: {reason}") from error
