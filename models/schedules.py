"""Learning-rate schedules that PyTorch does not have."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from els.errors import check_between


class WarmupCosine(LRScheduler):
    """A linear rise from zero, then half a cosine back to zero at the end of the run.

    Args:
        optimizer: its learning rates are the largest ones reached.
        warmup_steps: steps of the rise.
        total_steps: steps of the whole run; when None, `els.models.diffusion.Diffusion` fills in
            what the trainer will do.
        last_epoch: see PyTorch's schedulers.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int = 200,
        total_steps: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        check_between("warmup_steps", warmup_steps, 0)
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each parameter group at this step."""
        step = self.last_epoch
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        done = 0.0 if self.total_steps is None else min(1.0, step / self.total_steps)
        return [base * rise * (1 + math.cos(math.pi * done)) / 2 for base in self.base_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved schedule; the length of the run is this run's, which may be longer."""
        super().load_state_dict(state_dict | {"total_steps": self.total_steps})
