import warnings

import pytest
import torch
from conftest import random_images

from els.errors import InputError
from els.machines import engine_native, engines, make_machine


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_native, "available", lambda: "no C++ compiler")
    engines._native_missing.cache_clear()
    yield
    engines._native_missing.cache_clear()


def test_without_a_compiler_the_torch_engine_takes_over_with_one_warning(no_compiler: None) -> None:
    images, t = random_images(), torch.tensor([0.5])
    x = torch.randn(1, 1, 8, 8)
    expected = make_machine("boundary", images, size=3, engine="torch")(x, t)
    machine = make_machine("boundary", images, size=3)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler; the slower torch engine takes over"):
        assert torch.equal(machine(x, t), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        machine(x, t)
    with pytest.raises(InputError, match="native engine cannot be used: no C\\+\\+ compiler"):
        make_machine("boundary", images, size=3, engine="native")(x, t)


def test_what_the_native_engine_cannot_do_goes_to_torch() -> None:
    t = torch.tensor([0.5])
    for images, dtype in ((random_images(c=5), torch.float32), (random_images(), torch.float64)):
        x = torch.randn(1, *images.image_shape, dtype=dtype)
        assert make_machine("local", images, size=3)(x, t).dtype == dtype
        with pytest.raises(InputError, match="native engine cannot be used: the"):
            make_machine("local", images, size=3, engine="native")(x, t)
