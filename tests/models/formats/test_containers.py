from __future__ import annotations

import argparse
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paper_code
import pytest
import torch
from conftest import shared
from torch import Tensor, nn

from els.errors import InputError
from els.models.blocks import Network
from els.models.checkpoints import load_denoiser
from els.models.formats.containers import family
from els.models.networks import build_network

ARGUMENTS = {"channels": 1, "width": 16, "depth": 1}


def network(seed: int) -> Network:
    torch.manual_seed(seed)
    return build_network("ResNet", ARGUMENTS)


ONLINE, EMA = network(0), network(1)


def told(prefix: str, net: nn.Module = ONLINE) -> dict[str, Tensor]:
    return OrderedDict((prefix + name, value) for name, value in net.state_dict().items())


def which(path: Path, **options: str) -> str:
    """Which of the two networks a file gives."""
    weights = load_denoiser(path, **options).net.state_dict()
    (found,) = [
        name
        for name, net in (("online", ONLINE), ("ema", EMA))
        if all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    ]
    return found


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "weights", "key"),
    [
        ("container_ema", None, "eps"),
        ("container_model_args", None, "eps"),
        ("container_net_model", None, "eps_ema"),
        ("container_net_model", "ema", "eps_ema"),
        ("container_net_model", "online", "eps"),
    ],
)
def test_containers_answer_as_what_is_in_them(name: str, weights: str | None, key: str) -> None:
    with np.load(shared("golden", "containers", "containers.npz")) as file:
        truth = {name: torch.from_numpy(file[name]) for name in file}
    path = shared("golden", "containers", f"{name}.pt")
    denoiser = load_denoiser(path, image_size=16, weights=weights)
    with torch.no_grad():
        eps = denoiser.net(truth["x"], truth["t"])
    assert float((eps - truth[key]).norm() / truth[key].norm()) < 1e-5


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        *(({key: told("")}, "online") for key in ("model", "net_model", "state_dict", "network")),
        *(({key: told("", EMA), "model": told("")}, "ema") for key in ("ema", "ema_model")),
        ({"model_ema": {"module": told("", EMA)}, "model": told("")}, "ema"),
        ({"ema": {"state_dict": told("", EMA), "decay": 0.99}}, "ema"),
        ({"ema": {"ema_model": told("", EMA), "online_model": told("")}}, "ema"),
        ({"ema": {"shadow": told("", EMA), "decay": 0.99}, "model": told("")}, "ema"),
        ({"ema": {"shadow": told("module.", EMA)}}, "ema"),
        ({"ema_weights": told("", EMA), "model": told("")}, "ema"),
        ({"model": told(""), "EMA_0.9999": told("", EMA)}, "ema"),
        ({"params": told(""), "params_ema": told("", EMA)}, "ema"),
        ({"model": told("module."), "step": 3}, "online"),
        ({"model": told("_orig_mod.")}, "online"),
        ({"model": told(""), "step": torch.ones(1), "loss": torch.ones(1)}, "online"),
        ({"model": told("module._orig_mod.model.")}, "online"),
        ({"ema": told("ema_model.", EMA) | told("online_model.") | {"step": torch.ones(1)}}, "ema"),
        ({"state_dict": told("net.") | told("ema_model.", EMA), "global_step": 1}, "ema"),
        ({"state_dict": told("module.", EMA) | {"n_averaged": torch.tensor(7)}}, "ema"),
        (told("ema_model.", EMA) | told("model."), "ema"),
        (told("model.module."), "online"),
    ],
)
def test_weights_are_found_and_averaged_ones_win(
    content: dict, expected: str, tmp_path: Path
) -> None:
    assert which(save(tmp_path / "a.pt", content)) == expected


