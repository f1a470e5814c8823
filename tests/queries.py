"""Queries of engines in one line, and what a posterior holds by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from els.engines import dispatch, native_engine, torch_engine, triton_engine
from els.engines.posterior import Posterior
from els.engines.query import PatchQuery

HELD = ("peak", "mass", "moment", "square", "top", "second_peak", "energy")


def query(
    x: Tensor, pixels: Tensor, alpha: Tensor, sigma: Tensor, *, kind: str, sizes: Sequence[int],
    **options: Any,
) -> PatchQuery:  # fmt: skip
    """A query; `options` are other fields of it."""
    return PatchQuery(x, pixels, alpha, sigma, rule=kind, sizes=tuple(sizes), **options)


def native(*inputs: Tensor, threads: int | None = None, **asked: Any) -> list[Posterior]:
    """What the native engine answers."""
    return native_engine.posteriors(query(*inputs, **asked), threads=threads)


def triton(*inputs: Tensor, **asked: Any) -> list[Posterior]:
    """What the Triton engine answers."""
    return triton_engine.posteriors(query(*inputs, **asked))


def reference(*inputs: Tensor, kind: str, size: int, **options: Any) -> Posterior:
    """What the torch engine answers at one size."""
    (found,) = torch_engine.posteriors(query(*inputs, kind=kind, sizes=[size], **options))
    return found


def dispatched(*inputs: Tensor, engine: str = "auto", **asked: Any) -> list[Posterior]:
    """What the engine of that name answers; inputs may be given by name."""
    by_name = [asked.pop(name) for name in ("x", "pixels", "alpha", "sigma") if name in asked]
    return dispatch.posteriors(query(*inputs, *by_name, **asked), engine=engine)


def held(posterior: Posterior, name: str) -> Tensor:
    """A map of a posterior or of its details."""
    value = getattr(posterior, name, None)
    return getattr(posterior.told, name) if value is None else value


def assert_held_alike(a: Posterior, b: Posterior, tolerance: float) -> None:
    """Equal up to a tolerance in all sums and log-weights."""
    for name in HELD:
        torch.testing.assert_close(held(a, name), held(b, name), rtol=tolerance, atol=tolerance)
