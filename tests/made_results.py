"""Results as an analysis would save them, of random images and any machines."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from els.calibration import Scales
from els.probes import Probes
from els.report.results import Results

T = (1.0, 0.75, 0.5, 0.25)
DIALLED = ("boundary", "local", "tempered", "equivariant", "pca_local")


def made_results(kinds: Sequence[str], *, seeds: int = 6) -> Results:
    """Results of machines that agree with the network less and less."""
    generator = torch.Generator().manual_seed(0)
    noise, network, *others = (
        torch.randn(seeds, 1, 8, 8, generator=generator) for _ in range(2 + len(kinds))
    )
    weights = torch.linspace(0.1, 1, len(kinds))
    return Results(
        seeds=tuple(range(seeds)),
        labels=None,
        noise=noise,
        network={20: network},
        machines={
            kind: network + w * x for kind, w, x in zip(kinds, weights, others, strict=True)
        },
        by_t={kind: torch.rand(len(T), seeds, generator=generator) for kind in kinds},
        t=T,
        scales={kind: made_scales(kind) for kind in kinds if kind in DIALLED},
        context={"run": "made"},
        probes=Probes(
            parameters=10, receptive_field=9, seeds=(0,), t=T, shares=((0.2, 0.6, 0.95, 1.0),) * 4,
            equivariance=((0.5, 0.9, 0.2, 0.0),) * 4,
        ),
    )  # fmt: skip


def made_scales(kind: str, *, sizes: Sequence[float] = (7, 5, 5, 3)) -> Scales:
    """Scales from three candidates and two seeds, at four times."""
    dial = {"tempered": "temperature", "pca_local": "threshold"}.get(kind, "size")
    table = tuple(tuple((0.9 + 0.01 * i + 0.02 * j,) * 2 for j in range(3)) for i in range(4))
    return Scales(
        machine=kind, criterion="cosine", seeds=(0, 1), candidates=(3, 5, 7), t=T,
        sizes=tuple(sizes), by_seed=tuple((size, size) for size in sizes), table=table, dial=dial,
    )  # fmt: skip
