"""Results as an analysis would save them, of random images and any machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from els.analysis.answers import CEILING, TRAINING, UNSEEN, WIENER, Denoising, SameX
from els.analysis.attribution import (
    COPIES,
    HELD_OUT,
    NETWORK,
    Attribution,
    Tracing,
    TrainingImages,
)
from els.analysis.options import Protocol
from els.analysis.results import FileId, Provenance, Results, TrainingConfig
from els.calibration import Scales
from els.images import DataSpec
from els.information import Information
from els.models.blocks import NetworkFacts
from els.mosaic import Mosaic
from els.novelty import Novelty
from els.probes import Probes
from els.same_x import PLACES
from els.stacking import Weights

T = (1.0, 0.75, 0.5, 0.25)
PATCHES = ("boundary", "local", "equivariant")
SCALED = ("boundary", "local", "tempered", "equivariant", "pca_local")


def made_provenance(kinds: Sequence[str] = ("boundary",), **changes: Any) -> Provenance:
    """What made results could have been made from."""
    provenance = Provenance(
        run="made",
        checkpoint=FileId("runs/made/checkpoints/last.ckpt", "0" * 64),
        network=NetworkFacts("ResNet", "zeros", None, 10, 9),
        data=DataSpec("digits", size=8, fingerprint="1" * 64),
        images=20,
        protocol=Protocol(machines=list(kinds), sizes=[3, 5, 7], seeds=8, calibration_seeds=2),
        training=TrainingConfig("runs/made/config.yaml", "seed_everything: 0\n"),
        versions={"torch": "2"},
    )
    return replace(provenance, **changes)


def made_results(kinds: Sequence[str], *, seeds: int = 6) -> Results:
    """Results of machines that agree with the network less and less."""
    generator = torch.Generator().manual_seed(0)
    noise, network, *others = (
        torch.randn(seeds, 1, 8, 8, generator=generator) for _ in range(2 + len(kinds))
    )
    shares = torch.linspace(0.1, 1, len(kinds))
    return Results(
        provenance=made_provenance(kinds),
        seeds=tuple(range(seeds)),
        labels=None,
        noise=noise,
        network={20: network},
        machines={
            kind: network + w * x for kind, w, x in zip(kinds, shares, others, strict=True)
        },
        by_t={kind: torch.rand(len(T), seeds, generator=generator) for kind in kinds},
        t=T,
        scales={kind: made_scales(kind) for kind in kinds if kind in SCALED},
        probes=Probes(
            seeds=(0,), t=T, shares=((0.2, 0.6, 0.95, 1.0),) * 4,
            equivariance=((0.5, 0.9, 0.2, 0.0),) * 4,
        ),
        weights=made_weights() if "mixture" in kinds else None,
        attribution=made_attribution(kinds, seeds=seeds),
        information={kind: made_information(kind) for kind in kinds if kind in PATCHES},
    )  # fmt: skip


def made_information(kind: str) -> Information:
    """At three sizes, of which all, two, one and none are below k_mem in turn."""
    largest = torch.tensor([[0.1, 0.2, 0.3], [0.2, 0.3, 0.6], [0.3, 0.6, 0.9], [0.6, 0.8, 1.0]])
    maps = largest[:, :, None, None, None].expand(4, 3, 2, 8, 8)
    return Information(
        machine=kind, scale="size", seeds=(0, 1), t=T, candidates=(3, 5, 7),
        entropy=-maps.double().log().float(), largest=maps,
        log_count=torch.tensor([6.0, 5.0, 4.0]),
        told=torch.tensor([[1.0, 1.0, 1.0], [2.0, 3.0, 4.0], [3.0, 5.5, 9.0], [7.0, 9.0, 9.0]]),
    )  # fmt: skip


def with_answers(results: Results, *, twins: Sequence[str] = ("twin", "other")) -> Results:
    """The same with networks of other seeds, errors on real images, and answers at the same x."""
    generator = torch.Generator().manual_seed(3)
    network, seeds = results.network[results.network_steps], len(results.seeds)
    drawn = {
        name: {
            steps: x + 0.3 * torch.randn(network.shape, generator=generator)
            for steps, x in results.network.items()
        }
        for name in twins
    }

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) / 2 + 0.25

    def metrics(count: int) -> dict[str, torch.Tensor]:
        r = random(len(T), count)
        return {"pearson_r": r, "r2": r**2, "R2": r - 0.2}

    sides = [NETWORK, *dict.fromkeys([*results.machines, WIENER])]
    kinds = [*results.machines, *([CEILING] * bool(twins))]
    files = {name: FileId(f"runs/{name}", "2" * 64) for name in twins}
    return replace(
        results,
        provenance=replace(results.provenance, twins=files),
        twins=drawn,
        ceiling_by_t=metrics(seeds) if twins else {},
        denoising=Denoising(
            T,
            {
                split: {side: random(len(T), count) for side in sides}
                for split, count in ((UNSEEN, 7), (TRAINING, 9))
            },
        ),
        same_x=SameX(T, {place: {kind: metrics(4) for kind in kinds} for place in PLACES}),
    )


def made_attribution(kinds: Sequence[str], *, seeds: int) -> Attribution:
    """Mosaics of random pixels from 20 images, with the first kind if it has patches."""
    values = torch.rand(6, seeds, generator=torch.Generator().manual_seed(1))
    return Attribution(
        novelty={
            side: Novelty(torch.zeros(seeds), torch.zeros(seeds, 2), *values)
            for side in (NETWORK, kinds[0], HELD_OUT, COPIES)
        },
        paths={side: torch.zeros(len(T), seeds, 1, 8, 8, dtype=torch.uint8)
               for side in (NETWORK, kinds[0])},
        tracing=made_tracing(kinds[0], seeds=seeds) if kinds[0] in SCALED else None,
    )  # fmt: skip


def made_tracing(machine: str, *, seeds: int) -> Tracing:
    sides = {NETWORK: T[-1:], machine: T}
    return Tracing(
        machine=machine,
        mosaics={side: made_mosaic(t, seeds=seeds) for side, t in sides.items()},
        yardsticks={side: made_mosaic(T[-1:], seeds=4) for side in (HELD_OUT, COPIES)},
        training=TrainingImages(torch.arange(20), torch.zeros(20, 1, 8, 8, dtype=torch.uint8)),
    )


def made_mosaic(t: Sequence[float], *, seeds: int) -> Mosaic:
    generator = torch.Generator().manual_seed(len(t))
    m = len(t)
    best = torch.stack([
        torch.randint(high, (m, seeds, 8, 8), generator=generator) for high in (20, 8, 8)
    ], dim=2).int()  # fmt: skip
    shares = torch.rand(m, seeds, 8, 8, generator=generator).clamp(min=0.01)
    pixels = torch.randint(256, (m, seeds, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Mosaic(tuple(t), (5,) * m, pixels, best, shares, 1 / shares, shares, best[-1],
                  shares[-1] / 2, torch.rand(m, seeds, generator=generator))  # fmt: skip


Table = tuple[tuple[tuple[float, ...], ...], ...]


def made_scales(
    kind: str, *, sizes: Sequence[float] = (7, 5, 5, 3), table: Table | None = None
) -> Scales:
    """Scales from three candidates and two seeds, at four times."""
    scale = {"tempered": "temperature", "pca_local": "threshold"}.get(kind, "size")
    if table is None:
        table = tuple(tuple((0.9 + 0.01 * i + 0.02 * j,) * 2 for j in range(3)) for i in range(4))
    return Scales(
        machine=kind, criterion="cosine", seeds=(0, 1), candidates=(3, 5, 7), t=T,
        values=tuple(sizes), by_seed=tuple((size, size) for size in sizes), table=table,
        scale=scale,
    )  # fmt: skip


def made_weights() -> Weights:
    return Weights("mixture", ("local k=3", "wiener"), T, ((0.25, 0.75),) * len(T), (0, 1))
