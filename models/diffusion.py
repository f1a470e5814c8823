"""Training a network to predict the noise in an image."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import ExponentialLR

from els.denoiser import add_noise
from els.errors import InputError, reason
from els.images import to_float
from els.models.blocks import Network, Trained
from els.models.callbacks import is_log_step
from els.models.checkpoints import METADATA_KEY, describe
from els.models.datamodule import Batch, data_of
from els.models.denoiser import NetworkDenoiser
from els.models.metrics import LossByNoise
from els.models.schedules import WarmupCosine
from els.sampling import seeded_noise
from els.schedule import CosineSchedule

# Spreads held-out times evenly over (0, 1) however many images there are (Kronecker sequence).
_GOLDEN = (5**0.5 - 1) / 2


class Diffusion(pl.LightningModule):
    """Mean squared error of eps at continuous t in (0, 1], with a per-step learning-rate schedule.

    Args:
        net: the network; its channels and classes come from the data.
        optimizer: AdamW by default.
        scheduler: stepped after every optimizer step.
        stratified_t: draw one t of a batch in each of b equal parts of (0, 1], which makes the mean
            over the batch less noisy; otherwise all of them anywhere.
        channels_last: lay images out with the channels last, which convolutions are faster with.
        compile_net: train with `torch.compile`; when None, on a GPU, as on a CPU compiling takes
            longer than it saves.
        seed: seed of the training noise; the noise depends on it, on the step and on the process
            alone, so that a resumed run goes on as if it had never stopped.
    """

    def __init__(
        self,
        net: Network,
        optimizer: OptimizerCallable = lambda p: AdamW(p, lr=1e-4, weight_decay=0.0),
        scheduler: LRSchedulerCallable = lambda o: ExponentialLR(o, gamma=0.999965),
        stratified_t: bool = True,
        channels_last: bool = True,
        compile_net: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.net = net
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.stratified_t = stratified_t
        self.compile_net = compile_net
        self.seed = seed
        self.schedule = CosineSchedule()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self.memory_format)
        self.held_out_loss = LossByNoise()
        self._val_loss: float | None = None

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *_: Any, **__: Any) -> NoReturn:
        """Refused: a checkpoint says what its network is, and not all of what trained it.

        Raises:
            InputError: always, with what to call instead.
        """
        raise InputError(
            f"Diffusion cannot be made from '{checkpoint_path}' alone: "
            f"els.load_denoiser({checkpoint_path!r}) gives its network, and train.py fit "
            "--ckpt_path goes on with its training"
        )

    def denoiser(self) -> NetworkDenoiser:
        """The network as it is now, behind the denoiser contract."""
        data = data_of(self.trainer)
        return NetworkDenoiser(
            self.net,
            schedule=self.schedule,
            image_shape=data.images.image_shape,
            data=data.spec,
        )

    @property
    def trained(self) -> Trained:
        """How long the network has been trained until now, and its last held-out loss."""
        trainer = self.trainer
        batches = trainer.fit_loop.total_batch_idx + 1
        return Trained(
            steps=trainer.global_step,
            epochs=int(batches // trainer.num_training_batches),
            val_loss=self._val_loss,
        )

    def on_fit_start(self) -> None:
        """Compile the network in place, which leaves its names and its checkpoints as they are."""
        on_gpu = self.device.type == "cuda"
        if on_gpu if self.compile_net is None else self.compile_net:
            self.net.compile()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean squared error of eps over a batch."""
        pixels, label, _ = batch
        generator = self._step_generator(batch_idx)
        t = 1 - torch.rand(len(pixels), generator=generator, device=self.device)
        if self.stratified_t:
            t = (torch.arange(len(t), device=self.device) + t) / len(t)
        eps = torch.randn(pixels.shape, generator=generator, device=self.device)
        loss = self._losses(pixels, eps, t, label).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(pixels))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the held-out loss."""
        self._held_out_step(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the held-out loss, as a whole and by noise level."""
        loss = self._log_held_out("val")
        if not self.trainer.sanity_checking:
            self._val_loss = loss if math.isfinite(loss) else None

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the held-out loss."""
        self._held_out_step(batch)

    def on_test_epoch_end(self) -> None:
        """Log the held-out loss, as a whole and by noise level."""
        self._log_held_out("test")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the norm of the gradient."""
        if is_log_step(self.trainer):
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            self.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Stop when the loss is not finite, from which training does not recover.

        Raises:
            InputError: when it is not finite.
        """
        if is_log_step(self.trainer) and not outputs["loss"].isfinite():
            raise InputError(
                f"the training loss is {float(outputs['loss'])} at step "
                f"{self.trainer.global_step}; lower the learning "
                "rate (--model.optimizer.lr) or clip gradients (--trainer.gradient_clip_val 1)"
            )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer and its schedule, stepped by step."""
        try:
            optimizer = self.optimizer(self.net.parameters())
            scheduler = self.scheduler(optimizer)
        except (ValueError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"the optimizer or its schedule cannot be made: {reason(error)}; see "
                "--model.optimizer.lr and the other options of --model.optimizer"
            ) from error
        if isinstance(scheduler, WarmupCosine) and scheduler.total_steps is None:
            steps = self.trainer.estimated_stepping_batches
            scheduler.total_steps = int(steps) if steps < math.inf else None
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def described(self) -> dict[str, Any]:
        """What `els.models.checkpoints.load_denoiser` needs beside the weights, as plain data."""
        data = data_of(self.trainer)
        return describe(
            self.net,
            image_shape=data.images.image_shape,
            data=asdict(data.spec),
            trained=self.trained,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what tells what the weights are of."""
        checkpoint[METADATA_KEY] = self.described()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the last held-out loss of the run that goes on."""
        told = checkpoint.get(METADATA_KEY, {}).get("trained") or {}
        self._val_loss = told.get("val_loss")

    def _losses(self, pixels: Tensor, eps: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """Mean squared error of eps for each image (b,)."""
        x = add_noise(to_float(pixels), eps, t, self.schedule)
        eps_hat = self.net(x.contiguous(memory_format=self.memory_format), t, label)
        return (eps_hat.float() - eps).square().mean(dim=(1, 2, 3))

    def _held_out_step(self, batch: Batch) -> None:
        pixels, label, index = batch
        eps = seeded_noise(index.tolist(), pixels.shape[1:]).to(self.device)
        t = 1 - (index + 1) * _GOLDEN % 1
        self.held_out_loss.update(self._losses(pixels, eps, t.float(), label), t)

    def _log_held_out(self, stage: str) -> float:
        """Log the loss under `stage`, and return it."""
        values = self.held_out_loss.compute()
        for name, value in values.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "loss")
        self.held_out_loss.reset()
        return float(values["loss"])

    def _step_generator(self, batch_idx: int) -> torch.Generator:
        seed = hash((self.seed, self.trainer.global_step, batch_idx, self.trainer.global_rank))
        return torch.Generator(self.device).manual_seed(seed % 2**63)
