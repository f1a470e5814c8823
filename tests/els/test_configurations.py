from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from els.analysis.options import Protocol
from els.analysis.parsers import build_parser
from els.configurations import configuration_names, find_configuration
from els.errors import InputError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [
        ("digits_resnet", "", "digits_resnet.yaml"),
        ("digits_resnet.yaml", "", "digits_resnet.yaml"),
        ("network/unet_32_zeros", "", "network/unet_32_zeros.yaml"),
        ("unet_32_zeros", "network", "network/unet_32_zeros.yaml"),
        ("network/unet_32_zeros.yaml", "network", "network/unet_32_zeros.yaml"),
        ("quick", "analysis", "analysis/quick.yaml"),
    ],
)
def test_a_name_is_found_from_anywhere(name: str, folder: str, file: str) -> None:
    assert find_configuration(name, folder).samefile(ROOT / "configs" / file)


def test_a_file_comes_before_a_name_and_a_folder_does_not() -> None:
    Path("digits_resnet").mkdir()
    assert find_configuration("digits_resnet").name == "digits_resnet.yaml"
    Path("digits_unet").write_text("run: {}")
    assert find_configuration("digits_unet") == Path("digits_unet")


def test_an_unknown_name_lists_those_that_there_are() -> None:
    with pytest.raises(
        InputError, match=r"no configuration 'slow'; .* one of paper, quick, standard$"
    ):
        find_configuration("slow", "analysis")


@pytest.mark.parametrize("name", configuration_names("analysis"))
def test_configurations_of_analyses_go_with_few_seeds_to_calibrate_on(name: str) -> None:
    """Nothing in them limits what else is said; nor is the information asked for, which is slow."""
    given = f"run --checkpoint net.pt --config {name} --calibration_seeds 1"
    found = build_parser().parse_args(given.split()).as_dict()["run"]
    protocol = Protocol(**{one.name: found[one.name] for one in fields(Protocol)})
    assert (protocol.calibration_seeds, protocol.information) == (1, 0)


def test_every_whole_training_has_a_name() -> None:
    for name in configuration_names():
        assert yaml.safe_load(find_configuration(name).read_text())["run"]["name"] == name
    assert "sweep" not in configuration_names()
