"""Patch mosaics: which training patch every pixel of an image came from."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from einops import rearrange, reduce
from torch import Tensor

from els.criterion import data_points
from els.denoiser import Labels, Times, as_times, at_time
from els.engines.windows import window
from els.files import sha256_of_tensor
from els.images import ImageSet, to_float
from els.machines.local import PatchMachine
from els.work import IN_MEMORY, Advance, Tensors, Work


@dataclass(frozen=True)
class Mosaic:
    """Where every pixel of n images came from among the training images, at m times of a path.

    At each time a patch machine is asked at the x of the path. A pixel's *winner* is the training
    patch with the largest weight in its posterior mean.

    Attributes:
        t: the m times, from 1 downwards; the last is that of the final image.
        sides: side in pixels of the window that was compared at each of them (m).
        pixels: the winners' centre pixels, uint8 (m n c h w): the image redrawn from them.
        best: image, row and column of the winner's centre, int32 (m n 3 h w).
        weight: the winner's weight (m n h w), in (0, 1].
        effective_size: (sum_j w_j)^2 / sum_j w_j^2, how many patches count (m n h w).
        top_share: the share of the weight that one training image holds, the one that holds most
            (m n h w), in (0, 1].
        second: like `best`, at the last time alone, for the patch with the largest weight in any
            other image, int32 (n 3 h w).
        second_weight: its weight (n h w); 0 where there is no other image.
        consistency: see `local_consistency` (m n); NaN where it is undefined.
    """

    t: tuple[float, ...]
    sides: tuple[int, ...]
    pixels: Tensor
    best: Tensor
    weight: Tensor
    effective_size: Tensor
    top_share: Tensor
    second: Tensor
    second_weight: Tensor
    consistency: Tensor

    @classmethod
    def of(cls, t: tuple[float, ...], found: Tensors) -> Mosaic:
        """From what `trace` found, each (m n ...)."""
        found = dict(found)
        last = {name: found.pop(name)[-1] for name in ("second", "second_weight")}
        sides = tuple(found.pop("side")[:, 0].tolist())
        return cls(t=t, sides=sides, **found, **last)

    def tensors(self) -> Tensors:
        """All but `t` and `sides`, by name."""
        return {one.name: value for one in fields(self)
                if isinstance(value := getattr(self, one.name), Tensor)}  # fmt: skip

    def of_a_pixel(self, name: str) -> Tensor:
        """The median over pixels of `effective_size` or `top_share` (m n)."""
        return getattr(self, name).flatten(2).double().quantile(0.5, dim=-1)

    def images_drawn_on(self) -> Tensor:
        """How many different training images the final winners are from (n,)."""
        winners = rearrange(self.best[-1][:, 0], "n h w -> n (h w)")
        return torch.tensor([len(row.unique()) for row in winners])

    def effective_images(self) -> Tensor:
        """The same, where an image counts by its share of the pixels: 1 / sum_i share_i^2 (n,)."""
        winners = rearrange(self.best[-1][:, 0], "n h w -> n (h w)")
        counts = (row.unique(return_counts=True)[1].double() for row in winners)
        return torch.stack([count.sum() ** 2 / (count**2).sum() for count in counts])

    def decided(self) -> Tensor:
        """The share of the final pixels of which one training image holds most of the weight (n,).

        Where many images offer the same patch, as in a plain background, none of them does.
        """
        return (self.top_share[-1] > 0.5).double().mean(dim=(1, 2))

    def largest_piece(self) -> Tensor:
        """The largest share of the pixels from one training image at one displacement (n,).

        What a copy is made of, wherever its patches are like no others; displacements wrap round.
        """
        image, row, column = self.best[-1].unbind(dim=1)
        h, w = row.shape[1:]
        down = (row - torch.arange(h)[:, None]) % h
        across = (column - torch.arange(w)) % w
        pieces = rearrange([image, down, across], "k n h w -> n (h w) k")
        counts = [one.unique(dim=0, return_counts=True)[1].max() for one in pieces]
        return torch.stack(counts) / (h * w)

    def borders(self) -> tuple[Tensor, Tensor]:
        """Where neighbouring final winners are of different training images.

        Returns:
            bool (n h - 1 w), between a pixel and the one below it, and bool (n h w - 1), between
            a pixel and the one to its right.
        """
        image = self.best[-1][:, 0]
        return image[:, 1:] != image[:, :-1], image[:, :, 1:] != image[:, :, :-1]


def trace(
    machine: PatchMachine, x: Tensor, t: Times, label: Labels = None
) -> tuple[Tensor, Tensors]:
    """A patch machine's answer, and where it came from.

    Args:
        machine: a machine with a fitted scale.
        x: noisy images (b c h w).
        t: one time for all of them.
        label: class indices (b,) or None.

    Returns:
        x0_hat (b c h w), and the fields of `Mosaic` at this time (b ...), on the CPU; `side` (b) is
        one of its `sides`.
    """
    t = as_times(t, x)
    found = machine.posterior(x, t, label)
    image, row, column = found.best.cpu().unbind(dim=1)
    pixels = rearrange(machine.images.pixels[image, :, row, column], "b h w c -> b c h w")
    if machine.symmetries:  # where a mirrored patch has its cells is not known
        consistency = torch.full((len(x),), torch.nan)
    else:
        consistency = local_consistency(machine, pixels, found.best.cpu(), float(t[0]))
    side, _ = window(machine.window, machine.value_at(float(t[0])))
    mean = found.mean.to(x)
    return machine.kept(mean), {
        "side": torch.full((len(x),), side),
        "pixels": pixels,
        "best": found.best.int().cpu(),
        "weight": found.best_weight[:, 0].float().cpu(),
        "effective_size": found.effective_size[:, 0].float().cpu(),
        "top_share": found.top_share[:, 0].float().cpu(),
        "second": found.second.int().cpu(),
        "second_weight": found.second_weight[:, 0].float().cpu(),
        "consistency": consistency,
    }


@dataclass(frozen=True)
class Tracer:
    """A patch machine that tells where its answers come from.

    Attributes:
        machine: a machine with a fitted scale, exact.
    """

    machine: PatchMachine

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None) -> tuple[Tensor, Tensors]:
        """See `trace`."""
        return trace(self.machine, x, t, label)

    @property
    def identity(self) -> object:
        """Plain data that tells this tracer from others."""
        return self.machine.identity


def trace_points(
    x: Tensor,
    label: Tensor | None,
    tracer: Tracer,
    *,
    t: float,
    name: str,
    device: torch.device | str = "cpu",
    work: Work = IN_MEMORY,
) -> Mosaic:
    """The mosaics of noisy images x (n c h w) with classes (n,), or None, at one time.

    Args:
        x: noisy images.
        label: their classes, or None.
        tracer: the machine that is asked.
        t: the time.
        name: of the images, for the progress.
        device: where the machine is asked.
        work: where results are kept, and how they are computed.
    """

    def compute(some: list[int], advance: Advance) -> Tensors:
        index = torch.tensor(some)
        part = x[index].to(device)
        labels = None if label is None else label[index].to(device)
        _, found = tracer(part, at_time(part, t), labels)
        advance(len(some))
        return found

    classes = [None] * len(x) if label is None else label.tolist()
    keys = [[sha256_of_tensor(one), of] for one, of in zip(x, classes, strict=True)]
    found = work.map(
        f"tracing {name}", range(len(x)), compute, depends=["mosaic", tracer.identity, t], keys=keys
    )
    return Mosaic.of((t,), {key: value[None] for key, value in found.items()})


def trace_images(
    images: ImageSet,
    tracer: Tracer,
    *,
    t: float,
    name: str,
    conditional: bool = False,
    device: torch.device | str = "cpu",
    work: Work = IN_MEMORY,
) -> Mosaic:
    """The mosaics of real images: image i with the noise of seed i at time t.

    Args:
        images: the images.
        conditional: give the machine their labels.
        tracer, t, name, device, work: see `trace_points`.
    """
    schedule = tracer.machine.schedule
    (point,) = data_points(
        to_float(images.pixels), seeds=range(len(images)), t=[t], schedule=schedule
    )
    label = images.labels if conditional else None
    return trace_points(point.x, label, tracer, t=t, name=name, device=device, work=work)


def local_consistency(machine: PatchMachine, pixels: Tensor, best: Tensor, t: float) -> Tensor:
    """How well winning patches agree where they overlap (b,): 1 wholly, 0 no better than chance.

    Pixel u's winner says what is at u + d, for every d in its window; so does the winner of u + d,
    whose centre is there. 1 - mean (difference)^2 / (2 variance), over all u and d != 0, with the
    variance of the winners' centres in the image: 2 variance is what two of them taken at random
    differ by. Cells are weighed as the machine's window does; it may be below 0, and is NaN where
    the centres are all alike.

    Args:
        machine: the machine that chose the winners, without symmetries.
        pixels: the winners' centres, uint8 (b c h w).
        best: image, row and column of them (b 3 h w).
        t: the time, for the size of the window.
    """
    size, profile = window(machine.window, machine.value_at(t))
    radius, (h, w) = size // 2, pixels.shape[2:]
    image, row, column = best.unbind(dim=1)
    centres = to_float(pixels)
    wraps = machine.rule == "equivariant"
    total = weight = torch.zeros(len(pixels))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            rows, columns = _reached(h, dy, wraps), _reached(w, dx, wraps)
            if not (dy or dx) or not len(rows) or not len(columns):
                continue
            at = (slice(None), rows[:, None], columns)  # the places u whose u + d is in the image
            said = machine.images.pixels[image[at], :, row[at] + dy, column[at] + dx]
            there = centres[:, :, (rows[:, None] + dy) % h, (columns + dx) % w]
            apart = to_float(rearrange(said, "b h w c -> b c h w")) - there
            factor = 1.0 if profile is None else profile[abs(dy)] * profile[abs(dx)]
            total = total + factor * reduce(apart**2, "b c h w -> b", "sum")
            weight = weight + factor * apart[0].numel()
    spread = 2 * centres.var(dim=(2, 3), correction=0).mean(dim=1)
    return torch.where(spread > 0, 1 - total / weight.clamp(min=1) / spread, torch.nan)


def _reached(length: int, d: int, wraps: bool) -> Tensor:
    """The places u of an axis for which u + d is in the image too; all where it wraps round."""
    places = torch.arange(length)
    return places if wraps else places[(places + d >= 0) & (places + d < length)]
