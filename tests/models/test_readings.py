"""The ways to read a network: the declared one is among them, and answers as the network does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import shared
from studies import write_checkpoint

from els.models.checkpoints import load_denoiser
from els.models.denoiser import NetworkDenoiser
from els.models.readings import Reading, readings

T = torch.tensor([0.2, 0.7], dtype=torch.float64)


def answers_as_declared(network: NetworkDenoiser, reading: Reading, tolerance: float) -> None:
    x = torch.randn(2, *network.image_shape, generator=torch.Generator().manual_seed(0))
    label = None if network.num_classes is None else torch.tensor([0, 1])
    found, want = dict(readings(network))[reading](x, T, label), network(x, T, label)
    assert (found - want).norm() <= tolerance * want.norm()


@pytest.mark.parametrize("classes", [None, 3])
def test_checkpoints_of_train_are_of_times(classes: int | None, tmp_path: Path) -> None:
    network = load_denoiser(write_checkpoint(tmp_path / "x.ckpt", classes=classes))
    answers_as_declared(network, Reading("eps"), 1e-4)
    names = [str(one) for one, _ in readings(network)]
    assert names == [
        f"{one}{more}" for one in ("eps", "v", "x0") for more in ("", " of images in [0, 1]")
    ]


def test_networks_of_steps_have_four_schedules_and_the_nearest_step() -> None:
    network = load_denoiser(shared("golden", "lucidrains_pred_v.pt"), image_size=16)
    assert len(list(readings(network))) == 24
    answers_as_declared(network, Reading("v"), 0.03)  # not between two steps, as the network is


def test_networks_of_edm_are_of_sigma() -> None:
    network = load_denoiser(shared("golden", "edm_ddpmpp_cifar.pkl"))
    assert [one.prediction for one, _ in readings(network)] == ["x0", "x0"]
    answers_as_declared(network, Reading("x0"), 1e-3)
