from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import shared
from torch import Tensor

from els.analysis.options import Source
from els.denoiser import coefficients
from els.errors import InputError
from els.models.checkpoints import find_checkpoint, load_denoiser
from els.sampling import ddim, seeded_noise
from els.schedule import CosineSchedule

diffusers = pytest.importorskip("diffusers", reason="needs diffusers, an optional library")
SHAPE = (1, 16, 16)


def tiny_unet(**options: object) -> diffusers.UNet2DModel:
    torch.manual_seed(0)
    settings = {
        "sample_size": 16, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": (8, 16), "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return diffusers.UNet2DModel(**(settings | options)).eval()


def save(
    folder: Path, unet: diffusers.UNet2DModel, kind: str = "DDPMScheduler", **options: object
) -> Path:
    scheduler = getattr(diffusers, kind)(**options)
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(folder)
    return folder


class StepsOf(CosineSchedule):
    """Our schedule, with a grid of those times at which the image is as at a scheduler's steps."""

    def __init__(self, scheduler: diffusers.DDIMScheduler) -> None:
        super().__init__()
        alphas = scheduler.alphas_cumprod[scheduler.timesteps].double().sqrt()
        object.__setattr__(self, "grid", torch.cat([self.time(alphas), torch.zeros(1)]))

    def timesteps(self, n: int) -> Tensor:
        assert n == len(self.grid) - 1
        return self.grid


@torch.no_grad()
def their_ddim(
    unet: diffusers.UNet2DModel, scheduler: diffusers.DDIMScheduler, x: Tensor, label: Tensor | None
) -> Tensor:
    for step in scheduler.timesteps:
        answer = unet(x, step, class_labels=label).sample
        x = scheduler.step(answer, step, x, eta=0.0).prev_sample
    return x


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("beta", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("classes", [None, 5])
def test_our_ddim_is_theirs_on_the_same_steps(
    prediction: str, beta: str, classes: int | None, tmp_path: Path
) -> None:
    unet = tiny_unet(num_class_embeds=classes)
    options = {"prediction_type": prediction, "beta_schedule": beta, "num_train_timesteps": 500}
    denoiser = load_denoiser(save(tmp_path / "pipeline", unet, **options))
    assert (denoiser.image_shape, denoiser.num_classes) == (SHAPE, classes)
    assert (denoiser.padding, denoiser.data) == ("zeros", None)
    scheduler = diffusers.DDIMScheduler(**options, clip_sample=False)
    scheduler.set_timesteps(10)
    x = seeded_noise([0, 1], SHAPE)
    label = None if classes is None else torch.tensor([4, 0])
    ours = ddim(denoiser, x, steps=10, label=label, schedule=StepsOf(scheduler))
    theirs = their_ddim(unet, scheduler, x, label)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-3


def test_our_own_grid_is_theirs_when_their_schedule_is_ours(tmp_path: Path) -> None:
    alphas = CosineSchedule().alpha(torch.arange(1, 21, dtype=torch.float64) / 20) ** 2
    betas = 1 - alphas / torch.cat([torch.ones(1), alphas[:-1]])
    options = {"num_train_timesteps": 20, "trained_betas": betas.tolist()}
    unet = tiny_unet()
    denoiser = load_denoiser(save(tmp_path / "pipeline", unet, **options))
    scheduler = diffusers.DDIMScheduler(**options, clip_sample=False)
    scheduler.set_timesteps(20)
    x = seeded_noise([3], SHAPE)
    theirs = their_ddim(unet, scheduler, x, None)
    assert float((ddim(denoiser, x, steps=20) - theirs).norm() / theirs.norm()) < 1e-3


def test_steps_have_the_alpha_of_t_and_lie_between_neighbours(tmp_path: Path) -> None:
    net = load_denoiser(save(tmp_path / "pipeline", tiny_unet())).net
    alphas = diffusers.DDPMScheduler().alphas_cumprod.double().sqrt()
    times = CosineSchedule().time(alphas)
    whole = torch.tensor([0, 1, 17, 500, 998, 999])
    torch.testing.assert_close(net.steps(times[whole]), whole.float(), atol=1e-3, rtol=0)
    middle = net.steps((times[500] + times[501]).reshape(1) / 2)
    torch.testing.assert_close(middle, torch.tensor([500.5]))
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    steps = net.steps(grid)
    assert (steps.diff() >= 0).all()
    assert float(steps.min()) == 0
    last = int(steps.max())
    assert alphas[last + 1] < float(CosineSchedule().alpha(1.0)) <= alphas[last]
    near = steps.round().long()  # the nearest step has the nearest alpha
    assert (alphas[near] - CosineSchedule().alpha(grid)).abs().max() < 0.011


def test_a_learned_table_of_steps_gets_the_nearest(tmp_path: Path) -> None:
    unet = tiny_unet(time_embedding_type="learned", num_train_timesteps=1000)
    denoiser = load_denoiser(save(tmp_path / "pipeline", unet))
    steps = denoiser.net.steps(torch.tensor([0.3, 0.9], dtype=torch.float64))
    assert steps.dtype == torch.int64
    x = seeded_noise([0], SHAPE)
    t = torch.tensor([0.3], dtype=torch.float64)
    alpha, sigma = coefficients(t, x, denoiser.schedule)
    with torch.no_grad():
        expected = (x - sigma * unet(x, steps[:1]).sample) / alpha
        torch.testing.assert_close(denoiser(x, t), expected)


def test_answers_are_smooth_in_t_and_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    denoiser = load_denoiser(save(tmp_path / "pipeline", tiny_unet()))
    x, t = seeded_noise([0, 1, 2], SHAPE), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    with torch.no_grad():
        together = denoiser(x, t)
        alone = torch.cat([denoiser(x[i : i + 1], t[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
        # A step of theirs at t = 0.5 is 0.0016 of our t, which rounding would make a jump of.
        near = denoiser.net(x[:1], t[1:2] + 1e-5) - denoiser.net(x[:1], t[1:2])
        far = denoiser.net(x[:1], t[1:2] + 1e-3) - denoiser.net(x[:1], t[1:2])
        assert 0 < float(near.norm()) < 0.1 * float(far.norm())


def test_a_bare_model_has_the_default_schedule_and_finds_its_pipelines(tmp_path: Path) -> None:
    unet = tiny_unet(in_channels=3, out_channels=6)
    unet.save_pretrained(tmp_path / "bare")
    bare = load_denoiser(tmp_path / "bare")
    assert (bare.image_shape, len(bare.net.times)) == ((3, 16, 16), 1000)
    x, t = seeded_noise([0], (3, 16, 16)), torch.tensor([0.5])
    with torch.no_grad():
        expected = unet(x, bare.net.steps(t)).sample[:, :3]
        torch.testing.assert_close(bare.net(x, t), expected)
    save(tmp_path / "whole", tiny_unet(), prediction_type="sample", num_train_timesteps=100)
    inner = load_denoiser(tmp_path / "whole" / "unet").net
    assert (inner.prediction, len(inner.times)) == ("x0", 100)


@pytest.mark.parametrize("kind", [
    "DDIMScheduler", "PNDMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
])  # fmt: skip
def test_other_schedulers_give_their_own_noise(kind: str, tmp_path: Path) -> None:
    options = {"beta_schedule": "scaled_linear", "beta_start": 0.001, "num_train_timesteps": 200}
    net = load_denoiser(save(tmp_path / "pipeline", tiny_unet(), kind, **options)).net
    expected = getattr(diffusers, kind)(**options).alphas_cumprod.double().sqrt()
    torch.testing.assert_close(net.schedule.alpha(net.times), expected)


def test_labels_are_checked(tmp_path: Path) -> None:
    x, t = seeded_noise([0], SHAPE), torch.ones(1)
    plain = load_denoiser(save(tmp_path / "plain", tiny_unet()))
    with pytest.raises(InputError, match="not class-conditional"):
        plain(x, t, torch.tensor([0]))
    labelled = load_denoiser(save(tmp_path / "labelled", tiny_unet(num_class_embeds=3)))
    with pytest.raises(InputError, match=r"give labels 0\.\.2"):
        labelled(x, t)
    with pytest.raises(InputError, match="label 3 is out of range"):
        labelled(x, t, torch.tensor([3]))


def change(file: Path, **settings: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(("file", "settings", "message"), [
    ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "is a 'StableDiffusionPipe"),
    ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "holds a 'UNet2DConditionModel'"),
    ("unet/config.json", {"sample_size": None}, "has sample_size None"),
    ("unet/config.json", {"out_channels": 4}, "maps 1 channels to 4"),
    ("unet/config.json", {"time_embedding_type": "fourier"}, "embeds the time by 'fourier'"),
    ("unet/config.json", {"class_embed_type": "timestep"}, "embeds classes by 'timestep'"),
    ("unet/config.json", {"block_out_channels": [16, 16]}, "numbers, and the network of"),
    ("unet/config.json", {"layers_per_block": 10**9}, "too few for 1000000000 layers of each"),
    ("unet/config.json", {"act_fn": "odd"}, "cannot be loaded by diffusers"),
    ("unet/config.json", {"sample_size": -4}, "has sample_size -4"),
    ("unet/config.json", {"sample_size": 15}, "height and width in multiples of"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "has 1000000000 steps"),
    ("scheduler/scheduler_config.json", {"_class_name": "ScoreSdeVeScheduler"}, "'ScoreSdeVeSch"),
    ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "predicts 'flow'"),
    ("scheduler/scheduler_config.json", {"beta_schedule": "odd"}, "cannot be loaded by diffusers"),
    ("scheduler/scheduler_config.json", {"trained_betas": [0.0, 0.0]}, "noise does not grow"),
])  # fmt: skip
def test_other_kinds_are_refused_by_name(
    file: str, settings: dict, message: str, tmp_path: Path
) -> None:
    folder = save(tmp_path / "pipeline", tiny_unet())
    change(folder / file, **settings)
    with pytest.raises(InputError, match=message):
        load_denoiser(folder)


def test_damaged_and_pickled_folders_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "pipeline", tiny_unet())
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(InputError, match=r"there is no file '.*scheduler_config\.json'"):
        load_denoiser(folder)
    unet = folder / "unet"
    weights = unet / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    bare = tmp_path / "bare"
    unet.rename(bare)
    (bare / weights.name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be loaded by diffusers"):
        load_denoiser(bare)
    (bare / weights.name).rename(bare / "diffusion_pytorch_model.bin")
    with pytest.raises(
        InputError, match=r"no weights in safetensors.* it holds: config\.json, diff"
    ):
        load_denoiser(bare)
    (bare / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_denoiser(bare)


def test_without_diffusers_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "pipeline", tiny_unet())
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match="needs the diffusers library: pip install diffusers"):
        load_denoiser(folder)


def as_saved_in_training(folder: Path, step: int, **networks: diffusers.UNet2DModel) -> Path:
    """What a training script leaves: `unet` and `unet_ema`, beside the optimiser."""
    for name, unet in networks.items():
        unet.save_pretrained(folder / f"checkpoint-{step}" / name)
    (folder / f"checkpoint-{step}" / "optimizer.bin").touch()
    return folder


def test_states_of_training_scripts(tmp_path: Path) -> None:
    def sizes(source: Path, **options: str) -> int:
        return load_denoiser(source, **options).image_shape[1]

    out = as_saved_in_training(tmp_path, 900, unet=tiny_unet(sample_size=8))
    assert sizes(out) == 8
    with pytest.raises(InputError, match="--weights ema was given, but it holds online"):
        load_denoiser(out, weights="ema")
    averaged = tiny_unet(sample_size=32)
    as_saved_in_training(tmp_path, 1000, unet=tiny_unet(), unet_ema=averaged)
    (out / "checkpoint-1000" / "unet_ema" / "config.json").write_text(
        json.dumps({**dict(averaged.config), "_class_name": "UNet2DModel", "decay": 0.99})
    )
    assert find_checkpoint(out) == out / "checkpoint-1000"
    assert Source(str(out)).home == Path("runs", f"{tmp_path.name}-checkpoint-1000")
    assert (sizes(out), sizes(out, weights="online")) == (32, 16)
    assert sizes(out / "checkpoint-900") == 8
    assert sizes(out / "checkpoint-1000" / "unet_ema", weights="ema") == 32
    notes = load_denoiser(out).notes
    assert "checkpoint-1000/unet_ema" in notes[0]
    assert "assumed: eps as what it predicts and linear noise" in notes[1]
    # The pipeline that the script saves at the end says what its checkpoints predict.
    save(out, tiny_unet(sample_size=64), prediction_type="sample")
    assert sizes(out) == 64
    state = load_denoiser(out / "checkpoint-1000")
    assert (state.declared.prediction, state.declared.assumed) == ("x0", ())
    with pytest.raises(InputError, match="--weights ema was given, but this folder has one"):
        load_denoiser(out, weights="ema")


@torch.no_grad()
def test_a_state_of_its_training_script_answers_as_diffusers_does() -> None:
    folder = shared("golden", "diffusers_training")
    with np.load(folder / "reference.npz") as file:
        truth = {k: torch.from_numpy(file[k]) for k in ("x", "step", "eps", "eps_online")}
    for source, weights, key in (
        (folder, None, "eps"),
        (folder / "checkpoint-500", "online", "eps_online"),
    ):
        net = load_denoiser(source, weights=weights).net
        eps = net(truth["x"], net.times[truth["step"]])
        assert float((eps - truth[key]).norm() / truth[key].norm()) < 1e-5


def test_a_model_without_a_scheduler_is_what_the_options_say(tmp_path: Path) -> None:
    tiny_unet().save_pretrained(tmp_path / "bare")
    assumed = load_denoiser(tmp_path / "bare")
    assert assumed.declared.assumed == ("prediction", "schedule", "image_range")
    told = load_denoiser(tmp_path / "bare", prediction="v", schedule="cosine")
    assert (told.net.prediction, told.declared.assumed, told.notes) == ("v", ("image_range",), ())
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(
        told.schedule.alpha(told.net.times).float() ** 2, scheduler.alphas_cumprod
    )
    one = load_denoiser(tmp_path / "bare", schedule="scaled_linear")
    assert one.declared.assumed == ("prediction", "image_range")
    assert "assumed: eps as what it predicts (--prediction)" in one.notes[0]
    for option in ({"prediction": "epsilon"}, {"schedule": "sigmoid"}):
        with pytest.raises(InputError, match="it must be one of"):
            load_denoiser(tmp_path / "bare", **option)
    whole = save(tmp_path / "whole", tiny_unet(), beta_start=0.001)
    with pytest.raises(InputError, match=r"schedule linear was given, but .* linear, beta_start"):
        load_denoiser(whole, schedule="linear")
    with pytest.raises(InputError, match=r"prediction v was given, but .* says eps"):
        load_denoiser(whole, prediction="v")
