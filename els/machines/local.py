"""The local machines: posterior means over training patches, at one place or at many.

`local`, `equivariant` and `boundary` of Kamb & Ganguli, section 4, and what can be varied in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from els.denoiser import Labels, Times
from els.engines.dictionary import Region, Rule, check_size
from els.engines.dispatch import choose, posteriors
from els.engines.posterior import Posterior
from els.engines.query import PatchQuery
from els.engines.strata import Shelf, Strata, build_strata, bytes_of
from els.engines.subsample import Estimate, can_sample, sampled_mean
from els.engines.windows import WindowName, window
from els.errors import InputError
from els.images import ImageSet
from els.machines.base import (
    DEFAULT_OPTIONS,
    ByTime,
    MachineOptions,
    Number,
    PosteriorMachine,
    Scale,
    Symmetry,
)
from els.schedule import COSINE, CosineSchedule

SIZE = Scale("size", (3, 5, 7, 9, 11, 13, 15, 17))
SIDE = Scale("side", (3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 11.0, 13.0, 15.0))
WIDTH = Scale("width", (0.5, 0.7, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8, 3.4, 4.0))

SCALES: dict[WindowName, Scale] = {"hard": SIZE, "flat": SIDE, "gaussian": WIDTH}


class PatchMachine(PosteriorMachine):
    """x0_hat(u) = sum_j w_j c_j / sum_j w_j, w_j = exp(-||P_u x - alpha p_j||^2 / (2 sigma^2)).

    Attributes:
        rule: which patches a pixel may use; see `els.engines.dictionary`.
        window: how cells of a patch are weighed; see `els.engines.windows`.
        symmetries: which mirrored or turned copies of the images are in the dictionary too.
    """

    def __init__(
        self,
        kind: str,
        images: ImageSet,
        *,
        rule: Rule,
        window: WindowName = "hard",
        size: Number | ByTime | None = None,
        schedule: CosineSchedule = COSINE,
        options: MachineOptions = DEFAULT_OPTIONS,
    ) -> None:
        """Make a machine; `window` is that of its kind, which `options` may replace."""
        self.rule: Rule = rule
        self.window: WindowName = options.window or window
        self.scale = SCALES[self.window]
        self.symmetries = options.symmetries
        self._check_options(images, options)
        super().__init__(kind, images, size=size, schedule=schedule, options=options)

    @property
    def tolerance(self) -> float:
        """Root mean square error of x0_hat over an image that is good enough; 0 is exact."""
        return self.options.tolerance

    @property
    def identity(self) -> list[object]:
        """See `Machine.identity`."""
        options = self.options
        return [
            *super().identity,
            self.window,
            options.shift,
            list(self.symmetries),
            options.temperature,
            options.tolerance,
        ]

    def can_estimate(self, x: Tensor, pixels: Tensor, value: Number) -> bool:
        """Whether a tolerance saves anything at a value of the scale, for queries like x.

        Args:
            x: queries (b c h w).
            pixels: the training images of their class, uint8 (n c h w).
            value: of the scale.
        """
        query = self._query(x, torch.full((len(x),), 0.5), pixels, [value])
        return not self.symmetries and can_sample(query, self.options.engine)

    def estimating(self, tolerance: float) -> PatchMachine:
        """See `Machine.estimating`."""
        other = copy(self)
        other.options = replace(self.options, tolerance=tolerance)
        return other

    def engines_on(self, device: torch.device) -> tuple[str, ...]:
        """See `Machine.engines_on`."""
        x = torch.empty(0, *self.images.image_shape, device=device)
        none = torch.empty(0, dtype=torch.float64)
        query = PatchQuery(
            x,
            self.images.pixels[:0],
            none,
            none,
            rule=self.rule,
            sizes=(1,),
            profiles=None if self.window == "hard" else ((1.0,),),
            shift=self.options.shift,
        )
        return (choose(query, self.options.engine),)

    def __call__(
        self, x: Tensor, t: Times, label: Labels = None, size: Number | None = None
    ) -> Tensor:
        """See `Machine.__call__`."""
        if self.tolerance:
            return self.estimate(x, t, label, size).mean
        return super().__call__(x, t, label, size)

    @torch.no_grad()
    def estimate(
        self,
        x: Tensor,
        t: Times,
        label: Labels = None,
        size: Number | None = None,
        *,
        wanted: Tensor | None = None,
        in_full: bool = True,
    ) -> Estimate:
        """x0_hat from as many training patches as `tolerance` asks for, with its standard error.

        It is exact, with an error of 0, where that costs less: of `local`, of few images, without
        the native engine, and with symmetries, shifts or soft windows. At first use of a size its
        patches are sorted, which takes seconds for each 10,000 images and is kept.

        Args:
            x, t, label, size: as in `__call__`, and so are errors.
            wanted: the pixels that are wanted, bool (h w); None for all. The others are 0, and the
                tolerance holds on average over these.
            in_full: whether what costs less exactly is answered so; else its mean is NaN.
        """
        t, label = self.check_query(x, t, label)
        mean, error = torch.zeros_like(x), torch.zeros_like(x)
        seen = torch.zeros(len(x))
        asked = None if size is None else [size]
        for ((value,), one_label), i in self.group_queries(t, label, asked).items():
            part = self._estimate(x[i], t[i], value, one_label, wanted, in_full=in_full)
            mean[i], error[i] = part.mean.to(x), part.standard_error.to(x)
            seen[i] = part.seen.float().cpu()
        mean = self.kept(mean)
        if wanted is not None:
            mean = mean.masked_fill(~wanted, 0)
        return Estimate(mean=mean, standard_error=error, seen=seen)

    def check(self, value: Number) -> None:
        """See `Machine.check`."""
        if self.window == "gaussian" and value <= 0:
            raise InputError(f"width {value} of a Gaussian window is not above 0")
        if self.window == "flat" and value < 1:
            raise InputError(f"width {value} of a flat window is below 1")
        size, _ = window(self.window, value)
        check_size(self.rule, size, self.images.image_shape)

    def _check_options(self, images: ImageSet, options: MachineOptions) -> None:
        shift = options.shift
        if shift is not None and (self.rule != "boundary" or shift < 0):
            raise InputError(
                f"shift {shift} of the {self.rule} machine: only `boundary` has a largest "
                "displacement, of at least 0"
            )
        _, h, w = images.image_shape
        if "turns" in options.symmetries and h != w:
            raise InputError(f"quarter turns need square images, not {h} x {w}")

    def posteriors(
        self,
        x: Tensor,
        t: Tensor,
        pixels: Tensor,
        values: Sequence[Number],
        *,
        details: bool = False,
        wanted: Tensor | None = None,
    ) -> list[Posterior]:
        """See `PosteriorMachine.posteriors`; `wanted` is that of `PatchQuery`."""
        query = self._query(x, t, pixels, values)
        query = replace(query, wanted=wanted, details=details)
        total: list[Posterior] = []
        for there, back in moves(self.symmetries):
            moved = replace(query, x=there(x), wanted=None if wanted is None else there(wanted))
            parts = posteriors(moved, engine=self.options.engine, chunk=self.options.chunk)
            parts = [part.transformed(back) for part in parts]
            total = [a.merge(b) for a, b in zip(total, parts, strict=True)] if total else parts
        return total

    def _query(self, x: Tensor, t: Tensor, pixels: Tensor, values: Sequence[Number]) -> PatchQuery:
        alpha, sigma = self.at_times(t, x)
        windows = [window(self.window, value) for value in values]
        profiles = tuple(profile for _, profile in windows if profile is not None)
        return PatchQuery(
            x,
            pixels,
            alpha,
            sigma * self.options.temperature**0.5,
            rule=self.rule,
            sizes=tuple(size for size, _ in windows),
            profiles=profiles if len(profiles) == len(windows) else None,
            shift=self.options.shift,
        )

    def _estimate(
        self,
        x: Tensor,
        t: Tensor,
        value: Number,
        label: int | None,
        wanted: Tensor | None,
        *,
        in_full: bool,
    ) -> Estimate:
        pixels = self.of_class(label).pixels
        wanted = None if wanted is None else wanted.expand(len(x), *x.shape[2:])
        if not self.can_estimate(x, pixels, value):
            if not in_full:
                return Estimate.nothing(x)
            return Estimate.exact(self.posteriors(x, t, pixels, [value], wanted=wanted)[0].mean)

        def strata_of(region: Region) -> Strata:
            images = self.once(("bytes", label), lambda: bytes_of(pixels))
            make = partial(build_strata, pixels, images, region)
            return self.once("strata", Shelf).get(value, (label, region), make)

        query = replace(self._query(x, t, pixels, [value]), wanted=wanted)
        return sampled_mean(query, strata_of, tolerance=self.tolerance, in_full=in_full)


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
