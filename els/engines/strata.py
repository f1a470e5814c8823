"""Training patches sorted into strata of patches that are alike, with a model of each.

The patches of one size at all places of all images are projected on their leading principal
components and clustered there by a tree of two levels. A stratum is modelled by a Gaussian: means
and variances along those components and, for all that they leave out, one variance.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from els.engines.strata_code import assign, sort_patches
from els.work import tick

# Tried at 12,000 and 50,000 CIFAR-10 images: with four times as many strata half the draws are
# needed, which weighing so many costs again; more components change nothing.
_BRANCHES = 64
_LEAVES = 64
_COMPONENTS = 24
_SAMPLE = 200_000  # patches from which components and centres are found
_LEAST_VARIANCE = 1.0  # of a stratum along a component, in squared levels
_IMAGES_AT_A_TIME = 500
_MEASURED = 4  # every so many of these chunks, strata are measured
_SPARE = 64  # bytes past the last pixel that the compiled code may read
MIDDLE = 127.5  # a byte less this is a level; levels over this are pixels in [-1, 1]


@dataclass(frozen=True)
class Strata:
    """All patches of one size that lie wholly inside the training images, in L strata.

    Attributes:
        images: the images as bytes (n h w c), flattened, and some bytes more.
        image_shape: (c, h, w).
        size: the patch size k.
        order: patches by stratum, shuffled within each: the index among all pixels (n h w) of the
            one in their first row and column, int32.
        start: where each stratum begins in `order`, int64 (L + 1,).
        origin: the mean patch (k k c), flattened; this and all below in levels.
        components: principal components of patches (k k c, d).
        mean: of the projected patches of each stratum (L d).
        variance: of the same (L d).
        rest: mean squared norm of what the components leave out (L,).
        centre: mean of the centre pixels (L c).
        spread: their variance, averaged over channels (L,).
    """

    images: Tensor
    image_shape: tuple[int, int, int]
    size: int
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
        """What `terms` are multiplied with, for patches of noisy images in levels (p, k k c)."""
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


def bytes_of(pixels: Tensor) -> Tensor:
    """Images, uint8 (n c h w), as `Strata.images`; strata of several sizes can share them."""
    return F.pad(rearrange(pixels, "n c h w -> (n h w c)"), (0, _SPARE))


def build_strata(pixels: Tensor, images: Tensor, size: int) -> Strata:
    """Sort the patches that lie wholly inside their image.

    Args:
        pixels: the images, uint8 (n c h w).
        images: the same by `bytes_of`.
        size: the patch size k, odd, at most their height and width.

    Raises:
        NativeUnavailableError: when there is no compiled code here.
    """
    n, c, h, w = pixels.shape
    rows, columns = h - size + 1, w - size + 1
    by_pixel = images[: pixels.numel()].view(n, h, w, c)
    some = _some_patches(by_pixel, size)
    origin = some.mean(dim=0)
    components = _principal(some - origin)
    branches, leaves = _tree((some - origin) @ components)
    stratum = torch.empty(n * rows * columns, dtype=torch.int32)
    sums = _Sums(len(leaves) * leaves.shape[2], components.shape[1], c)
    places = rows * columns
    for i, (first, chunk) in enumerate(_chunks(pixels)):
        along = _project(chunk, components, origin, size)
        own = stratum[first * places : first * places + len(along)]
        assign(along, branches, leaves, own)
        if i % _MEASURED == 0:
            sums.add(own.long(), along, *_measure(chunk, along, origin, size))
        tick(len(chunk) / n)
    start = F.pad(torch.bincount(stratum, minlength=sums.strata).cumsum(0), (1, 0))
    return Strata(
        images=images,
        image_shape=(c, h, w),
        size=size,
        order=sort_patches(stratum, start, rows=rows, columns=columns, height=h, width=w),
        start=start,
        origin=origin,
        components=components,
        **sums.moments(),
    )


def _chunks(pixels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The images as levels, some at a time, and the index of the first of them."""
    for first in range(0, len(pixels), _IMAGES_AT_A_TIME):
        yield first, pixels[first : first + _IMAGES_AT_A_TIME].float() - MIDDLE


def _some_patches(by_pixel: Tensor, size: int) -> Tensor:
    """Patches at random places of images (n h w c), as levels (m, k k c)."""
    n, h, w, _ = by_pixel.shape
    generator = torch.Generator().manual_seed(0)
    count = min(_SAMPLE, n * (h - size + 1) * (w - size + 1))
    image, row, column = (
        torch.randint(most, (count, 1, 1), generator=generator)
        for most in (n, h - size + 1, w - size + 1)
    )
    offset = torch.arange(size)
    patches = by_pixel[image, row + offset[:, None], column + offset]
    return patches.flatten(1).float() - MIDDLE


def _principal(away: Tensor) -> Tensor:
    """The leading principal components (D, d) of patches less their mean (m, D)."""
    half = away[: len(away) // 2]
    _, vectors = torch.linalg.eigh(half.T @ half / len(half))
    return vectors.flip(1)[:, :_COMPONENTS].contiguous()


def _tree(along: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of branches (d + 1, B) and of each one's leaves (B, d + 1, L), as `assign` wants."""
    centres, branch = _k_means(along, _BRANCHES)
    leaves = [_k_means(along[branch == i], _LEAVES)[0] for i in range(_BRANCHES)]
    return _with_square(centres), torch.stack([_with_square(one) for one in leaves])


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


def _project(chunk: Tensor, components: Tensor, origin: Tensor, size: int) -> Tensor:
    """The patches of images (n c h w) along the components (n places, d)."""
    kernel = rearrange(components, "(i j c) d -> d c i j", i=size, j=size).contiguous()
    found = F.conv2d(chunk, kernel, -(origin @ components))
    return rearrange(found, "n d i j -> (n i j) d").contiguous()


def _measure(chunk: Tensor, along: Tensor, origin: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What components leave out of each patch (p,), and its centre pixel (p c)."""
    r, (h, w) = size // 2, chunk.shape[2:]
    norm = F.avg_pool2d(chunk.square().sum(dim=1, keepdim=True), size, 1) * size**2
    kernel = rearrange(origin, "(i j c) -> 1 c i j", i=size, j=size).contiguous()
    away = norm - 2 * F.conv2d(chunk, kernel) + origin.square().sum()
    rest = (away.flatten() - along.square().sum(dim=1)).clamp(min=0)
    return rest, rearrange(chunk[:, :, r : h - r, r : w - r], "n c i j -> (n i j) c")


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