def test_the_choice_is_told_and_an_option_decides(tmp_path: Path) -> None:
    both = save(tmp_path / "both.pt", {"model": told(""), "ema": told("", EMA)})
    (note,) = load_denoiser(both).notes
    assert note.startswith("the averaged weights (EMA) were taken, from 'ema'; --weights online")
    assert load_denoiser(both).declared.weights == "ema"
    assert which(both, weights="online") == "online"
    assert load_denoiser(both, weights="online").declared.weights == "online"
    inside = save(tmp_path / "inside.pt", told("net.") | told("net_ema.", EMA))
    assert (which(inside), which(inside, weights="online")) == ("ema", "online")
    alone = save(tmp_path / "alone.pt", {"ema": told("", EMA)})
    with pytest.raises(InputError, match=r"--weights online was given, but it holds ema weights"):
        load_denoiser(alone, weights="online")
    with pytest.raises(InputError, match=r"--weights ema was given, but it is a network alone"):
        load_denoiser(save(tmp_path / "state.pt", told("")), weights="ema")
    with pytest.raises(InputError, match="weights is 'raw'; it must be one of ema, online"):
        load_denoiser(both, weights="raw")


def test_whole_modules_in_a_container(tmp_path: Path) -> None:
    module = paper_code.resnet()
    with paper_code._as_in_the_papers_repository():
        torch.save({"ema": module, "args": argparse.Namespace(lr=1e-3)}, tmp_path / "a.pt")
    weights = load_denoiser(tmp_path / "a.pt", weights="ema").net.state_dict()
    with pytest.raises(InputError, match="--weights ema was given, but it is a network alone"):
        load_denoiser(paper_code.save_whole(module, tmp_path / "b.pt"), weights="ema")
    assert torch.equal(weights["first.weight"], module.backbone.up_projection.weight)


def test_an_average_without_names_has_those_of_the_online_weights(tmp_path: Path) -> None:
    shadow = {"decay": 0.99, "num_updates": 3, "shadow_params": list(told("", EMA).values())}
    path = save(tmp_path / "a.pt", {"ema": shadow, "model": told("module.")})
    assert (which(path), which(path, weights="online")) == ("ema", "online")
    shadow["shadow_params"].pop()
    save(path, {"ema": shadow, "model": told("module.")})
    with pytest.raises(InputError, match=r"a list without names.* --weights online takes"):
        load_denoiser(path)
    assert which(path, weights="online") == "online"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_numbers_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {name: value.to(dtype) for name, value in told("").items()}
    loaded = load_denoiser(save(tmp_path / "a.pt", {"model": weights}))
    for name, value in loaded.net.state_dict().items():
        assert torch.equal(value, weights[name].float())


def test_tensors_of_a_gpu_come_to_the_cpu(tmp_path: Path) -> None:
    """As saved on a GPU: the only trace of it is the word beside each storage."""
    with zipfile.ZipFile(save(tmp_path / "a.pt", {"model": told("")})) as file:
        members = {name: file.read(name) for name in file.namelist()}
    word, data = b"X\x03\x00\x00\x00cpu", members["a/data.pkl"]
    assert word in data
    members["a/data.pkl"] = data.replace(word, b"X\x06\x00\x00\x00cuda:7")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    assert which(tmp_path / "b.pt") == "online"


def test_archives_without_check_sums_are_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        path = save(tmp_path / "a.pt", {"model": told("")})
    finally:
        torch.serialization.set_crc32_options(before)
    assert which(path) == "online"


def test_an_optimiser_alone_is_called_that(tmp_path: Path) -> None:
    state = torch.optim.Adam(network(0).parameters()).state_dict()
    for content in (state, {"optimizer": state, "step": 3}):
        with pytest.raises(
            InputError, match=r"the state of an optimiser(, but no| alone, without)"
        ):
            load_denoiser(save(tmp_path / "a.pt", content))
    with pytest.raises(InputError, match="it is the state of an optimiser alone"):
        load_denoiser(shared("golden", "containers", "optimizer_only.pt"))


def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    for bad in (torch.nan, torch.inf):
        weights = {name: value.clone() for name, value in told("").items()}
        weights["hidden.0.0.weight"][0, 0, 0, 0] = bad
        path = save(tmp_path / "a.pt", {"ema": weights, "model": told("")})
        with pytest.raises(InputError, match=r"NaN or infinite weights, first in 'hidden\.0\.0\.w"):
            load_denoiser(path)
        assert which(path, weights="online") == "online"


