"""Folders of `train.py export` that are whole, damaged, or something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from studies import write_checkpoint

from els.errors import InputError
from els.models.checkpoints import load_denoiser
from els.models.export import export
from els.models.formats import exported


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    return export(write_checkpoint(folder / "x.ckpt"), folder / "out")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def change(folder: Path, **values: object) -> None:
    path = folder / exported.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_it_is_claimed_by_its_kind_alone(folder: Path) -> None:
    assert exported.claims(folder)
    assert not exported.claims(folder.parent)
    assert not exported.claims("text")
    change(folder, kind="other")
    assert not exported.claims(folder)
    (folder / exported.CONFIG).write_text("{")
    assert not exported.claims(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 2}, "is of format 2, not 1"),
        ({"network": {"name": "Other", "config": {}}}, "unknown network 'Other'"),
        ({"network": {"name": "ResNet", "config": {"channels": 3, "width": 16}}}, "do not fit"),
        ({"network": 3}, "is not complete"),
        ({"image_shape": [1, 8]}, "is not complete"),
        ({"data": {"no": 1}}, "is not complete"),
    ],
)
def test_other_configurations_are_refused(folder: Path, values: dict, message: str) -> None:
    change(folder, **values)
    with pytest.raises(InputError, match=message):
        load_denoiser(folder)


def test_damaged_and_missing_weights_are_refused(folder: Path) -> None:
    weights = folder / exported.WEIGHTS
    table = load_file(weights)
    save_file({name: value * torch.nan for name, value in table.items()}, weights)
    with pytest.raises(InputError, match="NaN or infinite weights"):
        load_denoiser(folder)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"):
        load_denoiser(folder)
    weights.unlink()
    with pytest.raises(InputError, match="there is no file"):
        load_denoiser(folder)
    with pytest.raises(InputError, match="leave --weights out"):
        load_denoiser(folder, weights="ema")


def test_weights_alone_say_what_is_missing(folder: Path) -> None:
    (folder / exported.CONFIG).unlink()
    with pytest.raises(InputError, match=r"no config\.json lies beside it"):
        load_denoiser(folder / exported.WEIGHTS)
