"""The engines that work out posteriors over training patches, and the choice between them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from els.errors import InputError
from els.machines import engine_native, engine_torch
from els.machines.posterior import Posterior

EngineName = Literal["auto", "native", "torch"]
ENGINES: tuple[str, ...] = get_args(EngineName)


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
) -> list[Posterior]:
    """The posterior of the clean centre pixel over k x k training patches, for every size k.

    log w_j = -||P_u x - alpha p_j||^2 / (2 sigma^2) over the patches that
    `els.machines.places.axis_groups` allows. Posteriors of parts of the images can be merged; with
    details, each part is first `shifted` by the index of its first image.

    Args:
        x: queries (b c h w).
        pixels: training images, uint8 (n c h w); they may be on another device than x.
        alpha, sigma: the schedule at each query's time (b,), float64.
        kind: one of `els.machines.places.PATCH_MACHINES`.
        sizes: the patch sizes k, odd.
        engine: "native" (compiled, on the CPU), "torch" (any device), or "auto", the faster one
            that can do this.
        chunk: training images at a time in the torch engine; chosen to bound memory when None.
        details: also find `Posterior.square` and `Posterior.best`, with indices into `pixels`.

    Raises:
        InputError: when the engine asked for cannot do this here.
    """
    if _use_native(x, engine):
        return engine_native.patch_posteriors(
            x, pixels, alpha, sigma, kind=kind, sizes=sizes, details=details
        )
    return [
        engine_torch.patch_posterior(
            x, pixels, alpha, sigma, kind=kind, size=size, chunk=chunk, details=details
        )
        for size in sizes
    ]


def _use_native(x: Tensor, engine: EngineName) -> bool:
    if engine == "torch":
        return False
    reason = _native_refuses(x)
    if engine == "native" and reason:
        raise InputError(f"the native engine cannot be used: {reason}; ask for engine='auto'")
    return reason is None


def _native_refuses(x: Tensor) -> str | None:
    """Why the compiled engine cannot take these queries; None when it can."""
    if x.device.type != "cpu":
        return f"the queries are on {x.device}"
    if x.dtype != torch.float32:
        return f"the queries are {x.dtype}, and it computes in float32"
    if x.shape[1] > engine_native.MOST_CHANNELS:
        return f"the images have {x.shape[1]} channels"
    return _native_missing()


@functools.cache
def _native_missing() -> str | None:
    reason = engine_native.available()
    if reason is not None:
        warnings.warn(f"{reason}; the slower torch engine takes over", stacklevel=2)
    return reason
