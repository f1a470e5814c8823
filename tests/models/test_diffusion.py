from types import SimpleNamespace

import pytest
import torch
from conftest import random_images
from torch import Tensor

from els.denoiser import add_noise
from els.errors import InputError
from els.images import DataSpec, to_float
from els.models.checkpoints import METADATA_KEY
from els.models.datamodule import Batch
from els.models.diffusion import Diffusion
from els.models.networks import build_network
from els.models.schedules import WarmupCosine


@pytest.fixture
def module() -> Diffusion:
    """A tiny module that logs into `logged`, and as much of a trainer as it asks."""
    torch.manual_seed(0)
    net = build_network("ResNet", {"channels": 1, "width": 16, "depth": 1})
    made = Diffusion(net, scheduler=lambda optimizer: WarmupCosine(optimizer))
    made.logged = {}
    made.log = lambda name, value, **_: made.logged.__setitem__(name, float(value))
    spec = DataSpec("digits", fingerprint="f")
    made._trainer = SimpleNamespace(
        global_step=3,
        global_rank=0,
        log_every_n_steps=1,
        estimated_stepping_batches=50,
        datamodule=SimpleNamespace(images=random_images(6), spec=spec),
        sanity_checking=False,
        fit_loop=SimpleNamespace(total_batch_idx=4),
        num_training_batches=2,
    )
    return made


@pytest.fixture
def batch() -> Batch:
    return random_images(6).pixels, None, torch.arange(6)


def test_the_loss_is_the_mean_squared_error_of_eps(module: Diffusion, batch: Batch) -> None:
    eps, t = torch.randn(6, 1, 8, 8), torch.linspace(0.1, 1, 6)
    x = add_noise(to_float(batch[0]), eps, t, module.schedule)
    expected = (module.net(x, t) - eps).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(module._losses(batch[0], eps, t, None), expected)


def test_the_noise_of_a_step_is_that_of_its_number_and_its_process(
    module: Diffusion, batch: Batch
) -> None:
    first = module.training_step(batch, 0)
    assert torch.equal(first, module.training_step(batch, 0))  # as when a run goes on
    assert module.logged["train/loss"] == first.item()
    for change in ({"global_step": 4}, {"global_rank": 1}):
        was = dict(vars(module.trainer))
        vars(module.trainer).update(change)
        assert not torch.equal(first, module.training_step(batch, 0))
        vars(module.trainer).update(was)
    module.seed = 1
    assert not torch.equal(first, module.training_step(batch, 0))


@pytest.mark.parametrize("stratified", [True, False])
def test_times_are_spread_over_the_batch(
    module: Diffusion, batch: Batch, stratified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def losses(pixels: Tensor, eps: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        seen.append(t)
        return torch.zeros(len(t))

    monkeypatch.setattr(module, "_losses", losses)
    module.stratified_t = stratified
    module.training_step(batch, 0)
    (t,) = seen
    assert ((t > 0) & (t <= 1)).all()
    parts = (t * 6).ceil().long() - 1
    assert (parts.tolist() == list(range(6))) == stratified


def test_a_held_out_loss_is_the_same_in_any_batches(module: Diffusion, batch: Batch) -> None:
    pixels, _, index = batch
    for parts in ([slice(0, 6)], [slice(0, 2), slice(2, 6)]):
        for part in parts:
            module.validation_step((pixels[part], None, index[part]), 0)
        module.on_validation_epoch_end()
        module.logged.setdefault("first", module.logged["val/loss"])
    assert module.logged["val/loss"] == pytest.approx(module.logged["first"], rel=1e-6)
    module.test_step(batch, 0)
    module.on_test_epoch_end()
    assert module.logged["test/loss"] == pytest.approx(module.logged["val/loss"], rel=1e-6)


def test_training_stops_at_a_loss_that_is_not_finite(module: Diffusion, batch: Batch) -> None:
    module.on_train_batch_end({"loss": torch.tensor(1.0)}, batch, 0)
    with pytest.raises(InputError, match="the training loss is nan at step 3; lower the learning"):
        module.on_train_batch_end({"loss": torch.tensor(torch.nan)}, batch, 0)


def test_the_schedule_is_as_long_as_the_run(module: Diffusion) -> None:
    made = module.configure_optimizers()["lr_scheduler"]
    assert made["interval"] == "step"
    assert made["scheduler"].total_steps == 50
    module.trainer.estimated_stepping_batches = float("inf")
    assert module.configure_optimizers()["lr_scheduler"]["scheduler"].total_steps is None


def test_a_checkpoint_says_what_brings_its_network_back(module: Diffusion) -> None:
    checkpoint: dict = {}
    module.on_save_checkpoint(checkpoint)
    told = checkpoint[METADATA_KEY]
    assert told["network"] == {"name": "ResNet", "config": module.net.config}
    assert told["image_shape"] == [1, 8, 8]
    assert told["data"]["fingerprint"] == "f"
    assert module.denoiser().data == module.trainer.datamodule.spec
    assert told["trained"] == {"steps": 3, "epochs": 2, "val_loss": None}  # 5 batches of 2


def test_a_checkpoint_says_the_last_held_out_loss(module: Diffusion, batch: Batch) -> None:
    module.trainer.sanity_checking = True
    module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert module.trained.val_loss is None
    module.trainer.sanity_checking = False
    module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert module.trained.val_loss == module.logged["val/loss"]
    checkpoint: dict = {}
    module.on_save_checkpoint(checkpoint)
    going_on = Diffusion(module.net)
    going_on.on_load_checkpoint(checkpoint)
    assert going_on._val_loss == module.logged["val/loss"]
    module.on_load_checkpoint({METADATA_KEY: {}})  # of an older checkpoint
    assert module.trained.val_loss is None


def test_lightnings_way_to_load_says_what_to_call() -> None:
    with pytest.raises(InputError, match=r"els\.load_denoiser\('runs/x/last\.ckpt'\) gives its"):
        Diffusion.load_from_checkpoint("runs/x/last.ckpt")
