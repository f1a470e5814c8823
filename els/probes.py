"""What a denoiser really looks at, and whether it knows where it is: locality and equivariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from einops import rearrange, reduce
from torch import Tensor

from els.denoiser import (
    Denoiser,
    Labels,
    Times,
    as_labels,
    as_times,
    at_time,
    identity_of,
    schedule_of,
)
from els.errors import InputError
from els.files import write_json
from els.reading import read_record
from els.sampling import Starts, Step, ddim_steps
from els.work import IN_MEMORY, Advance, Tensors, Work

Shift = tuple[int, int]
NO_GRADIENT = "its answers have no gradient with respect to x"
_SHARES = (0.5, 0.9)


@dataclass(frozen=True)
class Probes:
    """What was measured of a network on its own path.

    Attributes:
        seeds: the seeds that the paths started from.
        t: the times, from 1 downwards.
        shares: for each t, `shares_held` by the effective receptive field; empty if it was skipped.
        equivariance: for each t, `equivariance_error`: over all pairs, then by distance.
        skipped: why there are no shares.
    """

    seeds: tuple[int, ...]
    t: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...]
    equivariance: tuple[tuple[float, ...], ...]
    skipped: str = ""

    def sides(self) -> dict[str, list[int]]:
        """Side in pixels of the square that holds half and 90 % of the map, for each t.

        "erf/..." of the whole map of x0_hat, "erf_beside/..." of what is beside its centre pixel.
        """
        return {
            f"{name}/{share * 100:.0f}": [
                side_holding(s, share, centre=centre) for s in self.shares
            ]
            for name, centre in (("erf", True), ("erf_beside", False))
            for share in _SHARES
            if self.shares
        }

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all; the sides stand there for the reader."""
        write_json(Path(path), {**asdict(self), "sides": self.sides()})

    @classmethod
    def load(cls, path: str | Path) -> Probes:
        """Read what `save` wrote.

        Raises:
            InputError: when the file is missing or something else.
        """
        try:
            return read_record(cls, Path(path))
        except FileNotFoundError as error:
            raise InputError(f"there is no file '{path}'") from error
        except ValueError as error:
            raise InputError(f"'{path}' holds no probes of a network: {error}") from error


def probe(
    network: Denoiser,
    starts: Starts,
    seeds: Sequence[int],
    *,
    steps: int = 20,
    work: Work = IN_MEMORY,
) -> Probes:
    """Both probes at every step of the network's own path.

    Args:
        network: the denoiser to be probed.
        starts: where the paths start.
        seeds: the seeds of the paths.
        steps: number of steps of the path.
        work: where results are kept, and how they are computed.
    """
    schedule = schedule_of(network)

    @cache
    def path() -> tuple[list[Step], Tensor | None]:
        x, label = starts(seeds)
        return list(ddim_steps(network, x, steps=steps, label=label, schedule=schedule)), label

    def compute(some: list[int], advance: Advance) -> Tensors:
        points, label = path()
        return _probes_at(network, [points[i] for i in some], label, advance)

    depends = ["probes", identity_of(network), steps, list(seeds), starts.identity]
    found = work.map("probing the network", range(steps), compute, depends=depends,
                     steps=len(seeds), batch=1)  # fmt: skip
    has_gradient = found["shares"].numel() > 0
    return Probes(
        seeds=tuple(seeds),
        t=tuple(schedule.timesteps(steps)[:-1].tolist()),
        shares=tuple(map(tuple, found["shares"].tolist())) if has_gradient else (),
        equivariance=tuple(map(tuple, found["equivariance"].tolist())),
        skipped="" if has_gradient else NO_GRADIENT,
    )


