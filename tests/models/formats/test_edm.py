from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import persistence
import pytest
import torch
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from els.errors import InputError
from els.models.checkpoints import load_denoiser
from els.models.edm import EDMPrecond, Preconditioned, VEPrecond, VPPrecond, iDDPMPrecond
from els.schedule import COSINE

SMALL = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).max())


def filled(net: Preconditioned) -> Preconditioned:
    """With weights that are not zero anywhere."""
    generator = torch.Generator().manual_seed(0)
    for name, value in net.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        scale = 0.3 / math.sqrt(value[0].numel()) if value.ndim > 1 else 0.1
        value.data = scale * noise + float("norm" in name and "weight" in name)
    return net.eval()


def small(unet: str = "SongUNet", maker: type = EDMPrecond, **options: object) -> Preconditioned:
    arguments = {**SMALL, **options.pop("arguments", {})}
    return filled(maker(unet, arguments, options.pop("channels", 1), 8, **options))


@pytest.mark.parametrize("name", ["edm_ddpmpp_cifar", "edm_adm_conditional", "edm_vp_ddpmpp"])
@torch.no_grad()
def test_files_of_edm_answer_as_its_code_does(name: str) -> None:
    denoiser = load_denoiser(shared("golden", f"{name}.pkl"))
    with np.load(shared("golden", f"{name}.npz")) as file:
        truth = {key: torch.from_numpy(file[key]) for key in file}
    label = truth["label"].argmax(1) if truth["label"].shape[1] else None
    y, sigma = truth["x"], truth["sigma"]
    assert denoiser.parameter_count == int(truth["params"])
    assert (denoiser.image_shape, denoiser.data) == ((3, 16, 16), None)
    assert denoiser.declared.weights == "ema"
    assert relative(denoiser.net.denoised(y, sigma, label), truth["denoised"]) < 1e-5
    alpha = (1 + sigma.double() ** 2).rsqrt()
    x = (alpha[:, None, None, None] * y).float()
    assert relative(denoiser(x, COSINE.time(alpha), label), truth["denoised"]) < 1e-4


@pytest.mark.parametrize(
    ("embedding", "encoder", "decoder", "taps"),
    [
        (embedding, encoder, decoder, taps)
        for encoder, decoder in itertools.product(
            ["standard", "skip", "residual"], ["standard", "skip"]
        )
        for embedding, taps in (("positional", [1, 1]), ("fourier", [1, 3, 3, 1]))
    ],
)
@torch.no_grad()
def test_every_kind_of_song_unet_comes_back(
    embedding: str, encoder: str, decoder: str, taps: list[int], tmp_path: Path
) -> None:
    arguments = {
        "embedding_type": embedding,
        "encoder_type": encoder,
        "decoder_type": decoder,
        "resample_filter": taps,
        "channel_mult_noise": 2,
        "augment_dim": 9,
    }
    net = small(arguments=arguments, channels=3)
    path = persistence.save(tmp_path / "a.pkl", {"ema": persistence.network(net)})
    y, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 5.0])
    loaded = load_denoiser(path)
    torch.testing.assert_close(loaded.net.denoised(y, sigma), net.denoised(y, sigma))
    assert loaded.image_shape == (3, 8, 8)


@pytest.mark.parametrize("maker", [EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@torch.no_grad()
def test_every_preconditioning_comes_back(maker: type, dropout: float, tmp_path: Path) -> None:
    options = {"num_classes": 3, "label_dropout": dropout}
    net = small("DhariwalUNet", maker, arguments={"model_channels": 32}, **options)
    content = {"ema": persistence.network(net, by_place=True), "loss_fn": None}
    denoiser = load_denoiser(persistence.save(tmp_path / "a.pkl", content))
    y, sigma, label = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 5.0]), torch.tensor([2, 0])
    expected = net.denoised(y, sigma, label)
    torch.testing.assert_close(denoiser.net.denoised(y, sigma, label), expected)
    assert (denoiser.num_classes, type(denoiser.net)) == (3, maker)
    if dropout:
        assert relative(denoiser.net.denoised(y, sigma), expected) > 1e-6
    else:
        with pytest.raises(InputError, match=r"class-conditional: give labels 0\.\.2"):
            denoiser.net.denoised(y, sigma)


