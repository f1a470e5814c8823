"""What `import els` gives, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

import els

PUBLIC = [name for name in els.__all__ if name != "__version__"]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_els_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "scipy", "pytorch_lightning", "wandb", "matplotlib", "rich")
    loaded = python(f"import els, sys; print([one for one in {heavy} if one in sys.modules])")
    assert loaded.strip() == "[]"


def test_the_theory_loads_no_training() -> None:
    heavy = ("pytorch_lightning", "wandb", "rich", "jsonargparse")
    names = "load_images, make_machine, fit_scales, Scales, Starts, sample, ddim, probe"
    code = f"from els import {names}; import sys; print([m for m in {heavy} if m in sys.modules])"
    assert python(code).strip() == "[]"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_described(name: str) -> None:
    found = getattr(els, name)
    assert name in dir(els)
    assert callable(found)
    assert found.__name__ == name
    assert found.__doc__


def test_a_module_takes_the_place_of_no_function() -> None:
    # `agreement` is both, whichever of them is asked for first.
    for first in ("import els.agreement", "from els.agreement import METRICS", "els.agreement"):
        python(f"import els; {first}; assert els.agreement.__name__ == 'agreement'")
    python("import els.agreement, sys; from els import *; assert callable(agreement)")


def test_editors_are_told_the_same_names() -> None:
    import ast

    tree = ast.parse((ROOT / "els" / "__init__.py").read_text())
    (told,) = (node for node in tree.body if isinstance(node, ast.If) and "TYPE" in ast.dump(node))
    homes = {
        alias.name: node.module
        for node in told.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == els._HOMES
    assert sorted(homes) == sorted(PUBLIC)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'els' has no attribute 'nothing'"):
        _ = els.nothing
