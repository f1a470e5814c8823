from pathlib import Path

import pytest
import torch
from studies import small_study, write_checkpoint

from els.errors import InputError
from els.images import DataSpec
from els.machines import MACHINES
from els.models.checkpoints import load_denoiser
from els.models.networks import build_network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("study") / "tiny.ckpt")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A state dict of the paper's code, which knows no data, padding or size."""
    net = build_network("ResNet", {"channels": 1, "width": 16, "depth": 2})
    torch.save({f"backbone.{k}": v for k, v in net.state_dict().items()}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_a_study_is_complete_and_says_where_everything_is_from(checkpoint: Path) -> None:
    study = small_study(checkpoint, held_out=4)
    assert [machine.kind for machine in study.machines] == ["boundary", "local", "ideal"]
    assert study.primary.kind == "boundary"
    assert (len(study.images), len(study.held_out), len(study.training_sample)) == (40, 4, 4)
    provenance = study.provenance
    assert provenance.checkpoint.path == str(checkpoint)
    assert provenance.network == load_denoiser(checkpoint).facts
    assert provenance.data.fingerprint == study.images.fingerprint()
    assert (provenance.images, provenance.run) == (40, "tiny")
    assert study.protocol.machines == ["boundary", "local", "ideal"]
    assert study.protocol.sizes == [3, 5]
    assert study.starts.image_shape == (1, 8, 8)


def test_default_sizes_fit_the_images(checkpoint: Path) -> None:
    assert small_study(checkpoint, sizes=None).protocol.sizes == [3, 5, 7]
    assert small_study(checkpoint, sizes=[5, 3, 5]).protocol.sizes == [3, 5]


@pytest.mark.parametrize(
    ("padding", "first", "others"),
    [("zeros", ["boundary", "mixture", "boundary_soft"], {"equivariant", "equivariant_soft"}),
     ("circular", ["equivariant", "mixture", "equivariant_soft"], {"boundary", "boundary_soft"})],
)  # fmt: skip
def test_all_machines_are_those_that_go_with_the_padding(
    padding: str, first: list[str], others: set[str], tmp_path: Path
) -> None:
    study = small_study(write_checkpoint(tmp_path / "x.ckpt", padding=padding), machines="all")
    kinds = [machine.kind for machine in study.machines]
    assert kinds[:3] == first
    assert set(kinds) == set(MACHINES) - others
    default = small_study(write_checkpoint(tmp_path / "x.ckpt", padding=padding))
    assert [machine.kind for machine in default.machines] == [first[0], "local", "ideal"]


def test_held_out_images_are_of_the_classes_that_the_network_is_asked_for(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", classes=10)
    study = small_study(checkpoint, held_out=6, label=3)
    assert study.conditional
    assert study.held_out.labels.unique().tolist() == [3]
    assert study.training_sample.labels.unique().tolist() == [3]


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"sizes": [3, 4]}, "patch size 4 is not a positive odd number"),
        ({"sizes": [41]}, "patch size 41 is too large"),
        ({"label": 1}, "the network is not class-conditional"),
        ({"machines": ["magic"]}, r"unknown machines \['magic'\]"),
    ],
)
def test_protocols_that_do_not_fit_the_network_are_refused(
    protocol: dict, message: str, checkpoint: Path
) -> None:
    with pytest.raises(InputError, match=message):
        small_study(checkpoint, **protocol)


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", classes=10)
    with pytest.raises(InputError, match=r"label 10 is out of range; the network knows 0\.\.9"):
        small_study(checkpoint, label=10)


def test_other_images_than_those_trained_on_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["els"]["data"]["seed"] = 5
    torch.save(content, tmp_path / "moved.ckpt")
    with pytest.raises(InputError, match="not the ones the network was trained on"):
        small_study(tmp_path / "moved.ckpt")
    study = small_study(tmp_path / "moved.ckpt", source={"verify_data": False})
    assert study.provenance.data.fingerprint == study.images.fingerprint()


def test_a_network_from_elsewhere_needs_the_name_of_its_images(foreign: Path) -> None:
    with pytest.raises(InputError, match=r"does not say which images .* --data_name cifar10"):
        small_study(foreign)
    study = small_study(foreign, source={"data_name": "digits", "image_size": 12})
    assert study.images.image_shape == (1, 12, 12)
    data = study.provenance.data
    assert (data.name, data.size) == ("digits", 12)
    assert data.fingerprint == DataSpec("digits", size=12, channels=1).load().fingerprint()
    assert study.provenance.training is None


def test_data_that_the_checkpoint_knows_otherwise_are_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="the checkpoint says that it was trained on 'digits'"):
        small_study(checkpoint, source={"data_name": "mnist"})


def test_images_of_another_shape_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["els"]["data"] |= {"size": 10, "fingerprint": None}
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"have shape \(1, 10, 10\), the network \(1, 8, 8\)"):
        small_study(tmp_path / "other.ckpt")


def test_the_training_configuration_is_kept_where_it_lies_beside(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    path, text = tmp_path / "run" / "config.yaml", "seed: 1\nrun:\ndata:\nmodel:\ntrainer:\n"
    path.write_text(text)
    training = small_study(checkpoint).provenance.training
    assert (training.path, training.text) == (str(path), text)


def test_a_configuration_that_is_a_link_to_something_private_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    path, secret = tmp_path / "run" / "config.yaml", tmp_path / "secret"
    secret.write_text("run:\ndata:\nmodel:\ntrainer:\npassword: 1\n")
    path.symlink_to(secret)
    assert small_study(checkpoint).provenance.training is None
    assert "is a link that leads out of" in capsys.readouterr().out
    path.unlink()
    for content in (b"password: 1\n", b"run:\ndata:\nmodel:\ntrainer:\n\xff\xfe", bytes(2 << 20)):
        path.write_bytes(content)
        assert small_study(checkpoint).provenance.training is None
