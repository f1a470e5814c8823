"""How far samples are from copying a training image, wherever in the picture it may have moved."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from einops import rearrange, reduce
from scipy.stats import binomtest
from torch import Tensor

from els.files import sha256_of_tensor
from els.images import ImageSet, to_float
from els.work import IN_MEMORY, Advance, Tensors, Work

# Pixels this close are the same to the eye: 13 of 256 grey levels, images in [-1, 1].
SAME = 0.1
# A sample this many times nearer to a training image than to any other is called a copy of it
# (Yoon et al., 2023; Gu et al., arXiv 2310.02664).
COPIED = 1 / 3
_BUDGET = 1 << 22  # numbers of a chunk of training images
_AT_RANDOM = 512  # training images that tell what is matched by chance


@dataclass(frozen=True)
class Novelty:
    """The nearest training image of each of n samples, up to circular translation.

    Attributes:
        nearest: index of the training image y whose shifted copy T_s y is nearest (n,).
        shift: rows and columns by which y is moved down and to the right (n 2).
        distance: root mean squared difference to T_s y, images in [-1, 1] (n,).
        in_place: the same to the training image that is nearest without moving any (n,).
        matching: the share of pixels that differ from T_s y by at most `SAME` (n,).
        second: as `distance`, to the second nearest training image, at its own best shift (n,); inf
            where there is one training image alone. Of images that are the same to the pixel the
            first stands for all, so that the second nearest is another image.
        second_in_place: as `in_place`, to the second nearest (n,).
        memorised: the same beyond chance, (matching - chance) / (1 - chance), where chance is what
            training images taken at random match of the sample (n,): 1 for a copy, about 0 for an
            image that has no more in common with T_s y than with any other.
    """

    nearest: Tensor
    shift: Tensor
    distance: Tensor
    in_place: Tensor
    matching: Tensor
    memorised: Tensor
    second: Tensor
    second_in_place: Tensor

    @property
    def ratio(self) -> Tensor:
        """d1 / d2, up to translation, in [0, 1] (n,); see `ratio_in_place`."""
        return _ratio(self.distance, self.second)

    @property
    def ratio_in_place(self) -> Tensor:
        """d1 / d2 of the distances to the nearest and the second nearest image, in [0, 1] (n,).

        Below `COPIED` a sample is called copied. 0 of an exact copy; NaN where there is no second
        image, or where it was not looked for.
        """
        return _ratio(self.in_place, self.second_in_place)

    def tensors(self) -> dict[str, Tensor]:
        """All of them, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True)
class Share:
    """How many of n samples are of a kind.

    Attributes:
        share: in [0, 1].
        ci95: its exact 95 % interval (Clopper and Pearson, 1934).
        count: n.
    """

    share: float
    ci95: tuple[float, float]
    count: int

    def __str__(self) -> str:
        low, high = self.ci95
        return f"{self.share:.0%} [{low:.0%}, {high:.0%}]"

    def columns(self, name: str) -> dict[str, float]:
        """The share by the name, and the ends of the interval as `_low` and `_high`."""
        low, high = self.ci95
        return {name: self.share, f"{name}_low": low, f"{name}_high": high}


def copied_share(ratio: Tensor) -> Share | None:
    """The share of samples with a d1 / d2 (n,) below `COPIED`; None where none is known.

    Example:
        >>> print(copied_share(torch.tensor([0.1, 0.5, 0.9, 1.0])))
        25% [1%, 81%]
    """
    known = ratio[~ratio.isnan()]
    if not len(known):
        return None
    test = binomtest(int((known < COPIED).sum()), len(known))
    interval = test.proportion_ci(0.95, method="exact")
    return Share(float(test.statistic), (float(interval.low), float(interval.high)), len(known))


def _ratio(nearest: Tensor, second: Tensor) -> Tensor:
    found = torch.where(nearest > 0, nearest / second, 0).clamp(max=1)
    return found.masked_fill(~second.isfinite(), torch.nan)


def nearest_images(
    samples: Tensor,
    images: ImageSet,
    *,
    name: str = "samples",
    device: torch.device | str = "cpu",
    work: Work = IN_MEMORY,
) -> Novelty:
    """Compare every sample with every training image at every shift.

    All inner products <x, T_s y> of an image are one circular correlation, taken by FFT.

    Args:
        samples: images in [-1, 1] (n c h w).
        images: the training images.
        name: of the samples, for the progress.
        device: where they are compared.
        work: where results are kept, and how they are computed.
    """

    def compute(some: list[int], advance: Advance) -> Tensors:
        x = samples[torch.tensor(some)].to(device)
        return _nearest(x, images.pixels, images.distinct, advance).tensors()

    keys = [sha256_of_tensor(one) for one in samples]
    found = work.map(
        f"nearest images of {name}",
        range(len(samples)),
        compute,
        depends=["nearest two distinct images", images.fingerprint()],
        keys=keys,
    )
    return Novelty(**found)


