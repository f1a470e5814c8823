import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT

from els.images import DATASETS
from els.models.cli import main
from els.models.datamodule import Images
from els.models.networks import build_network

CONFIGS = sorted(set(ROOT.glob("configs/*.yaml")) - {ROOT / "configs" / "sweep.yaml"})
PAPER_ROWS = {
    "mnist_unet_zeros", "cifar10_unet_zeros", "fashion_mnist_unet_zeros", "celeba_unet_zeros",
    "mnist_resnet_zeros", "mnist_resnet_circular", "cifar10_resnet_zeros",
    "cifar10_resnet_circular", "fashion_mnist_resnet_zeros", "celeba_resnet_zeros",
}  # fmt: skip
# The training images of each set, and their channels; of "folder" nothing is known.
SETS = {
    "digits": (1437, 1),
    "garments": (2000, 1),
    "mnist": (60_000, 1),
    "cifar10": (50_000, 3),
    "fashion_mnist": (60_000, 1),
    "celeba": (162_770, 3),
    "folder": (0, 3),
}
SIZES = {"digits": 16, "garments": 28}


def test_there_is_a_config_for_each_row_of_the_papers_table() -> None:
    assert {path.stem for path in CONFIGS} >= PAPER_ROWS
    for piece in ROOT.glob("configs/data/*.yaml"):
        assert yaml.safe_load(piece.read_text())["name"] in DATASETS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_its_objects(path: Path, capsys: pytest.CaptureFixture) -> None:
    # Digits stand in for the data, which may not be at hand; the rest is as the file says.
    trial = ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    data = ["--data.name", "digits", "--data.size", "32", "--data.batch_size", "2"]
    cli = main(["fit", "--config", str(path), *trial, "--trainer.precision", "32", *data])
    config = yaml.safe_load(path.read_text())
    expected = config["model"].removeprefix("network/").split("_")
    assert type(cli.model.net).__name__.lower() == expected[0]
    assert cli.model.net.padding == expected[-1].removesuffix(".yaml")
    assert ("attention" in expected) == (cli.model.net.receptive_field is None)
    assert (cli.model.net.num_classes == 10) == cli.datamodule.conditional


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The data (with defaults), the network and the trainer of a configuration."""
    config = yaml.safe_load(path.read_text())
    data, model, trainer = (
        yaml.safe_load((ROOT / "configs" / one).read_text()) if isinstance(one, str) else one
        for one in (config["data"], config["model"], config["trainer"])
    )
    signature = inspect.signature(Images.__init__).parameters
    defaults = {name: one.default for name, one in signature.items() if name != "self"}
    return {**defaults, **data}, model["net"], trainer


def told() -> dict[str, list[str]]:
    """The rows of the table of configurations, by name."""
    text = (ROOT / "docs" / "training.md").read_text()
    table = text[text.index("| configuration | parameters") :].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in rows}


def test_the_table_of_configurations_has_all_of_them() -> None:
    assert set(told()) == {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_table_of_configurations_says_what_they_are(path: Path) -> None:
    data, net, trainer = parts(path)
    count, channels = SETS[data["name"]]
    classes = 10 if data["conditional"] else None
    with torch.device("meta"):
        made = build_network(
            net["class_path"].split(".")[-1],
            {**net["init_args"], "channels": channels, "num_classes": classes},
        )
    size = data["size"] or SIZES.get(data["name"], 32)
    steps = min(count, data["limit"] or count) // data["batch_size"] * trainer["max_epochs"]
    length = f"{steps:,}" if steps else f"{trainer['max_epochs']} epochs"
    shape = f"{channels} x {size} x {size}"
    assert told()[path.stem][:3] == [f"{made.parameter_count:,}", shape, length]
