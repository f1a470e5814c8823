"""Sums of exponentially weighted training pixels that never overflow and can be merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]


def common_peak(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The larger of two peaks, and by what sums that are relative to each of them shrink.

    A peak is the largest log-weight so far, -inf where there was none.
    """
    peak = torch.maximum(a, b)
    mine, theirs = ((one - peak).exp().nan_to_num(0) for one in (a, b))
    return peak, mine, theirs


def energy_at(peak: Tensor, own: Tensor, mass: Tensor, energy: Tensor) -> Tensor:
    """A part's `Details.energy` counted from a larger peak than its own; 0 where it has no patch.

    Args:
        peak: to count from, at least `own`.
        own: the part's peak, -inf where it has no patch.
        mass, energy: of the part, relative to its own peak; the answer still is.
    """
    return torch.where(mass > 0, energy + (peak - own) * mass, 0)


@dataclass(frozen=True)
class RunningSum:
    """A softmax that is streamed: sums over what was seen so far, relative to its peak.

    Attributes:
        peak: max_j l_j, -inf before anything was seen; any shape.
        mass: sum_j exp(l_j - peak), of the same shape.
        moment: sum_j exp(l_j - peak) c_j, of a shape that `mass` is broadcast to.
    """

    peak: Tensor
    mass: Tensor
    moment: Tensor

    @classmethod
    def empty(cls, like: Tensor, moment: Tensor) -> RunningSum:
        """Nothing seen yet; `like` has the shape of the log-weights' peaks, `moment` is zero."""
        return cls(torch.full_like(like, -torch.inf), torch.zeros_like(like), moment)

    def raised(self, peak: Tensor) -> RunningSum:
        """The same sums, relative to the larger of their own and another peak."""
        peak, mine, _ = common_peak(self.peak, peak)
        return RunningSum(peak, self.mass * mine, self.moment * mine)

    def plus(self, mass: Tensor, moment: Tensor) -> RunningSum:
        """With sums that are relative to the same peak added."""
        return RunningSum(self.peak, self.mass + mass, self.moment + moment)

    @property
    def mean(self) -> Tensor:
        """sum_j w_j c_j / sum_j w_j."""
        return self.moment / self.mass


