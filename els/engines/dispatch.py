"""The engines that work out posteriors over training patches, and the choice between them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from els.engines import native_engine, torch_engine, triton_engine
from els.engines.posterior import Posterior
from els.errors import InputError

EngineName = Literal["auto", "native", "triton", "torch"]
ENGINES: tuple[str, ...] = get_args(EngineName)

# The torch engine takes all queries anywhere; each of these, float32 on one kind of device.
_COMPILED = {"native": native_engine, "triton": triton_engine}
_BY_DEVICE = {"cpu": "native", "cuda": "triton"}


def patch_posteriors(
    x: Tensor,
    pixels: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    *,
    kind: str,
    sizes: Sequence[int],
    engine: EngineName = "auto",
    chunk: int | None = None,
    details: bool = False,
    wanted: Tensor | None = None,
    profiles: Sequence[Sequence[float]] | None = None,
    shift: int | None = None,
) -> list[Posterior]:
    """The posterior of the clean centre pixel over k x k training patches, for every size k.

    log w_j = -||P_u x - alpha p_j||^2 / (2 sigma^2) over the patches that
    `els.engines.dictionary.axis_groups` allows. Posteriors of parts of the images can be merged;
    with details, each part is first `shifted` by the index of its first image.

    Args:
        x: queries (b c h w).
        pixels: training images, uint8 (n c h w); they may be on another device than x.
        alpha, sigma: the schedule at each query's time (b,), float64.
        kind: one of `els.engines.dictionary.PATCH_MACHINES`.
        sizes: the patch sizes k, odd.
        engine: "native" (compiled, on the CPU), "triton" (compiled, on a GPU), "torch" (any
            device), or "auto", the fastest that can do this.
        chunk: training images at a time in the torch engine; chosen to bound memory when None.
        details: also find what `Posterior` has only with details, with indices into `pixels`.
        wanted: the places of each query that are asked for, bool (b h w); all when None. The
            others stay empty. The native engine saves what they would have cost.
        profiles: for every size, the weight of a window's rows and of its columns by their distance
            0 .. k // 2 from the centre; a cell weighs their product in the squared distance. None
            for the flat window, where every cell weighs 1.
        shift: the largest displacement of a patch along either axis, for `boundary` alone; None
            for any.

    Raises:
        InputError: when the engine asked for cannot do this here.
    """
    name = choose_engine(x, engine, plain=profiles is None and shift is None)
    if name == "native":
        return native_engine.patch_posteriors(
            x, pixels, alpha, sigma, kind=kind, sizes=sizes, details=details, wanted=wanted,
            profiles=profiles, shift=shift,
        )  # fmt: skip
    if name == "triton":
        posteriors = triton_engine.patch_posteriors(
            x, pixels, alpha, sigma, kind=kind, sizes=sizes, details=details
        )
    else:
        posteriors = [
            torch_engine.patch_posterior(
                x, pixels, alpha, sigma, kind=kind, size=size, chunk=chunk, details=details,
                profile=profile, shift=shift,
            )
            for size, profile in zip(sizes, profiles or [None] * len(sizes), strict=True)
        ]  # fmt: skip
    return posteriors if wanted is None else [part.only(wanted) for part in posteriors]


def choose_engine(x: Tensor, engine: EngineName, *, plain: bool = True) -> str:
    """The name of the engine that queries x go to.

    Args:
        plain: flat windows and any displacement, which all engines have.

    Raises:
        InputError: when the engine asked for cannot take them here.
    """
    if engine == "auto":
        name = _BY_DEVICE.get(x.device.type, "torch")
        if reason := _refusal(x, name, plain):
            if reason == _missing(name):
                _warn_once(reason)
            return "torch"
        return name
    if reason := _refusal(x, engine, plain):
        able = [name for name in (*_COMPILED, "torch") if not _refusal(x, name, plain)]
        raise InputError(
            f"the {engine} engine cannot be used: {reason}; for these images ask for "
            f"engine='auto' or one of those available here: {', '.join(able)}"
        )
    return engine


def _refusal(x: Tensor, name: str, plain: bool) -> str | None:
    """Why the engine of that name cannot take queries x; None when it can."""
    if name == "torch":
        return None
    if name == "triton" and not plain:
        return "it has flat windows and any displacement only"
    anywhere = name == "triton" and triton_engine.interpreted()
    if _BY_DEVICE.get(x.device.type) != name and not anywhere:
        return f"the queries are on {x.device}"
    if x.dtype != torch.float32:
        return f"the queries are {x.dtype}, and it computes in float32"
    if x.shape[1] > _COMPILED[name].MOST_CHANNELS:
        return f"the images have {x.shape[1]} channels"
    return _missing(name)


@functools.cache
def _missing(name: str) -> str | None:
    """Why there is no engine of that name here, whatever the queries."""
    return _COMPILED[name].available()


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(f"{reason}; the slower torch engine takes over", stacklevel=2)
