"""Every network among the reference files, held to what its own project's code answers.

`pytest -s` shows the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, shared
from torch import Tensor

from els.models.checkpoints import load_denoiser
from els.models.denoiser import NetworkDenoiser
from els.sampling import ddim
from els.schedule import COSINE

Row = tuple[str, str, float, float]  # the file, of what, the difference, and how much it may be


def truth(*parts: str) -> dict[str, Tensor]:
    with np.load(shared("golden", *parts)) as file:
        return {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind in "fi"}


def relative(a: Tensor, b: Tensor) -> float:
    """The largest relative L2 difference of an image."""
    return float(((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).max())


def network(*parts: str, **options: str | int) -> NetworkDenoiser:
    return load_denoiser(shared("golden", *parts), **options)


def edm() -> Iterator[Row]:
    for name in ("edm_ddpmpp_cifar", "edm_vp_ddpmpp", "edm_adm_conditional"):
        found, want = network(f"{name}.pkl"), truth(f"{name}.npz")
        label = want["label"].argmax(1) if want["label"].shape[1] else None
        y, sigma = want["x"], want["sigma"]
        direct = relative(found.net.denoised(y, sigma, label), want["denoised"])
        yield f"{name}.pkl", "D(y; sigma)", direct, 1e-5
        alpha = (1 + sigma.double() ** 2).rsqrt()
        x = (alpha[:, None, None, None] * y).float()
        through = relative(found(x, COSINE.time(alpha), label), want["denoised"])
        yield f"{name}.pkl", "x0_hat(x, t)", through, 1e-3


def lucidrains() -> Iterator[Row]:
    found = network("lucidrains_pred_v.pt", image_size=16)
    want = truth("lucidrains_pred_v.npz")
    some = want["step"] < 999  # the last is beyond t = 1
    t = found.net.times[want["step"][some]]
    x0_hat = found(want["x"][some], t)
    yield "lucidrains_pred_v.pt", "x0_hat(x, t)", relative(x0_hat, want["x0_hat"][some]), 1e-5


def containers() -> Iterator[Row]:
    want = truth("containers", "containers.npz")
    for name, weights, key in (
        ("container_ema.pt", None, "eps"),
        ("container_model_args.pt", None, "eps"),
        ("container_net_model.pt", "ema", "eps_ema"),
        ("container_net_model.pt", "online", "eps"),
    ):
        found = network("containers", name, image_size=16, weights=weights)
        eps = found.net(want["x"], want["t"])
        yield f"containers/{name}", f"eps, {weights or 'as it is'}", relative(eps, want[key]), 1e-5


def diffusers() -> Iterator[Row]:
    pytest.importorskip("diffusers", reason="needs diffusers, an optional library")
    want = truth("diffusers_training", "reference.npz")
    for weights, key in (("ema", "eps"), ("online", "eps_online")):
        net = network("diffusers_training", weights=weights).net
        eps = net.answer(want["x"], want["step"], None)
        yield "diffusers_training", f"eps, {weights}", relative(eps, want[key]), 1e-5


def paper() -> Iterator[Row]:
    for name in ("paper_resnet_mnist_zeros", "paper_unet_cifar10_zeros_conditional"):
        found, want = network(f"{name}.pt"), truth(f"{name}.npz")
        label = want["label"].long() if len(want["label"]) else None
        eps = found.net(want["x"], want["t"], label)
        yield f"{name}.pt", "eps", relative(eps, want["eps"]), 1e-4
        drawn = ddim(found, want["x"], steps=20, label=label)
        yield f"{name}.pt", "DDIM, 20 steps", relative(drawn, want["ddim20"]), 1e-3


def third_party() -> Iterator[Row]:
    found = load_denoiser(f"python:{ROOT / 'examples' / 'third_party.py'}:load")
    want = truth("unet28_mnist.npz")
    eps = found.net.adapted.function(want["x"], want["step"])
    worst = float((eps - want["eps"]).abs().max())
    yield "unet28_mnist.pt", "eps, absolute", worst, 1e-4


@pytest.mark.parametrize("family", [edm, lucidrains, containers, diffusers, paper, third_party])
@torch.no_grad()
def test_files_of_other_projects_answer_as_their_code_does(
    family: Callable[[], Iterator[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNET28", str(Path(shared("golden", "unet28_mnist.pt"))))
    for file, what, difference, most in family():
        print(f"\n| {file} | {what} | {difference:.1e} | {most:.0e} |", end="")
        assert difference < most, file