def _probes_at(
    network: Denoiser, points: Sequence[Step], label: Tensor | None, advance: Advance
) -> Tensors:
    """`shares` (m r), without columns where there is no gradient, and `equivariance` (m d)."""
    shares, equivariance = [], []
    for point in points:
        query = (network, point.x, at_time(point.x, point.t), label)
        try:
            shares.append(shares_held(effective_receptive_field(*query)).cpu())
        except InputError:  # equivariance can still be measured
            shares.append(torch.empty(0))
        equivariance.append(equivariance_error(*query))
        advance(len(point.x))
    return {"shares": torch.stack(shares), "equivariance": torch.stack(equivariance)}


def effective_receptive_field(
    denoiser: Denoiser, x: Tensor, t: Times, label: Labels = None
) -> Tensor:
    """How much each pixel of x moves the centre pixel of x0_hat (Luo et al., 2016).

    At pixel u the mean over the batch of sum_ab (d x0_hat_a(centre) / d x_b(u))^2, a and b
    channels, centre = (h // 2, w // 2). Squared, because Luo et al. study the variance of the
    gradient, and because the map then says what share of the answer's variance comes from where
    when every pixel is jogged alike.

    Of the centre itself: x0_hat = (x - sigma eps_hat) / alpha, so that x0_hat's gradient and
    eps_hat's differ by a constant there, 1 / alpha, which says nothing of what was looked at and
    outweighs the rest at one end of the path or the other. At every other pixel the two are the
    same up to one factor, sigma / alpha: without its centre the map has one shape for x0_hat, for
    eps_hat and for the score. `side_holding(..., centre=False)` measures that.

    Args:
        denoiser: must be differentiable with respect to x.
        x: noisy images (b c h w).
        t: times in (0, 1], one for all images or (b,).
        label: class indices, one for all images or (b,), or None.

    Returns:
        the map (h w), float64, at least 0; its scale depends on t.

    Raises:
        InputError: when the denoiser has no gradient, as the compiled machines.
    """
    t, label = as_times(t, x), as_labels(label, x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        centre = denoiser(x, t, label)[:, :, x.shape[2] // 2, x.shape[3] // 2]
        if not centre.requires_grad:
            raise InputError(f"no receptive field of this denoiser can be measured: {NO_GRADIENT}")
        total = torch.zeros(x.shape[2:], dtype=torch.float64, device=x.device)
        for channel in range(x.shape[1]):
            # An answer depends on its own image alone, so that the sum has every image's gradient.
            last = channel == x.shape[1] - 1
            (slope,) = torch.autograd.grad(centre[:, channel].sum(), x, retain_graph=not last)
            total += reduce(slope.double().square(), "b c h w -> h w", "sum")
    return total / len(x)


def shares_held(field: Tensor) -> Tensor:
    """The share of a map (h w) in the squares of side 1, 3, 5, ... around its centre.

    Returns:
        shares (n,), n = max(h, w) // 2 + 1, growing to 1; what a square has outside the image is
        nothing. A map of zeros counts as held by its centre.
    """
    rows, columns = (torch.arange(n, device=field.device) - n // 2 for n in field.shape)
    distance = torch.maximum(rows.abs()[:, None], columns.abs()[None, :])
    rings = field.new_zeros(int(distance.max()) + 1)
    rings.index_add_(0, distance.flatten(), field.flatten())
    total = rings.sum()
    return rings.cumsum(0) / total if total > 0 else torch.ones_like(rings)


def side_holding(shares: Sequence[float], share: float, *, centre: bool = True) -> int:
    """The side in pixels of the smallest odd square around the centre that holds a share of a map.

    Args:
        shares: of the squares of side 1, 3, 5, ..., from `shares_held`.
        share: between 0 and 1.
        centre: whether the centre pixel counts; see `effective_receptive_field`. If not, and there
            is nothing beside it, the side is 1.
    """
    own, rounding = shares[0] * (not centre), 1e-9
    wanted = own + share * (1 - own) - rounding
    return 2 * next((r for r, held in enumerate(shares) if held >= wanted), len(shares) - 1) + 1


def default_shifts(side: int) -> list[Shift]:
    """Shifts by 1, 2, 4, ..., side // 2 pixels down, to the right, and up to the right."""
    lengths = [2**i for i in range((side // 2).bit_length())]
    return [shift for s in lengths for shift in ((s, 0), (0, s), (-s, s))]


@torch.no_grad()
def equivariance_error(
    denoiser: Denoiser,
    x: Tensor,
    t: Times,
    label: Labels = None,
    *,
    shifts: Sequence[Shift] | None = None,
) -> Tensor:
    """How much the answer at a pixel depends on where the image was put, by distance to the border.

    x is shifted round, S x, and denoised. Pixel u of x has gone to v = u + s in S x, so that an
    equivariant denoiser answers D(S x)(v) = D(x)(u). The pair (u, v) is compared at the distance d
    of the one that is nearer to a border; a pixel in the outermost row or column has d = 0. With
    zero padding and a receptive field of 2 r + 1 pixels, neither of the two sees a border where
    d >= r, and the error there is 0.

        error(d)^2 = mean over pairs at d of |D(S x)(v) - D(x)(u)|^2
                     / (2 var D),   var D of all answers, over images, shifts and places

    summed over channels. 2 var D is the mean squared difference of answers that have nothing to do
    with each other (at another place, of another image), so that 0 is equivariant and 1 as
    different as unrelated answers; a denoiser that answers the same everywhere has error 0.
    Pairs far from any border can only be a few pixels apart: in the inner rings the error is that
    of short shifts.

    Args:
        denoiser: any.
        x: noisy images (b c h w).
        t: times in (0, 1], one for all images or (b,).
        label: class indices, one for all images or (b,), or None.
        shifts: (rows, columns) by which to shift; default: `default_shifts`.

    Returns:
        error (1 + n,), float64: over all pairs, then at d = 0, 1, ..., n - 1 with
        n = min(h, w) // 2; the midst of an image with odd sides counts as n - 1. NaN at a
        distance that none of the `shifts` has pairs at; the default ones have some at each.

    Raises:
        InputError: when no shift moves anything.
    """
    h, w = x.shape[2:]
    shifts = default_shifts(min(h, w)) if shifts is None else shifts
    if all(rows % h == 0 and columns % w == 0 for rows, columns in shifts):
        raise InputError(f"equivariance needs shifts that move the image; it was given {shifts}")
    t, label = as_times(t, x), as_labels(label, x)
    at_home = denoiser(x, t, label).double()
    depth = _border_distance(h, w).to(x.device)
    squares, pairs = (torch.zeros(min(h, w) // 2, dtype=torch.float64) for _ in range(2))
    answers = [at_home]
    for shift in shifts:
        answers.append(denoiser(x.roll(shift, dims=(2, 3)), t, label).double())
        difference = (answers[-1] - at_home.roll(shift, dims=(2, 3))).square()
        nearer = torch.minimum(depth, depth.roll(shift, dims=(0, 1))).flatten().cpu()
        squares.index_add_(0, nearer, reduce(difference, "b c h w -> (h w)", "sum").cpu())
        pairs.index_add_(0, nearer, torch.full((h * w,), float(len(x)), dtype=torch.float64))
    each = rearrange(torch.stack(answers), "s b c h w -> c (s b h w)")
    unrelated = 2 * each.var(dim=1, correction=0).sum().cpu()
    means = torch.cat([squares.sum()[None], squares]) / torch.cat([pairs.sum()[None], pairs])
    return torch.where(means > 0, means / unrelated, means).sqrt()


def _border_distance(h: int, w: int) -> Tensor:
    """Distance of each pixel to the nearest border (h w), at most min(h, w) // 2 - 1."""
    rows, columns = (torch.arange(n).minimum(n - 1 - torch.arange(n)) for n in (h, w))
    return torch.minimum(rows[:, None], columns[None, :]).clamp(max=min(h, w) // 2 - 1)
