from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import shared
from torch import Tensor

from els.errors import InputError
from els.models.checkpoints import load_denoiser
from els.models.lucidrains import SCHEDULES, Level, LucidrainsNetwork, Unet, lucidrains_betas
from els.models.steps import StepNetwork, alphas_cumprod
from els.schedule import COSINE

LEVELS = [Level(8, 8, 2, 4, 4, False), Level(8, 16, 2, 4, 4, True)]


def unet(
    *, inputs: int = 1, outputs: int = 1, drawn: Tensor | None = None, groups: int = 0
) -> Unet:
    torch.manual_seed(0)
    before = 8 if drawn is None else 1 + 2 * len(drawn)
    middle = Level(16, 16, 2, 4, 4, True)
    return Unet(
        inputs=inputs,
        outputs=outputs,
        first=8,
        time=(32, before),
        levels=LEVELS,
        middle=middle,
        drawn=drawn,
        groups=groups,
    ).eval()


def buffers(objective: str, levels: Tensor, gamma: float = math.inf) -> dict[str, Tensor]:
    """As GaussianDiffusion keeps them."""
    snr = levels / (1 - levels)
    least = snr.clamp(max=gamma)
    weight = {"pred_noise": least / snr, "pred_x0": least, "pred_v": least / (snr + 1)}
    before = torch.cat([torch.ones(1), levels[:-1]])
    return {
        "betas": (1 - levels / before).float(),
        "alphas_cumprod": levels.float(),
        "posterior_variance": torch.ones(len(levels)),
        "loss_weight": weight[objective].float(),
    }


def trainer_file(path: Path, net: Unet, more: dict[str, Tensor], **changes: object) -> Path:
    """As Trainer.save writes it."""
    model = more | {f"model.{name}": value for name, value in net.state_dict().items()}
    average = {f"ema_model.{name}": value for name, value in model.items()}
    online = {f"online_model.{name}": value for name, value in model.items()}
    ema = {"initted": torch.tensor(True), "step": torch.tensor(3), **online, **average}
    content = {"step": 3, "model": model, "opt": {"state": {}, "param_groups": []}, "ema": ema}
    torch.save(content | {"scaler": None, "version": "2.3.4"} | changes, path)
    return path


def as_theirs(net: StepNetwork, steps: Tensor, x: Tensor) -> Tensor:
    """x0_hat (b c h w) of a network at whole steps of its own, some of which are beyond t = 1."""
    t = net.times[steps]
    alpha, sigma = (f(t)[:, None, None, None] for f in (COSINE.alpha, COSINE.sigma))
    return ((x - sigma * net(x, t)) / alpha).float()


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).max())


@torch.no_grad()
def test_a_file_of_its_trainer_answers_as_its_code_does() -> None:
    denoiser = load_denoiser(shared("golden", "lucidrains_pred_v.pt"), image_size=16)
    with np.load(shared("golden", "lucidrains_pred_v.npz")) as file:
        truth = {k: torch.from_numpy(file[k]) for k in ("x", "step", "x0_hat", "alpha_bar")}
    assert denoiser.declared.prediction == "v"
    assert denoiser.declared.weights == "ema"
    net, step = denoiser.net, truth["step"]
    torch.testing.assert_close(
        COSINE.alpha(net.times), truth["alpha_bar"].double().sqrt(), rtol=1e-4, atol=0
    )
    assert relative(as_theirs(net, step, truth["x"]), truth["x0_hat"]) < 1e-3
    some = step < 999
    x0_hat = denoiser(truth["x"][some], net.times[step[some]])
    assert relative(x0_hat, truth["x0_hat"][some]) < 1e-5


@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("gamma", [math.inf, 5.0, 0.3])
def test_the_weight_of_the_loss_tells_what_is_predicted(
    objective: str, schedule: str, gamma: float, tmp_path: Path
) -> None:
    more = buffers(objective, alphas_cumprod(schedule, 250), gamma)
    denoiser = load_denoiser(trainer_file(tmp_path / "a.pt", unet(), more), image_size=8)
    expected = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}[objective]
    assert denoiser.declared.prediction == denoiser.net.prediction == expected
    assert len(denoiser.net.times) == 250
    with pytest.raises(InputError, match=r"schedule linear was given, but .* 250 steps of its f"):
        load_denoiser(tmp_path / "a.pt", image_size=8, schedule="linear")


