"""`pip install .` and `pip install -e .`, used from another folder; nothing is downloaded.

The libraries are those that run this test; only the package itself is installed.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import QUICK, ROOT
from entry import TINY

PARTS = ("els", "models", "analysis", "configs", "console.py", "pyproject.toml", "README.md",
         "LICENSE", "MANIFEST.in")  # fmt: skip
ANSWER = """
import shutil, torch
from els.images import load_images
from els.machines import make_machine
images = load_images("digits", limit=16)
engine = "native" if shutil.which("g++") else "torch"
machine = make_machine("boundary", images, size=3, engine=engine)
assert machine(torch.randn(2, 1, 16, 16), torch.full((2,), 0.5)).isfinite().all()
"""
NAMES = """
import importlib.util, sys
from pathlib import Path
import els, els.console
from els.configurations import configuration_names
assert Path(els.__file__).is_relative_to(sys.argv[1]), els.__file__
assert "digits_resnet" in configuration_names()
for name in ("models", "analysis", "configs", "console", "train", "analyze", "tests"):
    assert importlib.util.find_spec(name) is None, name
"""
SAMPLE = """
import els
from els.sampling import ddim, seeded_noise
denoiser = els.load_denoiser("runs/x")
x = seeded_noise([0, 1], denoiser.image_shape)
assert ddim(denoiser, x, steps=2).isfinite().all()
"""


class Environment:
    """A fresh environment that has this one's libraries, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.elsewhere = folder / "env", folder / "elsewhere"
        self.elsewhere.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder], check=True)
        bare = {"base": str(self.folder), "platbase": str(self.folder)}
        self.packages = Path(sysconfig.get_path("purelib", "venv", bare))
        libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        (self.packages / "libraries.pth").write_text("\n".join(sorted(libraries)))

    def run(self, *command: object) -> str:
        """What a command of the environment says in the other folder."""
        program, *args = map(str, command)
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(
            [self.folder / "bin" / program, *args], cwd=self.elsewhere, capture_output=True,
            text=True, check=False, env=env,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *args: object) -> None:
        """What `pip install` does, but for fetching libraries."""
        self.run(
            "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-index", "--no-deps", "--no-build-isolation", *args,
        )  # fmt: skip


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing here."""
    folder = tmp_path_factory.mktemp("clone")
    skip = shutil.ignore_patterns("__pycache__")
    for path in (ROOT / name for name in PARTS):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, symlinks=True, ignore=skip)
        elif path.exists():
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def installed(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment after `pip install .`."""
    made = Environment(tmp_path_factory.mktemp("installed"))
    made.install(clone)
    return made


@pytest.fixture(scope="module")
def trained(installed: Environment) -> Path:
    """A tiny network, trained by the command in the other folder."""
    said = installed.run(
        "els-train", "fit", "--config", "digits_resnet", *TINY[2:], "--trainer.max_epochs", "1",
        "--run.name", "x", "--run.logger", "none",
    )  # fmt: skip
    assert f"els-analyze {Path('runs', 'x')}" in said
    return installed.elsewhere / "runs" / "x"


def test_only_els_can_be_imported_and_it_has_its_data(installed: Environment) -> None:
    installed.run("python", "-c", NAMES, installed.packages)
    assert not list((installed.packages / "els").rglob("sweep.yaml"))
    assert not [path for path in (installed.packages / "els").rglob("*") if path.is_symlink()]
    data = {".cpp", ".css", ".h", ".html", ".jinja", ".js", ".json", ".typed", ".yaml"}
    for part in ("els", "models", "analysis", "configs"):
        for file in (ROOT / part).rglob("*"):
            inside = file.relative_to(ROOT / "els" if part == "els" else ROOT)
            if file.suffix in data | {".py"} and file.name != "sweep.yaml":
                assert (installed.packages / "els" / inside).is_file(), inside


def test_a_machine_answers_with_the_compiled_engine(installed: Environment) -> None:
    installed.run("python", "-c", ANSWER)


def test_a_trained_run_is_loaded_and_sampled(installed: Environment, trained: Path) -> None:
    installed.run("python", "-c", SAMPLE)


@pytest.mark.skipif(not (ROOT / "analysis" / "commands.py").exists(), reason="els-analyze is next")
def test_a_trained_run_is_analysed(installed: Environment, trained: Path) -> None:
    installed.run(
        "els-analyze", "--config", "quick", *QUICK, "--checkpoint", "runs/x", "--logger", "none",
        "--machines", "[boundary]",
    )  # fmt: skip
    assert (trained / "analysis" / "agreement.json").exists()


def test_an_editable_installation_shows_els_alone(
    clone: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = Environment(tmp_path_factory.mktemp("editable"))
    made.install("--editable", clone)
    made.run("python", "-c", NAMES, clone)
    assert {"els-train", "els-analyze"} <= {file.name for file in (made.folder / "bin").iterdir()}
