"""Sums of exponentially weighted training pixels that never overflow and can be merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


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
    """

    peak: Tensor
    mass: Tensor
    moment: Tensor
    square: Tensor | None = None
    best: Tensor | None = None

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

        Details are kept if both parts have them. `best` is taken as it stands, so the indices of
        either part must already be those of the whole: see `shifted`.
        """
        peak = torch.maximum(self.peak, other.peak)
        mine, theirs = ((part.peak - peak).exp().nan_to_num(0) for part in (self, other))
        detailed = self.best is not None and other.best is not None
        return Posterior(
            peak=peak,
            mass=self.mass * mine + other.mass * theirs,
            moment=self.moment * mine + other.moment * theirs,
            square=self.square * mine**2 + other.square * theirs**2 if detailed else None,
            best=torch.where(other.peak > self.peak, other.best, self.best) if detailed else None,
        )

    def shifted(self, first_image: int) -> Posterior:
        """The same for images that are `pixels[first_image:...]` of a larger set.

        Whoever splits `pixels` gets `best` relative to each part, and shifts it before merging.
        """
        if self.best is None or not first_image:
            return self
        return self.with_images(self.best[:, :1] + first_image)

    def with_images(self, images: Tensor) -> Posterior:
        """The same with other image indices (b 1 h w) in `best`."""
        return replace(self, best=torch.cat([images, self.best[:, 1:]], dim=1))

    def only(self, places: Tensor) -> Posterior:
        """The same with nothing seen outside `places`, bool (b h w)."""
        outside = ~places[:, None]
        return Posterior(
            peak=self.peak.masked_fill(outside, -torch.inf),
            mass=self.mass.masked_fill(outside, 0),
            moment=self.moment.masked_fill(outside, 0),
            square=None if self.square is None else self.square.masked_fill(outside, 0),
            best=self.best,
        )

    def moved(self, move: Callable[[Tensor], Tensor]) -> Posterior:
        """The same with its maps moved, such as mirrored; `best` still names places as before."""
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
