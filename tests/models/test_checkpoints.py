import os
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from els.errors import InputError
from els.images import DataSpec
from els.sampling import ddim, seeded_noise
from models.blocks import Network
from models.checkpoints import METADATA_KEY, describe, load_denoiser
from models.networks import build_network


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


def test_bad_queries_are_refused(tmp_path: Path, net: Network) -> None:
    denoiser, t = load_denoiser(write(tmp_path / "a.ckpt", net)), torch.ones(1)
    with pytest.raises(InputError, match=r"shape \(1, 9, 8\); the network was trained on"):
        denoiser(torch.zeros(1, 1, 9, 8), t, torch.tensor([0]))
    with pytest.raises(InputError, match=r"label 3 is out of range; the network knows 0\.\.2"):
        denoiser(torch.zeros(1, 1, 8, 8), t, torch.tensor([3]))


def test_bad_files_are_refused_and_explained(tmp_path: Path, net: Network) -> None:
    whole = write(tmp_path / "a.ckpt", net).read_bytes()
    (tmp_path / "short.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    for name in ("short", "text", "empty"):
        with pytest.raises(InputError, match=f"{name}.ckpt' is"):
            load_denoiser(tmp_path / f"{name}.ckpt")
    with pytest.raises(InputError, match="there is no checkpoint"):
        load_denoiser(tmp_path / "none.ckpt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="it holds: weights"):
        load_denoiser(tmp_path / "other.ckpt")
    torch.save(torch.zeros(2), tmp_path / "tensor.ckpt")
    with pytest.raises(InputError, match="it holds: Tensor"):
        load_denoiser(tmp_path / "tensor.ckpt")
    with pytest.raises(InputError, match="do not fit its network"):
        load_denoiser(
            write(tmp_path / "b.ckpt", net, state_dict={"net.first.bias": torch.zeros(1)})
        )
    with torch.no_grad():
        net.last.bias[0] = torch.nan
    with pytest.raises(InputError, match=r"NaN or infinite weights, first in 'last\.bias'"):
        load_denoiser(write(tmp_path / "nan.ckpt", net))


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
