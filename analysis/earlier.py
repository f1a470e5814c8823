"""Analyses as earlier versions wrote them, in today's form.

Until version 3, agreement.json held the network as a line for people and the protocol as
`settings`, the mixture was called `best`, and mosaics did not keep the sides of their windows.
Later ones still knew no second nearest images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from els.calibration import Scales
from els.engines.windows import window
from els.machines.local import SCALES
from els.models.blocks import NetworkFacts
from els.novelty import Novelty
from els.reading import has, member, read_table
from els.stacking import Weights

_KINDS = {"best": "mixture"}
_WINDOWS = {scale.name: name for name, scale in SCALES.items()}


@dataclass(frozen=True)
class DescribedNetwork(NetworkFacts):
    """A network of which a line for people is all that was kept; it stands as the name."""

    @property
    def description(self) -> str:
        """That line."""
        return self.name


def is_earlier(summary: Mapping[str, Any]) -> bool:
    """Whether an earlier version wrote this agreement.json."""
    return "protocol" not in summary


def record(summary: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The record of what results were made from, as plain data of today's names."""
    settings, training = summary.get("settings", {}), summary.get("training", {})
    machines = settings.get("machines") or list(summary["machines"])
    return {
        "run": summary.get("run", ""),
        "checkpoint": summary.get("checkpoint", {"path": "", "sha256": ""}),
        "network": {"name": "", "padding": "", "num_classes": None, **_measures(folder)},
        "data": summary.get("data", {"name": ""}),
        "images": summary.get("data", {}).get("images", 0),
        "protocol": {
            **settings,
            "machines": [name(kind) for kind in machines],
            "mosaic": has(folder, "origins.npz"),
        },
        "training": {"path": training["config"], "text": training["text"]} if training else None,
        "versions": {key: str(value) for key, value in summary.get("versions", {}).items()},
    }


def described(facts: NetworkFacts, summary: Mapping[str, Any]) -> DescribedNetwork:
    """The network with the line that describes it."""
    line = str(summary["network"])
    return DescribedNetwork(line, "", None, facts.parameters, facts.receptive_field)


def name(array: str) -> str:
    """The name of an array, or of a machine, as it is today."""
    start, slash, kind = array.rpartition("/")
    return start + slash + _KINDS.get(kind, kind)


def load_weights(path: Path) -> Weights:
    """The mixture's weights under its name of today."""
    weights = Weights.load(path)
    return replace(weights, machine=name(weights.machine))


def sides(scales: Scales, t: Sequence[float]) -> tuple[int, ...]:
    """Sides in pixels of the windows that a machine compared at some times."""
    return tuple(int(window(_WINDOWS[scales.scale], scales.at(time))[0]) for time in t)


def novelty(arrays: Mapping[str, Tensor]) -> Novelty:
    """Novelty from its arrays, where nothing is known of second nearest images in those of old."""
    unknown = torch.full_like(arrays["distance"], torch.nan)
    return Novelty(**{"second": unknown, "second_in_place": unknown, **arrays})


def _measures(folder: Path) -> dict[str, Any]:
    """The network's size, which network.json told."""
    name = "network.json"
    content = read_table(member(folder, name)) if has(folder, name) else {}
    return {
        key: content.get(key, default)
        for key, default in (("parameters", 0), ("receptive_field", None))
    }
