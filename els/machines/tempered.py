"""The ideal score machine at a temperature: from the nearest image to the mean of all."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from els.engines.posterior import Posterior
from els.engines.torch_engine import image_posterior
from els.errors import InputError
from els.machines.base import Number, Scale
from els.machines.ideal import Ideal

TEMPERATURE = Scale("temperature", (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0))


class Tempered(Ideal):
    """`Ideal` with its log-weights divided by a temperature."""

    scale = TEMPERATURE

    def check(self, value: Number) -> None:
        """See `Machine.check`."""
        if not 0 < value < float("inf"):
            raise InputError(f"temperature {value} is not above 0")

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
        return [
            image_posterior(
                x, pixels, alpha, sigma * value**0.5, chunk=self.options.chunk, details=details
            )
            for value in values
        ]
