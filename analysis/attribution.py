"""Where the samples of an analysis come from: mosaics, novelty, and the paths that led there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from els.analysis import earlier
from els.calibration import Scales
from els.files import replacing
from els.images import ImageSet
from els.machines import MACHINES
from els.mosaic import Mosaic
from els.novelty import Novelty, Share, copied_share
from els.reading import read_arrays

NETWORK = "network"
HELD_OUT = "held-out images"
COPIES = "training images"
# What is shown of how far samples are from copies, and its title.
NOVELTY = {
    "distance": "distance to nearest training image",
    "memorised": "share of memorised pixels",
    "images": "training images drawn on",
    "largest_piece": "largest piece (share of pixels)",
}
# How much nearer the nearest training image is than the second nearest.
RATIOS = {"ratio_in_place": "ratio d1/d2, in place", "ratio": "ratio d1/d2, up to translation"}
# Bytes of training images that are kept for the page, whose size they are most of.
_BUDGET = 4 << 20
_Arrays = dict[str, np.ndarray]


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
class Tracing:
    """Which training patches a patch machine made every pixel of.

    Attributes:
        machine: the kind of the patch machine.
        mosaics: by "network" and machine; that of the network has its last time alone.
        yardsticks: mosaics of real images with noise, at the last time, by "held-out images" and
            "training images".
        training: training images to show.
    """

    machine: str
    mosaics: Mapping[str, Mosaic]
    yardsticks: Mapping[str, Mosaic]
    training: TrainingImages


@dataclass(frozen=True)
class Attribution:
    """What is known of the network's and a machine's samples beside how well they agree.

    Attributes:
        novelty: by "network", every machine and, as yardsticks, "held-out images" and "training
            images", which need not be as many as the seeds.
        paths: x0_hat at each step for "network", primary and traced machine, as uint8
            (steps n c h w), clipped; the last are the samples.
        tracing: mosaics, where a machine answers with patches.
    """

    novelty: Mapping[str, Novelty]
    paths: Mapping[str, Tensor]
    tracing: Tracing | None = None

    @property
    def traced(self) -> Mosaic | None:
        """The machine's mosaic if it was made at every step of its path."""
        if self.tracing is None:
            return None
        mosaic, steps = self.tracing.mosaics[self.tracing.machine], len(self.paths[NETWORK])
        return mosaic if len(mosaic.t) == steps else None

    @property
    def drawn(self) -> tuple[str, ...]:
        """The sides that drew samples, one a seed: the network and the machines."""
        return tuple(side for side in self.novelty if side not in (HELD_OUT, COPIES))

    @cached_property
    def copies(self) -> dict[str, dict[str, Share]]:
        """By side, the shares of copies: "in_place", and "shifted", up to translation."""
        found: dict[str, dict[str, Share]] = {}
        for side, novelty in self.novelty.items():
            ratios = {"in_place": novelty.ratio_in_place, "shifted": novelty.ratio}
            for name, ratio in ratios.items():
                if (share := copied_share(ratio)) is not None:
                    found.setdefault(side, {})[name] = share
        return found

    @cached_property
    def by_seed(self) -> dict[str, dict[str, Tensor]]:
        """Of each side, what is measured for every seed (n,): see `Novelty` and `Mosaic`."""
        found: dict[str, dict[str, Tensor]] = {}
        for side, novelty in self.novelty.items():
            found[side] = {
                "distance": novelty.distance,
                "distance_in_place": novelty.in_place,
                "matching": novelty.matching,
                "memorised": novelty.memorised,
            }
            second = {
                "second": novelty.second,
                "second_in_place": novelty.second_in_place,
                "ratio": novelty.ratio,
                "ratio_in_place": novelty.ratio_in_place,
            }
            if side in self.copies:
                found[side] |= second
        mosaics = (
            {} if self.tracing is None else {**self.tracing.mosaics, **self.tracing.yardsticks}
        )
        for side, mosaic in mosaics.items():
            found[side] |= {
                "images": mosaic.images_drawn_on().double(),
                "effective_images": mosaic.effective_images(),
                "decided": mosaic.decided(),
                "largest_piece": mosaic.largest_piece().double(),
            }
        return found

    def save(self, path: Path) -> None:
        """Write as arrays, whole or not at all."""
        arrays: _Arrays = {f"path/{side}": x.numpy() for side, x in self.paths.items()}
        for side, novelty in self.novelty.items():
            arrays |= {f"novelty/{side}/{k}": v.numpy() for k, v in novelty.tensors().items()}
        if self.tracing is not None:
            arrays |= _tracing_arrays(self.tracing)
        with replacing(path) as partial:
            np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]  # numpy's stub

    @classmethod
    def load(cls, path: Path, scales: Mapping[str, Scales]) -> Attribution:
        """Read what `save` wrote.

        Args:
            path: the file.
            scales: the fitted scales, for files of earlier versions, which lack the sides of
                the mosaics' windows.
        """
        arrays = read_arrays(path)
        novelty = _part(arrays, "novelty")
        found = cls(
            novelty={earlier.name(side): earlier.novelty(one) for side, one in novelty.items()},
            paths={earlier.name(side): x for side, x in _part(arrays, "path")[""].items()},
            tracing=_tracing(arrays, scales),
        )
        found._check()
        return found

    def _check(self) -> None:
        """Make sure that the parts are of known sides and fit together.

        Raises:
            ValueError: when they do not.
        """
        told = self.tracing
        mosaics = {} if told is None else {**told.mosaics, **told.yardsticks}
        known = {NETWORK, HELD_OUT, COPIES, *MACHINES}
        if strange := {*self.paths, *self.novelty, *mosaics} - known:
            raise ValueError(f"'{min(strange)[:40]}' is neither the network nor a machine")
        shape = self.paths[NETWORK].shape
        if len(shape) != 5 or {one.shape for one in self.paths.values()} != {shape}:
            raise ValueError("the paths are of different shapes")
        for side, one in self.novelty.items():
            if {len(values) for values in one.tensors().values()} != {len(one.nearest)}:
                raise ValueError(f"the novelty of '{side}' is of different lengths")
        for side, mosaic in mosaics.items():
            _check_mosaic(side, mosaic, shape[2:])


