from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from els.images import DATASETS
from els.models.cli import main

CONFIGS = sorted(set(ROOT.glob("configs/*.yaml")) - {ROOT / "configs" / "sweep.yaml"})
PAPER_ROWS = {
    "mnist_unet_zeros", "cifar10_unet_zeros", "fashion_mnist_unet_zeros", "celeba_unet_zeros",
    "mnist_resnet_zeros", "mnist_resnet_circular", "cifar10_resnet_zeros",
    "cifar10_resnet_circular", "fashion_mnist_resnet_zeros", "celeba_resnet_zeros",
}  # fmt: skip


def test_there_is_a_config_for_each_row_of_the_papers_table() -> None:
    assert {path.stem for path in CONFIGS} >= PAPER_ROWS
    for piece in ROOT.glob("configs/data/*.yaml"):
        assert yaml.safe_load(piece.read_text())["name"] in DATASETS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_its_objects(path: Path, capsys: pytest.CaptureFixture) -> None:
    # Digits stand in for the data, which may not be at hand; the rest is as the file says.
    cli = main([
        "validate", "--config", str(path), "--trainer.fast_dev_run", "true",
        "--trainer.accelerator", "cpu", "--trainer.precision", "32",
        "--data.name", "digits", "--data.size", "32", "--data.batch_size", "2",
        "--samples.every_n_epochs", "0",
    ])  # fmt: skip
    config = yaml.safe_load(path.read_text())
    expected = config["model"].removeprefix("network/").split("_")
    assert type(cli.model.net).__name__.lower() == expected[0]
    assert cli.model.net.padding == expected[-1].removesuffix(".yaml")
    assert ("attention" in expected) == (cli.model.net.receptive_field is None)
    assert (cli.model.net.num_classes == 10) == cli.datamodule.conditional
