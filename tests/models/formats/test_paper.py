from pathlib import Path

import numpy as np
import paper_code
import pytest
import torch
from conftest import shared
from torch import Tensor, nn

from els.errors import InputError
from els.models.checkpoints import load_denoiser
from els.models.networks import build_network
from els.sampling import ddim

NETWORKS = {"resnet": paper_code.resnet, "unet": paper_code.unet}


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    "name", ["paper_resnet_mnist_zeros", "paper_unet_cifar10_zeros_conditional"]
)
def test_files_of_the_papers_code_answer_as_its_code_does(name: str) -> None:
    denoiser = load_denoiser(shared("golden", f"{name}.pt"))
    with np.load(shared("golden", f"{name}.npz")) as file:
        truth = {key: torch.from_numpy(file[key]) for key in file}
    label = truth["label"] if len(truth["label"]) else None
    assert denoiser.image_shape == tuple(truth["x"].shape[1:])
    assert (denoiser.padding, denoiser.data) == ("zeros", None)
    assert denoiser.num_classes == (None if label is None else 10)
    with torch.no_grad():
        eps = denoiser.net(truth["x"], truth["t"], label)
    assert relative(eps, truth["eps"]) < 1e-4
    assert relative(ddim(denoiser, truth["x"], steps=20, label=label), truth["ddim20"]) < 1e-3


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("num_classes", [None, 4])
def test_whole_modules_and_state_dicts_of_every_kind(
    name: str, mode: str, num_classes: int | None, tmp_path: Path
) -> None:
    module = NETWORKS[name](mode=mode, num_classes=num_classes)
    channels = 3 if name == "resnet" else 1
    x, t = torch.randn(2, channels, 12, 12), torch.tensor([0.2, 0.9])
    label = None if num_classes is None else torch.tensor([3, 0])
    files = {
        "whole": paper_code.save_whole(module, tmp_path / "whole.pt"),
        "protocol 4": paper_code.save_whole(module, tmp_path / "four.pt", pickle_protocol=4),
        "backbone": paper_code.save_whole(module.backbone, tmp_path / "backbone.pt"),
    }
    states = {
        "prefixed": module.state_dict(),
        "bare": module.backbone.state_dict(),
        "inside": {"epoch": 3, "state_dict": module.state_dict()},
        "in_training": {"model_state_dict": nn.ModuleDict({"module": module}).state_dict()},
    }
    for key, content in states.items():
        torch.save(content, tmp_path / f"{key}.pt")
        files[key] = tmp_path / f"{key}.pt"
    for key, file in files.items():
        told = {"padding": mode, "image_size": 12} if key in states else {}
        if key == "backbone":
            told = {"image_size": 12}
        denoiser = load_denoiser(file, **told)
        assert denoiser.image_shape == (channels, 12, 12)
        assert (denoiser.padding, denoiser.num_classes) == (mode, num_classes)
        with torch.no_grad():
            torch.testing.assert_close(
                denoiser.net(x, t, label), module(t, x, label), atol=1e-5, rtol=1e-4
            )


def test_what_a_state_dict_does_not_say_is_zeros_and_32_pixels(tmp_path: Path) -> None:
    torch.save(paper_code.resnet().state_dict(), tmp_path / "weights.pt")
    denoiser = load_denoiser(tmp_path / "weights.pt")
    assert (denoiser.padding, denoiser.image_shape) == ("zeros", (3, 32, 32))


@pytest.mark.parametrize(("name", "options"), [
    ("ResNet", {"width": 16, "depth": 2, "norm": "group", "num_classes": 3}),
    ("UNet", {"widths": [16, 32], "embedding": 8, "norm": "group", "kernel": 5}),
])  # fmt: skip
def test_a_state_dict_with_our_names_is_read_too(name: str, options: dict, tmp_path: Path) -> None:
    net = build_network(name, {"channels": 1, **options})
    torch.save(net.state_dict(), tmp_path / "ours.pt")
    assert load_denoiser(tmp_path / "ours.pt").net.config == net.config


def test_options_that_contradict_a_file_are_refused(tmp_path: Path) -> None:
    file = paper_code.save_whole(paper_code.resnet(), tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"padding circular was given, but .*a\.pt' says zeros"):
        load_denoiser(file, padding="circular")
    with pytest.raises(InputError, match="padding is 'mirror'; it must be one of zeros, circular"):
        load_denoiser(file, padding="mirror")
    assert load_denoiser(file, padding="zeros", image_size=20).image_shape == (3, 20, 20)


def test_other_architectures_are_refused_by_name(tmp_path: Path) -> None:
    def refuse(module: nn.Module, message: str) -> None:
        file = paper_code.save_whole(module, tmp_path / "odd.pt")
        with pytest.raises(InputError, match=message):
            load_denoiser(file)

    other = paper_code.resnet()
    other.noise_schedule = paper_code.linear_noise_schedule
    refuse(other, r"its noise schedule is 'utils\.idealscore\.linear_noise_schedule'; only")
    other.noise_schedule = 3
    refuse(other, "its noise schedule is 3")
    fewer = paper_code.resnet()
    del fewer.backbone.embs[-2:]
    refuse(fewer, "projects the time 2 times for 3 hidden layers")
    mixed = paper_code.resnet()
    mixed.backbone.up_projection.padding_mode = "circular"
    refuse(mixed, "pad with 'circular', 'zeros'")
    mirror = paper_code.unet(mode="reflect")
    refuse(mirror, "pad with 'reflect'; a network here pads with zeros or circular")
    groups = paper_code.resnet()
    groups.backbone.embs[0][1].num_groups = 4
    refuse(groups, "group norms are not over 8 groups")
    wide = paper_code.unet()
    wide.backbone.output_blocks[1].model[2] = nn.Conv2d(16, 16, 5, padding="same")
    refuse(wide, "do not fit its network")
    refuse(nn.Sequential(nn.Linear(2, 2)), r"it holds a whole 'torch\.nn\.modules\.container\.Seq")
    broken = paper_code.resnet()
    nn.init.constant_(broken.backbone.convs[1][0].bias, torch.inf)
    refuse(broken, r"NaN or infinite weights, first in 'hidden\.1\.0\.bias'")