@torch.no_grad()
def _nearest(samples: Tensor, pixels: Tensor, distinct: Tensor, advance: Advance) -> Novelty:
    """Of samples (n c h w), among the training images with the indices `distinct`."""
    h, w = samples.shape[2:]
    moved, still = (_Nearest.none(len(samples)) for _ in range(2))
    chunk = max(1, _BUDGET // pixels[0].numel())
    spectra = torch.fft.rfft2(samples.float()).conj()  # (n c h f)
    parts = distinct.split(chunk)
    for number, some in enumerate(parts, 1):
        y = to_float(pixels[some].to(samples.device))
        shifts, norm = torch.fft.rfft2(y), y.square().sum(dim=(1, 2, 3))
        for i in range(len(samples)):
            inner = torch.fft.irfft2((spectra[i] * shifts).sum(dim=1), s=(h, w))  # <x, T_-s y>
            apart = norm[:, None, None] - 2 * inner  # less |x|^2, the same for all
            least, where = apart.flatten(1).min(dim=1)
            moved.see(i, least, some, where)
            still.see(i, apart[:, 0, 0], some, torch.zeros_like(where))
            advance(number == len(parts))
    return _measured(samples.cpu(), pixels, moved, still)


@dataclass(frozen=True)
class _Nearest:
    """The two nearest training images so far of n samples, the nearest first.

    Attributes:
        apart: how far they are, by any measure (n 2); inf where there is none.
        image: their indices (n 2).
        place: where they were nearest, row * w + column (n 2).
    """

    apart: Tensor
    image: Tensor
    place: Tensor

    @classmethod
    def none(cls, count: int) -> _Nearest:
        nothing = torch.zeros(count, 2, dtype=torch.int64)
        return cls(torch.full((count, 2), torch.inf), nothing, nothing.clone())

    def see(self, i: int, apart: Tensor, some: Tensor, place: Tensor) -> None:
        """Take in images by their indices (m,), for sample i: how far they are, and where (m,)."""
        found, at = apart.topk(min(2, len(apart)), largest=False)
        every = torch.cat([self.apart[i], found.cpu()])
        kept = every.argsort(stable=True)[:2]
        images, places = some[at.cpu()], place[at].cpu()
        self.apart[i] = every[kept]
        self.image[i] = torch.cat([self.image[i], images])[kept]
        self.place[i] = torch.cat([self.place[i], places])[kept]


def _measured(samples: Tensor, pixels: Tensor, moved: _Nearest, still: _Nearest) -> Novelty:
    """Distances to what was found, by subtraction: the FFT's rounding only chose it."""
    sides = torch.tensor(samples.shape[2:])
    shift = -torch.stack([moved.place // sides[1], moved.place % sides[1]], dim=-1)
    shift += sides * (shift < -(sides // 2))  # the shorter way round
    images = [_shifted(pixels, moved.image[:, k], shift[:, k]) for k in range(2)]
    apart = [(samples.double() - one).abs() for one in images]
    in_place = [samples.double() - to_float(pixels[still.image[:, k]]) for k in range(2)]
    distance = _ranked([_root_mean_square(one) for one in apart], moved)
    unmoved = _ranked([_root_mean_square(one) for one in in_place], still)
    matching, chance = _matching(apart[0]), _chance(samples, pixels)
    return Novelty(
        nearest=moved.image[:, 0],
        shift=shift[:, 0],
        distance=distance[:, 0],
        in_place=unmoved[:, 0],
        matching=matching,
        memorised=(matching - chance) / (1 - chance).clamp(min=1e-9),
        second=distance[:, 1],
        second_in_place=unmoved[:, 1],
    )


def _shifted(pixels: Tensor, image: Tensor, shift: Tensor) -> Tensor:
    """Training images (n,), each moved by its own shift (n 2)."""
    return torch.stack([
        to_float(pixels[i]).roll(tuple(s.tolist()), dims=(1, 2))
        for i, s in zip(image, shift, strict=True)
    ])  # fmt: skip


def _root_mean_square(apart: Tensor) -> Tensor:
    return reduce(apart**2, "n c h w -> n", "mean").sqrt()


def _ranked(distances: list[Tensor], found: _Nearest) -> Tensor:
    """Distances (n 2) to the nearest and the second; inf where there is none."""
    both = rearrange(distances, "k n -> n k")
    return both.masked_fill(~found.apart.isfinite(), torch.inf)


def _matching(apart: Tensor) -> Tensor:
    """The share of pixels at which images differ by at most `SAME` in every channel (n,)."""
    return (apart <= SAME).all(dim=1).double().mean(dim=(1, 2))


def _chance(samples: Tensor, pixels: Tensor) -> Tensor:
    """What training images, some or all of them, match of each sample on average (n,)."""
    some = to_float(pixels[:: max(1, len(pixels) // _AT_RANDOM)])
    return torch.stack([_matching((x - some).abs()).mean() for x in samples])
