from pathlib import Path

import pytest

from els.errors import InputError
from els.models.sources import fetch, name_of


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("runs/mine", None),
        ("C:/runs/mine", None),
        ("hf", None),
        ("wandb:lab/els/mine:latest", "mine"),
        ("hf:lab/net@main", "net"),
        ("zoo:garments_resnet", "garments_resnet"),
        ("python:nets/my_net.py:load", "my_net"),
    ],
)
def test_what_is_no_path_has_a_name(source: str, name: str | None) -> None:
    assert name_of(source) == name


def test_a_path_stays_one_and_a_network_of_the_zoo_is_a_folder() -> None:
    assert fetch("runs/mine") == Path("runs/mine")
    assert (fetch("zoo:garments_resnet") / "model.safetensors").is_file()


@pytest.mark.parametrize("source", ["hf:net", "zoo:", "wandb:a/b"])
def test_what_has_not_the_form_of_its_kind_is_refused(source: str) -> None:
    with pytest.raises(InputError):
        fetch(source)
