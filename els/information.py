"""How many patches a machine averages over, and where its posterior collapses onto one of them.

A patch machine's answer is a mean over training patches. At high noise and small scales the mean is
over many of them; where it is over one, the machine copies that patch. What decides is how well the
training patches cover the surroundings of a pixel (arXiv 2607.08041): their number against what the
noisy surroundings tell about them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from els.denoiser import Denoiser, at_time, identity_of
from els.engines.dictionary import inside
from els.engines.posterior import Posterior
from els.engines.windows import window
from els.errors import InputError
from els.files import replacing
from els.images import ImageSet, to_float
from els.machines.base import Number
from els.machines.gaussian import EIGENVALUES, Cost
from els.machines.local import SCALES, Move, PatchMachine, moves
from els.reading import read_arrays
from els.sampling import Starts, ddim_steps
from els.work import IN_MEMORY, Advance, Tensors, Work

HALF = 0.5  # the largest weight from which on one patch has more than all others
_MOST_PATCHES = 1 << 14  # that a covariance is taken from
_PLACES = (1 / 6, 1 / 2, 5 / 6)  # along each axis, of patches that keep to their place


@dataclass(frozen=True)
class Information:
    """The posterior of a patch machine over training patches, at each of m times and k scales.

    The machine was asked at the x of the network's own path from n seeds.

    Attributes:
        machine: its kind.
        scale: what the candidates are, such as "size".
        seeds: of the paths (n).
        t: the times, from 1 downwards (m).
        candidates: the values of the scale, ascending (k).
        entropy: H = -sum_j w_j ln w_j at each pixel, in nats, at least 0 (m k n h w).
        largest: the largest of the weights w_j there, in (0, 1] (m k n h w).
        log_count: ln N of the N patches that a pixel may use whose window lies inside the image, or
            of its own place for a machine that keeps to it (k).
        told: I = 1/2 sum_i ln(1 + (alpha / sigma)^2 lambda_i), in nats (m k): what the noisy patch
            would tell about the clean one, were patches Gaussian; lambda_i are the eigenvalues of
            their covariance.
    """

    machine: str
    scale: str
    seeds: tuple[int, ...]
    t: tuple[float, ...]
    candidates: tuple[Number, ...]
    entropy: Tensor
    largest: Tensor
    log_count: Tensor
    told: Tensor

    @property
    def effective_patches(self) -> Tensor:
        """The median over pixels and seeds of exp H, the effective number of patches (m k)."""
        return _median(self.entropy.double().exp())

    @property
    def largest_weight(self) -> Tensor:
        """The median over pixels and seeds of the largest weight (m k)."""
        return _median(self.largest)

    def weight_at(self, values: Sequence[Number]) -> tuple[float, ...]:
        """At each t: the `largest_weight` at a value of the scale (m), or the nearest candidate."""
        nearest = [
            min(range(len(self.candidates)), key=lambda i: abs(self.candidates[i] - value))
            for value in values
        ]
        return tuple(self.largest_weight[range(len(nearest)), nearest].tolist())

    @property
    def predicted(self) -> Tensor:
        """S = max(0, ln N - I), the entropy that Gaussian patches would have, in nats (m k)."""
        return (self.log_count - self.told).clamp(min=0)

    @property
    def k_mem(self) -> tuple[Number | None, ...]:
        """At each t: the largest scale up to which the median largest weight is below one half.

        None where it is not at the smallest.
        """
        return self._last_before(self.largest_weight < HALF)

    @property
    def k_collapse(self) -> tuple[Number | None, ...]:
        """At each t: the largest scale up to which S is above 0; None where it is not at any."""
        return self._last_before(self.predicted > 0)

    def save(self, path: str | Path) -> None:
        """Write as arrays, by the names of the fields, whole or not at all."""
        arrays = {one.name: np.asarray(getattr(self, one.name)) for one in fields(self)}
        with replacing(Path(path)) as partial:
            np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]  # numpy's stub

    @classmethod
    def load(cls, path: str | Path) -> Information:
        """Read what `save` wrote.

        Raises:
            OSError, ValueError, KeyError: when the file is missing or something else.
        """
        found = read_arrays(Path(path))
        return cls(
            machine=str(found["machine"]),
            scale=str(found["scale"]),
            seeds=tuple(found["seeds"].tolist()),
            t=tuple(found["t"].tolist()),
            candidates=tuple(found["candidates"].tolist()),
            entropy=torch.from_numpy(found["entropy"]),
            largest=torch.from_numpy(found["largest"]),
            log_count=torch.from_numpy(found["log_count"]),
            told=torch.from_numpy(found["told"]),
        )

    def _last_before(self, holds: Tensor) -> tuple[Number | None, ...]:
        """The last scale of an unbroken row, from the smallest on, at which it holds (m k)."""
        found = []
        for row in holds.tolist():
            count = len(list(takewhile(bool, row)))
            found.append(self.candidates[count - 1] if count else None)
        return tuple(found)


def _median(maps: Tensor) -> Tensor:
    """Over seeds and pixels of maps (m k n h w): (m k), float64."""
    return maps.flatten(2).double().quantile(0.5, dim=-1)


def measure_information(
    network: Denoiser,
    machine: PatchMachine,
    starts: Starts,
    seeds: Sequence[int],
    *,
    steps: int = 20,
    candidates: Sequence[Number] | None = None,
    work: Work = IN_MEMORY,
) -> Information:
    """Ask a machine at every candidate scale, on the network's own DDIM path, for its posterior.

    Args:
        network: the denoiser whose path is followed.
        machine: a patch machine; it is asked exactly, whatever its tolerance.
        starts: where the paths start.
        seeds: of the paths.
        steps: number of steps of the path.
        candidates: values of the scale; default: those of `machine.scale`.
        work: where results are kept, and how they are computed.

    Raises:
        InputError: when there is no seed or no candidate.

    Example:
        >>> from els.images import load_images
        >>> from els.machines import make_machine
        >>> images = load_images("digits", limit=20, size=8)
        >>> machine = make_machine("local", images, size=5)
        >>> found = measure_information(
        ...     machine, machine, Starts(images.image_shape), [0], steps=2, candidates=[3, 5]
        ... )
        >>> found.entropy.shape
        torch.Size([2, 2, 1, 8, 8])
        >>> bool((found.effective_patches <= 20).all())  # of 20 images, each at its own place
        True
    """
    scale = SCALES[machine.window]
    values = sorted(scale.candidates if candidates is None else candidates)
    if not len(seeds) or not values:
        raise InputError(
            f"information needs seeds and values to try; it was given {len(seeds)} seeds and "
            f"{len(values)} values"
        )
    exact = machine.estimating(0.0)

    def compute(some: list[int], advance: Advance) -> Tensors:
        x, label = starts(some)
        found = []
        path = ddim_steps(network, x, steps=steps, label=label, schedule=machine.schedule)
        for step in path:
            found.append(_asked(exact, step.x, at_time(step.x, step.t), label, values))
            advance(len(some))
        return {name: torch.stack([one[name] for one in found], dim=1) for name in found[0]}

    depends = ["information", identity_of(network), exact.identity, values, steps, starts.identity]
    found = work.map(f"information of {machine.kind}", seeds, compute, depends=depends, steps=steps)
    t = tuple(machine.schedule.timesteps(steps)[:-1].tolist())
    told, log_count = _told(exact, classes_of(starts, seeds), t, values, work)
    by_time = {name: value.permute(1, 2, 0, 3, 4).contiguous() for name, value in found.items()}
    return Information(
        machine=machine.kind,
        scale=scale.name,
        seeds=tuple(seeds),
        t=t,
        candidates=tuple(values),
        entropy=by_time["entropy"],
        largest=by_time["largest"],
        log_count=log_count,
        told=told,
    )


def _asked(
    machine: PatchMachine, x: Tensor, t: Tensor, label: Tensor | None, values: Sequence[Number]
) -> Tensors:
    """Entropy and largest weight at each value of the scale (b k h w), on the CPU."""
    shape = (len(x), len(values), *x.shape[2:])
    found = {name: torch.empty(shape) for name in ("entropy", "largest")}

    def keep(i: list[int], at: int, part: Posterior) -> None:
        # Of a single patch rounding may leave less than nothing.
        found["entropy"][i, at] = part.entropy[:, 0].clamp(min=0).float().cpu()
        found["largest"][i, at] = part.best_weight[:, 0].float().cpu()

    for (some, one_label), i in machine.group_queries(t, label, values).items():
        pixels = machine.of_class(one_label).pixels
        for at, part in enumerate(machine.posteriors(x[i], t[i], pixels, some, details=True)):
            keep(i, at, part)
    return found


# --- what Gaussian patches would have -----------------------------------------------------------


def classes_of(starts: Starts, seeds: Sequence[int]) -> list[int | None]:
    """The classes of the seeds, each once; None alone of starts without classes."""
    _, label = starts(seeds)
    return [None] if label is None else sorted(set(label.tolist()))


def _told(
    machine: PatchMachine,
    classes: Sequence[int | None],
    t: Sequence[float],
    values: Sequence[Number],
    work: Work,
) -> tuple[Tensor, Tensor]:
    """I (m k) and ln N (k), averaged over classes."""
    times = torch.tensor(t, dtype=torch.float64)
    ratio = (machine.schedule.alpha(times) / machine.schedule.sigma(times)) ** 2
    ratio = ratio / machine.options.temperature
    asked = [(one, value) for one in classes for value in values]

    def compute(some: list[int], advance: Advance) -> Tensors:
        told, log_count = [], []
        for one, value in (asked[i] for i in some):
            images = machine.of_class(one)
            told.append(gaussian_information(machine, images, value, ratio))
            log_count.append(math.log(patch_count(machine, images, value)))
            advance(1)
        return {
            "told": torch.stack(told),
            "log_count": torch.tensor(log_count, dtype=torch.float64),
        }

    name = f"covariances of the patches of {machine.kind}"
    depends = ["Gaussian information", machine.identity, ratio.tolist()]
    found = work.map(name, range(len(asked)), compute, depends=depends, keys=asked)
    over_classes = {
        name: rearrange(value, "(l k) ... -> l k ...", k=len(values)).mean(dim=0)
        for name, value in found.items()
    }
    return over_classes["told"].T.contiguous(), over_classes["log_count"]


def patch_count(machine: PatchMachine, images: ImageSet, value: Number) -> int:
    """N: the patches that a pixel may use whose window lies inside the image, if any does."""
    size, _ = window(machine.window, value)
    places = len(_places(machine, images, size)[0]) if _moves(machine, images, size) else 1
    return len(images) * places * len(moves(machine.symmetries))


def gaussian_information(
    machine: PatchMachine, images: ImageSet, value: Number, ratio: Tensor
) -> Tensor:
    """I = 1/2 sum_i ln(1 + ratio lambda_i) of the patches at a value of the scale, in nats.

    Cells of a soft window count by their weight, as in the machine's distances. Of a machine that
    keeps to its place it is the mean over nine places of the image.

    Args:
        machine: whose patches they are.
        images: the training images.
        value: of the scale.
        ratio: (alpha / sigma)^2 at each of the times (m,).
    """
    size, _ = window(machine.window, value)
    centres = _places(machine, images, size)
    groups = [centres]
    if not _moves(machine, images, size):
        groups = [(row[None], column[None]) for row, column in zip(*centres, strict=True)]
    found = [
        torch.log1p(ratio[:, None] * _variances(machine, images, value, *some)).sum(dim=1) / 2
        for some in groups
    ]
    return torch.stack(found).mean(dim=0)


def covariance_cost(machine: PatchMachine, images: ImageSet, value: Number) -> Cost:
    """What `gaussian_information` takes, at most: of windows that no border cuts off."""
    c, h, w = images.image_shape
    size, _ = window(machine.window, value)
    places = len(_places(machine, images, size)[0])
    groups, of_each = (1, places) if _moves(machine, images, size) else (places, 1)
    count, cells = min(_MOST_PATCHES, len(images) * of_each), c * min(size, h) * min(size, w)
    products = count * cells**2 * len(moves(machine.symmetries))
    # Patches are there as they are, weighted and centred.
    return Cost(groups * (products + EIGENVALUES * cells**3), 3 * count * cells + 2 * cells**2)


def _moves(machine: PatchMachine, images: ImageSet, size: int) -> bool:
    """Whether patches of a size may be used at other places than their own."""
    return machine.rule != "local" and size <= min(images.image_shape[1:])


def _places(machine: PatchMachine, images: ImageSet, size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of centres: all whose windows lie inside, or nine where each is its own."""
    _, h, w = images.image_shape
    if _moves(machine, images, size):
        region = inside(size, h, w)
        rows, columns = (torch.arange(s.start, s.stop) for s in region.pixels)
        if machine.options.shift is not None:  # what one pixel, that in the middle, may use
            rows, columns = (
                some[(some - n // 2).abs() <= machine.options.shift]
                for some, n in ((rows, h), (columns, w))
            )
    else:
        rows, columns = (torch.tensor([int(share * n) for share in _PLACES]) for n in (h, w))
    both = torch.cartesian_prod(rows, columns)
    return both[:, 0], both[:, 1]


def _variances(
    machine: PatchMachine, images: ImageSet, value: Number, rows: Tensor, columns: Tensor
) -> Tensor:
    """Eigenvalues of the covariance of all patches around some centres, or of some of them.

    A window that crosses a border is cut off there, as what lies beyond is the same for all.
    """
    means, within = [], []
    for there, _ in moves(machine.symmetries):  # one after the other: all together take much memory
        patches = _patches(images.pixels, there, machine, value, rows, columns)
        means.append(patches.mean(dim=0))
        within.append(_covariance(patches))
    covariance = torch.stack(within).mean(dim=0) + _covariance(torch.stack(means))
    return torch.linalg.eigvalsh(covariance).clamp(min=0)


def _covariance(rows: Tensor) -> Tensor:
    """That of rows (n d): (d d)."""
    centred = rows - rows.mean(dim=0)
    return centred.T @ centred / len(rows)


def _patches(
    pixels: Tensor,
    there: Move,
    machine: PatchMachine,
    value: Number,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """Patches (p, cells) of moved images in float64, each cell times the root of its weight."""
    size, profile = window(machine.window, value)
    h, w = pixels.shape[2:]
    count = len(pixels) * len(rows)
    if count <= _MOST_PATCHES:
        chosen = torch.arange(count)
    else:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randint(count, (_MOST_PATCHES,), generator=generator)
    some, image = (chosen // len(rows)).unique(return_inverse=True)
    place, moved = chosen % len(rows), there(pixels[some])  # no more are moved than are looked at
    reach = torch.arange(-(size // 2), size // 2 + 1)
    line = torch.ones(size) if profile is None else torch.tensor([*profile[:0:-1], *profile])
    down, across = (reach[_always_inside(at, reach, n)] for at, n in ((rows, h), (columns, w)))
    weight = torch.outer(line[down + size // 2], line[across + size // 2]).double().sqrt()
    y, x = rows[place][:, None, None] + down[:, None], columns[place][:, None, None] + across
    cells = to_float(moved[image[:, None, None], :, y, x]).double()  # (p rows columns c)
    return (cells * weight[..., None]).flatten(1)


def _always_inside(centres: Tensor, reach: Tensor, length: int) -> Tensor:
    """Which offsets lead from every one of the centres to a place inside."""
    return (centres.min() + reach >= 0) & (centres.max() + reach < length)
