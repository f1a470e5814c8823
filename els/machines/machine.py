"""The machines as denoisers, and the one place where they are made."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from els.denoiser import coefficients
from els.errors import InputError
from els.images import ImageSet
from els.machines.engine_torch import image_posterior
from els.machines.engines import ENGINES, EngineName, patch_posteriors
from els.machines.places import PATCH_MACHINES, check_size
from els.machines.posterior import Posterior
from els.machines.sampled import Estimate, sampled_mean
from els.schedule import CosineSchedule

MACHINES = ("ideal", *PATCH_MACHINES)


class SizeByTime(Protocol):
    """A patch size for every time, such as `els.calibration.Scales`."""

    def at(self, t: float) -> int:
        """The patch size at time t."""
        ...


class Machine:
    """The posterior mean over a dictionary of training patches (Kamb & Ganguli, section 4).

    x0_hat(u) = sum_j w_j c_j / sum_j w_j with w_j = exp(-||P_u x - alpha p_j||^2 / (2 sigma^2)).

    Attributes:
        kind: one of `MACHINES`.
        images: the dictionary's images.
        size: the patch size, one for all times or one for each; None for `ideal`.
        schedule: the noise schedule that x_t comes from.
        engine: see `els.machines.engines.patch_posteriors`.
        chunk: training images at a time; None chooses by memory.
        tolerance: standard error of x0_hat in pixel units that is good enough; 0 is exact.
    """

    def __init__(
        self,
        kind: str,
        images: ImageSet,
        *,
        size: int | SizeByTime | None,
        schedule: CosineSchedule,
        engine: EngineName,
        chunk: int | None,
        tolerance: float,
    ) -> None:
        self.kind = kind
        self.images = images
        self.size = size
        self.schedule = schedule
        self.engine = engine
        self.chunk = chunk
        self.tolerance = tolerance
        self._by_label: dict[int, ImageSet] = {}

    def __call__(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, size: int | None = None
    ) -> Tensor:
        """x0_hat (b c h w) at noisy images x (b c h w) and times t (b,) in (0, 1].

        Args:
            label: class indices (b,): each query sees only the images of its class.
            size: a patch size for this call, in place of the machine's own.

        Raises:
            InputError: when x does not have the shape of the images or is not finite, or a label
                or a size is out of range.
        """
        if self.tolerance and self.kind != "ideal":
            return self.estimate(x, t, label, size).mean
        return self.at_sizes(x, t, None if size is None else [size], label)[0]

    @torch.no_grad()
    def estimate(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, size: int | None = None
    ) -> Estimate:
        """x0_hat from as many images as `tolerance` asks for, with its standard error.

        Arguments and errors are those of `__call__`.
        """
        self._check_query(x)
        if self.kind == "ideal":
            raise InputError("the ideal machine is always exact; estimate another one")
        mean, error = torch.zeros_like(x), torch.zeros_like(x)
        seen = torch.zeros(len(x))
        for ((k,), one_label), indices in self._alike(t, label, size and [size]).items():
            pixels = (self.images if one_label is None else self._of_class(one_label)).pixels
            part = self._estimate(x[indices], t[indices], pixels, k)
            mean[indices], error[indices] = part.mean.to(x), part.standard_error.to(x)
            seen[indices] = part.seen.float().cpu()
        return Estimate(mean=mean, standard_error=error, seen=seen)

    @torch.no_grad()
    def at_sizes(
        self, x: Tensor, t: Tensor, sizes: Sequence[int] | None, label: Tensor | None = None
    ) -> Tensor:
        """x0_hat (k b c h w) for every one of k patch sizes, or (1 b c h w) for the machine's own.

        Calibration asks for many sizes at the same x; an engine can then share work between them.

        Raises:
            InputError: as `__call__`.
        """
        self._check_query(x)
        out = x.new_empty(1 if sizes is None else len(sizes), *x.shape)
        for (some_sizes, one_label), indices in self._alike(t, label, sizes).items():
            parts = self._posteriors(x[indices], t[indices], one_label, some_sizes)
            for answer, part in zip(out, parts, strict=True):
                answer[indices] = part.mean.to(x.dtype)
        return out

    def posterior(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, size: int | None = None
    ) -> Posterior:
        """All that the dictionary says about x (b c h w), with details; arguments as `__call__`.

        `Posterior.best` holds indices into `self.images`, whatever the label.

        Raises:
            InputError: as `__call__`.
        """
        self._check_query(x)
        asked = None if size is None else [size]
        parts, order = [Posterior.empty(x[:0], x.dtype, details=True)], []
        for (sizes, one_label), indices in self._alike(t, label, asked).items():
            (part,) = self._posteriors(x[indices], t[indices], one_label, sizes, details=True)
            if one_label is not None:
                of_class = (self.images.labels == one_label).nonzero().flatten().to(x.device)
                part = part.with_images(of_class[part.best[:, :1]])
            parts.append(part)
            order += indices
        return Posterior.cat(parts).take(torch.tensor(order, dtype=torch.int64).argsort())

    def _check_query(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.images.image_shape:
            raise InputError(
                f"the images to denoise have shape {tuple(x.shape[1:])}, the training images "
                f"{self.images.image_shape}; they must be the same"
            )
        if not x.isfinite().all():
            raise InputError("the images to denoise hold NaN or infinite pixels")

    def _estimate(self, x: Tensor, t: Tensor, pixels: Tensor, size: int) -> Estimate:
        alpha, sigma = (c.flatten() for c in coefficients(t, x.double(), self.schedule))

        def scan(queries: Tensor, some: Tensor, wanted: Tensor) -> Posterior:
            query, *at = (values.index_select(0, queries) for values in (x, alpha, sigma))
            return patch_posteriors(
                query, some, *at, kind=self.kind, sizes=[size],
                engine=self.engine, chunk=self.chunk, wanted=wanted,
            )[0]  # fmt: skip

        return sampled_mean(
            scan, pixels=pixels, queries=len(x), tolerance=self.tolerance, device=x.device
        )  # fmt: skip

    def _alike(
        self, t: Tensor, label: Tensor | None, sizes: Sequence[int] | None
    ) -> dict[tuple[tuple[int | None, ...], int | None], list[int]]:
        """The batch's indices by patch sizes and label, which each take a scan of their own."""
        groups = defaultdict(list)
        labels = [None] * len(t) if label is None else label.tolist()
        for i, (time, one_label) in enumerate(zip(t.tolist(), labels, strict=True)):
            groups[self._sizes_at(time, sizes), one_label].append(i)
        return groups

    def _sizes_at(self, t: float, sizes: Sequence[int] | None) -> tuple[int | None, ...]:
        if self.kind == "ideal":
            return (None,) if sizes is None else (None,) * len(sizes)
        if sizes is None:
            if self.size is None:
                raise InputError(f"the {self.kind} machine needs a patch size or fitted scales")
            sizes = [self.size if isinstance(self.size, int) else self.size.at(t)]
        for size in sizes:
            check_size(self.kind, size, self.images.image_shape)
        return tuple(sizes)

    def _of_class(self, label: int) -> ImageSet:
        if label not in self._by_label:
            self._by_label[label] = self.images.of_class(label)
        return self._by_label[label]

    def _posteriors(
        self,
        x: Tensor,
        t: Tensor,
        label: int | None,
        sizes: tuple[int | None, ...],
        *,
        details: bool = False,
    ) -> list[Posterior]:
        """The posterior at every size, given the images with this label."""
        pixels = (self.images if label is None else self._of_class(label)).pixels
        alpha, sigma = (c.flatten() for c in coefficients(t, x.double(), self.schedule))
        if self.kind == "ideal":
            posterior = image_posterior(x, pixels, alpha, sigma, chunk=self.chunk, details=details)
            return [posterior] * len(sizes)
        return patch_posteriors(
            x, pixels, alpha, sigma, kind=self.kind, sizes=sizes, engine=self.engine,
            chunk=self.chunk, details=details,
        )  # fmt: skip


