"""The nearest training image: the ideal score machine at zero temperature."""

from __future__ import annotations

from torch import Tensor

from els.images import ImageSet, to_float
from els.machines.base import NO_VALUE, Number
from els.machines.ideal import Ideal


class Nearest(Ideal):
    """x0_hat = the y_i with the smallest ||x - alpha y_i||."""

    def x0_hats(
        self, x: Tensor, t: Tensor, images: ImageSet, values: tuple[Number, ...]
    ) -> list[Tensor]:
        """See `Machine.x0_hats`."""
        (found,) = self.posteriors(x, t, images.pixels, (NO_VALUE,), details=True)
        best = found.best[:, 0, 0, 0].to(images.pixels.device)
        return [to_float(images.pixels[best]).to(x)] * len(values)
