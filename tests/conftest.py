"""What several tests share: golden data, small image sets, quick runs of the real entry points."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import oracle
import pytest
import torch
from filelock import FileLock
from queries import held

from els.engines.posterior import Posterior
from els.images import ImageSet

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")


def shared(*parts: str) -> Path:
    """A file that only developers and CI have; the test is skipped where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(('../shared', *parts))}, which is not here")
    return path


def random_images(
    n: int = 6, c: int = 1, h: int = 8, w: int = 8, *, classes: int = 0, seed: int = 0
) -> ImageSet:
    """Images of random pixels, with labels 0, 1, ..., 0, 1, ... if there are classes."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, c, h, w), generator=generator, dtype=torch.uint8)
    labels = torch.arange(n) % classes if classes else None
    return ImageSet(pixels, labels, tuple(str(i) for i in range(classes)))


@contextmanager
def made_once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that all workers of a test run share, and whether this one has to fill it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    base = factory.getbasetemp().parent if worker else factory.getbasetemp()
    done = base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        yield base / name, not done.exists()
        done.touch()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny network trained on a few digits, logged to W&B offline."""
    from entry import fit

    with made_once(tmp_path_factory, "runs") as (folder, missing):
        if missing:
            fit(folder, "--run.name", "tiny")
    return folder / "tiny"


# A small analysis, of few seeds and steps.
QUICK = [
    "--seeds", "7", "--calibration_seeds", "2", "--steps", "4", "--sizes", "[3,7]",
    "--network_steps", "[4,6]", "--batch", "3", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="session")
def analysed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the analysis of that network, logged to W&B offline."""
    from entry import run

    with made_once(tmp_path_factory, "analysed") as (_, missing):
        if missing:
            done = run("analyze.py", "--checkpoint", trained / "checkpoints" / "last.ckpt", *QUICK)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "boundary" in done.stdout
            assert str(trained / "analysis" / "report.html") in done.stdout
            assert "wandb sync" in done.stdout
    return trained / "analysis"


def _few_threads() -> None:
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


# Of the session too: fixtures of modules are made before those of tests, and what they compute with
# another number of threads is rounded otherwise.
_at_first = pytest.fixture(autouse=True, scope="session")(_few_threads)
_in_each_test = pytest.fixture(autouse=True)(_few_threads)


def assert_images_told(
    got: Posterior,
    u: tuple[int, int],
    logs: dict[tuple[int, int, int], float],
    images: int | None = None,
) -> None:
    """Hold what the first query's posterior says about images at u to the oracle's log-weights.

    With `images`, image i + images is image i mirrored from left to right.
    """
    best, second = (tuple(patch[0, :, *u].tolist()) for patch in (got.best, got.second))
    truth = oracle.details(logs, best[0], images)
    for name in ("top", "top_share", "second_peak"):
        value = float(held(got, name)[0, 0, *u])
        assert value == pytest.approx(getattr(truth, name), rel=1e-3, abs=1e-3), name
    weight = math.exp(truth.second_peak - max(logs.values())) * truth.top_share / truth.top
    assert float(got.second_weight[0, 0, *u]) == pytest.approx(weight, rel=2e-3, abs=1e-6)
    if truth.second is not None:
        image, row, column = second
        found = [second]
        if images is not None:
            found.append((image + images, row, got.mass.shape[-1] - 1 - column))
        assert image != best[0]
        nearest = max(logs.get(patch, -math.inf) for patch in found)
        assert nearest == pytest.approx(truth.second_peak, abs=1e-3)
