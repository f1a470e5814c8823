from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from els.denoiser import coefficients, x0_from_eps
from els.errors import InputError
from els.models.formats.loaded import Prediction
from els.models.steps import StepNetwork, alphas_cumprod
from els.schedule import COSINE


class Perfect(StepNetwork):
    """Knows the clean image, and answers in any form."""

    def __init__(self, x0: Tensor, prediction: str, **options: object) -> None:
        levels = alphas_cumprod("linear")
        super().__init__(1, None, "none", alphas_cumprod=levels, prediction=prediction, **options)
        self.x0, self.levels = x0, levels

    def answer(self, x: Tensor, steps: Tensor, label: Tensor | None) -> Tensor:
        self.asked = steps
        level = self.levels[steps.round().long()].float()[:, None, None, None]
        alpha, sigma = level.sqrt(), (1 - level).sqrt()
        eps = (x - alpha * self.x0) / sigma
        return {"eps": eps, "x0": self.x0, "v": alpha * eps - sigma * self.x0}[self.prediction]


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_every_prediction_says_the_same(prediction: str) -> None:
    x0, eps = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    net = Perfect(x0, prediction)
    t = net.times[[10, 400, 900]]
    alpha, sigma = coefficients(t, x0, COSINE)
    x = alpha * x0 + sigma * eps
    torch.testing.assert_close(x0_from_eps(x, net(x, t), t, COSINE), x0, atol=1e-3, rtol=1e-3)


def test_steps_lie_between_neighbours_or_are_the_nearest() -> None:
    x0 = torch.zeros(1, 1, 4, 4)
    net, whole = Perfect(x0, "eps"), Perfect(x0, "eps", whole_steps=True)
    between = net.times[17] * 0.7 + net.times[18] * 0.3
    torch.testing.assert_close(net.steps(between.reshape(1)), torch.tensor([17.3]))
    assert whole.steps(between.reshape(1)).tolist() == [17]
    with pytest.raises(InputError, match="not class-conditional"):
        net(x0, torch.ones(1), torch.zeros(1))


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_schedules_by_name_are_those_of_diffusers(name: str) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers, an optional library")
    theirs = {"cosine": "squaredcos_cap_v2"}.get(name, name)
    scheduler = diffusers.DDPMScheduler(beta_schedule=theirs)
    torch.testing.assert_close(
        alphas_cumprod(name).float(), scheduler.alphas_cumprod, rtol=1e-4, atol=0
    )
    assert len(alphas_cumprod(name, 20)) == 20
