"""Sums of exponentially weighted training pixels that never overflow and can be merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


def named(patch: Tensor) -> Tensor:
    """Image, row and column (b 3 h w) of patches by (image * h + row) * w + column (b 1 h w)."""
    h, w = patch.shape[-2:]
    return torch.cat([patch // (h * w), patch // w % h, patch % w], dim=1)


@dataclass(frozen=True)
class Posterior:
    """What a part of the dictionary says about every pixel of b queries.

    With log-weights l_j and centre pixels c_j, kept relative to the largest log-weight:

    Attributes:
        peak: max_j l_j (b 1 h w); -inf where there is no patch.
        mass: sum_j exp(l_j - peak) (b 1 h w).
        moment: sum_j exp(l_j - peak) c_j (b c h w).
        square: sum_j exp(2 (l_j - peak)) (b 1 h w); None unless details were asked for.
        best: where the patch with the largest log-weight has its centre, int64 (b 3 h w): the
            index of its image, its row and its column; any one of several that are equal. None
            unless details were asked for, meaningless where there is no patch.
        top: the mass of the image that holds most of it, max_i sum_{j in image i} exp(l_j - peak)
            (b 1 h w). With symmetries, an image in one of its positions counts as an image. None
            unless details were asked for.
        second: where the patch with the largest log-weight among those of all other images than
            that of `best` has its centre, as `best`; meaningless where there is no other image.
        second_peak: the log-weight of `second` (b 1 h w); -inf where there is no other image.
    """

    peak: Tensor
    mass: Tensor
    moment: Tensor
    square: Tensor | None = None
    best: Tensor | None = None
    top: Tensor | None = None
    second: Tensor | None = None
    second_peak: Tensor | None = None

    @classmethod
    def empty(cls, x: Tensor, dtype: torch.dtype, *, details: bool = False) -> Posterior:
        """The posterior of an empty dictionary for queries x (b c h w)."""
        zero = torch.zeros_like(x[:, :1], dtype=dtype)
        return cls(
            peak=zero - torch.inf,
            mass=zero,
            moment=torch.zeros_like(x, dtype=dtype),
            square=zero.clone() if details else None,
            best=zero.long().repeat(1, 3, 1, 1) if details else None,
            top=zero.clone() if details else None,
            second=zero.long().repeat(1, 3, 1, 1) if details else None,
            second_peak=zero - torch.inf if details else None,
        )

    @classmethod
    def cat(cls, parts: Sequence[Posterior]) -> Posterior:
        """The posteriors of several batches of queries, all with details or all without."""
        return cls(*(
            None if values[0] is None else torch.cat(values)
            for values in zip(*(part._values() for part in parts), strict=True)
        ))  # fmt: skip

    def merge(self, other: Posterior) -> Posterior:
        """The posterior of both parts together (log-sum-exp).

        Details are kept if both parts have them. `best` and `second` are taken as they stand, so
        the indices of either part must already be those of the whole: see `shifted`. The parts may
        hold different images, or the same ones mirrored or turned; `top` is the larger of theirs.
        """
        peak = torch.maximum(self.peak, other.peak)
        mine, theirs = ((part.peak - peak).exp().nan_to_num(0) for part in (self, other))
        sums = Posterior(
            peak=peak,
            mass=self.mass * mine + other.mass * theirs,
            moment=self.moment * mine + other.moment * theirs,
        )
        if self.best is None or other.best is None:
            return sums
        return replace(
            sums,
            square=self.square * mine**2 + other.square * theirs**2,
            top=torch.maximum(self.top * mine, other.top * theirs),
            **self._best_two(other),
        )

    def _best_two(self, other: Posterior) -> dict[str, Tensor]:
        """`best`, `second` and `second_peak` of both parts together.

        The part with the smaller peak offers its best as the second, or its own second where its
        best is of the same image as the other's, as it can be with symmetries.
        """
        theirs = other.peak > self.peak
        best, beaten = (torch.where(chosen, other.best, self.best) for chosen in (theirs, ~theirs))
        again = beaten[:, :1] == best[:, :1]
        offers = [  # what this part has as the second, and what the other has
            (torch.where(won | again, part.second_peak, part.peak),
             torch.where(won | again, part.second, part.best))
            for part, won in ((self, ~theirs), (other, theirs))
        ]  # fmt: skip
        (own_peak, own), (their_peak, their) = offers
        return {
            "best": best,
            "second": torch.where(their_peak > own_peak, their, own),
            "second_peak": torch.maximum(own_peak, their_peak),
        }

    def shifted(self, first_image: int) -> Posterior:
        """The same for images that are `pixels[first_image:...]` of a larger set.

        Whoever splits `pixels` gets `best` and `second` relative to each part, and shifts them
        before merging.
        """
        if self.best is None or not first_image:
            return self
        return self.with_images(lambda image: image + first_image)

    def with_images(self, rename: Callable[[Tensor], Tensor]) -> Posterior:
        """The same with other image indices (b 1 h w) in `best` and `second`."""
        best, second = (
            torch.cat([rename(patch[:, :1]), patch[:, 1:]], dim=1)
            for patch in (self.best, self.second)
        )
        return replace(self, best=best, second=second)

    def only(self, places: Tensor) -> Posterior:
        """The same with nothing seen outside `places`, bool (b h w)."""
        nothing = {"peak": -torch.inf, "mass": 0, "moment": 0, "square": 0, "top": 0,
                   "second_peak": -torch.inf}  # fmt: skip
        return replace(self, **{
            name: value.masked_fill(~places[:, None], nothing[name])
            for name in nothing if (value := getattr(self, name)) is not None
        })  # fmt: skip

    def moved(self, move: Callable[[Tensor], Tensor]) -> Posterior:
        """The same with its maps moved, such as mirrored; patches are still named as before."""
        return Posterior(*(None if value is None else move(value) for value in self._values()))

    def take(self, indices: Tensor) -> Posterior:
        """The posteriors of the queries at `indices` (m,)."""
        return Posterior(*(None if value is None else value[indices] for value in self._values()))

    def _values(self) -> list[Tensor | None]:
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def mean(self) -> Tensor:
        """x0_hat = sum_j w_j c_j / sum_j w_j (b c h w)."""
        return self.moment / self.mass

    @property
    def log_normaliser(self) -> Tensor:
        """Log sum_j exp(l_j) (b 1 h w)."""
        return self.peak + self.mass.log()

    @property
    def effective_size(self) -> Tensor | None:
        """(sum_j w_j)^2 / sum_j w_j^2 (b 1 h w): how many patches count; None without details."""
        return None if self.square is None else self.mass**2 / self.square

    @property
    def best_weight(self) -> Tensor:
        """The largest of the weights w_j / sum_i w_i (b 1 h w), which is that of `best`."""
        return 1 / self.mass

    @property
    def top_share(self) -> Tensor | None:
        """The share of the weight in the image that holds most of it (b 1 h w), in (0, 1]."""
        return None if self.top is None else self.top / self.mass

    @property
    def second_weight(self) -> Tensor | None:
        """The weight of `second`, as `best_weight`; 0 where there is no other image."""
        return None if self.second is None else (self.second_peak - self.peak).exp() / self.mass
