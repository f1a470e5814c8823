"""The machines as denoisers, and the one place where they are made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from els.denoiser import coefficients
from els.errors import InputError
from els.images import ImageSet
from els.machines.engine_torch import image_posterior
from els.machines.engines import ENGINES, EngineName, patch_posteriors
from els.machines.places import PATCH_MACHINES, check_size
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
    ) -> None:
        self.kind = kind
        self.images = images
        self.size = size
        self.schedule = schedule
        self.engine = engine
        self.chunk = chunk
        self._by_label: dict[int, ImageSet] = {}

    def __call__(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, size: int | None = None
    ) -> Tensor:
        """x0_hat (b c h w) at noisy images x (b c h w) and times t (b,) in (0, 1].

        Args:
            label: class indices (b,): each query sees only the images of its class.
            size: a patch size for this call, in place of the machine's own.

        Raises:
            InputError: when x does not have the shape of the images, or a label or a size is out
                of range.
        """
        answers = self.at_sizes(x, t, None if size is None else [size], label)
        return answers[0]

    def at_sizes(
        self, x: Tensor, t: Tensor, sizes: Sequence[int] | None, label: Tensor | None = None
    ) -> Tensor:
        """x0_hat (k b c h w) for every one of k patch sizes, or (1 b c h w) for the machine's own.

        Calibration asks for many sizes at the same x; an engine can then share work between them.

        Raises:
            InputError: as `__call__`.
        """
        if tuple(x.shape[1:]) != self.images.image_shape:
            raise InputError(
                f"the images to denoise have shape {tuple(x.shape[1:])}, the training images "
                f"{self.images.image_shape}; they must be the same"
            )
        out = x.new_empty(1 if sizes is None else len(sizes), *x.shape)
        for (some_sizes, one_label), indices in self._alike(t, label, sizes).items():
            images = self.images if one_label is None else self._of_class(one_label)
            answers = self._means(x[indices], t[indices], images.pixels, some_sizes)
            for answer, mean in zip(out, answers, strict=True):
                answer[indices] = mean.to(x.dtype)
        return out

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

    def _means(
        self, x: Tensor, t: Tensor, pixels: Tensor, sizes: tuple[int | None, ...]
    ) -> list[Tensor]:
        alpha, sigma = (c.flatten() for c in coefficients(t, x.double(), self.schedule))
        if self.kind == "ideal":
            mean = image_posterior(x, pixels, alpha, sigma, chunk=self.chunk).mean
            return [mean] * len(sizes)
        posteriors = patch_posteriors(
            x, pixels, alpha, sigma, kind=self.kind, sizes=sizes, engine=self.engine,
            chunk=self.chunk,
        )  # fmt: skip
        return [posterior.mean for posterior in posteriors]


def make_machine(
    kind: str,
    images: ImageSet,
    *,
    size: int | SizeByTime | None = None,
    schedule: CosineSchedule | None = None,
    engine: EngineName = "auto",
    chunk: int | None = None,
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
    if isinstance(size, int) and kind != "ideal":
        check_size(kind, size, images.image_shape)
    return Machine(
        kind,
        images,
        size=size,
        schedule=schedule or CosineSchedule(),
        engine=engine,
        chunk=chunk,
    )
