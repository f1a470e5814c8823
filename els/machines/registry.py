"""The one place where machines are made."""

from __future__ import annotations

import math
from collections.abc import Sequence

from els.engines.dictionary import PATCH_MACHINES
from els.engines.dispatch import ENGINES, EngineName
from els.engines.windows import WindowName
from els.errors import InputError
from els.images import ImageSet
from els.machines.base import ByTime, Machine
from els.machines.global_equivariant import GlobalEquivariant
from els.machines.ideal import Ideal
from els.machines.local import SIZE, PatchMachine, Symmetry
from els.machines.mixture import Mixture, Part, WeightsByTime
from els.machines.nearest import Nearest
from els.machines.patch_composite import PatchComposite
from els.machines.pca_local import PcaLocal
from els.machines.smoothed import Smoothed
from els.machines.tempered import Tempered
from els.machines.wiener import Wiener
from els.schedule import CosineSchedule

_SOFT = ("boundary_soft", "equivariant_soft")
PATCH_KINDS = (*PATCH_MACHINES, *_SOFT)
_BY_KIND = {
    "patch_composite": PatchComposite,
    "pca_local": PcaLocal,
    "global_equivariant": GlobalEquivariant,
    "smoothed": Smoothed,
    "tempered": Tempered,
    "nearest": Nearest,
    "wiener": Wiener,
    "ideal": Ideal,
}
MACHINES = ("ideal", *PATCH_KINDS, *(kind for kind in _BY_KIND if kind != "ideal"), "mixture")


def make_machine(
    kind: str,
    images: ImageSet,
    *,
    size: float | ByTime | WeightsByTime | None = None,
    schedule: CosineSchedule | None = None,
    engine: EngineName = "auto",
    chunk: int | None = None,
    tolerance: float = 0.0,
    window: WindowName | None = None,
    shift: int | None = None,
    symmetries: Sequence[Symmetry] = (),
    temperature: float = 1.0,
    around: str = "boundary",
) -> Machine:
    """Make a closed-form denoiser.

    | kind | what answers for pixel u | scale |
    |---|---|---|
    | `ideal` | whole training images: memorises | |
    | `local` | the patch at the same place in every image; zeros outside | size |
    | `equivariant` | every patch wholly inside an image, anywhere; the query wraps | size |
    | `boundary` | every patch whose window crosses the same borders at the same distance | size |
    | `boundary_soft`, `equivariant_soft` | the same with Gaussian windows | width |
    | `patch_composite` | means of the whole patches at their places, averaged (PSPC) | size |
    | `pca_local` | the cells that the Wiener filter looks at, at the same place | threshold |
    | `global_equivariant` | whole training images at every circular shift | |
    | `smoothed` | `ideal`, averaged over perturbed queries | smoothing |
    | `tempered` | `ideal` with its log-weights divided by a temperature | temperature |
    | `nearest` | the nearest training image | |
    | `wiener` | the linear filter of the images' mean and covariance | |
    | `mixture` | a convex mixture of others, weighed anew at every t | weights |

    Args:
        kind: one of `MACHINES`.
        images: the training images.
        size: the value of the machine's scale: an odd patch size k, a width in pixels, a threshold
            in [0, 1], a smoothing in units of sigma, or a temperature; or one for each time with
            `.at(t)`, such as fitted scales. May be left out where every call gives its own, or
            without a scale. The fitted `els.stacking.Weights` of `mixture`.
        schedule: the noise schedule; the paper's by default.
        engine: "native" (compiled, on the CPU), "triton" (compiled, on a GPU), "torch" (any device)
            or "auto", the fastest that works here.
        chunk: training images held at a time, chosen to bound memory when None; never changes the
            answer.
        tolerance: a standard error of x0_hat in pixel units. Images are then visited in random
            order, until each query's root mean squared standard error is below it; 0 is exact.
            Only the patch machines estimate; all others, `mixture` too, are always exact.
        window: "hard", "flat" or "gaussian" windows of a patch machine, as its kind says unless
            told; the sides of flat windows are continuous. See `els.engines.windows`.
        shift: the largest displacement of a patch (`boundary` alone): 0 makes it `local`.
        symmetries: "flip" and "turns" add the mirrored and quarter-turned images to the dictionary
            of a patch machine, or of those in `mixture`, for networks trained so.
        temperature: what a patch machine's log-weights are divided by.
        around: the patch machine that `mixture` is built around: `boundary` or `equivariant`.

    Raises:
        InputError: unknown kind, no images, or an option or size out of range.
    """
    _check(kind, images, engine=engine, chunk=chunk, tolerance=tolerance)
    schedule = schedule or CosineSchedule()
    if kind in PATCH_KINDS:
        return PatchMachine(
            kind, images, size=size, schedule=schedule, engine=engine, chunk=chunk,
            tolerance=tolerance, window=window or ("gaussian" if kind in _SOFT else "hard"),
            shift=shift, symmetries=symmetries, temperature=temperature,
        )  # fmt: skip
    if window is not None or shift is not None or temperature != 1:
        raise InputError(
            f"the {kind} machine has no patches: window, shift and temperature are for local, "
            "equivariant and boundary"
        )
    if kind == "mixture":
        parts = _parts(
            around, images, schedule=schedule, engine=engine, chunk=chunk, symmetries=symmetries
        )
        return Mixture(kind, images, parts=parts, weights=size, schedule=schedule)
    if symmetries:
        raise InputError(f"the {kind} machine has no patches, which symmetries are for")
    return _BY_KIND[kind](kind, images, size=size, schedule=schedule, chunk=chunk)


def _parts(
    around: str,
    images: ImageSet,
    *,
    schedule: CosineSchedule,
    engine: EngineName,
    chunk: int | None,
    symmetries: Sequence[Symmetry],
) -> list[Part]:
    """What `mixture` mixes: hard and soft windows anywhere, hard ones in place, and `wiener`."""
    if around not in ("boundary", "equivariant"):
        raise InputError(f"mixture is built around boundary or equivariant, not '{around}'")
    parts = []
    for kind in (around, f"{around}_soft", "local"):
        machine = make_machine(
            kind, images, schedule=schedule, engine=engine, chunk=chunk, symmetries=symmetries
        )
        side = min(images.image_shape[1:])
        values = [v for v in machine.scale.candidates if machine.scale != SIZE or v <= side]
        parts.append(Part(machine, tuple(machine.allowed(values))))
    wiener = make_machine("wiener", images, schedule=schedule)
    return [*(part for part in parts if part.values), Part(wiener, (None,))]


def _check(
    kind: str, images: ImageSet, *, engine: str, chunk: int | None, tolerance: float
) -> None:
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