def named(patch: Tensor) -> Tensor:
    """Image, row and column (b 3 h w) of patches by (image * h + row) * w + column (b 1 h w)."""
    h, w = patch.shape[-2:]
    return torch.cat([patch // (h * w), patch // w % h, patch % w], dim=1)


@dataclass(frozen=True)
class Details:
    """What is known of a posterior beside its mean, relative to the same peak.

    Attributes:
        square: sum_j exp(2 (l_j - peak)) (b 1 h w).
        best: where the patch with the largest log-weight has its centre, int64 (b 3 h w): the
            index of its image, its row and its column; any one of several that are equal.
            Meaningless where there is no patch.
        top: the mass of the image that holds most of it, max_i sum_{j in image i} exp(l_j - peak)
            (b 1 h w). With symmetries, an image in one of its positions counts as an image.
        second: where the patch with the largest log-weight among those of all other images than
            that of `best` has its centre, as `best`; meaningless where there is no other image.
        second_peak: the log-weight of `second` (b 1 h w); -inf where there is no other image.
        energy: sum_j exp(l_j - peak) (peak - l_j) (b 1 h w), at least 0.
    """

    square: Tensor
    best: Tensor
    top: Tensor
    second: Tensor
    second_peak: Tensor
    energy: Tensor

    @classmethod
    def empty(cls, zero: Tensor) -> Details:
        """Those of an empty dictionary; `zero` (b 1 h w)."""
        nowhere = zero.long().repeat(1, 3, 1, 1)
        return cls(
            zero.clone(), nowhere, zero.clone(), nowhere.clone(), zero - torch.inf, zero.clone()
        )

    def changed(self, change: Change) -> Details:
        """The same with every map changed."""
        return Details(*(change(getattr(self, one.name)) for one in fields(self)))


@dataclass(frozen=True)
class Posterior:
    """What a part of the dictionary says about every pixel of b queries.

    With log-weights l_j and centre pixels c_j, kept relative to the largest log-weight:

    Attributes:
        peak: max_j l_j (b 1 h w); -inf where there is no patch.
        mass: sum_j exp(l_j - peak) (b 1 h w).
        moment: sum_j exp(l_j - peak) c_j (b c h w).
        details: more of it, where the query wanted that.
    """

    peak: Tensor
    mass: Tensor
    moment: Tensor
    details: Details | None = None

    @classmethod
    def empty(cls, x: Tensor, dtype: torch.dtype, *, details: bool = False) -> Posterior:
        """The posterior of an empty dictionary for queries x (b c h w)."""
        zero = torch.zeros_like(x[:, :1], dtype=dtype)
        moment = torch.zeros_like(x, dtype=dtype)
        return cls(zero - torch.inf, zero, moment, Details.empty(zero) if details else None)

    @classmethod
    def cat(cls, parts: Sequence[Posterior]) -> Posterior:
        """The posteriors of several batches of queries, all with details or all without."""
        details = [part.details for part in parts if part.details is not None]
        together = None
        if len(details) == len(parts):
            maps = ([getattr(one, field.name) for one in details] for field in fields(Details))
            together = Details(*map(torch.cat, maps))
        return cls(
            torch.cat([part.peak for part in parts]),
            torch.cat([part.mass for part in parts]),
            torch.cat([part.moment for part in parts]),
            together,
        )

    def merge(self, other: Posterior) -> Posterior:
        """The posterior of both parts together (log-sum-exp).

        Details are kept if both parts have them. `best` and `second` are taken as they stand, so
        the indices of either part must already be those of the whole: see `shifted`. The parts may
        hold different images, or the same ones mirrored or turned; `top` is the larger of theirs.
        """
        peak, mine, theirs = common_peak(self.peak, other.peak)
        details = None
        if self.details is not None and other.details is not None:
            a, b = self.details, other.details
            own, their = (
                energy_at(peak, part.peak, part.mass, part.told.energy) for part in (self, other)
            )
            details = Details(
                square=a.square * mine**2 + b.square * theirs**2,
                energy=own * mine + their * theirs,
                top=torch.maximum(a.top * mine, b.top * theirs),
                **self._best_two(other, a, b),
            )
        return Posterior(
            peak=peak,
            mass=self.mass * mine + other.mass * theirs,
            moment=self.moment * mine + other.moment * theirs,
            details=details,
        )

    def _best_two(self, other: Posterior, a: Details, b: Details) -> dict[str, Tensor]:
        """`best`, `second` and `second_peak` of both parts together, a and b being their details.

        The part with the smaller peak offers its best as the second, or its own second where its
        best is of the same image as the other's, as it can be with symmetries.
        """
        theirs = other.peak > self.peak
        best, beaten = (torch.where(chosen, b.best, a.best) for chosen in (theirs, ~theirs))
        again = beaten[:, :1] == best[:, :1]

        def offer(part: Details, peak: Tensor, won: Tensor) -> tuple[Tensor, Tensor]:
            keeps = won | again
            at = torch.where(keeps, part.second, part.best)
            return torch.where(keeps, part.second_peak, peak), at

        own_peak, own = offer(a, self.peak, ~theirs)
        their_peak, their = offer(b, other.peak, theirs)
        return {
            "best": best,
            "second": torch.where(their_peak > own_peak, their, own),
            "second_peak": torch.maximum(own_peak, their_peak),
        }

    def shifted(self, first_image: int) -> Posterior:
        """The same for images that are `pixels[first_image:...]` of a larger set.

        If `pixels` is split, `best` and `second` are relative to each part; shift them before
        merging.
        """
        if self.details is None or not first_image:
            return self
        return self.with_images(lambda image: image + first_image)

    def with_images(self, rename: Change) -> Posterior:
        """The same with other image indices (b 1 h w) in `best` and `second`."""
        told = self.told
        best, second = (
            torch.cat([rename(patch[:, :1]), patch[:, 1:]], dim=1)
            for patch in (told.best, told.second)
        )
        return replace(self, details=replace(told, best=best, second=second))

    def masked(self, places: Tensor) -> Posterior:
        """The same with nothing seen outside `places`, bool (b h w)."""
        outside, details = ~places[:, None], self.details
        if details is not None:
            details = replace(
                details,
                square=details.square.masked_fill(outside, 0),
                top=details.top.masked_fill(outside, 0),
                second_peak=details.second_peak.masked_fill(outside, -torch.inf),
                energy=details.energy.masked_fill(outside, 0),
            )
        return Posterior(
            peak=self.peak.masked_fill(outside, -torch.inf),
            mass=self.mass.masked_fill(outside, 0),
            moment=self.moment.masked_fill(outside, 0),
            details=details,
        )

    def transformed(self, change: Change) -> Posterior:
        """The same with its maps changed, such as mirrored; patches are still named as before."""
        return Posterior(
            change(self.peak),
            change(self.mass),
            change(self.moment),
            None if self.details is None else self.details.changed(change),
        )

    def take(self, indices: Tensor) -> Posterior:
        """The posteriors of the queries at `indices` (m,)."""
        return self.transformed(lambda value: value[indices])

    @property
    def told(self) -> Details:
        """The details.

        Raises:
            ValueError: when the query did not want them.
        """
        if self.details is None:
            raise ValueError("this posterior was found without details")
        return self.details

    @property
    def mean(self) -> Tensor:
        """x0_hat = sum_j w_j c_j / sum_j w_j (b c h w)."""
        return self.moment / self.mass

    @property
    def log_normaliser(self) -> Tensor:
        """Log sum_j exp(l_j) (b 1 h w)."""
        return self.peak + self.mass.log()

    @property
    def best(self) -> Tensor:
        """See `Details.best`."""
        return self.told.best

    @property
    def second(self) -> Tensor:
        """See `Details.second`."""
        return self.told.second

    @property
    def effective_size(self) -> Tensor:
        """(sum_j w_j)^2 / sum_j w_j^2 (b 1 h w): how many patches count."""
        return self.mass**2 / self.told.square

    @property
    def entropy(self) -> Tensor:
        """H = -sum_j w_j ln w_j of the weights, in nats (b 1 h w): 0 where one patch has it all.

        Its exponential is a number of patches, as `effective_size` is; never below that.
        """
        return self.mass.log() + self.told.energy / self.mass

    @property
    def best_weight(self) -> Tensor:
        """The largest of the weights w_j / sum_i w_i (b 1 h w), which is that of `best`."""
        return 1 / self.mass

    @property
    def top_share(self) -> Tensor:
        """The share of the weight in the image that holds most of it (b 1 h w), in (0, 1]."""
        return self.told.top / self.mass

    @property
    def second_weight(self) -> Tensor:
        """The weight of `second`, as `best_weight`; 0 where there is no other image."""
        return (self.told.second_peak - self.peak).exp() / self.mass