def test_both_networks_of_a_file(tmp_path: Path) -> None:
    more = buffers("pred_v", alphas_cumprod("linear"))
    net = unet()
    other = {f"model.{name}": value + 1 for name, value in net.state_dict().items()}
    path = trainer_file(tmp_path / "a.pt", net, more, model=more | other)
    name, expected = "unet.final_conv.bias", net.final_conv.bias
    ema = load_denoiser(path, image_size=8)
    assert torch.equal(ema.net.state_dict()[name], expected)
    assert "ema_model" in ema.notes[0]
    online = load_denoiser(path, image_size=8, weights="online")
    assert torch.equal(online.net.state_dict()[name], expected + 1)


def test_a_unet_alone_needs_to_be_told_the_rest(tmp_path: Path) -> None:
    torch.save({"model": unet().state_dict()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="give --image_size and --prediction and --schedule"):
        load_denoiser(tmp_path / "a.pt")
    told = {"image_size": 8, "prediction": "eps", "schedule": "cosine"}
    net = load_denoiser(tmp_path / "a.pt", **told).net
    torch.testing.assert_close(COSINE.alpha(net.times) ** 2, alphas_cumprod("cosine"))
    older = buffers("pred_v", alphas_cumprod("linear"))
    older["p2_loss_weight"] = torch.ones_like(older.pop("loss_weight"))
    path = trainer_file(tmp_path / "b.pt", unet(), older)
    with pytest.raises(InputError, match=r"give --prediction$"):
        load_denoiser(path, image_size=8)
    assert load_denoiser(path, image_size=8, prediction="v").declared.assumed == ("image_range",)
    with pytest.raises(InputError, match=r"9 x 9 pixels; its network needs .* multiples of 2"):
        load_denoiser(path, image_size=9, prediction="v")


@torch.no_grad()
def test_other_inputs_and_outputs(tmp_path: Path) -> None:
    more, x, t = buffers("pred_noise", alphas_cumprod("linear")), torch.randn(1, 1, 8, 8), 0.5
    steps = load_denoiser(trainer_file(tmp_path / "a", unet(), more), image_size=8).net.steps
    step = steps(torch.tensor([t]))
    for net, given in (
        (unet(inputs=2), torch.cat([torch.zeros_like(x), x], dim=1)),
        (unet(outputs=2), x),
        (unet(drawn=torch.randn(3)), x),
    ):
        loaded = load_denoiser(trainer_file(tmp_path / "b", net, more), image_size=8)
        assert loaded.image_shape == (1, 8, 8)
        torch.testing.assert_close(loaded.net(x, torch.tensor([t])), net(given, step)[:, :1])
    odd = trainer_file(tmp_path / "c", unet(outputs=3), more)
    with pytest.raises(InputError, match="maps 1 channels to 3"):
        load_denoiser(odd, image_size=8)


def test_other_unets_are_refused_by_name(tmp_path: Path) -> None:
    more, weights = buffers("pred_v", alphas_cumprod("linear")), unet().state_dict()

    def refuse(message: str, **changes: Tensor | None) -> None:
        table = {k: v for k, v in (weights | changes).items() if v is not None}
        table = more | {f"model.{name}": value for name, value in table.items()}
        torch.save({"model": table}, tmp_path / "a.pt")
        with pytest.raises(InputError, match=message):
            load_denoiser(tmp_path / "a.pt", image_size=8)

    refuse("an older version", **{"downs.0.2.fn.norm.g": torch.ones(1, 8, 1, 1)})
    refuse("left over: 'classes_emb.weight'", **{"classes_emb.weight": torch.ones(3, 8)})
    refuse("missing: 'final_conv.bias'", **{"final_conv.bias": None})
    refuse("not those of a Unet", **{"mid_attn.mem_kv": None})
    refuse("NaN or infinite .* 'final_conv.bias'", **{"final_conv.bias": torch.tensor([torch.nan])})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
@pytest.mark.parametrize("gamma", [math.inf, 5.0])
def test_half_precision_does_not_move_the_noise(
    dtype: torch.dtype, schedule: str, objective: str, gamma: float, tmp_path: Path
) -> None:
    levels = (1 - lucidrains_betas(schedule, 1000)).cumprod(0)
    more = buffers(objective, levels, gamma)
    more["betas"] = lucidrains_betas(schedule, 1000).float()
    half = {name: value.to(dtype) for name, value in more.items()}
    net = unet().to(dtype)
    denoiser = load_denoiser(trainer_file(tmp_path / "a.pt", net, half), image_size=8)
    expected = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}[objective]
    assert denoiser.declared.prediction == expected
    torch.testing.assert_close(COSINE.alpha(denoiser.net.times) ** 2, levels, rtol=1e-6, atol=1e-9)
    half["betas"] = half["betas"] * 0.7
    path = trainer_file(tmp_path / "b.pt", net, half)
    with pytest.raises(InputError, match=r"in half precision .* none of the package's schedules"):
        load_denoiser(path, image_size=8)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_those_of_the_package(schedule: str) -> None:
    module = pytest.importorskip(
        "denoising_diffusion_pytorch.denoising_diffusion_pytorch",
        reason="needs denoising-diffusion-pytorch, an oracle",
    )
    theirs = getattr(module, f"{schedule}_beta_schedule")(300)
    torch.testing.assert_close(
        lucidrains_betas(schedule, 300), theirs.double(), rtol=1e-5, atol=1e-9
    )


