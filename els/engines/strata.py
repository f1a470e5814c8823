"""Training patches sorted into strata of patches that are alike, with a model of each.

The patches of one size at all places of all images are projected on their leading principal
components and clustered there by a tree of two levels. A stratum is modelled by a Gaussian: means
and variances along those components and, for all that they leave out, one variance.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from threadpoolctl import threadpool_limits
from torch import Tensor

from els.engines.dictionary import Region
from els.engines.strata_code import SHORT, Sorted, sort_patches

# Tried at 12,000 and 50,000 CIFAR-10 images: with four times as many strata half the draws are
# needed, which weighing so many costs again; more components change nothing.
_BRANCHES = 64
_LEAVES = 64
_FEW_BRANCHES = 16  # where a border leaves few patches
_FEW_LEAVES = 64
_COMPONENTS = SHORT - 1
_SAMPLE = 48  # patches for each stratum from which components and centres are found
_LEAST_VARIANCE = 1.0  # of a stratum along a component, in squared levels
_ENOUGH = 8  # patches that a stratum's variances are told from
# Codes reach so many standard deviations to either side, and so many roots of the mean square of
# what coordinates leave out.
_REACH, _REST_REACH = 8, 5  # of the latter, strata.cpp knows what is usual
_MOST_BYTES, _SHARE_OF_MEMORY = 2.5e9, 0.25  # that strata may take which stay
_NOWHERE = 1e9  # in levels: farther than any patch
_SPARE = 64  # bytes past the last pixel that the compiled code may read
MIDDLE = 127.5  # a byte less this is a level; levels over this are pixels in [-1, 1]


@dataclass(frozen=True)
class Strata:
    """All training patches of one region, m cells large, in L strata.

    Attributes:
        images: the images as bytes (n h w c), flattened, and some bytes more.
        image_shape: (c, h, w).
        region: where the patches are from.
        order: patches by stratum, shuffled within each: the index among all pixels (n h w) of the
            one in their first row and column, int32.
        start: where each stratum begins in `order`, int64 (L + 1,).
        codes: what patches look like, in short, as `els.engines.strata_code.sort_patches` has it.
        centres: what coordinates in codes are relative to (L d).
        steps: what a unit of a code stands for (L, d + 1).
        origin: the mean patch (m c), flattened; this and all below in levels.
        components: principal components of patches (m c, d).
        mean: of the projected patches of each stratum (L d).
        variance: of the same (L d).
        lowest, highest: bounds of the projected patches of each stratum (L d).
        rest: mean squared norm of what the components leave out (L,).
        reach: the largest such norm (L,).
        centre: mean of the centre pixels (L c).
        spread: their variance, averaged over channels (L,).
    """

    images: Tensor
    image_shape: tuple[int, int, int]
    region: Region
    order: Tensor
    start: Tensor
    codes: Tensor
    centres: Tensor
    steps: Tensor
    origin: Tensor
    components: Tensor
    mean: Tensor
    variance: Tensor
    lowest: Tensor
    highest: Tensor
    rest: Tensor
    reach: Tensor
    centre: Tensor
    spread: Tensor

    @property
    def patches(self) -> int:
        """How many there are."""
        return len(self.order)

    @property
    def bytes(self) -> int:
        """Of memory, but for the images."""
        return self.codes.numel() + 4 * self.patches

    def features(self, patches: Tensor, alpha: float) -> Tensor:
        """What `terms` are multiplied with, for patches of noisy images in levels (p, m c)."""
        away = patches - alpha * self.origin
        along = away @ self.components
        rest = (away.square().sum(dim=1) - along.square().sum(dim=1)).clamp(min=0)
        norm = patches.square().sum(dim=1)
        columns = [along.square(), along, torch.stack([rest, norm, torch.ones_like(rest)], dim=1)]
        return torch.cat(columns, dim=1).contiguous()

    def terms(self, alpha: float, sigma: float) -> Tensor:
        """log2 sqrt(E w^2) of each stratum's patches is the features times this (terms, L).

        w = exp(-(||p||^2 alpha^2 - 2 alpha <x, p>) / (2 sigma^2)): a patch's weight without what
        all have in common.
        """
        noise, share = (sigma * MIDDLE) ** 2, 2 * alpha**2
        left = self.components.shape[0] - self.components.shape[1]
        rest = self.rest / max(left, 1)
        inverse = 1 / (noise + share * self.variance)
        constant = (share / noise * self.variance).log1p().sum(dim=1) / 2
        constant += left / 2 * (share / noise * rest).log1p()
        constant += alpha**2 * (self.mean.square() * inverse).sum(dim=1)
        common = torch.full_like(rest, 1 / noise)
        others = -1 / (noise + share * rest) if left else torch.zeros_like(rest)
        rows = [-inverse, 2 * alpha * self.mean * inverse]
        rows += [one[:, None] for one in (others, common, -constant)]
        return (torch.cat(rows, dim=1).T / (2 * math.log(2))).contiguous()


class Shelf:
    """Strata that were made. What fits stays; of the rest, those of one kind until another comes.

    An analysis goes through the sizes of patches in the same order again and again: then those
    that stay are of use each time, and only the others are made anew.

    Attributes:
        most: bytes that those which stay may take together.
    """

    def __init__(self, most: float | None = None) -> None:
        self.most = most_bytes() if most is None else most
        self._kept: dict[object, Strata] = {}
        self._guests: dict[object, Strata] = {}
        self._kind: object = None

    def get(self, kind: object, key: object, make: Callable[[], Strata]) -> Strata:
        """Those of a key, made where they are not here.

        Args:
            kind: what those have in common that are used together, such as their size.
            key: of these.
            make: makes them.
        """
        if (found := self._kept.get(key) or self._guests.get(key)) is not None:
            return found
        if kind != self._kind:
            self._guests.clear()
        strata = make()
        if sum(one.bytes for one in self._kept.values()) + strata.bytes <= self.most:
            self._kept[key] = strata
        else:
            self._guests[key], self._kind = strata, kind
        return strata


def most_bytes() -> float:
    """Of memory that strata may take: a part of that of the machine."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not known here
        return _MOST_BYTES
    return min(_MOST_BYTES, _SHARE_OF_MEMORY * machine)