STRANGERS = {
    "improved-diffusion or guided-diffusion": ("time_embed.0.weight", "input_blocks.0.0.weight"),
    "latent diffusion": ("model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.x.y"),
    "score_sde": ("module.all_modules.0.weight", "module.all_modules.1.bias"),
    "k-diffusion": ("inner_model.timestep_embed.weight", "inner_model.proj_in.weight"),
    "EDM2": ("unet.emb_noise.weight", "unet.enc.64x64_block0.emb_gain"),
    "EDM (NVlabs/edm;": ("model.map_layer0.weight", "model.enc.32x32_conv.weight"),
    "DiT": ("x_embedder.proj.weight", "blocks.0.adaLN_modulation.1.weight"),
    "U-ViT": ("in_blocks.0.attn.qkv.weight", "pos_embed"),
    "diffusers": ("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"),
    "DDPM in PyTorch": ("temb.dense.0.weight", "down.0.block.0.conv1.weight"),
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("inside", [True, False])
def test_strangers_are_called_by_their_family(name: str, inside: bool, tmp_path: Path) -> None:
    weights = {key: torch.zeros(2) for key in (*STRANGERS[name], *"abcdefgh")}
    path = save(tmp_path / "a.pt", {"state_dict": weights, "epoch": 1} if inside else weights)
    with pytest.raises(InputError) as error:
        load_denoiser(path)
    message = str(error.value)
    assert f"keys look like those of {name}" in message
    assert "--checkpoint python:my_net.py:load" in message
    assert "\n" not in message
    listed = message.split("it holds: ")[1]
    assert len(listed.split(",")) <= 5
    assert inside or listed.endswith("and 5 more")


def test_a_network_of_nobody_known_is_not_called_by_a_name() -> None:
    assert family({"network.te1.0.weight": torch.zeros(1)}) is None
    with pytest.raises(InputError, match=r"does not hold the weights of a ResNet or a UNet"):
        load_denoiser(shared("golden", "unet28_mnist.pt"))


def test_tables_that_hold_each_other_many_times_take_no_time(tmp_path: Path) -> None:
    inner: dict[str, object] = {"a": 1}
    for _ in range(50):
        inner = dict.fromkeys(("ema", "ema_model", "model", "state_dict", "net"), inner)
    inner["module"] = inner
    with pytest.raises(InputError, match="does not hold the weights of a network"):
        load_denoiser(save(tmp_path / "a.pt", inner))


def test_weights_that_share_their_numbers_take_no_more_memory_than_they_may(
    tmp_path: Path,
) -> None:
    """A thousand transposed views of one matrix are small in a file."""
    net = build_network("ResNet", {"channels": 1, "width": 256, "depth": 100})
    one = torch.zeros(256 * 256 * 9)
    views = {
        name: one[: value.numel()].reshape(value.shape[::-1]).permute(*range(value.ndim)[::-1])
        for name, value in net.state_dict().items()
    }
    with pytest.raises(InputError, match="overlap so much"):
        load_denoiser(save(tmp_path / "a.pt", views))


def test_no_message_lists_more_than_five_keys(tmp_path: Path) -> None:
    weights = {f"z{i}.{name}": value for i in range(9) for name, value in told("").items()}
    weights |= {name: value for name, value in told("").items() if "projections" not in name}
    weights |= {"first.bias": torch.zeros(3), "last.bias": torch.zeros(3, dtype=torch.int64)}
    weights |= {f"projections.{i}.0.weight": torch.zeros(16, 16) for i in range(2)}
    with pytest.raises(
        InputError, match=r"missing: .*; left over: .*; of another shape: "
    ) as error:
        load_denoiser(save(tmp_path / "a.pt", weights))
    names = {*weights, *told("")}
    assert sum(f"'{name}'" in str(error.value) for name in names) <= 5
