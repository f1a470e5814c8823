"""Posteriors over training patches in plain PyTorch: exact, streamed, on any device.

The squared distance between patches is expanded into an inner product, so that one batched matrix
product gives the log-weights of every (query place, training patch) pair of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from els.engines.dictionary import Group, axis_groups
from els.engines.posterior import Details, Posterior
from els.engines.query import PatchQuery
from els.images import to_float
from els.work import tick

# Numbers held at a time, in log-weights and in unfolded patches: 64 MiB of float32.
_BUDGET = 1 << 24
# Rounding error of a log-weight, in nats, from which float64 is used instead of float32.
_TOLERANCE = 5e-4


def refuses(query: PatchQuery) -> str | None:
    """Why this engine cannot take a query: never, it takes all of them anywhere."""
    return None


def posteriors(query: PatchQuery, *, chunk: int | None = None) -> list[Posterior]:
    """The posterior at every size; see `PatchQuery`.

    Args:
        query: what is asked.
        chunk: training images at a time; default: chosen to bound memory. The answer does not
            depend on it.
    """
    profiles = query.profiles or (None,) * len(query.sizes)
    found = [
        _posterior(query, size, profile, chunk)
        for size, profile in zip(query.sizes, profiles, strict=True)
    ]
    return found if query.wanted is None else [part.masked(query.wanted) for part in found]


def _posterior(
    query: PatchQuery, size: int, profile: Sequence[float] | None, chunk: int | None
) -> Posterior:
    x, (h, w) = query.x, query.x.shape[2:]
    groups = list(product(axis_groups(query.rule, h, size), axis_groups(query.rule, w, size)))
    pairs = sum(gy.pairs * gx.pairs for gy, gx in groups)
    queries = max(1, min(len(x), _BUDGET // (8 * pairs)))
    if chunk is None:
        chunk = max(1, _BUDGET // max(x[0].numel() * size**2, pairs * queries))
    window = _window(size, profile)
    parts = [
        _stream(query.some(slice(i, i + queries)), window, groups, chunk)
        for i in range(0, len(x), queries)
    ]
    return Posterior.cat(parts)


def image_posterior(
    x: Tensor,
    pixels: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    *,
    chunk: int | None = None,
    details: bool = False,
) -> Posterior:
    """The posterior over whole training images, as `posteriors` with P = the image.

    A pixel's `best` is the pixel at its own place in the best image, and so is its `second`.
    """
    dtype = working_dtype(x, alpha, sigma, x[0].numel())
    query = rearrange(_scaled(x, alpha, sigma, dtype), "b c h w -> 1 b (c h w)")
    total = Posterior.empty(x, dtype, details=details)
    chunk = chunk or max(1, _BUDGET // x[0].numel())
    for i, images in enumerate(pixels.split(chunk)):
        y = to_float(images.to(x.device)).to(dtype)
        y = rearrange(y, "n c h w -> 1 n (c h w)")
        sums = _accumulate(
            _with_norm(query, alpha, sigma), y, y, images=len(images), details=details
        )
        moment = sums.pop("moment").reshape(x.shape)
        h, w = x.shape[2:]
        alike = {name: repeat(one, "1 b 1 -> b 1 h w", h=h, w=w) for name, one in sums.items()}
        for name in ("best", "second") if details else ():
            alike[name] = _at_own_place(alike[name])
        part = _as_posterior({"moment": moment, **alike})
        total = total.merge(part.shifted(i * chunk))
    norm = (x.to(dtype) ** 2).sum(dim=(1, 2, 3), keepdim=True)
    return _less_query_norm(total, norm, sigma)


def _stream(
    query: PatchQuery, window: Tensor, groups: list[tuple[Group, Group]], chunk: int
) -> Posterior:
    x, alpha, sigma = query.x, query.alpha, query.sigma
    dtype = working_dtype(x, alpha, sigma, x.shape[1] * window.numel())
    wrap, size = query.rule == "equivariant", len(window)
    root = window.sqrt().to(x.device, dtype)  # goes half to the query and half to the patches
    queries = _windows(_scaled(x, alpha, sigma, dtype), size, wrap=wrap) * root
    total = Posterior.empty(x, dtype, details=query.details)
    for i, images in enumerate(query.pixels.split(chunk)):
        y = to_float(images.to(x.device)).to(dtype)
        windows = _windows(y, size, wrap=False) * root
        part = Posterior.empty(x, dtype, details=query.details)
        for gy, gx in groups:
            asked = _with_norm(_gather(queries, gy.query, gx.query), alpha, sigma)
            patches = _gather(windows, gy.training, gx.training)
            centres = _gather(rearrange(y, "n c h w -> n c h w 1 1"), gy.training, gx.training)
            near = None
            if query.shift is not None:
                near = _near(gy, gx, query.shift, len(x), len(y)).to(x.device)
            sums = _accumulate(
                asked, patches, centres, images=len(y), details=query.details, allowed=near
            )
            for name in ("best", "second") if query.details else ():
                sums[name] = _places(sums[name], gy.training, gx.training)
            _scatter(part, sums, gy.query, gx.query)
        total = total.merge(part.shifted(i * chunk))
        tick(len(x) * len(images) / len(query.pixels) / len(query.sizes))
    norm = _windows((x.to(dtype) ** 2).sum(dim=1, keepdim=True), size, wrap=wrap) * root**2
    return _less_query_norm(total, norm.sum(dim=(-2, -1)), sigma)


def _window(size: int, profile: Sequence[float] | None) -> Tensor:
    """The weight of every cell of a window (k k), float64."""
    if profile is None:
        return torch.ones(size, size, dtype=torch.float64)
    line = torch.tensor([*profile[:0:-1], *profile], dtype=torch.float64)
    return torch.outer(line, line)


def _near(gy: Group, gx: Group, shift: int, queries: int, images: int) -> Tensor:
    """Whether a query may use a patch (g m p), as `_gather` orders them: none beyond the shift."""
    rows, columns = ((g.query[:, :, None] - g.training[:, None]).abs() <= shift for g in (gy, gx))
    both = torch.einsum("amp,bnq->abmnpq", rows.float(), columns.float()).bool()
    return repeat(both, "gy gx m n p q -> (gy gx) (b m n) (i p q)", b=queries, i=images)


def _accumulate(
    query: Tensor,
    patches: Tensor,
    centres: Tensor,
    *,
    images: int,
    details: bool,
    allowed: Tensor | None = None,
) -> dict[str, Tensor]:
    """Sums (g m e) of queries (g m d+1) over patches (g p d), by their names.

    The names are those of `Posterior` and `Details`. The query's last entry weighs the squared norm
    of a patch: one product is the log-weight. The patches are those of `images` images, one after
    the other, and as many of each. `best` and `second` are indices of patches.
    """
    patches = torch.cat([patches, (patches**2).sum(dim=-1, keepdim=True)], dim=-1)
    with full_precision():
        logits = torch.bmm(query, patches.mT)
        if allowed is not None:
            logits.masked_fill_(~allowed, -torch.inf)
        best_two = _best_two(logits.unflatten(-1, (images, -1))) if details else {}
        peak = best_two["peak"] if details else logits.amax(dim=-1, keepdim=True)
        weights = logits.sub_(peak).exp_()
        sums = torch.bmm(weights, torch.cat([centres, torch.ones_like(centres[..., :1])], dim=-1))
    found = {"peak": peak, "mass": sums[..., -1:], "moment": sums[..., :-1]}
    if details:
        by_image = weights.unflatten(-1, (images, -1)).sum(dim=-1)
        top = by_image.amax(dim=-1, keepdim=True)
        energy = torch.special.entr(weights).sum(dim=-1, keepdim=True)
        square = weights.square_().sum(dim=-1, keepdim=True)
        found |= best_two | {"top": top, "square": square, "energy": energy}
    return found


def _best_two(logits: Tensor) -> dict[str, Tensor]:
    """The best patch (g m 1) of log-weights (g m n p), and that of the other images."""
    by_image, places = logits.max(dim=-1)
    peak, image = by_image.max(dim=-1, keepdim=True)
    second_peak, other = by_image.scatter(-1, image, -torch.inf).max(dim=-1, keepdim=True)
    best, second = (i * logits.shape[-1] + places.gather(-1, i) for i in (image, other))
    return {"peak": peak, "best": best, "second_peak": second_peak, "second": second}


def _places(index: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Image, row and column ((gy gx) m 3) of patches by their index ((gy gx) m 1) in `_gather`."""
    ys, xs = ys.to(index.device), xs.to(index.device)
    p, q = ys.shape[1], xs.shape[1]
    rows = repeat(ys, "gy p -> (gy gx) p 1", gx=len(xs))
    columns = repeat(xs, "gx q -> (gy gx) q 1", gy=len(ys))
    return torch.cat(
        [index // (p * q), rows.gather(1, index // q % p), columns.gather(1, index % q)], dim=-1
    )


def _at_own_place(image: Tensor) -> Tensor:
    """Image indices (b 1 h w) together with every pixel's own row and column (b 3 h w)."""
    rows, columns = (torch.arange(n, device=image.device) for n in image.shape[2:])
    return torch.cat([image, rows[:, None].expand_as(image), columns.expand_as(image)], dim=1)


def _scaled(x: Tensor, alpha: Tensor, sigma: Tensor, dtype: torch.dtype) -> Tensor:
    """Alpha x / sigma^2, so that its inner product with a patch is part of the log-weight."""
    return x.to(dtype) * rearrange((alpha / sigma**2).to(dtype), "b -> b 1 1 1")


def _with_norm(query: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Queries (g (b m) d) with -alpha^2 / (2 sigma^2), the weight of a patch's norm, appended."""
    factor = -(alpha**2 / (2 * sigma**2)).to(query.dtype)
    factor = repeat(factor, "b -> g (b m) 1", g=len(query), m=query.shape[1] // len(alpha))
    return torch.cat([query, factor], dim=-1)


def _less_query_norm(total: Posterior, norm: Tensor, sigma: Tensor) -> Posterior:
    """Add what the expanded square leaves out, -||P_u x||^2 / (2 sigma^2), to the log-weights."""
    scale = rearrange(sigma.to(norm.dtype), "b -> b 1 1 1")
    less = norm / (2 * scale**2)
    details = total.details
    if details is not None:
        details = replace(details, second_peak=details.second_peak - less)
    return replace(total, peak=total.peak - less, details=details)


def _as_posterior(sums: dict[str, Tensor]) -> Posterior:
    """From maps by their names in `Posterior` and `Details`."""
    sums = dict(sums)
    peak, mass, moment = (sums.pop(name) for name in ("peak", "mass", "moment"))
    return Posterior(peak, mass, moment, Details(**sums) if sums else None)


def _windows(x: Tensor, size: int, *, wrap: bool) -> Tensor:
    """A view of the k x k window around every place (n c h w k k), wrapped or padded with zeros."""
    padded = F.pad(x, [size // 2] * 4, mode="circular" if wrap else "constant")
    return padded.unfold(2, size, 1).unfold(3, size, 1)


def _gather(windows: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Windows at the places ys (gy p) and xs (gx q), as ((gy gx) (n p q) d)."""
    ys, xs = ys.to(windows.device), xs.to(windows.device)
    picked = windows[:, :, ys[:, :, None, None], xs]
    return rearrange(picked, "n c gy p gx q i j -> (gy gx) (n p q) (c i j)")


def _scatter(part: Posterior, sums: dict[str, Tensor], ys: Tensor, xs: Tensor) -> None:
    """Write a group's sums to its places, in place."""
    axes = {"gy": ys.shape[0], "p": ys.shape[1], "q": xs.shape[1]}
    ys, xs = ys.to(part.peak.device)[:, :, None, None], xs.to(part.peak.device)
    for name, values in sums.items():
        target = getattr(part if name in ("peak", "mass", "moment") else part.told, name)
        target[:, :, ys, xs] = rearrange(values, "(gy gx) (b p q) c -> b c gy p gx q", **axes)


def working_dtype(x: Tensor, alpha: Tensor, sigma: Tensor, terms: int) -> torch.dtype:
    """float32, or float64 where float32 would round the log-weights by more than `_TOLERANCE`.

    A log-weight is a sum of `terms` products of size about alpha / sigma^2, and what float32 loses
    is a fixed share of that sum (design.md, "Exactness").
    """
    if x.device.type == "mps":  # has no float64
        return torch.float32
    largest = float((alpha / sigma**2).max()) * terms
    rounding = torch.finfo(torch.float32).eps / 2 * largest
    return torch.promote_types(x.dtype, torch.float64 if rounding > _TOLERANCE else torch.float32)


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products without TF32, whatever the program has chosen for its networks."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