def _check_mosaic(side: str, mosaic: Mosaic, image: tuple[int, ...]) -> None:
    """Make sure that a mosaic's tensors are of the shapes that `Mosaic` says.

    Raises:
        ValueError: when one is not.
    """
    (m, n), (_, h, w) = mosaic.weight.shape[:2], image
    forms = {
        "pixels": (m, n, *image),
        "best": (m, n, 3, h, w),
        "second": (n, 3, h, w),
        "second_weight": (n, h, w),
        "consistency": (m, n),
    }
    for name, values in mosaic.tensors().items():
        if tuple(values.shape) != forms.get(name, (m, n, h, w)):
            raise ValueError(f"{name} in the mosaic of '{side}' is of another shape")
    if not len(mosaic.t) == len(mosaic.sides) == m:
        raise ValueError(f"the mosaic of '{side}' has {len(mosaic.t)} times, not {m}")


def _tracing_arrays(tracing: Tracing) -> _Arrays:
    training = tracing.training
    arrays = {
        "machine": np.array(tracing.machine),
        "training/indices": training.indices.numpy(),
        "training/pixels": training.pixels.numpy(),
        "classes": np.array(training.classes, dtype=str),
    }
    if training.labels is not None:
        arrays["training/labels"] = training.labels.numpy()
    for kind, mosaics in (("mosaic", tracing.mosaics), ("yardstick", tracing.yardsticks)):
        for side, mosaic in mosaics.items():
            arrays[f"{kind}/{side}/t"] = np.array(mosaic.t)
            arrays[f"{kind}/{side}/sides"] = np.array(mosaic.sides)
            arrays |= {f"{kind}/{side}/{k}": v.numpy() for k, v in mosaic.tensors().items()}
    return arrays


def _tracing(arrays: Mapping[str, np.ndarray], scales: Mapping[str, Scales]) -> Tracing | None:
    machine = str(arrays.get("machine", ""))
    if not machine:
        return None

    def mosaics(kind: str) -> dict[str, Mosaic]:
        found = {}
        for side, values in _part(arrays, kind).items():
            t = tuple(values.pop("t").tolist())
            kept = values.pop("sides", None)
            sides = earlier.sides(scales[machine], t) if kept is None else tuple(kept.tolist())
            found[side] = Mosaic(t=t, sides=sides, **values)
        return found

    training = _part(arrays, "training")[""]
    classes = tuple(arrays["classes"].tolist())
    return Tracing(
        machine=machine,
        mosaics=mosaics("mosaic"),
        yardsticks=mosaics("yardstick"),
        training=TrainingImages(**training, classes=classes),
    )


def _part(arrays: Mapping[str, np.ndarray], kind: str) -> dict[str, dict[str, Tensor]]:
    """The arrays <kind>/<side>/<name>, by side and name; the side of <kind>/<name> is empty."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in arrays.items():
        start, _, rest = name.partition("/")
        side, _, key = rest.rpartition("/")
        if start == kind:
            found.setdefault(side, {})[key] = torch.from_numpy(value)
    return found


def shown_images(
    images: ImageSet, mosaics: Iterable[Mosaic], order: Iterable[int], *, budget: int = _BUDGET
) -> TrainingImages:
    """The images that the mosaics of the seeds draw on at any step, the first seeds' first.

    Args:
        images: the training images.
        mosaics: of the same seeds.
        order: positions of the seeds, those to be shown first.
        budget: bytes of pixels to keep; a seed's images with the most weight come first.
    """
    most = max(1, budget // images.pixels[0].numel())
    chosen: dict[int, None] = {}
    mosaics = list(mosaics)
    for i in order:
        if len(chosen) >= most:
            break
        won = torch.cat([one.best[:, i, 0].flatten() for one in mosaics])
        weight = torch.cat([one.weight[:, i].flatten() for one in mosaics]).double()
        found, place = won.unique(return_inverse=True)
        total = torch.zeros(len(found), dtype=torch.float64).index_add_(0, place, weight)
        chosen |= dict.fromkeys(found[total.argsort(descending=True, stable=True)].tolist())
    indices = torch.tensor(sorted(list(chosen)[:most]))
    part = images.take(indices)
    return TrainingImages(indices, part.pixels, part.labels, part.classes)
