"""The processes that share an analysis."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.rank_zero import rank_zero_only

from els.analysis.options import Compute
from els.analysis.study import RESULTS_VERSION
from els.files import alone_in
from els.reading import within
from els.work import Progress, Work


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        device: where this process computes.
        rank: its index.
        world: how many there are.
        barrier: returns when every process has called it.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    barrier: Callable[[], None] = lambda: None


def is_first() -> bool:
    """Whether this is the first of the processes, or the only one."""
    return not getattr(rank_zero_only, "rank", 0)


def alone(folder: Path, compute: Compute) -> AbstractContextManager[None]:
    """Keep other analyses out of a folder, where this is the first process and computes anything.

    Raises:
        InputError: as `alone_in`.
    """
    if not is_first() or compute.dry_run:
        return nullcontext()
    return alone_in(folder, "running an analysis")


def launch(compute: Compute, device: torch.device) -> Processes:
    """Start the other processes, or join them under torchrun or SLURM.

    The processes are started once, however many networks they analyse.
    """
    many = compute.devices * compute.num_nodes > 1 or "TORCHELASTIC_RUN_ID" in os.environ
    if not many:
        return Processes(device)
    accelerator = "cuda" if device.type == "cuda" else "cpu"
    fabric = _launched(accelerator, compute.devices, compute.num_nodes)
    if fabric.device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // compute.devices))
    return Processes(fabric.device, fabric.global_rank, fabric.world_size, fabric.barrier)


def work_in(
    folder: Path, compute: Compute, processes: Processes, progress: Progress, *, anew: bool
) -> Work:
    """What computes an analysis, and keeps its parts in the analysis's folder.

    Args:
        folder: of the analysis.
        compute: how it is computed.
        processes: that share it.
        progress: shown while parts are computed.
        anew: drop what was kept before.
    """
    work = Work(
        within(folder, ".work"),
        context=RESULTS_VERSION,
        batch=compute.batch,
        rank=processes.rank,
        world=processes.world,
        barrier=processes.barrier,
        progress=progress,
    )
    if anew:
        work.clear()
    return work


@cache
def _launched(accelerator: str, devices: int, num_nodes: int) -> Fabric:
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy="ddp")
    fabric.launch()
    return fabric
