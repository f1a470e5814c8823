"""The networks by name: what a checkpoint may name, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from els.errors import InputError, reason
from els.models.blocks import Network
from els.models.resnet import ResNet
from els.models.unet import UNet

NETWORKS: dict[str, Callable[..., Network]] = {"ResNet": ResNet, "UNet": UNet}


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


def restore_network(
    name: str, config: Mapping[str, object], weights: Mapping[str, Tensor]
) -> Network:
    """Build a network and give it its weights, in float32.

    It takes the memory of the weights alone: nothing is allocated before every shape fits.

    Raises:
        InputError: when the network is unknown, or the weights do not fit it or are not finite.
    """
    with torch.device("meta"):
        net = build_network(name, config)
    weights = {key: value.float().contiguous() for key, value in weights.items()}
    try:
        net.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        why = reason(error, length=200)
        raise InputError(f"its weights do not fit its network: {why}") from error
    for key, value in net.named_parameters():
        if not value.isfinite().all():
            raise InputError(
                f"it holds NaN or infinite weights, first in '{key}'; use an earlier checkpoint"
            )
    return net
