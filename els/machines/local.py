"""The local machines: posterior means over training patches, at one place or at many.

`local`, `equivariant` and `boundary` of Kamb & Ganguli, section 4, and what can be varied in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from els.engines.dictionary import check_size
from els.engines.dispatch import EngineName, patch_posteriors
from els.engines.posterior import Posterior
from els.engines.subsample import Estimate, sampled_mean
from els.engines.windows import WindowName, window
from els.errors import InputError
from els.images import ImageSet
from els.machines.base import ByTime, PosteriorMachine, Scale
from els.schedule import CosineSchedule

SIZE = Scale("size", (3, 5, 7, 9, 11, 13, 15, 17))
SIDE = Scale("side", (3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 11.0, 13.0, 15.0))
WIDTH = Scale("width", (0.5, 0.7, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8, 3.4, 4.0))

Symmetry = Literal["flip", "turns"]


class PatchMachine(PosteriorMachine):
    """x0_hat(u) = sum_j w_j c_j / sum_j w_j, w_j = exp(-||P_u x - alpha p_j||^2 / (2 sigma^2)).

    Attributes:
        engine: see `els.engines.dispatch.patch_posteriors`.
        tolerance: standard error of x0_hat in pixel units that is good enough; 0 is exact.
        window: how cells of a patch are weighed; see `els.engines.windows`.
        shift: largest displacement of a patch along either axis; None for any.
        symmetries: which mirrored or turned copies of the images are in the dictionary too.
        temperature: what the log-weights are divided by.
    """

    def __init__(
        self,
        kind: str,
        images: ImageSet,
        *,
        size: float | ByTime | None,
        schedule: CosineSchedule,
        engine: EngineName,
        chunk: int | None,
        tolerance: float,
        window: WindowName,
        shift: int | None,
        symmetries: Sequence[Symmetry],
        temperature: float,
    ) -> None:
        self.rule = kind.removesuffix("_soft")
        self.window: WindowName = window
        self.scale = {"hard": SIZE, "flat": SIDE, "gaussian": WIDTH}[window]
        self.engine = engine
        self.tolerance = tolerance
        self.shift = shift
        self.symmetries = tuple(symmetries)
        self.temperature = temperature
        self._check_options(images)
        super().__init__(kind, images, size=size, schedule=schedule, chunk=chunk)

    def __call__(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, size: float | None = None
    ) -> Tensor:
        """See `Machine.__call__`."""
        if self.tolerance:
            return self.estimate(x, t, label, size).mean
        return super().__call__(x, t, label, size)

    @torch.no_grad()
    def estimate(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, size: float | None = None
    ) -> Estimate:
        """x0_hat from as many images as `tolerance` asks for, with its standard error.

        Arguments and errors are those of `__call__`.
        """
        self.check_query(x)
        mean, error = torch.zeros_like(x), torch.zeros_like(x)
        seen = torch.zeros(len(x))
        asked = None if size is None else [size]
        for ((value,), one_label), i in self.alike(t, label, asked).items():
            images = self.images if one_label is None else self.of_class(one_label)
            part = self._estimate(x[i], t[i], images.pixels, value)
            mean[i], error[i] = part.mean.to(x), part.standard_error.to(x)
            seen[i] = part.seen.float().cpu()
        return Estimate(mean=mean, standard_error=error, seen=seen)

    def check(self, value: float) -> None:
        """See `Machine.check`."""
        if self.window == "gaussian" and value <= 0:
            raise InputError(f"width {value} of a Gaussian window is not above 0")
        if self.window == "flat" and value < 1:
            raise InputError(f"width {value} of a flat window is below 1")
        size, _ = window(self.window, value)
        check_size(self.rule, size, self.images.image_shape)

    def _check_options(self, images: ImageSet) -> None:
        if self.shift is not None and (self.rule != "boundary" or self.shift < 0):
            raise InputError(
                f"shift {self.shift} of the {self.rule} machine: only `boundary` has a largest "
                "displacement, of at least 0"
            )
        if unknown := set(self.symmetries) - set(get_args(Symmetry)):
            raise InputError(f"unknown symmetries {sorted(unknown)}; there are flip and turns")
        _, h, w = images.image_shape
        if "turns" in self.symmetries and h != w:
            raise InputError(f"quarter turns need square images, not {h} x {w}")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}; it must be above 0")

    def posteriors(
        self,
        x: Tensor,
        t: Tensor,
        pixels: Tensor,
        values: Sequence[float],
        *,
        details: bool = False,
        wanted: Tensor | None = None,
    ) -> list[Posterior]:
        """See `PosteriorMachine.posteriors`; `wanted` is that of `patch_posteriors`."""
        alpha, sigma = self.at_times(t, x)
        windows = [window(self.window, value) for value in values]
        sizes = [size for size, _ in windows]
        profiles = None if self.window == "hard" else [profile for _, profile in windows]
        total: list[Posterior] = []
        for there, back in moves(self.symmetries):
            parts = patch_posteriors(
                there(x), pixels, alpha, sigma * self.temperature**0.5, kind=self.rule,
                sizes=sizes, engine=self.engine, chunk=self.chunk, details=details,
                wanted=None if wanted is None else there(wanted), profiles=profiles,
                shift=self.shift,
            )  # fmt: skip
            parts = [part.moved(back) for part in parts]
            total = [a.merge(b) for a, b in zip(total, parts, strict=True)] if total else parts
        return total

    def _estimate(self, x: Tensor, t: Tensor, pixels: Tensor, value: float) -> Estimate:
        def scan(queries: Tensor, some: Tensor, wanted: Tensor) -> Posterior:
            query, at = x.index_select(0, queries), t.index_select(0, queries)
            return self.posteriors(query, at, some, [value], wanted=wanted)[0]

        return sampled_mean(
            scan, pixels=pixels, queries=len(x), tolerance=self.tolerance, device=x.device
        )


Move = Callable[[Tensor], Tensor]


def moves(symmetries: Sequence[Symmetry]) -> list[tuple[Move, Move]]:
    """The motions of the plane that the symmetries make up, each with the one that undoes it.

    A mirrored image meets a query as the image meets the mirrored query, so that the dictionary
    need not be copied.
    """

    def motion(turns: int, flip: bool) -> tuple[Move, Move]:
        def there(x: Tensor) -> Tensor:
            return (x.flip(-1) if flip else x).rot90(turns, dims=(-2, -1))

        def back(x: Tensor) -> Tensor:
            x = x.rot90(-turns, dims=(-2, -1))
            return x.flip(-1) if flip else x

        return there, back

    turns = range(4) if "turns" in symmetries else range(1)
    flips = (False, True) if "flip" in symmetries else (False,)
    return [motion(turn, flip) for turn in turns for flip in flips]