def test_names_are_those_of_edm() -> None:
    net = small(arguments={"embedding_type": "fourier", "encoder_type": "residual"})
    names = set(net.state_dict())
    assert {
        "model.map_noise.freqs", "model.map_layer0.weight", "model.map_layer1.bias",
        "model.enc.8x8_conv.weight", "model.enc.8x8_block0.norm0.weight",
        "model.enc.8x8_block0.affine.bias", "model.enc.4x4_down.conv0.resample_filter",
        "model.enc.4x4_down.skip.weight", "model.enc.4x4_aux_residual.resample_filter",
        "model.enc.4x4_block0.qkv.weight", "model.dec.4x4_in0.proj.bias",
        "model.dec.8x8_up.skip.resample_filter", "model.dec.8x8_block1.skip.weight",
        "model.dec.8x8_aux_norm.weight", "model.dec.8x8_aux_conv.bias",
    } <= names  # fmt: skip
    assert "model.dec.4x4_block0.qkv.weight" not in names  # only the last block attends
    assert "u" in small(maker=iDDPMPrecond).state_dict()
    names = set(small("DhariwalUNet", num_classes=2).state_dict())
    assert {"model.map_label.weight", "model.out_norm.weight", "model.out_conv.bias"} <= names
    assert not any("map_label.bias" in name for name in names)
    # Below 64 channels ADM has no attention at all.
    assert not any("qkv" in name for name in names)


def test_the_network_that_is_trained_is_there_too(tmp_path: Path) -> None:
    ema, net = small(), small(num_classes=2)
    both = {"ema": persistence.network(ema), "net": persistence.network(net)}
    path = persistence.save(tmp_path / "both.pkl", both)
    averaged = load_denoiser(path)
    assert averaged.num_classes is None
    assert averaged.notes[0].endswith("--weights online takes the others")
    assert load_denoiser(path, weights="online").num_classes == 2
    alone = persistence.save(tmp_path / "ema.pkl", {"ema": persistence.network(ema)})
    with pytest.raises(InputError, match="--weights online was given, but it holds ema weights"):
        load_denoiser(alone, weights="online")
    state = {"net": persistence.network(net), "optimizer_state": {"state": {}}}
    with persistence._as_in_edm():  # a training-state is written by torch.save
        torch.save(state, tmp_path / "training-state.pt")
    assert load_denoiser(tmp_path / "training-state.pt").declared.weights == "online"