@pytest.mark.parametrize(
    ("options", "diffusion"),
    [
        ({}, {}),
        ({"dim_mults": (1, 2, 4), "full_attn": (False, True, True)}, {"beta_schedule": "linear"}),
        ({"self_condition": True, "attn_heads": 2}, {"objective": "pred_noise"}),
        (
            {"init_dim": 24, "attn_dim_head": 16, "channels": 1, "dropout": 0.1},
            {"objective": "pred_x0", "beta_schedule": "cosine", "timesteps": 300},
        ),
        ({"full_attn": True}, {"min_snr_loss_weight": True}),
    ],
)
@torch.no_grad()
def test_networks_of_the_package_itself(options: dict, diffusion: dict, tmp_path: Path) -> None:
    package = pytest.importorskip(
        "denoising_diffusion_pytorch", reason="needs denoising-diffusion-pytorch, an oracle"
    )
    torch.manual_seed(1)
    net = package.Unet(**({"dim": 16, "dim_mults": (1, 2)} | options)).eval()
    theirs = package.GaussianDiffusion(net, image_size=16, **diffusion).eval()
    torch.save({"model": theirs.state_dict(), "ema": {}}, tmp_path / "a.pt")
    denoiser = load_denoiser(tmp_path / "a.pt", image_size=16)
    steps = torch.tensor([0, 100, 250])
    x = torch.randn(3, net.channels, 16, 16)
    expected = theirs.model_predictions(x, steps).pred_x_start
    assert denoiser.parameter_count == sum(p.numel() for p in net.parameters())
    assert relative(as_theirs(denoiser.net, steps, x), expected) < 1e-4
    whole = denoiser.net.steps(denoiser.net.times[steps])
    torch.testing.assert_close(whole, steps.float(), atol=1e-4, rtol=0)
    assert isinstance(denoiser.net, LucidrainsNetwork)


@torch.no_grad()
def test_norms_over_groups_as_before_version_2(tmp_path: Path) -> None:
    net, more = unet(groups=8), buffers("pred_v", alphas_cumprod("linear"))
    loaded = load_denoiser(trainer_file(tmp_path / "a.pt", net, more), image_size=8)
    x, steps = torch.randn(2, 1, 8, 8), torch.tensor([10.0, 500.0])
    torch.testing.assert_close(loaded.net.unet(x, steps), net(x, steps))
    block, h = net.downs[0][0].block1, torch.randn(2, 8, 8, 8)
    normed = F.group_norm(block.proj(h), 8, block.norm.weight, block.norm.bias)
    torch.testing.assert_close(block(h), F.silu(normed))
