"""Networks that leave, and come back the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import shared
from entry import refusal
from studies import small_results, write_checkpoint

from els.errors import InputError
from els.images import DataSpec
from els.models import cli
from els.models.checkpoints import load_denoiser
from els.models.denoiser import NetworkDenoiser
from els.models.export import card, export, program
from els.models.networks import build_network
from els.schedule import COSINE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, with the agreement of its analysis."""
    folder = tmp_path_factory.mktemp("export") / "tiny"
    path = write_checkpoint(folder / "checkpoints" / "last.ckpt", classes=10)
    small_results(path).save(folder / "analysis")
    return folder


def test_a_folder_is_read_back_as_the_same_network(run: Path, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "out")
    names = {"model.safetensors", "config.json", "denoiser.pt2", "README.md", "samples.png"}
    assert {one.name for one in folder.iterdir()} == names
    want = load_denoiser(run)
    for source in (folder, folder / "model.safetensors"):
        found = load_denoiser(source)
        assert found.identity == want.identity
        assert (found.data, found.trained) == (want.data, want.trained)
        assert found.image_shape == want.image_shape
    card = (folder / "README.md").read_text()
    assert "| `boundary` |" in card
    assert "40 images" in card
    (first, _) = card.split("```python\n")[1:]
    assert len(first.split("```")[0].strip().splitlines()) <= 8


def test_the_agreement_is_found_and_is_of_these_weights(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved" / "checkpoints"
    moved.mkdir(parents=True)
    shutil.copy(run / "checkpoints" / "last.ckpt", moved)

    def told(name: str, **options: Path) -> str:
        return (export(moved.parent, tmp_path / name, **options) / "README.md").read_text()

    assert "not measured yet" in told("a")
    assert "| `boundary` |" in told("b", analysis=run / "analysis")
    shutil.copytree(run / "analysis", moved.parent / "analysis-wide")  # given a name by --name
    assert "| `boundary` |" in told("c")
    path = moved.parent / "analysis-wide" / "agreement.json"
    content = json.loads(path.read_text())
    content["declared"]["weights"] = "ema"  # of other weights in the same file
    path.write_text(json.dumps(content))
    assert "not measured yet" in told("d")
    with pytest.raises(InputError, match="holds no finished analysis of the weights"):
        told("e", analysis=moved.parent / "analysis-wide")
    assert not (tmp_path / "e").exists()


def test_the_place_of_the_images_stays_here(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    content["els"]["data"]["root"] = str(tmp_path / "secret")
    torch.save(content, tmp_path / "moved.ckpt")
    folder = export(tmp_path / "moved.ckpt", tmp_path / "out")
    assert "secret" not in (folder / "config.json").read_text()
    assert load_denoiser(folder).data.root == "data"


UNET = {"widths": [16, 32], "embedding": 16}
NETWORKS = [
    ("ResNet", {"width": 16, "depth": 2}),
    ("ResNet", {"width": 16, "depth": 1, "padding": "circular", "norm": "group"}),
    ("UNet", UNET),
    ("UNet", {**UNET, "norm": "group", "attention": [1], "heads": 4}),
]


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize(("name", "config"), NETWORKS)
def test_programs_answer_as_the_network_for_any_number_of_images(
    name: str, config: dict, classes: int | None
) -> None:
    torch.manual_seed(0)
    net = build_network(name, {"channels": 3, "num_classes": classes, **config}).eval()
    data = DataSpec("digits")
    denoiser = NetworkDenoiser(net, schedule=COSINE, image_shape=(3, 8, 8), data=data)
    run = program(denoiser).module()
    for count in (1, 2, 7):
        x, t = torch.randn(count, 3, 8, 8), torch.linspace(0.05, 1, count)
        label = None if classes is None else torch.arange(count) % classes
        want = denoiser(x, t, label)
        found = run(x, t) if label is None else run(x, t, label)
        assert (found - want).abs().max() <= 1e-6 * want.abs().max()
    assert "not measured yet" in card(denoiser, "name", (), "")


def test_a_program_needs_torch_alone(run: Path, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "out")
    code = (
        "import sys, torch\n"
        "run = torch.export.load('denoiser.pt2').module()\n"
        "x, t, label = torch.randn(5, 1, 8, 8), torch.full((5,), 0.9), torch.arange(5)\n"
        "assert run(x, t, label).shape == x.shape\n"
        "assert not {'els', 'einops', 'pytorch_lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    refused = [
        ([run, "--to", full], f"'{full}' is there already and holds something"),
        ([tmp_path / "none", "--to", tmp_path / "out"], "there is no checkpoint"),
    ]
    for (checkpoint, *rest), message in refused:
        args = ["export", "--checkpoint", checkpoint, *rest]
        assert message in refusal(cli.main, args, capsys)
    assert "checkpoint" in refusal(cli.main, ["export", "--to", tmp_path / "out"], capsys)
    assert [one.name for one in tmp_path.iterdir()] == ["full"]
    with pytest.raises(InputError, match="was not trained here"):
        export(shared("golden", "edm_ddpmpp_cifar.pkl"), tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["full"]


def test_an_empty_folder_is_filled_and_a_failure_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()

    def fail(*args: object) -> None:
        raise OSError("the disk is full")

    with (
        monkeypatch.context() as patched,
        pytest.raises(InputError, match="cannot be written: the disk is full"),
    ):
        patched.setattr("els.models.export.program", fail)
        export(run, tmp_path / "empty")
    assert not any((tmp_path / "empty").iterdir())
    assert [one.name for one in tmp_path.iterdir()] == ["empty"]
    config = json.loads((export(run, tmp_path / "empty") / "config.json").read_text())
    assert config["kind"] == "els"
