"""The Wiener filter: the posterior mean if the images were Gaussian, a linear baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from els.images import ImageSet, to_float
from els.machines.base import Machine, Number

# Images at a time when the covariance is summed.
_CHUNK = 1024


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of images, the latter by its eigendecomposition, in float64.

    Attributes:
        mean: (d,), d = c h w.
        variances: eigenvalues of the covariance (d,), at least 0.
        directions: its eigenvectors (d d), in columns.
    """

    mean: Tensor
    variances: Tensor
    directions: Tensor

    @classmethod
    def of(cls, pixels: Tensor) -> Gaussian:
        """The moments of training images (n c h w), the covariance with 1 / n."""
        d = pixels[0].numel()
        total, second = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
        for some in pixels.split(_CHUNK):
            y = rearrange(to_float(some.cpu()).double(), "n c h w -> n (c h w)")
            total += y.sum(dim=0)
            second += y.T @ y
        mean = total / len(pixels)
        variances, directions = torch.linalg.eigh(second / len(pixels) - torch.outer(mean, mean))
        return cls(mean=mean, variances=variances.clamp(min=0), directions=directions)

    def gains(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Alpha lambda / (alpha^2 lambda + sigma^2) for each direction (b d)."""
        alpha, sigma = alpha.cpu()[:, None], sigma.cpu()[:, None]
        return alpha * self.variances / (alpha**2 * self.variances + sigma**2)

    def filter(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """W = alpha C (alpha^2 C + sigma^2)^-1 (d d) at one time, for alpha and sigma (1,)."""
        return (self.directions * self.gains(alpha, sigma)) @ self.directions.T


class GaussianMachine(Machine):
    """A machine that needs the images' moments, which are found once for each class."""

    def moments(self, images: ImageSet) -> Gaussian:
        """The moments of some of the images, kept for the next call."""
        # With the images, so that no others get their id.
        kept = self.once(("moments", id(images)), lambda: (images, Gaussian.of(images.pixels)))
        return kept[1]


class Wiener(GaussianMachine):
    """x0_hat = mu + alpha C (alpha^2 C + sigma^2)^-1 (x - alpha mu)."""

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        alpha, sigma = self.at_times(t, x)
        data = self.moments(images)
        flat = rearrange(x.double().cpu(), "b c h w -> b (c h w)")
        centred = (flat - alpha.cpu()[:, None] * data.mean) @ data.directions
        answer = data.mean + (centred * data.gains(alpha, sigma)) @ data.directions.T
        return [answer.reshape(x.shape).to(x)] * len(values)