RESNETS = [
    {"normalization": "GroupNorm"},
    {"add_one": False},
    {"normalization": "GroupNorm", "add_one": False},
]
UNETS = [
    {"normalization": "GroupNorm"},
    {"normalization": "BatchNorm"},
    {"normalization": "GroupNorm", "last_norm": True, "kernel_size": 5},
    {"normalization": "BatchNorm", "last_norm": True},
    {"kernel_size": 5},
    {"last_norm": True},
]
FLAGS = [("resnet", flags) for flags in RESNETS] + [("unet", flags) for flags in UNETS]


@pytest.mark.parametrize(("name", "flags"), FLAGS)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("num_classes", [None, 4])
def test_every_flag_of_the_papers_constructors(
    name: str, flags: dict, mode: str, num_classes: int | None, tmp_path: Path
) -> None:
    module = NETWORKS[name](mode=mode, num_classes=num_classes, **flags)
    channels = 3 if name == "resnet" else 1
    x, t = torch.randn(2, channels, 12, 12), torch.tensor([0.2, 0.9])
    label = None if num_classes is None else torch.tensor([3, 0])
    module.train()
    with torch.no_grad():  # norms of a batch have seen some, and no weight is as it began
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        module(t, x, label)
        expected = module.eval()(t, x, label)
    whole = paper_code.save_whole(module, tmp_path / "whole.pt")
    torch.save({"ema": module.state_dict()}, tmp_path / "state.pt")
    for file, told in ((whole, {}), (tmp_path / "state.pt", {"padding": mode, "image_size": 12})):
        denoiser = load_denoiser(file, **told)
        assert (denoiser.padding, denoiser.num_classes) == (mode, num_classes)
        with torch.no_grad():
            torch.testing.assert_close(denoiser.net(x, t, label), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "flags"), FLAGS)
def test_the_receptive_field_is_where_gradients_reach(
    name: str, flags: dict, tmp_path: Path
) -> None:
    module = NETWORKS[name](**flags)
    net = load_denoiser(paper_code.save_whole(module, tmp_path / "a.pt"), image_size=64).net
    field, whole = net.receptive_field, flags.get("normalization") == "GroupNorm"
    assert (field is None) == whole
    reached = torch.zeros(64, 64, dtype=torch.bool)
    for place in (32, 33, 34, 35) if field else ():  # every place in a pooling cell
        x = torch.randn(1, net.channels, 64, 64, requires_grad=True)
        net(x, torch.tensor([0.5]))[0, 0, place, place].backward()
        reached |= (x.grad[0] != 0).any(0)
        sides = (x.grad[0] != 0).any(0).nonzero()
        assert int((sides.max(0).values - sides.min(0).values).max()) < field
    assert field is None or reached.any()


def test_norms_that_are_not_the_papers_are_refused(tmp_path: Path) -> None:
    for part, name in (("eps", 1e-3), ("num_groups", 4)):
        module = paper_code.unet(normalization="GroupNorm")
        setattr(module.backbone.bottleneck.model[1], part, name)
        with pytest.raises(InputError, match="group norms are not over 32 groups with eps 1e-5"):
            load_denoiser(paper_code.save_whole(module, tmp_path / "a.pt"))
    module = paper_code.unet(normalization="BatchNorm")
    module.backbone.bottleneck.model[1].eps = 1e-3
    with pytest.raises(InputError, match="batch norms are not those of the paper's code"):
        load_denoiser(paper_code.save_whole(module, tmp_path / "a.pt"))


def test_layers_that_are_not_the_papers_are_refused_by_name(tmp_path: Path) -> None:
    other = paper_code.resnet()
    other.backbone.convs[0][1] = nn.BatchNorm2d(16)
    file = paper_code.save_whole(other, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"it names 'torch\.nn\.modules\.batchnorm\.BatchNorm2d'"):
        load_denoiser(file)


def test_weights_of_something_else_are_refused_with_what_they_are(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(InputError, match=r"does not hold the weights.* it holds: 'weight', 'bias'"):
        load_denoiser(tmp_path / "linear.pt")
    torch.save({"state_dict": {"first.weight": torch.zeros(3)}}, tmp_path / "short.pt")
    with pytest.raises(InputError, match=r"short\.pt' cannot be read.* it holds: 'state_dict'"):
        load_denoiser(tmp_path / "short.pt")
    wide = {"first.weight": torch.zeros(1, 1, 1, 1).expand(2**20, 1, 1, 1)}
    weights = paper_code.resnet().backbone.state_dict() | wide
    torch.save(weights, tmp_path / "wide.pt")
    with pytest.raises(InputError):  # 2 ** 40 weights are not allocated to find that they misfit
        load_denoiser(tmp_path / "wide.pt")