def bytes_of(pixels: Tensor) -> Tensor:
    """Images, uint8 (n c h w), as `Strata.images`; strata of several regions can share them."""
    return F.pad(rearrange(pixels, "n c h w -> (n h w c)"), (0, _SPARE))


def build_strata(pixels: Tensor, images: Tensor, region: Region) -> Strata:
    """Sort the patches of a region of all images.

    Args:
        pixels: the images, uint8 (n c h w).
        images: the same by `bytes_of`.
        region: where the patches are.

    Raises:
        NativeUnavailableError: when there is no compiled code here.
    """
    n, c, h, w = pixels.shape
    cut = (slice(None), *region.rectangle)
    branches, leaves = (_FEW_BRANCHES, _FEW_LEAVES) if region.is_cut else (_BRANCHES, _LEAVES)
    by_pixel = images[: pixels.numel()].view(n, h, w, c)
    some = _some_patches(by_pixel[cut], region, _SAMPLE * branches * leaves)
    with _one_thread():  # sums are rounded otherwise on more, and from them on all would differ
        origin = some.mean(dim=0)
        some -= origin
        components = _principal(some)
        along = some @ components
        rest = (some.square().sum(dim=1) - along.square().sum(dim=1)).clamp(min=0)
        tree = _tree(along, rest, branches, leaves)
    basis, shift = _basis(components, origin)
    found = sort_patches(by_pixel, region, {"basis": basis, "shift": shift, **tree})
    return Strata(
        images=images,
        image_shape=(c, h, w),
        region=region,
        order=found.order,
        start=found.start,
        codes=found.codes,
        centres=tree["centres"],
        steps=tree["steps"],
        origin=origin,
        components=components,
        **_model(found, tree["centres"], tree["steps"]),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _some_patches(by_pixel: Tensor, region: Region, most: int) -> Tensor:
    """Patches at random places of a region of images (n h w c), as levels (count, m c)."""
    n = len(by_pixel)
    rows, columns = region
    generator = torch.Generator().manual_seed(0)
    count = min(most, n * region.places)
    image, row, column = (
        torch.randint(among, (count, 1, 1), generator=generator)
        for among in (n, rows.places, columns.places)
    )
    down, across = torch.arange(rows.cells)[:, None], torch.arange(columns.cells)
    return by_pixel[image, row + down, column + across].flatten(1).float() - MIDDLE


def _principal(away: Tensor) -> Tensor:
    """The leading principal components (D, d) of patches less their mean (m D)."""
    half = away[: len(away) // 2]
    _, vectors = torch.linalg.eigh(half.T @ half / len(half))
    return vectors.flip(1)[:, :_COMPONENTS].contiguous()


def _tree(along: Tensor, rest: Tensor, branches: int, leaves: int) -> dict[str, Tensor]:
    """Centres of branches and of their leaves, and steps of codes, as `sort_patches` wants them.

    Args:
        along: coordinates of patches (m d).
        rest: the squared norm of what these leave out (m,).
    """
    trunk, branch = _k_means(along, branches)
    centres, stratum = torch.zeros(branches, leaves, along.shape[1]), leaves * branch
    for i in range(branches):
        centres[i], leaf = _k_means(along[branch == i], leaves)
        stratum[branch == i] += leaf
    return {
        "branches": _with_square(trunk),
        "leaves": torch.stack([_with_square(one) for one in centres]),
        "centres": centres.flatten(0, 1),
        "steps": _steps(along - centres.flatten(0, 1)[stratum], rest, stratum, branches * leaves),
    }


def _steps(away: Tensor, rest: Tensor, stratum: Tensor, strata: int) -> Tensor:
    """What a unit of a code stands for in each stratum (L, d + 1), by a sample of its patches.

    Args:
        away: coordinates relative to the centre of the stratum (m d).
    """
    squares = torch.cat([away.square(), rest[:, None]], dim=1).double()
    count = torch.bincount(stratum, minlength=strata)
    sums = torch.zeros(strata, squares.shape[1], dtype=torch.float64)
    sums.index_add_(0, stratum, squares)
    mean = sums / count.clamp(min=1)[:, None]
    mean[count < _ENOUGH] = squares.mean(dim=0)
    deviation = mean.clamp(min=_LEAST_VARIANCE).sqrt()
    units = torch.full((squares.shape[1],), _REACH / 127)
    units[-1] = _REST_REACH / 255
    return (deviation * units).float().contiguous()


def _basis(components: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """What patches are projected on, and the inner products of that with the mean patch.

    Returns:
        the components and, last, the mean patch, as columns (m c, SHORT) with zeros between.
    """
    left = SHORT - 1 - components.shape[1]
    columns = torch.cat([F.pad(components, (0, left)), origin[:, None]], dim=1).contiguous()
    return columns, (origin @ columns).contiguous()


def _k_means(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Centres (count d), far away where there are fewer points, and the centre of each point."""
    # Imported here: all machines load this file, and few of them sort patches.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if len(points) < 2 * count:
        some = F.pad(points[:count], (0, 0, 0, max(0, count - len(points))), value=1e6)
        return some, torch.zeros(len(points), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(count, n_init=1, max_iter=10, init="random", random_state=0).fit(
            points.numpy()
        )
    return torch.from_numpy(found.cluster_centers_), torch.from_numpy(found.labels_).long()


def _with_square(centres: Tensor) -> Tensor:
    return torch.cat([centres.T, centres.square().sum(dim=1)[None] / 2]).contiguous()


def _model(found: Sorted, centres: Tensor, steps: Tensor) -> dict[str, Tensor]:
    """Moments and bounds of `Strata`; a stratum of few patches has the variances of an average one.

    Args:
        found: the patches in their strata.
        centres, steps: what codes stand for.
    """
    d = centres.shape[1]

    def coordinates(codes: Tensor) -> Tensor:
        return centres + steps[:, :d] * (codes[:, :d] - 128)

    members = found.start[1:] - found.start[:-1]
    count = members.clamp(min=1)[:, None].double()
    first, second = found.sums / count, found.squares / count
    variance = second - first.square()
    along = (steps[:, :d].square() * variance[:, :d]).clamp(min=_LEAST_VARIANCE)
    rest = steps[:, d].square() * second[:, d]
    if (enough := members >= _ENOUGH).any():
        along[~enough] = along[enough].mean(dim=0)
        rest[~enough] = rest[enough].mean()
    # Codes are rounded, and of patches for which one does not fit they tell nothing.
    least = torch.minimum(found.least[:, : d + 1], found.lowest) - 0.5
    largest = torch.maximum(found.largest[:, : d + 1] + 0.5, found.highest - 0.5)
    lowest = coordinates(least)
    lowest[members == 0] = _NOWHERE
    model = {
        "mean": coordinates(first),
        "variance": along,
        "lowest": lowest,
        "highest": coordinates(largest),
        "rest": rest,
        "reach": steps[:, d] * largest[:, d],
        "centre": first[:, d + 1 :] - MIDDLE,
        "spread": variance[:, d + 1 :].mean(dim=1),
    }
    return {name: value.float().contiguous() for name, value in model.items()}
