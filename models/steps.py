"""Networks that were trained at a number of discrete steps, each with noise of its own.

Where their schedule preserves the variance, an image at our t is an image of theirs at the step
with the same alpha, and nothing needs to be scaled. Between two steps k is interpolated where the
network takes any real number, as k-diffusion does: the noise level that the network is told is then
the one that the image has, and the answer is smooth in t. A learned table of steps gets the nearest
one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from els.denoiser import coefficients, eps_from_x0
from els.errors import InputError
from els.models.blocks import Network
from els.schedule import CosineSchedule


class StepNetwork(Network):
    """A network of discrete steps as net(x, t, label) -> eps_hat at our continuous t.

    Args:
        channels: image channels c.
        num_classes: number of classes, or None for an unconditional network.
        norm: "none" or "group".
        alphas_cumprod: alpha^2 of its steps (n,), falling.
        prediction: what it predicts: "eps", "x0", or "v" = alpha eps - sigma x0.
        schedule: what our t means.
        whole_steps: it is asked at whole steps alone.
    """

    times: Tensor

    def __init__(
        self,
        channels: int,
        num_classes: int | None,
        norm: str,
        *,
        alphas_cumprod: Tensor,
        prediction: str,
        schedule: CosineSchedule | None = None,
        whole_steps: bool = False,
    ) -> None:
        super().__init__(
            {"channels": channels, "num_classes": num_classes, "padding": "zeros", "norm": norm}
        )
        self.prediction, self.whole_steps = prediction, whole_steps
        self.schedule = schedule or CosineSchedule()
        self.register_buffer("times", self.schedule.time(alphas_cumprod.double().sqrt()))
        if len(self.times) < 2 or not (self.times.diff() > 0).all():
            raise InputError(f"its noise does not grow at each of its {len(self.times)} steps")

    def answer(self, x: Tensor, steps: Tensor, label: Tensor | None) -> Tensor:
        """What the network predicts (b c h w) of images x (b c h w) at steps (b,)."""
        raise NotImplementedError

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `Network.forward`.

        Raises:
            InputError: when a label is given to an unconditional network, or missing for a
                conditional one.
        """
        if (label is None) != (self.num_classes is None):
            raise InputError(
                "a label was given, but this network is not class-conditional"
                if self.num_classes is None
                else f"this network is class-conditional: give labels 0..{self.num_classes - 1}"
            )
        answer = self.answer(x, self.steps(t), label)
        if self.prediction == "eps":
            return answer
        if self.prediction == "x0":
            return eps_from_x0(x, answer, t, self.schedule)
        alpha, sigma = coefficients(t, x, self.schedule)
        return alpha * answer + sigma * x

    def steps(self, t: Tensor) -> Tensor:
        """The steps (b,) at whose alpha the images at times t (b,) are, from 0 to n - 1."""
        t = t.to(self.times)
        after = torch.searchsorted(self.times, t).clamp(1, len(self.times) - 1)
        low, high = self.times[after - 1], self.times[after]
        steps = (after - 1 + (t - low) / (high - low)).clamp(0, len(self.times) - 1)
        return steps.round().long() if self.whole_steps else steps.float()


def alphas_cumprod(schedule: str, n: int = 1000) -> Tensor:
    """alpha^2 (n,) of the steps of a schedule by name, as diffusers has them by default.

    Args:
        schedule: "linear" (beta from 1e-4 to .02, Ho et al. 2020), "scaled_linear" (its root is
            linear between the roots of these), or "cosine" (Nichol & Dhariwal 2021).
        n: steps.
    """
    start, end = 1e-4, 0.02
    if schedule == "linear":
        betas = torch.linspace(start, end, n, dtype=torch.float64)
    elif schedule == "scaled_linear":
        betas = torch.linspace(math.sqrt(start), math.sqrt(end), n, dtype=torch.float64) ** 2
    else:
        times = torch.arange(n + 1, dtype=torch.float64) / n
        level = ((times + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        betas = (1 - level[1:] / level[:-1]).clamp(max=0.999)
    return (1 - betas).cumprod(0)
