"""All machines by name, and the one place where they are made.

Adding a machine is one file, with a class derived from `els.machines.base.Machine`, and one entry
here: `make_machine`, the command line, the analysis, the page and the documentation follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from els.engines.dictionary import Rule
from els.engines.dispatch import EngineName
from els.engines.windows import WindowName
from els.errors import InputError
from els.images import ImageSet, as_images
from els.machines.base import NO_VALUE, Around, ByTime, Machine, MachineOptions, Number, Symmetry
from els.machines.global_equivariant import GlobalEquivariant
from els.machines.ideal import Ideal
from els.machines.local import SIZE, PatchMachine
from els.machines.mixture import Mixture, Part, WeightsByTime
from els.machines.nearest import Nearest
from els.machines.patch_composite import PatchComposite
from els.machines.pca_local import PcaLocal
from els.machines.smoothed import Smoothed
from els.machines.soft_composite import SoftPatchComposite
from els.machines.tempered import Tempered
from els.machines.wiener import Wiener
from els.schedule import COSINE, CosineSchedule

PADDINGS = ("zeros", "circular")
_ELS = "Kamb & Ganguli, arXiv 2412.20292"


@dataclass(frozen=True)
class Entry:
    """A machine.

    Attributes:
        make: (kind, images, size=, schedule=, options=) -> machine.
        says: what answers for a pixel, for people.
        cites: where it comes from.
        scale: what is fitted, for people; empty where nothing is.
        pads: the networks that it is meant for, by their padding.
        patches: whether it answers with training patches, which mosaics are made of.
        symmetries: whether it takes mirrored and turned images.
        shifts: whether it takes a largest displacement.
        paper: what the paper calls it, in short; empty for machines that are not the paper's.
    """

    make: Callable[..., Machine]
    says: str
    cites: str = ""
    scale: str = ""
    pads: tuple[str, ...] = PADDINGS
    patches: bool = False
    symmetries: bool = False
    shifts: bool = False
    paper: str = ""


def _patches(
    rule: Rule, says: str, *, pads: tuple[str, ...], window: WindowName = "hard", paper: str = ""
) -> Entry:
    make = partial(PatchMachine, rule=rule, window=window)
    scale = "size" if window == "hard" else "width"
    cites = _ELS if paper else ""
    return Entry(
        make, says, cites, scale, pads, patches=True, symmetries=True, shifts=True, paper=paper
    )


_AFFORDED = 1e10  # multiplications of one answer at one value, of machines in a mixture


def _mixture_kinds(images: ImageSet, around: Around) -> tuple[str, ...]:
    """What is mixed: hard and soft windows anywhere, and at their own places what is affordable.

    By count and not by the clock, so that a mixture is the same on every machine.
    """
    c, h, w = images.image_shape
    masked = len(images) * (h * w) ** 2
    costs = {"pca_local": masked * (1 + c), "patch_composite_soft": masked * (1 + c) * 9}
    afforded = (name for name, cost in costs.items() if cost <= _AFFORDED)
    return (around, f"{around}_soft", "local", *afforded)


def _mixture(
    kind: str,
    images: ImageSet,
    *,
    size: WeightsByTime | None,
    schedule: CosineSchedule,
    options: MachineOptions,
) -> Mixture:
    """The machines of `_mixture_kinds` at all their candidates, and `wiener`; all of them exact."""
    options = replace(options, tolerance=0.0)
    side = min(images.image_shape[1:])
    parts = []
    for name in _mixture_kinds(images, options.around):
        machine = MACHINES[name].make(name, images, schedule=schedule, options=options)
        candidates = machine.scale.candidates if machine.scale else ()
        values = [v for v in candidates if machine.scale != SIZE or v <= side]
        parts.append(Part(machine, tuple(machine.allowed(values))))
    wiener = Wiener("wiener", images, schedule=schedule, options=options)
    parts = [*(part for part in parts if part.values), Part(wiener, (NO_VALUE,))]
    return Mixture(kind, images, parts=parts, weights=size, schedule=schedule, clip=options.clip)


_SOFT = "with a soft window in place of a square; its width is fitted."
# In the order in which `--machines all` compares them, after the one that goes with the padding.
MACHINES: dict[str, Entry] = {
    "boundary": _patches(
        "boundary",
        "The average of training patches that look like the pixel's surroundings, from anywhere in "
        "the images; near a border, from places that are as far from it. Made for networks that "
        "pad with zeros.",
        pads=("zeros",),
        paper="ELS",
    ),
    "equivariant": _patches(
        "equivariant",
        "The average of training patches that look like the pixel's surroundings, from anywhere in "
        "the images. Made for networks that wrap round (circular padding).",
        pads=("circular",),
        paper="ELS",
    ),
    "mixture": Entry(
        _mixture,
        "A mixture of patch machines and the linear filter, weighed anew at each t.",
        scale="weights",
        symmetries=True,
    ),
    "boundary_soft": _patches(
        "boundary", f"Like `boundary`, {_SOFT}", pads=("zeros",), window="gaussian"
    ),
    "equivariant_soft": _patches(
        "equivariant", f"Like `equivariant`, {_SOFT}", pads=("circular",), window="gaussian"
    ),
    "wiener": Entry(Wiener, "The best linear filter for the images' mean and covariance."),
    "nearest": Entry(Nearest, "The nearest training image."),
    "tempered": Entry(Tempered, "`ideal` with its weights made more even.", scale="temperature"),
    "smoothed": Entry(
        Smoothed,
        "`ideal`, averaged over disturbed inputs.",
        "Scarvelis et al., arXiv 2310.12395",
        scale="smoothing",
    ),
    "global_equivariant": Entry(
        GlobalEquivariant, "The average of whole training images at every shift.", _ELS
    ),
    "pca_local": Entry(
        PcaLocal,
        "At its own place, each pixel compares the cells that the images' covariance links it to.",
        "Lukoianov et al., arXiv 2509.09672",
        scale="threshold",
    ),
    "patch_composite": Entry(
        PatchComposite,
        "Whole patches at their own places, averaged where they overlap.",
        "Niedoba et al., arXiv 2411.19339 (PSPC)",
        scale="size",
    ),
    "patch_composite_soft": Entry(
        SoftPatchComposite,
        "Like `patch_composite`, with soft patches of images that are moved by a pixel, too.",
        "after Niedoba et al., arXiv 2605.24192",
        scale="width",
        symmetries=True,
        shifts=True,
    ),
    "local": _patches(
        "local",
        "The average of training patches that look like the pixel's surroundings, from the pixel's "
        "own place alone: locality without equivariance.",
        pads=PADDINGS,
        paper="LS",
    ),
    "ideal": Entry(
        Ideal,
        "The average of whole training images, weighed by their likeness to the noisy one: it "
        "memorises.",
        _ELS,
        paper="IS",
    ),
}


def with_paper_name(kind: str) -> str:
    """A machine's name and in brackets the paper's, as "local (LS)"."""
    paper = MACHINES[kind].paper if kind in MACHINES else ""
    return f"{kind} ({paper})" if paper else kind


def around(padding: str) -> Around:
    """The patch machine that is made for networks of a padding."""
    return "equivariant" if padding == "circular" else "boundary"


def default_for(padding: str) -> tuple[str, ...]:
    """The machines of the paper for networks of a padding, the one that should fit first."""
    return (around(padding), "local", "ideal")


def all_for(padding: str) -> tuple[str, ...]:
    """Every machine that goes with a padding, the one that should fit first."""
    pads = "circular" if padding == "circular" else "zeros"
    return tuple(kind for kind, entry in MACHINES.items() if pads in entry.pads)


def described() -> str:
    """A line for each machine, for people."""
    width = max(map(len, MACHINES))
    return "\n".join(f"{kind:{width}}  {entry.says}" for kind, entry in MACHINES.items())


def make_machine(
    kind: str,
    images: ImageSet | Tensor,
    *,
    size: Number | ByTime | WeightsByTime | None = None,
    schedule: CosineSchedule = COSINE,
    engine: EngineName = "auto",
    chunk: int | None = None,
    tolerance: float = 0.0,
    window: WindowName | None = None,
    shift: int | None = None,
    symmetries: Sequence[Symmetry] = (),
    temperature: float = 1.0,
    around: Around = "boundary",
    clip: bool = False,
) -> Any:
    """Make a closed-form denoiser.

    Args:
        kind: one of `MACHINES`, whose entries say what answers for a pixel.
        images: the training images; or their pixels (n c h w), uint8, or floats in [-1, 1], which
            are rounded to 256 values.
        size: the value of the machine's scale: an odd patch size k, a width in pixels, a threshold
            in [0, 1], a smoothing in units of sigma, or a temperature; or one for each time with
            `.at(t)`, such as the fitted `els.Scales`. May be left out where every call gives its
            own, where scales are still to be fitted (`machine.fitted(scales)` is the machine with
            them), or without a scale. The fitted `els.stacking.Weights` of `mixture`.
        schedule: the noise schedule; default: the paper's.
        engine: "native" (compiled, on the CPU), "triton" (compiled, on a GPU), "torch" (any device)
            or "auto", the fastest that works here.
        chunk: training images held at a time; default: chosen to bound memory. Never changes the
            answer.
        tolerance: the root mean square error of x0_hat over an image that is good enough, in pixel
            units; 0 is exact. `equivariant` and `boundary` then sample their patches where that
            costs less; `local`, soft windows, symmetries, shifts, other engines than the native one
            and all other machines stay exact.
        window: "hard", "flat" or "gaussian" windows of a patch machine; default: as its kind says.
            The sides of flat windows are continuous. See `els.engines.windows`.
        shift: the largest displacement of a patch of `boundary`, which 0 makes `local`; of the
            training images of `patch_composite_soft`, in each direction (default: 1).
        symmetries: "flip" and "turns" add the mirrored and quarter-turned images to the dictionary
            of a patch machine, or of those in `mixture`, for networks trained so.
        temperature: what a patch machine's log-weights are divided by.
        around: the patch machine that `mixture` is built around: `boundary` or `equivariant`.
        clip: clamp x0_hat to the range of the images, [-1, 1].

    Raises:
        InputError: unknown kind, no images or something else, or an option or size out of range.

    Example:
        >>> import torch
        >>> from els.images import load_images
        >>> machine = make_machine("boundary", load_images("digits", limit=50), size=3)
        >>> machine
        boundary, size 3, 50 images of 1 x 16 x 16
        >>> machine(torch.zeros(2, 1, 16, 16), 0.5).shape
        torch.Size([2, 1, 16, 16])
    """
    if kind not in MACHINES:
        raise InputError(f"unknown machine '{kind}'; known are {', '.join(MACHINES)}")
    images = as_images(images)
    if not len(images):
        raise InputError(f"the {kind} machine was given no training images")
    entry = MACHINES[kind]
    if shift is not None and shift < 0:
        raise InputError(f"shift {shift} is a largest displacement; it must be at least 0")
    misplaced = window is not None or (shift is not None and not entry.shifts) or temperature != 1
    if not entry.patches and misplaced:
        raise InputError(
            f"the {kind} machine has no patches: window, shift and temperature are for "
            f"{', '.join(name for name, one in MACHINES.items() if one.patches)}"
        )
    if symmetries and not entry.symmetries:
        raise InputError(f"the {kind} machine has no patches, which symmetries are for")
    options = MachineOptions(
        engine, chunk, tolerance, window, shift, tuple(symmetries), temperature, around, clip
    )
    return entry.make(kind, images, size=size, schedule=schedule, options=options)
