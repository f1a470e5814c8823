"""Where the samples of an analysis come from: mosaics, novelty, and the paths that led there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from els.files import replacing
from els.images import ImageSet
from els.mosaic import Mosaic
from els.novelty import Novelty

NETWORK = "network"
HELD_OUT = "held-out images"
COPIES = "training images"
# Bytes of training images that are kept for the page, whose size they are most of.
_BUDGET = 4 << 20


@dataclass(frozen=True)
class TrainingImages:
    """The training images that mosaics are shown with: those that won most, as far as they fit.

    Attributes:
        indices: their places in the training set (k,), ascending.
        pixels: uint8 (k c h w).
        labels: (k,) or None.
        classes: the name of each class.
    """

    indices: Tensor
    pixels: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attribution:
    """What is known of the network's and a machine's samples beside how well they agree.

    Attributes:
        subject: the machine whose path is kept.
        machine: the patch machine that the mosaics were made with; None where there is none.
        mosaics: by "network" and machine; that of the network has its last time alone.
        novelty: by "network", subject, machine and, as yardsticks, "held-out images" and "training
            images", which need not be as many as the seeds.
        paths: x0_hat at each step for "network", subject and machine, as uint8 (steps n c h w),
            clipped; the last are the samples.
        training: training images to show.
        yardsticks: mosaics of real images with noise, at the last time, by the same names as above.
    """

    subject: str
    machine: str | None
    mosaics: Mapping[str, Mosaic]
    novelty: Mapping[str, Novelty]
    paths: Mapping[str, Tensor]
    training: TrainingImages | None = None
    yardsticks: Mapping[str, Mosaic] = field(default_factory=dict)

    @property
    def traced(self) -> Mosaic | None:
        """The machine's mosaic if it was made at every step of its path."""
        mosaic = self.mosaics.get(self.machine or "")
        steps = len(next(iter(self.paths.values())))
        return mosaic if mosaic is not None and len(mosaic.t) == steps else None

    def by_seed(self) -> dict[str, dict[str, Tensor]]:
        """Of each side, what is measured for every seed (n,): see `Novelty` and `Mosaic`."""
        return self._by_seed

    @cached_property
    def _by_seed(self) -> dict[str, dict[str, Tensor]]:  # every form of the report asks for it
        found: dict[str, dict[str, Tensor]] = {}
        for side, novelty in self.novelty.items():
            found[side] = {
                "distance": novelty.distance, "distance_in_place": novelty.in_place,
                "matching": novelty.matching, "memorised": novelty.memorised,
            }  # fmt: skip
        for side, mosaic in {**self.mosaics, **self.yardsticks}.items():
            found[side] |= {
                "images": mosaic.images_drawn_on().double(),
                "effective_images": mosaic.effective_images(),
                "decided": mosaic.decided(),
                "largest_piece": mosaic.largest_piece().double(),
            }
        return found

    def save(self, path: Path) -> None:
        """Write as arrays, whole or not at all."""
        arrays = {"subject": np.array(self.subject), "machine": np.array(self.machine or "")}
        for kind, mosaics in (("mosaic", self.mosaics), ("yardstick", self.yardsticks)):
            for side, mosaic in mosaics.items():
                arrays[f"{kind}/{side}/t"] = np.array(mosaic.t)
                arrays[f"{kind}/{side}/sides"] = np.array(mosaic.sides)
                arrays |= {f"{kind}/{side}/{k}": v.numpy() for k, v in mosaic.tensors().items()}
        for side, novelty in self.novelty.items():
            arrays |= {f"novelty/{side}/{k}": v.numpy() for k, v in novelty.tensors().items()}
        arrays |= {f"path/{side}": x.numpy() for side, x in self.paths.items()}
        if self.training is not None:
            arrays["training/indices"] = self.training.indices.numpy()
            arrays["training/pixels"] = self.training.pixels.numpy()
            arrays["classes"] = np.array(self.training.classes, dtype=str)
            if self.training.labels is not None:
                arrays["training/labels"] = self.training.labels.numpy()
        with replacing(path) as partial:
            np.savez_compressed(partial, **arrays)

    @classmethod
    def load(cls, path: Path) -> Attribution:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file}

        def part(prefix: str) -> dict[str, dict[str, Tensor]]:
            found: dict[str, dict[str, Tensor]] = {}
            for name, value in arrays.items():
                kind, _, rest = name.partition("/")
                side, _, key = rest.rpartition("/")
                if kind == prefix:
                    found.setdefault(side, {})[key] = torch.from_numpy(value)
            return found

        def mosaics(prefix: str) -> dict[str, Mosaic]:
            return {
                side: Mosaic(
                    t=tuple(values.pop("t").tolist()),
                    sides=tuple(values.pop("sides").tolist()),
                    **values,
                )
                for side, values in part(prefix).items()
            }

        training = part("training").get("")
        return cls(
            subject=str(arrays["subject"]),
            machine=str(arrays["machine"]) or None,
            mosaics=mosaics("mosaic"),
            yardsticks=mosaics("yardstick"),
            novelty={side: Novelty(**values) for side, values in part("novelty").items()},
            paths=part("path").get("", {}),
            training=training and TrainingImages(
                indices=training["indices"], pixels=training["pixels"],
                labels=training.get("labels"), classes=tuple(arrays["classes"].tolist()),
            ),
        )  # fmt: skip


def shown_images(
    images: ImageSet, mosaics: Iterable[Mosaic], order: Iterable[int], *, budget: int = _BUDGET
) -> TrainingImages:
    """The images that the final mosaics of the seeds draw on, the first seeds' first.

    Args:
        images: the training images.
        mosaics: of the same seeds.
        order: positions of the seeds, those to be shown first.
        budget: bytes of pixels to keep; a seed's images with the most pixels come first.
    """
    most = max(1, budget // images.pixels[0].numel())
    chosen: dict[int, None] = {}
    mosaics = list(mosaics)
    for i in order:
        if len(chosen) >= most:
            break
        won = torch.cat([one.best[-1][i, 0].flatten() for one in mosaics])
        next_best = torch.cat([one.second[i, 0].flatten() for one in mosaics])
        for some in (won, next_best):
            found, counts = some.unique(return_counts=True)
            ranked = found[counts.argsort(descending=True, stable=True)].tolist()
            chosen |= dict.fromkeys(ranked)
    indices = torch.tensor(sorted(list(chosen)[:most]))
    part = images.take(indices)
    return TrainingImages(indices, part.pixels, part.labels, part.classes)
