import warnings
from types import SimpleNamespace

import pytest
import torch
from conftest import random_images

from els.engines import dispatch, native_engine, triton_engine
from els.engines.query import PatchQuery
from els.errors import InputError
from els.machines import make_machine


@pytest.fixture(autouse=True)
def _found_anew() -> None:
    """What is available is looked up in every test, and again after it."""
    for cached in (native_engine.missing, triton_engine.missing, dispatch._warn_once):
        cached.cache_clear()
    yield
    for cached in (native_engine.missing, triton_engine.missing, dispatch._warn_once):
        cached.cache_clear()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_engine, "available", lambda: "no C++ compiler")


def queries(device: str, dtype: torch.dtype = torch.float32, channels: int = 3) -> PatchQuery:
    """What the choice asks about a query, on a device that need not be here."""
    x = SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(2, channels, 8, 8))
    none = torch.empty(0)
    return PatchQuery(x, none, none, none, rule="local", sizes=(3,))


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


def test_queries_on_a_gpu_go_to_triton_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_engine, "available", lambda: None)
    assert dispatch.choose(queries("cuda"), "auto") == "triton"
    assert dispatch.choose(queries("cuda", torch.float64), "auto") == "torch"
    assert dispatch.choose(queries("cuda", channels=5), "auto") == "torch"
    assert dispatch.choose(queries("mps"), "auto") == "torch"
    with pytest.raises(InputError, match=r"native engine.*on cuda; .*here: triton, torch$"):
        dispatch.choose(queries("cuda"), "native")


def test_without_triton_the_torch_engine_takes_over_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(triton_engine, "available", lambda: "Triton is not installed")
    with pytest.warns(UserWarning, match="Triton is not installed; the slower torch engine"):
        assert dispatch.choose(queries("cuda"), "auto") == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dispatch.choose(queries("cuda"), "auto") == "torch"
        with pytest.raises(InputError, match=r"triton engine.*not installed; .*here: torch$"):
            dispatch.choose(queries("cuda"), "triton")


def test_an_engine_that_is_not_available_names_those_that_are(no_compiler: None) -> None:
    with pytest.raises(InputError, match=r"no C\+\+ compiler; .*available here: torch$"):
        dispatch.choose(queries("cpu"), "native")
    with pytest.raises(InputError, match="triton engine cannot be used: the queries are on cpu"):
        dispatch.choose(queries("cpu"), "triton")


def test_triton_takes_queries_on_the_cpu_only_when_it_is_asked_to_interpret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native_engine, "available", lambda: None)
    monkeypatch.setattr(triton_engine, "available", lambda: None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.choose(queries("cpu"), "triton") == "triton"
    assert dispatch.choose(queries("cpu"), "auto") == "native"
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(InputError, match=r"on cpu; .*available here: native, torch$"):
        dispatch.choose(queries("cpu"), "triton")