def make_machine(
    kind: str,
    images: ImageSet,
    *,
    size: int | SizeByTime | None = None,
    schedule: CosineSchedule | None = None,
    engine: EngineName = "auto",
    chunk: int | None = None,
    tolerance: float = 0.0,
) -> Machine:
    """Make a closed-form denoiser.

    | kind | patches that pixel u may use |
    |---|---|
    | `ideal` | whole training images: memorises |
    | `local` | the patch at the same place in every image; zeros outside |
    | `equivariant` | every patch wholly inside an image, at any place; the query wraps |
    | `boundary` | every patch whose window crosses the same borders at the same distance |

    Args:
        kind: one of `MACHINES`.
        images: the training images.
        size: patch size k (odd), or fitted scales with `.at(t)`; may be left out where every call
            gives its own, and for `ideal`.
        schedule: the noise schedule; the paper's by default.
        engine: "native" (compiled, on the CPU), "triton" (compiled, on a GPU), "torch" (any device)
            or "auto", the fastest that works here.
        chunk: training images held at a time, chosen to bound memory when None; never changes the
            answer.
        tolerance: a standard error of x0_hat in pixel units. Images are then visited in random
            order, until each query's root mean squared standard error is below it; 0 is exact.

    Raises:
        InputError: unknown kind, no images, or a size that is even or too large.
    """
    if kind not in MACHINES:
        raise InputError(f"unknown machine '{kind}'; known are {', '.join(MACHINES)}")
    if not len(images):
        raise InputError(f"the {kind} machine was given no training images")
    if engine not in ENGINES:
        raise InputError(f"unknown engine '{engine}'; known are {', '.join(ENGINES)}")
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk is {chunk}; it must be at least 1 image")
    if not 0 <= tolerance < math.inf:
        raise InputError(f"tolerance is {tolerance}; it must be a standard error of at least 0")
    if isinstance(size, int) and kind != "ideal":
        check_size(kind, size, images.image_shape)
    return Machine(
        kind,
        images,
        size=size,
        schedule=schedule or CosineSchedule(),
        engine=engine,
        chunk=chunk,
        tolerance=tolerance,
    )
