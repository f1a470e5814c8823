"""The networks by name: what a checkpoint may name, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from els.errors import InputError, reason
from els.models.blocks import Network
from els.models.resnet import ResNet
from els.models.unet import UNet

# Bytes that weights may always take, and how often those of their storages.
_FREE, _MOST = 1 << 20, 8
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
    except (TypeError, RuntimeError) as error:
        why = reason(error)
        raise InputError(f"the {name} cannot be built from {dict(config)}: {why}") from error


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
    fill(net, weights)
    return net


def fill(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network that was built on the meta device its weights and buffers, in float32.

    Raises:
        InputError: when names are missing or left over, a shape is another, the weights would take
            far more memory than the file that they are in, or one is NaN or infinite.
    """
    expected = net.state_dict()
    wrong = [
        f"'{name}' is {_shape(weights[name])}, not {_shape(value)}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    problems = {
        "missing": [f"'{name}'" for name in expected if name not in weights],
        "left over": [f"'{name}'" for name in weights if name not in expected],
        "of another shape": wrong,
    }
    said = [f"{what}: {listed(names)}" for what, names in problems.items() if names]
    if said:
        raise InputError(f"its weights do not fit its network; {'; '.join(said)}")
    _check_room(weights)
    net.load_state_dict(
        {name: value.float().contiguous() for name, value in weights.items()}, assign=True
    )
    for name, value in net.state_dict().items():
        if not value.isfinite().all():
            raise InputError(
                f"it holds NaN or infinite weights, first in '{name}'; use an earlier checkpoint"
            )


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"


def _check_room(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are views of few numbers, of which each would become its own."""
    storages = [value.untyped_storage() for value in weights.values()]
    stored = {storage.data_ptr(): storage.nbytes() for storage in storages}
    needed = sum(4 * value.numel() for value in weights.values())
    if needed > _FREE + _MOST * sum(stored.values()):
        raise InputError(
            "its weights overlap so much that they would take far more memory than the file"
        )


def numbered(weights: Mapping[str, Tensor], part: str) -> int:
    """How many numbered layers a part of a network has, by the names of its weights."""
    return len({name.split(".")[1] for name in weights if name.startswith(f"{part}.")})
