"""The networks by name: what a checkpoint may name, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from els.errors import InputError, reason, shown
from els.models.blocks import Network
from els.models.resnet import ResNet
from els.models.unet import UNet

# Bytes that weights may always take, and how often those of their storages: twice, in half
# precision.
_FREE, _MOST = 1 << 20, 2
_FEW = 5  # names in a message
_LARGEST = 65_536  # of the numbers that say how wide a network is, and the like
NETWORKS: dict[str, Callable[..., Network]] = {"ResNet": ResNet, "UNet": UNet}


class MisfitError(InputError):
    """Weights that do not fit their network; the message names a few of them."""


def build_network(name: str, config: Mapping[str, object]) -> Network:
    """Build a network from plain data.

    Raises:
        InputError: when the name or one of the arguments is unknown.
    """
    if type(name) is not str or name not in NETWORKS:
        raise InputError(f"unknown network {shown(name)}; known are {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**config)
    except (TypeError, RuntimeError) as error:
        said = ", ".join(
            f"{str(key)[:40]}={shown(value)}" for key, value in list(config.items())[:20]
        )
        raise InputError(f"the {name} cannot be built from {said}: {reason(error)}") from error


def restore_network(
    name: str, config: Mapping[str, object], weights: Mapping[str, Tensor]
) -> Network:
    """Build a network and give it its weights, in float32.

    It takes the memory of the weights alone: nothing is allocated before every shape fits.

    Raises:
        InputError: when the network is unknown, or the weights do not fit it or are not finite.
    """
    _check_config(config, len(weights))
    with torch.device("meta"):
        net = build_network(name, config)
    fill(net, weights)
    return net


def _check_config(config: Mapping[str, object], count: int) -> None:
    """Refuse arguments that no network with so many weights has, which could take forever.

    Each layer and each level has weights of its own.
    """
    most = max(count, 64)
    for name, value in config.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        largest = most if name == "depth" else _LARGEST
        if len(numbers) > most or not all(
            abs(n) <= largest for n in numbers if isinstance(n, int | float)
        ):
            raise InputError(
                f"its {shown(name)} is {shown(value)}, for which it has too few weights"
            )


def fill(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network that was built on the meta device its weights and buffers, in float32.

    Raises:
        MisfitError: when names are missing or left over, or a shape or a kind of number is another;
            it names five of them at most.
        InputError: when the weights would take far more memory than the file that they are in, or
            one is NaN or infinite.
    """
    _check_fit(net.state_dict(), weights)
    _check_room(weights)
    net.load_state_dict(
        {name: value.float().contiguous() for name, value in weights.items()}, assign=True
    )
    for name, value in net.state_dict().items():
        if not value.isfinite().all():
            raise InputError(
                f"it holds NaN or infinite weights, first in {shown(name)}; use an earlier "
                "checkpoint"
            )


def _check_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights of other names, shapes or kinds than a network has."""
    problems = {
        "missing": [name for name in expected if name not in weights],
        "left over": [name for name in weights if name not in expected],
        "whole numbers": [
            name
            for name, value in expected.items()
            if name in weights
            and value.is_floating_point()
            and not weights[name].is_floating_point()
        ],
    }
    wrong = [n for n, value in expected.items() if n in weights and weights[n].shape != value.shape]

    def both(name: str) -> str:
        return f"{shown(name)} is {_shape(weights[name])}, not {_shape(expected[name])}"

    said, left = [], _FEW
    for what, names in (problems | {"of another shape": wrong}).items():
        if names:
            said.append(f"{what}: {listed(names, both if names is wrong else shown, left)}")
            left = max(left - len(names), 0)
    if said:
        raise MisfitError(f"its weights do not fit its network; {'; '.join(said)}")
    for name in expected:
        value = weights[name]
        if value.layout != torch.strided or value.device.type == "meta":
            raise InputError(
                f"its weights {shown(name)} are {value.layout} on {value.device}; save them dense, "
                "with their numbers"
            )


def listed(names: Sequence[Any], said: Callable[[Any], str] = shown, most: int = _FEW) -> str:
    """The first few of some names out of a file, and how many more there are."""
    if not most:
        return str(len(names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(said, names[:most])) + more


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
