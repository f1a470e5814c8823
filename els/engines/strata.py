"""Training patches sorted into strata of patches that are alike, with a model of each.

The patches of one size at all places of all images are projected on their leading principal
components and clustered there by a tree of two levels. A stratum is modelled by a Gaussian: means
and variances along those components and, for all that they leave out, one variance.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from threadpoolctl import threadpool_limits
from torch import Tensor

from els.engines.dictionary import Region
from els.engines.strata_code import SHORT, assign, sort_patches
from els.work import tick

# Tried at 12,000 and 50,000 CIFAR-10 images: with four times as many strata half the draws are
# needed, which weighing so many costs again; more components change nothing.
_BRANCHES = 64
_LEAVES = 64
_FEW_BRANCHES = 16  # where a border leaves few patches
_FEW_LEAVES = 64
_COMPONENTS = SHORT - 1
_SAMPLE = 48  # patches for each stratum from which components and centres are found
_LEAST_VARIANCE = 1.0  # of a stratum along a component, in squared levels
_IMAGES_AT_A_TIME = 500
_MEASURED = 4  # every so many of these chunks, strata are measured
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
        origin: the mean patch (m c), flattened; this and all below in levels.
        components: principal components of patches (m c, d).
        mean: of the projected patches of each stratum (L d).
        variance: of the same (L d).
        rest: mean squared norm of what the components leave out (L,).
        centre: mean of the centre pixels (L c).
        spread: their variance, averaged over channels (L,).
    """

    images: Tensor
    image_shape: tuple[int, int, int]
    region: Region
    order: Tensor
    start: Tensor
    origin: Tensor
    components: Tensor
    mean: Tensor
    variance: Tensor
    rest: Tensor
    centre: Tensor
    spread: Tensor

    @property
    def patches(self) -> int:
        """How many there are."""
        return len(self.order)

    def features(self, patches: Tensor, alpha: float) -> Tensor:
        """What `terms` are multiplied with, for patches of noisy images in levels (p, m c)."""
        away = patches - alpha * self.origin
        along = away @ self.components
        rest = (away.square().sum(dim=1) - along.square().sum(dim=1)).clamp(min=0)
        norm = patches.square().sum(dim=1)
        columns = [along.square(), along, torch.stack([rest, norm, torch.ones_like(rest)], dim=1)]
        return torch.cat(columns, dim=1).contiguous()

    def basis(self, stride: int) -> tuple[Tensor, Tensor]:
        """What patches are projected on for a first comparison, as `Task` in strata.cpp has it.

        Returns:
            the components and, last, the mean patch, as columns (stride, SHORT) with zeros between
            and below, and the inner products of these with the mean patch.
        """
        left = SHORT - 1 - self.components.shape[1]
        columns = torch.cat([F.pad(self.components, (0, left)), self.origin[:, None]], dim=1)
        return F.pad(columns, (0, 0, 0, stride - len(columns))).contiguous(), self.origin @ columns

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
        components = _principal(some - origin)
        tree = _tree((some - origin) @ components, branches, leaves)
    stratum = torch.empty(n * region.places, dtype=torch.int32)
    sums = _Sums(branches * leaves, components.shape[1], c)
    for i, (first, chunk) in enumerate(_chunks(pixels[:, :, *region.rectangle])):
        along = _project(chunk, components, origin, region)
        own = stratum[first * region.places : first * region.places + len(along)]
        assign(along, *tree, own)
        if i % _MEASURED == 0:
            sums.add(own.long(), along, *_measure(chunk, along, origin, region))
        tick(len(chunk) / n)
    start = F.pad(torch.bincount(stratum, minlength=sums.strata).cumsum(0), (1, 0))
    places = {"rows": region.rows.places, "columns": region.columns.places}
    order = sort_patches(stratum, start, **places, height=h, width=w)
    return Strata(
        images=images,
        image_shape=(c, h, w),
        region=region,
        order=order.add_(region.rows.first * w + region.columns.first),
        start=start,
        origin=origin,
        components=components,
        **sums.moments(),
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


def _chunks(pixels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The images as levels, some at a time, and the index of the first of them."""
    for first in range(0, len(pixels), _IMAGES_AT_A_TIME):
        yield first, pixels[first : first + _IMAGES_AT_A_TIME].float() - MIDDLE


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
    """The leading principal components (D, d) of patches less their mean (m, D)."""
    half = away[: len(away) // 2]
    _, vectors = torch.linalg.eigh(half.T @ half / len(half))
    return vectors.flip(1)[:, :_COMPONENTS].contiguous()


def _tree(along: Tensor, branches: int, leaves: int) -> tuple[Tensor, Tensor]:
    """Centres of branches (d + 1, B) and of each one's leaves (B, d + 1, L), as `assign` wants."""
    centres, branch = _k_means(along, branches)
    each = [_k_means(along[branch == i], leaves)[0] for i in range(branches)]
    return _with_square(centres), torch.stack([_with_square(one) for one in each])


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


def _project(chunk: Tensor, components: Tensor, origin: Tensor, region: Region) -> Tensor:
    """The patches of images (n c h w) along the components (n places, d)."""
    i, j = region.rows.cells, region.columns.cells
    kernel = rearrange(components, "(i j c) d -> d c i j", i=i, j=j).contiguous()
    found = F.conv2d(chunk, kernel, -(origin @ components))
    return rearrange(found, "n d i j -> (n i j) d").contiguous()


def _measure(chunk: Tensor, along: Tensor, origin: Tensor, region: Region) -> tuple[Tensor, Tensor]:
    """What components leave out of each patch (p,), and its centre pixel (p c)."""
    rows, columns = region
    i, j = rows.cells, columns.cells
    norm = F.avg_pool2d(chunk.square().sum(dim=1, keepdim=True), (i, j), 1) * (i * j)
    kernel = rearrange(origin, "(i j c) -> 1 c i j", i=i, j=j).contiguous()
    away = norm - 2 * F.conv2d(chunk, kernel) + origin.square().sum()
    rest = (away.flatten() - along.square().sum(dim=1)).clamp(min=0)
    centre = chunk[:, :, rows.centre :, columns.centre :][:, :, : rows.places, : columns.places]
    return rest, rearrange(centre, "n c i j -> (n i j) c")


class _Sums:
    """Sums over the patches of each stratum."""

    def __init__(self, strata: int, d: int, c: int) -> None:
        self.strata = strata
        self.count, self.rest, self.square, self.along, self.centre = (
            torch.zeros(strata, *shape, dtype=torch.float64)
            for shape in ((), (), (), (2 * d,), (c,))
        )

    def add(self, stratum: Tensor, along: Tensor, rest: Tensor, centre: Tensor) -> None:
        """Take in patches."""
        along, rest, centre = along.double(), rest.double(), centre.double()
        self.count.index_add_(0, stratum, torch.ones_like(rest))
        self.along.index_add_(0, stratum, torch.cat([along, along.square()], dim=1))
        self.rest.index_add_(0, stratum, rest)
        self.centre.index_add_(0, stratum, centre)
        self.square.index_add_(0, stratum, centre.square().mean(dim=1))

    def moments(self) -> dict[str, Tensor]:
        """Those of `Strata`; a stratum of few patches has the variances of an average one."""
        count = self.count.clamp(min=1)[:, None]
        mean, second = (self.along / count).chunk(2, dim=1)
        variance = (second - mean.square()).clamp(min=_LEAST_VARIANCE)
        rest = self.rest / count[:, 0]
        enough = self.count >= 8
        if enough.any():
            variance[~enough] = variance[enough].mean(dim=0)
            rest[~enough] = rest[enough].mean()
        centre = self.centre / count
        spread = (self.square / count[:, 0] - centre.square().mean(dim=1)).clamp(min=0)
        found = {"mean": mean, "variance": variance, "rest": rest, "centre": centre,
                 "spread": spread}  # fmt: skip
        return {name: value.float().contiguous() for name, value in found.items()}