def test_noise_beyond_what_was_trained_for_is_clamped_and_told_once() -> None:
    net, y = small(maker=VEPrecond), torch.randn(1, 1, 8, 8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        net.denoised(y, torch.tensor([0.02]))
        with pytest.raises(UserWarning, match=r"trained for noise levels sigma of 0\.02 to 100"):
            net.denoised(y, torch.tensor([0.01]))
        clamped = net.denoised(y, torch.tensor([0.01]))
        torch.testing.assert_close(clamped, net.denoised(y, torch.tensor([0.02])))
        t = torch.tensor([0.001], dtype=torch.float64)  # sigma .0016
        x0_hat = (y - COSINE.sigma(t) * net(y, t)) / COSINE.alpha(t)
        expected = net.denoised((y / COSINE.alpha(t)).float(), torch.tensor([0.02]))
        torch.testing.assert_close(x0_hat.float(), expected, atol=1e-5, rtol=1e-5)


def refused(path: Path, message: str, content: object) -> None:
    with pytest.raises(InputError, match=message):
        load_denoiser(persistence.save(path, content))


def test_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    path, net = tmp_path / "a.pkl", small()
    way = r"'(Precond|G)'.*--checkpoint python:my_net\.py:load"
    refused(path, way, {"ema": persistence.as_persistent(net, "Precond")})
    refused(path, way, {"G_ema": persistence.as_persistent(net, "G")})
    inside = persistence.network(net)
    inside.state["_modules"]["model"].class_name = "PatchUNet"
    refused(path, "EDMPrecond is around a network of the class 'PatchUNet'", {"ema": inside})
    inside.state["_modules"] = {}
    refused(path, "around a network of the class ''", {"ema": inside})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wings": 2}, "SongUNet has an argument 'wings', which EDM's has not"),
        ({"embedding_type": "zero"}, "embedding_type is 'zero'; it must be one of positional"),
        ({"num_blocks": 1000}, "num_blocks is 1000, for which it has too few weights"),
        (
            {"num_blocks": 1000, "channel_mult": ...},
            "num_blocks is 1000, for which it has too few weights",
        ),
        ({"num_blocks": 2}, r"do not fit its network; missing: 'model\.enc\.8x8_block1.* and \d+"),
        ({"model_channels": 10**9}, "model_channels is 1000000000, of which no network"),
        ({"model_channels": 32}, r"of another shape: .* is 16, not 32"),
        ({"channel_mult": [[1], 2]}, "channel_mult is a list, of which no network"),
        ({"channel_mult": None}, "channel_mult is None, of which no network"),
        ({"channel_mult": []}, r"its levels have \[\] channels"),
        ({"img_resolution": 7}, "images of 7 pixels cannot be halved 1 times"),
        ({"img_resolution": "8"}, "img_resolution is '8', not a number"),
        ({"out_channels": 2}, "answers with 2 channels for 1; a EDMPrecond answers with 1"),
        ({"label_dim": 3}, r"missing: 'model\.map_label\.weight', 'model\.map_label\.bias'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes: dict, message: str, tmp_path: Path) -> None:
    given = persistence.network(small(), **{k: v for k, v in changes.items() if v is not ...})
    for name in (name for name, value in changes.items() if value is ...):  # left to its default
        del given.state["_modules"]["model"].state["_init_kwargs"][name]
    refused(tmp_path / "a.pkl", message, {"ema": given})


@pytest.mark.parametrize(
    ("maker", "constants", "message"),
    [
        (EDMPrecond, {"sigma_data": 0.0}, r"sigma_data is 0\.0, not a number above 0"),
        (EDMPrecond, {"sigma_data": math.inf}, "sigma_data is inf, not a number above 0"),
        (EDMPrecond, {"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min is 2 and its sigma_max 1"),
        (VEPrecond, {"sigma_min": math.nan}, "sigma_min is nan, not a number above 0"),
        (VPPrecond, {"beta_d": -1.0}, r"beta_d is -1\.0, not a number above 0"),
        (VPPrecond, {"beta_d": 1e300}, "cannot be built from its arguments: OverflowError"),
        (iDDPMPrecond, {"M": 10**9}, "M is 1000000000; the steps of iDDPM are 2 to 100000"),
    ],
)
def test_constants_that_mean_nothing_are_refused(
    maker: type, constants: dict, message: str, tmp_path: Path
) -> None:
    odd = persistence.network(small(maker=maker))
    for name in ("sigma_min", "sigma_max") if "beta_d" in constants else ():
        odd.state.pop(name, None)  # they follow from the others
    odd.state |= constants
    refused(tmp_path / "a.pkl", message, {"ema": odd})


def test_weights_that_do_not_fit_are_listed_five_at_most(tmp_path: Path) -> None:
    whole = persistence.network(small())
    whole.state["_modules"]["model"].state["_modules"] |= {
        f"more{i}": persistence.as_persistent(nn.Linear(2, 2), "Linear") for i in range(4)
    }
    with pytest.raises(InputError) as told:
        load_denoiser(persistence.save(tmp_path / "a.pkl", {"ema": whole}))
    assert "left over: 'model.more0.weight', 'model.more0.bias'" in str(told.value)
    assert str(told.value).count("'model.") == 5
    assert "and 3 more" in str(told.value)
    bad = small()
    bad.model.map_layer0.bias.data[0] = torch.nan
    refused(
        tmp_path / "b.pkl",
        r"NaN or infinite weights, first in 'model\.map_layer0\.bias'",
        {"ema": persistence.network(bad)},
    )
    odd = persistence.network(small())
    odd.state["sigma_data"] = "half"
    refused(tmp_path / "c.pkl", "sigma_data is 'half', not a number", {"ema": odd})


ODD = st.none() | st.integers(-3, 2**70) | st.floats() | st.sampled_from(["", "skip", [], [0], {}])
NAMES = (
    "model_channels",
    "channel_mult",
    "num_blocks",
    "attn_resolutions",
    "resample_filter",
    "channel_mult_emb",
    "channel_mult_noise",
    "img_resolution",
    "in_channels",
    "augment_dim",
    "label_dropout",
)


@cache
def network_to_change() -> Preconditioned:
    return small()


@given(st.dictionaries(st.sampled_from(NAMES), ODD | st.lists(ODD, max_size=3), max_size=2))
@settings(max_examples=100, deadline=None)
def test_no_arguments_do_more_than_be_refused(changes: dict) -> None:
    content = {"ema": persistence.network(network_to_change(), **changes)}
    with TemporaryDirectory() as folder, contextlib.suppress(InputError):
        load_denoiser(persistence.save(Path(folder, "a.pkl"), content))
