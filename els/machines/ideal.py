"""The ideal score machine: the posterior mean over whole training images, which memorises."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from els.engines.posterior import Posterior
from els.engines.torch_engine import image_posterior
from els.machines.base import Number, PosteriorMachine


class Ideal(PosteriorMachine):
    """x0_hat = sum_i w_i y_i / sum_i w_i, w_i = exp(-||x - alpha y_i||^2 / (2 sigma^2))."""

    def posteriors(
        self,
        x: Tensor,
        t: Tensor,
        pixels: Tensor,
        values: Sequence[Number],
        *,
        details: bool = False,
    ) -> list[Posterior]:
        """See `PosteriorMachine.posteriors`."""
        alpha, sigma = self.at_times(t, x)
        one = image_posterior(x, pixels, alpha, sigma, chunk=self.options.chunk, details=details)
        return [one] * len(values)
