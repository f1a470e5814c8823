"""Networks that come out of Python of the user's own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, shared
from entry import refusal
from studies import small_study

from els.adapters import from_eps
from els.analysis.commands import main
from els.analysis.options import Source
from els.errors import InputError
from els.models.adapted import AdaptedNetwork
from els.models.checkpoints import load_denoiser
from els.schedule import COSINE

CODE = """
import torch
from torch import nn
from els.adapters import from_eps

LEVELS = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, step, label=None):
        return self.conv(x) * (step / 1000)[:, None, None, None]


def load():
    return from_eps(Net(), alpha_bar=LEVELS, image_shape=(1, 8, 8))


def shapeless():
    return from_eps(Net(), alpha_bar=LEVELS)


def bare():
    return Net()


def breaks():
    raise ValueError("no weights")


def ends():
    raise SystemExit("bye")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "my_net.py").write_text(CODE)
    return tmp_path / "my_net.py"


def test_a_function_of_a_file_gives_a_network(code: Path) -> None:
    network = load_denoiser(f"python:{code}:load")
    assert (network.image_shape, network.num_classes, network.padding) == ((1, 8, 8), None, "zeros")
    assert network.facts.parameters == 10
    assert network.facts.name == "Net"
    assert network.declared.prediction == "eps"
    assert network.declared.schedule == "1000 steps"
    assert "runs your own code" in network.notes[0]
    assert network.sample(2, steps=2).shape == (2, 1, 8, 8)
    assert load_denoiser(f"python:{code}").identity == network.identity  # load is the default
    assert load_denoiser(f"python:{code}:load", padding="circular").padding == "circular"


def test_a_function_of_a_module(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code.rename(code.with_name("importable_net.py"))
    monkeypatch.chdir(code.parent)
    assert load_denoiser("python:importable_net:load").image_shape == (1, 8, 8)
    assert Source("python:importable_net:load").home == Path("runs/importable_net")
    sys.modules.pop("importable_net")


def test_what_lies_beside_a_file_is_in_reach(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of functions, which import when they are called."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    code.rename(code.with_name("beside_net.py"))
    outer = code.with_name("outer.py")
    outer.write_text("def load():\n    from beside_net import load\n    return load()\n")
    assert load_denoiser(f"python:{outer}:load").image_shape == (1, 8, 8)
    sys.modules.pop("beside_net")


def test_other_code_is_another_network(code: Path) -> None:
    first = load_denoiser(f"python:{code}:load").identity
    code.write_text(CODE.replace("step / 1000", "step / 500"))
    assert load_denoiser(f"python:{code}:load").identity != first


def test_it_is_analysed_like_any_other(code: Path) -> None:
    name, data = f"python:{code}:load", {"data_name": "digits"}
    study = small_study(Path(name), source=data)
    assert study.network.facts.receptive_field is None
    assert len(study.provenance.checkpoint.sha256) == 64
    code.write_text(CODE.replace("manual_seed(0)", "manual_seed(1)"))
    other = small_study(Path(name), source=data)
    assert other.provenance.checkpoint.sha256 != study.provenance.checkpoint.sha256
    assert Source(name).home == Path("runs/my_net")
    assert Source(name).part == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.py:load", "there is no file"),
        ("{code}:other", "has no function 'other'; it has load, shapeless, bare, breaks, ends"),
        ("{code}:LEVELS", "has no function 'LEVELS'"),
        ("{code}:bare", "bare() of '{code}' returned a Net; it must return what els.adapters"),
        ("{code}:shapeless", "give the adapter image_shape=(channels, height, width)"),
        ("{code}:breaks", "breaks() of '{code}' failed: ValueError: no weights"),
        ("{code}:ends", "ends() of '{code}' failed: SystemExit: bye"),
        ("no_such_module:load", "'no_such_module' cannot be run: ModuleNotFoundError"),
        (":load", "write python:my_net.py:load"),
        ("{code}:not a name", "write python:my_net.py:load"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_line(
    name: str, message: str, code: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--data_name", "digits", "--logger", "none", "--out", tmp_path / "out"]
    line = refusal(main, [f"python:{name.format(code=code)}", *options], capsys)
    assert message.format(code=code) in line
    assert not (tmp_path / "out").exists()


def test_what_the_code_says_itself_is_no_option(code: Path) -> None:
    with pytest.raises(InputError, match="--prediction was given, but the code of load"):
        load_denoiser(f"python:{code}:load", prediction="v")
    with pytest.raises(InputError, match="says"):
        load_denoiser(f"python:{code}:load", image_size=16)


def test_a_network_without_weights_is_on_the_cpu() -> None:
    levels = torch.linspace(0.99, 0.01, 10)
    adapted = from_eps(lambda y, step: 0 * y, alpha_bar=levels, image_shape=(1, 8, 8))
    net = AdaptedNetwork(adapted)
    assert net.parameter_count == 0
    assert not net(torch.randn(2, 1, 8, 8), torch.tensor([0.5, 1.0])).isnan().any()


def test_the_example_answers_as_the_network_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNET28", str(shared("golden", "unet28_mnist.pt")))
    with np.load(shared("golden", "unet28_mnist.npz")) as file:
        golden = {name: torch.from_numpy(file[name]) for name in file}
    shutil.copy(ROOT / "examples" / "third_party.py", tmp_path)
    network = load_denoiser(f"python:{tmp_path / 'third_party.py'}:load")
    adapted = network.net.adapted
    assert torch.allclose(adapted.noise.alpha_bar.float(), golden["alpha_bar"], atol=1e-6)
    found = adapted.function(golden["x"], golden["step"])
    assert (found - golden["eps"]).abs().max() < 1e-4
    # Noisier than that is no time of ours.
    some = golden["step"] < 900
    t = COSINE.time(golden["alpha_bar"].double()[golden["step"]].sqrt())[some]
    assert (network.net(golden["x"][some], t) - golden["eps"][some]).abs().max() < 1e-4
