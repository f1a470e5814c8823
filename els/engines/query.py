"""What is asked of an engine: one record for all of them, and what it must hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from els.engines.dictionary import Rule
from els.errors import InputError


@dataclass(frozen=True)
class PatchQuery:
    """The posterior of the clean centre pixel over k x k training patches, for every size k.

    log w_j = -||P_u x - alpha p_j||^2 / (2 sigma^2) over the patches that the rule allows.

    Attributes:
        x: queries (b c h w), on the device that does the work.
        pixels: training images, uint8 (n c h w); they may be elsewhere, or mapped from a file.
        alpha: weight of the image at each query's time (b,), float64.
        sigma: standard deviation of the noise at each query's time (b,), float64, above 0.
        rule: which patches a pixel may use; see `els.engines.dictionary.axis_groups`.
        sizes: the patch sizes k, odd, such as `els.engines.dictionary.check_size` allows.
        profiles: for every size, the weight of a window's rows and of its columns by their distance
            0 .. k // 2 from the centre; a cell weighs their product in the squared distance. None
            for hard windows, where every cell weighs 1.
        shift: the largest displacement of a patch along either axis, for `boundary` alone; None
            for any.
        wanted: the places of each query that are wanted, bool (b h w); None for all. The others
            stay empty. The native engine saves what they would have cost.
        details: also find the `Details` of each posterior, with indices into `pixels`.
    """

    x: Tensor
    pixels: Tensor
    alpha: Tensor
    sigma: Tensor
    rule: Rule
    sizes: tuple[int, ...]
    profiles: tuple[tuple[float, ...], ...] | None = None
    shift: int | None = None
    wanted: Tensor | None = None
    details: bool = False

    @property
    def plain(self) -> bool:
        """Whether these are hard windows at any displacement, which every engine can do."""
        return self.profiles is None and self.shift is None

    def some(self, queries: slice | Tensor) -> PatchQuery:
        """The same for some of the queries, at every place."""
        return replace(
            self,
            x=self.x[queries],
            alpha=self.alpha[queries],
            sigma=self.sigma[queries],
            wanted=None,
        )

    def check(self, engine: str, *, most_channels: int) -> None:
        """Refuse what a compiled engine would read past its end, or spread.

        Args:
            engine: the engine's name, for the message.
            most_channels: the largest number of channels that it takes.

        Raises:
            InputError: for images that are not uint8 or of another shape than the queries, too many
                channels, or queries that are not finite.
        """
        x, pixels = self.x, self.pixels
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != x.shape[1:]:
            raise InputError(
                f"the training images are {pixels.dtype} of shape {tuple(pixels.shape[1:])}; "
                f"expected uint8 of the queries' shape {tuple(x.shape[1:])}"
            )
        if not 1 <= x.shape[1] <= most_channels:
            raise InputError(
                f"the images have {x.shape[1]} channels; the {engine} engine takes 1 to "
                f"{most_channels}, the torch engine any number"
            )
        if not x.isfinite().all():
            raise InputError(
                "the images to denoise hold NaN or infinite pixels; expected finite ones"
            )


def refuses_numbers(x: Tensor, most_channels: int) -> str | None:
    """Why a compiled engine cannot take queries x whatever their device; None when it can."""
    if x.dtype != torch.float32:
        return f"the queries are {x.dtype}, and it computes in float32"
    if x.shape[1] > most_channels:
        return f"the images have {x.shape[1]} channels"
    return None
