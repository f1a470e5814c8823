import os
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from els.errors import InputError
from els.images import DataSpec
from els.models.blocks import Network, Trained
from els.models.checkpoints import (
    METADATA_KEY,
    describe,
    find_checkpoint,
    load_denoiser,
    read_training,
)
from els.models.networks import build_network
from els.sampling import ddim, seeded_noise
from els.schedule import COSINE


def write(path: Path, net: Network, **changes: object) -> Path:
    content = {
        "state_dict": {f"net.{name}": value for name, value in net.state_dict().items()},
        METADATA_KEY: describe(net, image_shape=(1, 8, 8), data=asdict(DataSpec("digits"))),
    }
    torch.save(content | changes, path)
    return path


@pytest.fixture
def net() -> Network:
    torch.manual_seed(0)
    return build_network("ResNet", {"channels": 1, "num_classes": 3, "width": 16, "depth": 2})


def test_a_network_comes_back_as_a_denoiser(tmp_path: Path, net: Network) -> None:
    denoiser = load_denoiser(write(tmp_path / "a.ckpt", net), data_root="elsewhere")
    assert denoiser.image_shape == (1, 8, 8)
    assert (denoiser.padding, denoiser.num_classes) == ("zeros", 3)
    assert denoiser.data == DataSpec("digits", root="elsewhere")
    x, label = seeded_noise([0, 1], (1, 8, 8)), torch.tensor([0, 2])
    t = torch.tensor([0.5, 0.5])
    alpha, sigma = denoiser.schedule.alpha(t[0]), denoiser.schedule.sigma(t[0])
    with torch.no_grad():
        expected = (x - sigma * net(x, t, label)) / alpha
    torch.testing.assert_close(denoiser(x, t, label), expected, atol=1e-5, rtol=1e-5)
    assert ddim(denoiser, x, steps=3, label=label).isfinite().all()


def test_a_checkpoint_knows_its_training(tmp_path: Path, net: Network) -> None:
    assert load_denoiser(write(tmp_path / "a.ckpt", net)).trained is None
    older = write(tmp_path / "b.ckpt", net, global_step=24, epoch=2)  # Lightning counts from 0
    assert load_denoiser(older).trained == Trained(steps=24, epochs=3, val_loss=None)
    known = Trained(steps=24, epochs=3, val_loss=0.5)
    told = {"image_shape": (1, 8, 8), "data": asdict(DataSpec("digits"))}
    meta = describe(net, **told, trained=known)
    denoiser = load_denoiser(write(tmp_path / "c.ckpt", net, **{METADATA_KEY: meta}))
    assert denoiser.trained == known
    assert denoiser.identity == load_denoiser(older).identity
    meta["trained"] = {"steps": "many"}
    with pytest.raises(InputError, match=r"is not a complete checkpoint of train.py.*steps"):
        load_denoiser(write(tmp_path / "d.ckpt", net, **{METADATA_KEY: meta}))


def test_raw_weights_are_taken_where_they_are_asked_for(tmp_path: Path, net: Network) -> None:
    raw = {f"net.{name}": value + 1 for name, value in net.state_dict().items()}
    both = write(tmp_path / "a.ckpt", net, current_model_state=raw)
    bias = "last.bias"
    for weights, expected in ((None, net.last.bias), ("online", net.last.bias + 1)):
        denoiser = load_denoiser(both, weights=weights)
        assert torch.equal(denoiser.net.state_dict()[bias], expected)
        assert denoiser.declared.weights == (weights or "ema")
    assert load_denoiser(both).notes == ()
    alone = write(tmp_path / "b.ckpt", net)
    assert load_denoiser(alone).declared.prediction == "eps"
    with pytest.raises(InputError, match="--weights ema was given, but it holds online weights"):
        load_denoiser(alone, weights="ema")


def test_a_run_is_found_by_its_folder(tmp_path: Path, net: Network) -> None:
    folder = tmp_path / "runs" / "x" / "checkpoints"
    folder.mkdir(parents=True)
    (folder.parent / "samples").mkdir()
    write(folder / "best.ckpt", net)
    assert find_checkpoint(folder.parent) == folder / "best.ckpt"
    last = write(folder / "last.ckpt", net)
    assert find_checkpoint(folder.parent) == last
    assert load_denoiser(folder.parent).image_shape == (1, 8, 8)


