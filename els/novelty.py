"""How far samples are from copying a training image, wherever in the picture it may have moved."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from einops import reduce
from torch import Tensor

from els.files import sha256_of_tensor
from els.images import ImageSet, to_float
from els.work import IN_MEMORY, Advance, Tensors, Work

# Pixels this close are the same to the eye: 13 of 256 grey levels, images in [-1, 1].
SAME = 0.1
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

    def tensors(self) -> dict[str, Tensor]:
        """All of them, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


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
        return _nearest(samples[torch.tensor(some)].to(device), images.pixels, advance).tensors()

    keys = [sha256_of_tensor(one) for one in samples]
    found = work.map(f"nearest images of {name}", range(len(samples)), compute,
                     depends=["nearest images", images.fingerprint()], keys=keys)  # fmt: skip
    return Novelty(**found)


@torch.no_grad()
def _nearest(samples: Tensor, pixels: Tensor, advance: Advance) -> Novelty:
    h, w = samples.shape[2:]
    moved, still = (torch.full((len(samples),), torch.inf) for _ in range(2))
    place, image = (torch.zeros(len(samples), dtype=torch.int64) for _ in range(2))
    chunk = max(1, _BUDGET // pixels[0].numel())
    spectra = torch.fft.rfft2(samples.float()).conj()  # (n c h f)
    for first in range(0, len(pixels), chunk):
        y = to_float(pixels[first : first + chunk].to(samples.device))
        shifts, norm = torch.fft.rfft2(y), y.square().sum(dim=(1, 2, 3))
        for i in range(len(samples)):
            inner = torch.fft.irfft2((spectra[i] * shifts).sum(dim=1), s=(h, w))  # <x, T_-s y>
            apart = norm[:, None, None] - 2 * inner  # less |x|^2, the same for all
            least, where = apart.flatten().min(dim=0)
            if least < moved[i]:
                moved[i], place[i] = least, first * h * w + where
            least, where = apart[:, 0, 0].min(dim=0)
            if least < still[i]:
                still[i], image[i] = least, first + where
            advance(1 if first + chunk >= len(pixels) else 0)
    return _measured(samples.cpu(), pixels, place, image)


def _measured(samples: Tensor, pixels: Tensor, place: Tensor, image: Tensor) -> Novelty:
    """Distances to what was found, by subtraction: the FFT's rounding only chose it."""
    h, w = samples.shape[2:]
    nearest = place // (h * w)
    shift = -torch.stack([place // w % h, place % w], dim=1)
    shift += torch.tensor([h, w]) * (shift < -(torch.tensor([h, w]) // 2))  # the shorter way round
    moved = torch.stack([
        to_float(pixels[i]).roll(tuple(s.tolist()), dims=(1, 2))
        for i, s in zip(nearest, shift, strict=True)
    ])  # fmt: skip
    apart = (samples.double() - moved).abs()
    in_place = samples.double() - to_float(pixels[image])
    matching, chance = _matching(apart), _chance(samples, pixels)
    return Novelty(
        nearest=nearest,
        shift=shift,
        distance=reduce(apart**2, "n c h w -> n", "mean").sqrt(),
        in_place=reduce(in_place**2, "n c h w -> n", "mean").sqrt(),
        matching=matching,
        memorised=(matching - chance) / (1 - chance).clamp(min=1e-9),
    )


def _matching(apart: Tensor) -> Tensor:
    """The share of pixels at which images differ by at most `SAME` in every channel (n,)."""
    return (apart <= SAME).all(dim=1).double().mean(dim=(1, 2))


def _chance(samples: Tensor, pixels: Tensor) -> Tensor:
    """What training images, some or all of them, match of each sample on average (n,)."""
    some = to_float(pixels[:: max(1, len(pixels) // _AT_RANDOM)])
    return torch.stack([_matching((x - some).abs()).mean() for x in samples])
