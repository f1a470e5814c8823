"""The Wiener filter: the posterior mean if the images were Gaussian, a linear baseline."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from els.images import ImageSet
from els.machines.base import Machine, Number
from els.machines.gaussian import gaussian_of_set


class Wiener(Machine):
    """x0_hat = mu + alpha C (alpha^2 C + sigma^2)^-1 (x - alpha mu).

    mu and C are the images' mean and covariance, as `els.machines.gaussian` finds them.
    """

    uses_moments = True

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        alpha, sigma = self.at_times(t, x)
        flat = rearrange(x.double().cpu(), "b c h w -> b (c h w)")
        answer = gaussian_of_set(images).denoise(flat, alpha.cpu(), sigma.cpu())
        return [answer.reshape(x.shape).to(x)] * len(values)
