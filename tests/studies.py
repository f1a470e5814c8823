"""Small studies for tests that need no process: a network of random weights, or the trained one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from els.analysis.options import Compute, Protocol, Source
from els.analysis.pipeline import analyse
from els.analysis.results import Results
from els.analysis.study import Study, load_study
from els.images import DataSpec
from els.models.checkpoints import METADATA_KEY, describe
from els.models.networks import build_network
from els.work import Work

SMALL = {"seeds": 5, "calibration_seeds": 2, "steps": 3, "network_steps": [3], "sizes": [3, 5],
         "held_out": 0, "yardsticks": 1}  # fmt: skip


def write_checkpoint(
    path: Path, *, classes: int | None = None, size: int = 8, seed: int = 0, padding: str = "zeros"
) -> Path:
    """A checkpoint as train.py writes it, of a small ResNet with random weights, on 40 digits."""
    torch.manual_seed(seed)
    config = {"channels": 1, "num_classes": classes, "width": 16, "depth": 1, "padding": padding}
    net = build_network("ResNet", config)
    data = DataSpec("digits", size=size, limit=40)
    data = replace(data, fingerprint=data.load().fingerprint())
    content = {
        METADATA_KEY: describe(net, image_shape=(1, size, size), data=asdict(data)),
        "state_dict": {f"net.{name}": value for name, value in net.state_dict().items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def small_study(
    checkpoint: Path, *, source: dict[str, Any] | None = None, **protocol: Any
) -> Study:
    """The study of a checkpoint with few seeds and steps."""
    return load_study(
        Source(str(checkpoint), **(source or {})),
        Protocol(**{**SMALL, **protocol}),
        Compute(device="cpu"),
        run=checkpoint.stem,
    )


def small_results(checkpoint: Path, *, work: Work | None = None, **protocol: Any) -> Results:
    """What is found of a checkpoint with few seeds and steps."""
    return analyse(small_study(checkpoint, **protocol), work or Work())
