"""The networks by name: what a checkpoint may name, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from els.errors import InputError
from models.blocks import Network
from models.resnet import ResNet
from models.unet import UNet

NETWORKS: dict[str, type[Network]] = {"ResNet": ResNet, "UNet": UNet}


def build_network(name: str, config: Mapping[str, object]) -> Network:
    """Build a network from plain data.

    Raises:
        InputError: when the name or one of the arguments is unknown.
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network '{name}'; known are {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**config)
    except TypeError as error:
        raise InputError(f"the {name} cannot be built from {dict(config)}: {error}") from error
