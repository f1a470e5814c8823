"""Mean and covariance of images by their leading directions, without a large eigenproblem.

Images of 3 x 64 x 64 pixels have a covariance of 12,288 x 12,288. Its eigenvectors are found from
whichever is smaller, the covariance or the images' inner products; where both are large, an
orthonormal basis of what the images vary most in is found instead, of as many directions as it
takes (a randomised block Lanczos iteration; Halko, Martinsson & Tropp, arXiv 0909.4061; Musco &
Musco, arXiv 1504.05477), and what is left counts as white noise.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from els.files import cache_folder, write_tensors
from els.images import ImageSet, to_float

# The largest eigenproblem that is solved.
MOST = 4096
# Root mean square error of x0_hat, in pixel units, at which a basis is large enough.
TOLERANCE = 0.01
# Numbers of a part of the images held at a time: 64 MiB of float64.
_BUDGET = 1 << 23
# Bytes of all Gaussians that are kept in memory.
_MOST_BYTES = 1 << 30
# Raised where numbers come out otherwise than before.
_VERSION = 1
# Multiplications of an eigenproblem with vectors, and of one without, in those of a product of the
# same size; as measured.
_EIGENVECTORS, EIGENVALUES = 6, 3


@dataclass(frozen=True)
class Cost:
    """What linear algebra in float64 takes, by a rule of thumb.

    Attributes:
        multiplications: a product of m x m matrices has m^3.
        numbers: that are held at once, while it is done.
        kept: of these, those that stay.
    """

    multiplications: float
    numbers: float
    kept: float = 0.0


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian over images of d pixels, in float64.

    Its covariance is U diag(variances) U^T + rest (1 - U U^T).

    Attributes:
        mean: (d,).
        variances: along the directions (r,), at least 0, growing.
        directions: U, orthonormal (d r), in columns.
        rest: the variance along every other direction.
        error: what the posterior mean of x0 differs by, at most, from that of a Gaussian with the
            images' own covariance: root mean square over their pixels, and over all noised images.
            0 where the directions are all that there are.
    """

    mean: Tensor
    variances: Tensor
    directions: Tensor
    rest: float = 0.0
    error: float = 0.0

    @property
    def bytes(self) -> int:
        """The memory that it takes."""
        return sum(one.nbytes for one in (self.mean, self.variances, self.directions))

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The posterior mean, mu + alpha C (alpha^2 C + sigma^2)^-1 (x - alpha mu) (b d).

        Args:
            x: noisy images (b d), float64 on the CPU.
            alpha, sigma: of each (b,).
        """
        gains, rest = self._gains(alpha, sigma)
        centred = x - alpha[:, None] * self.mean
        return self.mean + rest * centred + (centred @ self.directions * gains) @ self.directions.T

    def filter(self, alpha: Tensor, sigma: Tensor, rows: slice, columns: slice) -> Tensor:
        """A block of W = alpha C (alpha^2 C + sigma^2)^-1 at one time, for alpha and sigma (1,)."""
        gains, rest = self._gains(alpha, sigma)
        found = (self.directions[rows] * gains) @ self.directions[columns].T
        if rows == columns:
            found.diagonal().add_(rest.squeeze())
        return found

    def leading(self, rank: int) -> Gaussian:
        """Of the same mean and total variance, told apart in its leading directions alone."""
        kept = min(rank, len(self.variances))
        cut = len(self.variances) - kept
        total = float(self.variances[:cut].sum()) + self.rest * self._others
        smaller = replace(self, variances=self.variances[cut:], directions=self.directions[:, cut:])
        return smaller._with_rest(total)

    @property
    def _others(self) -> int:
        """How many directions there are beside its own."""
        return len(self.mean) - len(self.variances)

    def _with_rest(self, total: float) -> Gaussian:
        """The same with the variance `total` in all other directions together.

        With y = U a + z, z what is left, the posterior means of a differ by E|.|^2 <= E|z|^2: what
        else is seen tells no more of a than that, as its posterior variance is at most sigma^2 /
        alpha^2. Those of z differ by no more than the one that takes z as white errs, whose square
        is E|z|^2 sigma^2 / (alpha^2 rest + sigma^2) on average.
        """
        error = math.sqrt(2 * max(total, 0) / len(self.mean))
        return replace(self, rest=max(total, 0) / max(self._others, 1), error=error)

    def _gains(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """What coordinates are multiplied by, alpha lambda / (alpha^2 lambda + sigma^2).

        By how much it is larger in the directions (b r) than in the rest, and in the rest (b 1).
        """
        alpha, sigma = alpha[:, None], sigma[:, None]
        rest = alpha * self.rest / (alpha**2 * self.rest + sigma**2)
        return alpha * self.variances / (alpha**2 * self.variances + sigma**2) - rest, rest


def gaussian_of(values: Tensor) -> Gaussian:
    """The moments of images, the covariance with 1 / n.

    Args:
        values: images (n d), uint8 pixels or floats in [-1, 1].
    """
    n, d = values.shape
    if min(n, d) > MOST:
        return lanczos(values)
    return from_inner_products(values) if n < d else from_covariance(values)


def rank_of(n: int, d: int) -> int:
    """How many directions `gaussian_of` tells apart, at most, of n images of d pixels."""
    return min(n, d, MOST)


def moments_cost(n: int, d: int) -> Cost:
    """What `gaussian_of` takes for n images of d pixels, at most."""
    rank = rank_of(n, d)
    kept = d * rank
    if min(n, d) > MOST:  # the images are multiplied from both sides, and the basis three times
        return Cost(2 * n * d * rank + 4 * d * rank**2, 2 * kept + 3 * rank**2, kept)
    passes = 2 if n < d else 1  # directions of inner products take another one
    return Cost(passes * n * d * rank + _EIGENVECTORS * rank**3, kept + 4 * rank**2, kept)


def gaussian_of_set(images: ImageSet) -> Gaussian:
    """The moments of a set of images: found once, by what the images are.

    Those that take long stay in the cache folder, and all but the least recently used in memory.
    """
    key = images.fingerprint()
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    values = images.pixels.flatten(1).cpu()
    large = min(values.shape) > MOST
    found = _stored(values, key) if large else gaussian_of(values)
    _kept[key] = found
    while len(_kept) > 1 and sum(one.bytes for one in _kept.values()) > _MOST_BYTES:
        _kept.popitem(last=False)
    return found


_kept: OrderedDict[str, Gaussian] = OrderedDict()


def _stored(values: Tensor, key: str) -> Gaussian:
    """From the cache folder, or put there; a folder that cannot be written to is done without."""
    path = cache_folder() / "moments" / f"{key[:32]}-{_VERSION}-{MOST}-{TOLERANCE:g}.pt"
    with suppress(OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError):
        return Gaussian(**torch.load(path, weights_only=True))
    found = gaussian_of(values)
    with suppress(OSError):
        write_tensors(path, dict(vars(found)))
    return found


def from_covariance(values: Tensor) -> Gaussian:
    """By the eigenvectors of the covariance (d d): for no fewer images than pixels."""
    n, d = values.shape
    total, second = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for y in map(_floats, values.split(_at_a_time(d))):
        total += y.sum(dim=0)
        second += y.T @ y
    mean = total / n
    variances, directions = torch.linalg.eigh(second / n - torch.outer(mean, mean))
    return Gaussian(mean=mean, variances=variances.clamp(min=0), directions=directions)


def from_inner_products(values: Tensor) -> Gaussian:
    """By the eigenvectors of the images' inner products (n n): for fewer images than pixels.

    With the centred images in the rows of Y, an eigenvector v of Y Y^T / n is one of Y^T Y / n,
    Y^T v, with the same eigenvalue. There are no other eigenvalues but 0.
    """
    n, d = values.shape
    gram, mean = torch.zeros(n, n, dtype=torch.float64), torch.empty(d, dtype=torch.float64)
    parts = torch.arange(d).split(_at_a_time(n))
    for part in parts:
        y = _floats(values[:, part])
        mean[part] = y.mean(dim=0)
        y -= mean[part]
        gram.addmm_(y, y.T, alpha=1 / n)
    variances, vectors = torch.linalg.eigh(gram)
    seen = variances > variances[-1].clamp(min=0) * n * torch.finfo(gram.dtype).eps
    variances, vectors = variances[seen], vectors[:, seen]
    vectors /= (n * variances).sqrt()
    directions = torch.empty(d, len(variances), dtype=torch.float64)
    for part in parts:
        directions[part] = (_floats(values[:, part]) - mean[part]).T @ vectors
    # Those of the least variances are known to the fewest digits.
    directions /= directions.norm(dim=0)
    return Gaussian(mean=mean, variances=variances, directions=directions)


def lanczos(
    values: Tensor,
    *,
    tolerance: float = TOLERANCE,
    most: int | None = None,
    block: int | None = None,
) -> Gaussian:
    """By a basis that grows until what is left is of no account.

    The basis is that of C W, C^2 W, ..., C the covariance and W random, which holds the leading
    eigenvectors before all others; C is only ever applied, image by image.

    Args:
        values: images (n d), uint8 pixels or floats in [-1, 1].
        tolerance: the basis is large enough when `Gaussian.error` is at most this.
        most: directions, at most; default: `MOST`. `Gaussian.error` says what that leaves.
        block: directions at a time; default: a sixteenth of `most`.
    """
    n, d = values.shape
    mean, square = torch.zeros(d, dtype=torch.float64), 0.0
    for y in map(_floats, values.split(_at_a_time(d))):
        mean += y.sum(dim=0) / n
        square += float(y.square().sum()) / n
    left = total = square - float(mean.square().sum())
    most = min(MOST if most is None else most, d)
    block = block or max(1, most // 16)  # each costs a pass over the images
    basis = torch.empty(d, most, dtype=torch.float64)
    inner = torch.zeros(most, most, dtype=torch.float64)  # U^T C U, its upper half
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(d, block, generator=generator, dtype=torch.float64)
    size = 0
    while size < most and 2 * left / d > tolerance**2:
        new = _orthonormal(found[:, : most - size], basis[:, :size])
        end = size + new.shape[1]
        basis[:, size:end] = new
        found = _applied(values, mean, new)
        inner[:end, size:end] = basis[:, :end].T @ found
        size = end
        left = total - float(inner.diagonal().sum())
    variances, vectors = torch.linalg.eigh(inner[:size, :size], UPLO="U")
    kept = Gaussian(mean, variances.clamp(min=0), basis[:, :size] @ vectors)
    return kept._with_rest(left)


def _applied(values: Tensor, mean: Tensor, to: Tensor) -> Tensor:
    """The covariance times `to` (d m)."""
    found = torch.zeros_like(to)
    for y in map(_floats, values.split(_at_a_time(len(to)))):
        y -= mean
        found.addmm_(y.T, y @ to, alpha=1 / len(values))
    return found


def _orthonormal(block: Tensor, basis: Tensor) -> Tensor:
    """Columns that span those of a block, at right angles to a basis and to each other."""
    for _ in range(2):  # what the first leaves by rounding, the second takes away
        block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
    return block


def _at_a_time(length: int) -> int:
    """Rows, or columns, of so many numbers that are held at a time."""
    return max(1, _BUDGET // length)


def _floats(values: Tensor) -> Tensor:
    """Images in [-1, 1], float64, in memory of their own."""
    floats = to_float(values) if values.dtype == torch.uint8 else values
    return floats.to(torch.float64, copy=True)
