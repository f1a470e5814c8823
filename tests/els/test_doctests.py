"""The examples in the docstrings of public functions hold."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("els.machines.registry", "make_machine"),
        ("els.denoiser", "as_times"),
        ("els.sampling", "ddim"),
        ("els.sampling", "sample"),
        ("els.calibration", "fit_scales"),
        ("els.agreement", "agreement"),
        ("els.images.named", "load_images"),
    ],
)
def test_an_example_holds(module: str, name: str) -> None:
    home = import_module(module)
    (found,) = doctest.DocTestFinder(recurse=False).find(
        getattr(home, name), name, module=home, globs=vars(home).copy()
    )
    assert found.examples
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(found).failed == 0
