"""The choice between the engines that work out posteriors over training patches."""

from __future__ import annotations

import functools
import warnings
from typing import Literal, get_args

from els.engines import native_engine, torch_engine, triton_engine
from els.engines.posterior import Posterior
from els.engines.query import PatchQuery
from els.errors import InputError

EngineName = Literal["auto", "native", "triton", "torch"]
ENGINES: tuple[str, ...] = get_args(EngineName)

# The torch engine takes all queries anywhere; each of the compiled ones, float32 on one kind of
# device.
_COMPILED = {"native": native_engine, "triton": triton_engine}
_BY_DEVICE = {"cpu": "native", "cuda": "triton"}


def posteriors(
    query: PatchQuery, *, engine: EngineName = "auto", chunk: int | None = None
) -> list[Posterior]:
    """The posterior for every size of a query.

    Posteriors of parts of the images can be merged; with details, each part is first `shifted` by
    the index of its first image.

    Args:
        query: what is asked.
        engine: "native" (compiled, on the CPU), "triton" (compiled, on a GPU), "torch" (any
            device), or "auto", the fastest that can do this.
        chunk: training images at a time in the torch engine; default: chosen to bound memory.

    Raises:
        InputError: when the engine asked for cannot do this here.
    """
    name = choose(query, engine)
    if name == "torch":
        return torch_engine.posteriors(query, chunk=chunk)
    return _COMPILED[name].posteriors(query)


def choose(query: PatchQuery, engine: EngineName) -> str:
    """The name of the engine that a query goes to.

    Raises:
        InputError: when the engine asked for cannot take it here.
    """
    if engine == "auto":
        name = _BY_DEVICE.get(query.x.device.type, "torch")
        if name == "torch":
            return name
        if reason := _COMPILED[name].refuses(query):
            if reason == _COMPILED[name].missing():
                _warn_once(reason)
            return "torch"
        return name
    if engine != "torch" and (reason := _COMPILED[engine].refuses(query)):
        able = [name for name, one in _COMPILED.items() if not one.refuses(query)]
        raise InputError(
            f"the {engine} engine cannot be used: {reason}; for these images take engine='auto' or "
            f"one of those available here: {', '.join([*able, 'torch'])}"
        )
    return engine


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(f"{reason}; the slower torch engine takes over", stacklevel=2)