def test_bad_queries_are_refused(tmp_path: Path, net: Network) -> None:
    denoiser, t = load_denoiser(write(tmp_path / "a.ckpt", net)), torch.ones(1)
    with pytest.raises(InputError, match=r"shape \(1, 9, 8\); the network was trained on"):
        denoiser(torch.zeros(1, 1, 9, 8), t, torch.tensor([0]))
    with pytest.raises(InputError, match=r"label 3 is out of range; the network knows 0\.\.2"):
        denoiser(torch.zeros(1, 1, 8, 8), t, torch.tensor([3]))


def test_bad_files_are_refused_and_explained(tmp_path: Path, net: Network) -> None:
    whole = write(tmp_path / "a.ckpt", net).read_bytes()
    bad = {
        "short": (whole[: len(whole) // 2], r"bytes of a zip without its end"),
        "text": (b"hello", r"5 bytes that start with b'hello'"),
        "empty": (b"", "an empty file"),
        "random": (bytes(range(7, 107)), r"100 bytes that start with b'\\x07"),
    }
    for name, (content, found) in bad.items():
        (tmp_path / f"{name}.ckpt").write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.ckpt' is .*{found}.*may be a checkpoint of"):
            load_denoiser(tmp_path / f"{name}.ckpt")
    with zipfile.ZipFile(tmp_path / "zip.ckpt", "w") as file:
        file.writestr("cat.png", "miaow")
    with pytest.raises(InputError, match=r"zip\.ckpt' is damaged.*a zip of 'cat\.png'"):
        load_denoiser(tmp_path / "zip.ckpt")
    with pytest.raises(InputError, match=r"there is no checkpoint.*it may be a checkpoint of"):
        load_denoiser(tmp_path / "none.ckpt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"holds no checkpoint, but nothing"):
        load_denoiser(tmp_path / "folder")


def test_other_content_is_refused_and_listed(tmp_path: Path, net: Network) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"may be a checkpoint of .*; it holds: 'weights'"):
        load_denoiser(tmp_path / "other.ckpt")
    torch.save(torch.zeros(2), tmp_path / "tensor.ckpt")
    with pytest.raises(InputError, match="it holds: Tensor"):
        load_denoiser(tmp_path / "tensor.ckpt")
    torch.save(net.state_dict(), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert load_denoiser(tmp_path / "old.ckpt").num_classes == 3  # old, but tensors alone
    torch.save(net, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    torch.save(net, tmp_path / "whole.ckpt")
    for name in ("old", "whole"):
        message = r"it holds a whole 'els\.models\.resnet\.ResNet'.* was run\. If you trust.*anew"
        with pytest.raises(InputError, match=message):
            load_denoiser(tmp_path / f"{name}.ckpt")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, net: Network) -> None:
    with pytest.raises(InputError, match="do not fit its network"):
        load_denoiser(
            write(tmp_path / "b.ckpt", net, state_dict={"net.first.bias": torch.zeros(1)})
        )
    meta = describe(net, image_shape=(1, 8, 8), data={"name": "digits", "wings": 2})
    with pytest.raises(InputError, match=r"is not a complete checkpoint of train.py.*wings"):
        load_denoiser(write(tmp_path / "c.ckpt", net, **{METADATA_KEY: meta}))
    with torch.no_grad():
        net.last.bias[0] = torch.nan
    with pytest.raises(InputError, match=r"NaN or infinite weights, first in 'last\.bias'"):
        load_denoiser(write(tmp_path / "nan.ckpt", net))


def test_options_for_files_that_do_not_know_are_refused_where_they_do(
    tmp_path: Path, net: Network
) -> None:
    path = write(tmp_path / "a.ckpt", net)
    assert load_denoiser(path, padding="zeros", image_size=8).image_shape == (1, 8, 8)
    with pytest.raises(InputError, match=r"padding circular was given, but .* says zeros"):
        load_denoiser(path, padding="circular")
    with pytest.raises(InputError, match=r"image_size \(9, 9\) was given, but .* says \(8, 8\)"):
        load_denoiser(path, image_size=9)


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "made-by-the-pickle"
    torch.save({"state_dict": {}, "evil": _Payload(target)}, tmp_path / "evil.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(_Payload(target)))
    for name in ("evil", "raw"):
        with pytest.raises(InputError, match="is not loaded"):
            load_denoiser(tmp_path / f"{name}.ckpt")
    assert not target.exists()


@torch.no_grad()
def test_what_a_state_dict_leaves_open_can_be_said(tmp_path: Path, net: Network) -> None:
    torch.save(net.state_dict(), tmp_path / "a.pt")
    usual = load_denoiser(tmp_path / "a.pt", image_size=8)
    x, label = seeded_noise([0, 1], (1, 8, 8)), torch.tensor([0, 2])
    t = torch.tensor([0.4, 0.6], dtype=torch.float64)
    alpha, sigma = (of(t)[:, None, None, None].float() for of in (COSINE.alpha, COSINE.sigma))
    as_v = load_denoiser(tmp_path / "a.pt", image_size=8, prediction="v")
    expected = alpha * x - sigma * net(x, t.float(), label)
    torch.testing.assert_close(as_v(x, t, label), expected, atol=1e-4, rtol=1e-4)
    assert as_v.declared.assumed == ("schedule", "image_range")
    unit = load_denoiser(tmp_path / "a.pt", image_size=8, image_range="unit")
    assert unit.declared.image_range == (0.0, 1.0)
    assert unit.facts.parameters == usual.facts.parameters
    assert unit.facts.receptive_field == usual.facts.receptive_field
    assert "images in [0, 1]" in unit.facts.description
    assert len({str(one.identity) for one in (usual, as_v, unit)}) == 3
    assert not torch.allclose(unit(x, t, label), usual(x, t, label), atol=1e-2)
    path = write(tmp_path / "b.ckpt", net)
    assert load_denoiser(path, image_range="signed").declared.image_range == (-1.0, 1.0)
    with pytest.raises(InputError, match=r"image_range unit was given, but .* says signed"):
        load_denoiser(path, image_range="unit")
    with pytest.raises(InputError, match="image_range is 'byte'; it must be one of signed, unit"):
        load_denoiser(path, image_range="byte")
    with pytest.raises(InputError, match="image_size is 0; give height and width"):
        load_denoiser(tmp_path / "a.pt", image_size=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": (1, 8)}, "is not a complete checkpoint .*image_shape"),
        ({"image_shape": (3, 8, 8)}, "images are of 3 x 8 x 8; its network takes 1 channels"),
        ({"image_shape": (1, 0, 8)}, "images are of 1 x 0 x 8"),
        ({"image_shape": (1, 8, -8)}, "images are of 1 x 8 x -8"),
        ({"data": {"name": 3}}, r"is not a complete checkpoint .*data\.name"),
        ({"network": {"name": "ResNet"}}, r"is not a complete checkpoint .*network\.config"),
        ({"network": {"name": ["ResNet"], "config": {}}}, r"network\.name"),
        (
            {"network": {"name": "ResNet", "config": {"depth": 10**7, "channels": 1}}},
            "too few weig",
        ),
        ({"network": {"name": "UNet", "config": {"widths": [8] * 10**5}}}, "too few weights"),
        ({"network": {"name": "ResNet", "config": {"wings": [[1]]}}}, "built from wings=a list"),
    ],
)
def test_descriptions_that_mean_nothing_are_refused(
    changes: dict, message: str, tmp_path: Path, net: Network
) -> None:
    meta = describe(net, image_shape=(1, 8, 8), data=asdict(DataSpec("digits"))) | changes
    path = write(tmp_path / "a.ckpt", net, **{METADATA_KEY: meta}, optimizer_states=[])
    with pytest.raises(InputError, match=message):
        load_denoiser(path)
    if "complete" in message:
        with pytest.raises(InputError, match=message):
            read_training(path)


def test_images_that_a_unet_cannot_halve_are_refused_at_once(tmp_path: Path) -> None:
    unet = build_network("UNet", {"channels": 1, "widths": [16, 16], "embedding": 16})
    torch.save(unet.state_dict(), tmp_path / "a.pt")
    assert load_denoiser(tmp_path / "a.pt", image_size=10).image_shape == (1, 10, 10)
    with pytest.raises(InputError, match=r"9 x 9 pixels; its network needs .* in multiples of 2"):
        load_denoiser(tmp_path / "a.pt", image_size=9)
