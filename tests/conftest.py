"""What several tests share: golden data, small image sets, quick runs of the real entry points."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny network trained on a few digits, logged to W&B offline."""
    from entry import fit

    folder = tmp_path_factory.mktemp("runs")
    fit(folder, "--run.name", "tiny")
    return folder / "tiny"


# A small analysis, of few seeds and steps.
QUICK = [
    "--seeds", "7", "--calibration_seeds", "2", "--steps", "4", "--sizes", "[3,7]",
    "--network_steps", "[4,6]", "--batch", "3", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="session")
def analysed(trained: Path) -> Path:
    """The folder of the analysis of that network, logged to W&B offline."""
    from entry import run

    done = run("analyze.py", "--checkpoint", trained / "checkpoints" / "last.ckpt", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "boundary" in done.stdout
    assert str(trained / "analysis" / "report.html") in done.stdout
    assert "wandb sync" in done.stdout
    return trained / "analysis"


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(2)
