"""A clone's names and the package's, with links and where a system has none."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# One module under both names, whichever comes first, and below packages too.
SAME = """
import importlib, sys
for name in ("models", "models.formats", "models.blocks", "analysis.report"):
    names = [name, f"els.{name}"]
    if sys.argv[1] == "package first":
        names.reverse()
    a, b = map(importlib.import_module, names)
    assert a is b and a.__name__ == a.__spec__.name == f"els.{name}", name
import els.console
from els.configurations import find_configuration
find_configuration("digits_resnet")
"""


def python(code: str, *args: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("order", ["clone first", "package first"])
def test_the_clones_names_are_the_packages_modules(order: str) -> None:
    python(SAME, order, cwd=ROOT)


@pytest.fixture(scope="module")
def without_links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clone as git checks it out where there are no links: a text file for each."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("els", "models", "analysis", "configs"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skip)
    shutil.copy(ROOT / "console.py", folder)
    links = [path for path in (folder / "els").iterdir() if path.is_symlink()]
    assert {link.name for link in links} == {"models", "analysis", "configs", "console.py"}
    for link in links:
        target = str(link.readlink())
        link.unlink()
        link.write_text(target)
    return folder


@pytest.mark.parametrize("order", ["clone first", "package first"])
def test_a_clone_without_links_works(without_links: Path, order: str) -> None:
    python(SAME, order, cwd=without_links)
