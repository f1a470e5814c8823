"""Networks of the diffusers library behind this project's contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from els.models.blocks import NetworkFacts
from els.models.steps import StepNetwork
from els.schedule import CosineSchedule


class DiffusersNetwork(StepNetwork):
    """A UNet2DModel as net(x, t, label) -> eps_hat at our continuous t.

    Args:
        unet: the model.
        alphas_cumprod: alpha^2 of its steps (n,), falling.
        prediction: what it predicts, see `StepNetwork`.
        schedule: what our t means.
    """

    unet: Any

    def __init__(
        self,
        unet: Any,
        *,
        alphas_cumprod: Tensor,
        prediction: str = "eps",
        schedule: CosineSchedule | None = None,
    ) -> None:
        super().__init__(
            unet.config.in_channels,
            unet.config.num_class_embeds,
            "group",
            alphas_cumprod=alphas_cumprod,
            prediction=prediction,
            schedule=schedule,
            whole_steps=unet.config.time_embedding_type == "learned",
        )
        self.unet = unet

    def answer(self, x: Tensor, steps: Tensor, label: Tensor | None) -> Tensor:
        """See `StepNetwork.answer`."""
        # A network that predicts its variance too has it in the channels after the image's.
        return self.unet(x, steps, class_labels=label).sample[:, : self.channels]

    @property
    def cell(self) -> int:
        """See `Network.cell`: all levels but the last halve it."""
        return 2 ** (len(self.unet.config.block_out_channels) - 1)

    @property
    def facts(self) -> NetworkFacts:
        """See `Network.facts`."""
        details = f"{self.prediction} over {len(self.times)} steps"
        return replace(super().facts, name="UNet2DModel of diffusers", details=details)

    @property
    def receptive_field(self) -> None:
        """See `Network.receptive_field`: group norms and attention see the whole image."""
        return None
