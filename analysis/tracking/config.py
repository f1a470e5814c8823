"""What an analysis on Weights & Biases is of, to group, filter and plot runs by."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from els.analysis.results import Provenance, TrainingConfig
from els.analysis.study import Study
from els.analysis.tracking import content
from els.errors import InputError
from els.reading import as_options


def tags(study: Study) -> list[str]:
    """The data set, the padding and the machine that is meant to predict the network."""
    return [study.provenance.data.name, study.network.padding, study.primary.kind]


def config(study: Study) -> dict[str, Any]:
    """What an analysis is of, in groups of plain values: `network`, `data`, `protocol`, ..."""
    provenance = study.provenance
    channels, height, _ = study.images.image_shape
    data = {**asdict(provenance.data), "images": len(study.images), "channels": channels}
    found = {
        "network": network_config(study),
        "data": {**data, "size": height},
        "protocol": asdict(study.protocol),
        "train": {**training_options(provenance.training), **training_numbers(study)},
        "checkpoint": asdict(provenance.checkpoint),
        "twins": {name: asdict(one) for name, one in provenance.twins.items()},
        "versions": dict(provenance.versions),
        "self_check": {} if provenance.self_check is None else asdict(provenance.self_check),
    }
    return {name: _plain(part) for name, part in found.items()}


def network_config(study: Study) -> dict[str, Any]:
    """What is known of the network: its options, and what follows from them.

    A UNet's width is that of its first level, and its depth the number of levels.
    """
    facts, options = study.provenance.network, dict(study.network.net.config)
    for name in ("channels", "num_classes"):
        options.pop(name)
    if widths := options.get("widths"):
        options |= {"width": widths[0], "depth": len(widths)}
    found = {
        **options,
        "class": facts.name,
        "padding": facts.padding,
        "parameters": facts.parameters,
        "conditional": facts.num_classes is not None,
        "local": facts.receptive_field is not None,
    }
    if facts.receptive_field is not None:
        found["receptive_field"] = facts.receptive_field
    return found


def training_options(training: TrainingConfig | None) -> dict[str, Any]:
    """The options that were set in a training's configuration; none where it cannot be read."""
    if training is None:
        return {}
    try:
        options: dict[str, Any] = _plain(as_options(training.text, training.path))
    except InputError:
        return {}
    return options


def _plain(value: object) -> Any:
    """What YAML holds as W&B takes it, without what was not set."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


def training_numbers(study: Study) -> dict[str, float]:
    """The network's steps, epochs and held-out loss, as far as its checkpoint tells them."""
    trained = study.provenance.trained
    told = {} if trained is None else asdict(trained)
    return {name: value for name, value in told.items() if value is not None}


def known_by(provenance: Provenance) -> object:
    """Plain data that tells an analysis from others, wherever its files are."""
    return [
        provenance.checkpoint.sha256,
        provenance.data.fingerprint,
        asdict(provenance.protocol),
        provenance.versions.get("results"),
        *(one.sha256 for one in provenance.twins.values()),
    ]


def network_numbers(study: Study) -> dict[str, float]:
    """What the summary says of the network: its size and, where it is known, its loss."""
    found: dict[str, float] = {content.PARAMETERS: study.provenance.network.parameters}
    loss = training_numbers(study).get("val_loss")
    return found if loss is None else {**found, content.LOSS: loss}
