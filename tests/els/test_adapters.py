"""Networks of others behind the contract, held to a denoiser whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from conftest import random_images
from torch import Tensor, nn

import els
from els.adapters import Adapted, digest_of, from_edm, from_eps, from_v, from_x0
from els.denoiser import identity_of
from els.errors import InputError
from els.machines import make_machine

ALPHA_BAR = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
COSINE = Adapted.schedule
MACHINE = make_machine("wiener", random_images(40))  # stands for a network that was trained
X = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def theirs(prediction: str, a_of: Callable, b_of: Callable, low: float, high: float) -> Callable:
    """The same network as somebody else has it: in their range and noise, answering theirs."""
    middle, half = (low + high) / 2, (high - low) / 2

    def function(y: Tensor, told: Tensor, label: Tensor | None = None) -> Tensor:
        a, b = column(a_of(told).double()), column(b_of(told).double())
        a_ours = a * half / ((a * half) ** 2 + b**2).sqrt()
        t = COSINE.time(a_ours.flatten()).clamp(max=1)
        x = (y - a * middle) / ((a * half) ** 2 + b**2).sqrt()
        x0 = MACHINE(x, t) * half + middle
        noise = (y - a * x0) / b
        return {"eps": noise, "v": a * noise - b * x0, "x0": x0}[prediction]

    return function


MAKERS = {"eps": from_eps, "v": from_v, "x0": from_x0}


@pytest.mark.parametrize("image_range", [(-1, 1), (0, 1), (-2, 3)])
@pytest.mark.parametrize("prediction", MAKERS)
def test_every_prediction_in_every_range_is_the_same_denoiser(
    prediction: str, image_range: tuple[float, float]
) -> None:
    x, t = X.double(), torch.tensor([0.1, 0.3, 0.6, 0.9, 1.0], dtype=torch.float64)
    flow = {"alpha": lambda t: 1 - t, "sigma": lambda t: t}
    function = theirs(prediction, flow["alpha"], flow["sigma"], *image_range)
    network = MAKERS[prediction](function, **flow, image_range=image_range)
    assert torch.allclose(network(x, t), MACHINE(x, t), atol=1e-6)


@pytest.mark.parametrize("prediction", MAKERS)
def test_steps_are_told_as_whole_numbers_at_their_own_noise(prediction: str) -> None:
    steps = torch.tensor([0, 50, 400, 700, 850])
    told = []

    def a_of(step: Tensor) -> Tensor:
        told.append(step)
        return ALPHA_BAR[step].sqrt()

    function = theirs(prediction, a_of, lambda step: (1 - ALPHA_BAR[step]).sqrt(), -1, 1)
    t, x = COSINE.time(ALPHA_BAR[steps].sqrt()), X.double()
    answer = MAKERS[prediction](function, alpha_bar=ALPHA_BAR)(x, t)
    assert torch.equal(told[0], steps)
    assert torch.allclose(answer, MACHINE(x, t), atol=1e-6)


@pytest.mark.parametrize("image_range", [(-1, 1), (0, 1)])
def test_denoisers_of_sigma(image_range: tuple[float, float]) -> None:
    function = theirs("x0", torch.ones_like, lambda sigma: sigma, *image_range)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9, 1.0], dtype=torch.float64)
    found = from_edm(function, image_range=image_range)(X.double(), t)
    assert torch.allclose(found, MACHINE(X.double(), t), atol=1e-6)


def test_labels_are_handed_on_and_refused_where_there_are_no_classes() -> None:
    seen = []

    def function(y: Tensor, step: Tensor, label: Tensor | None = None) -> Tensor:
        seen.append(label)
        return y

    network = from_eps(function, alpha_bar=ALPHA_BAR, num_classes=3, image_shape=(1, 8, 8))
    network(X, 0.5, 2)
    assert seen[0].tolist() == [2] * 5
    assert network.sample(2, steps=2).shape == (2, 1, 8, 8)
    with pytest.raises(InputError, match="not class-conditional"):
        from_eps(function, alpha_bar=ALPHA_BAR)(X, 0.5, 1)


def test_the_theory_takes_them_as_they_are() -> None:
    images = random_images(6)
    network = from_eps(nn.Conv2d(1, 1, 3, padding=1), alpha_bar=ALPHA_BAR, image_shape=(1, 8, 8))
    network.function.forward = lambda y, step: 0 * y  # type: ignore[method-assign]
    machine = make_machine("local", images)
    starts = els.Starts.of(network)
    scales = els.fit_scales(network, machine, starts, range(2), steps=2, candidates=[3, 5])
    assert len(scales.values) == 2
    assert network.device == torch.device("cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, y: Tensor, step: Tensor) -> Tensor:
        return self.gain * y


GAIN = 1.0


def scaled(net: nn.Module, y: Tensor, step: Tensor) -> Tensor:
    return GAIN * net(y, step)


def test_weights_code_range_and_noise_are_told_apart() -> None:
    net, other = Net(), Net()
    base = identity_of(from_eps(net, alpha_bar=ALPHA_BAR))
    assert identity_of(from_eps(other, alpha_bar=ALPHA_BAR)) == base
    assert identity_of(from_v(net, alpha_bar=ALPHA_BAR)) != base
    assert identity_of(from_eps(net, alpha_bar=ALPHA_BAR**2)) != base
    assert identity_of(from_eps(net, alpha_bar=ALPHA_BAR, image_range=(0, 1))) != base
    held = identity_of(from_eps(lambda y, step: net(y, step), alpha_bar=ALPHA_BAR))
    part = identity_of(from_eps(partial(scaled, net), alpha_bar=ALPHA_BAR))
    with torch.no_grad():
        net.gain += 1
    assert identity_of(from_eps(net, alpha_bar=ALPHA_BAR)) != base
    assert identity_of(from_eps(lambda y, step: net(y, step), alpha_bar=ALPHA_BAR)) != held
    assert identity_of(from_eps(partial(scaled, net), alpha_bar=ALPHA_BAR)) != part


def test_numbers_that_a_function_names_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = from_eps(partial(scaled, Net()), alpha_bar=ALPHA_BAR).identity
    monkeypatch.setitem(globals(), "GAIN", 2.0)
    assert from_eps(partial(scaled, Net()), alpha_bar=ALPHA_BAR).identity != before


def fails(y: Tensor, step: Tensor) -> Tensor:
    raise ValueError("no such layer")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_eps(Net()), "the noise of the network must be said once"),
        (lambda: from_eps(Net(), alpha_bar=ALPHA_BAR, alpha=torch.cos), "must be said once"),
        (lambda: from_v(Net(), alpha_bar=ALPHA_BAR.flip(0)), "must fall at every step"),
        (lambda: from_v(Net(), alpha_bar=torch.ones(3, 2)), r"shape \(3, 2\)"),
        (lambda: from_edm(3), "the network is a int; give what can be called"),
        (lambda: from_edm(Net(), image_range=(1, 0)), r"image_range is \(1, 0\)"),
        (lambda: from_edm(Net(), image_shape=(8, 8)), r"image_shape is \(8, 8\)"),
        (lambda: from_edm(fails)(X, 0.5), "'fails' of the network failed: ValueError: no such"),
        (lambda: from_edm(lambda y, s: y[:1])(X, 0.5), r"answered \(1, 1, 8, 8\) to images"),
        (lambda: from_edm(lambda y, s: None)(X, 0.5), "answered NoneType to images"),
    ],
)
def test_what_has_no_meaning_is_refused(make: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def _scaled(network: nn.Module, times: float, plus: float) -> object:
    def answer(x: Tensor, step: Tensor) -> Tensor:
        return network(x) * times + plus

    return answer


def test_what_a_function_depends_on_is_told_apart() -> None:
    """Equal numbers at other places, names, what modules do beside their weights."""
    conv = nn.Conv2d(1, 1, 3, padding=1)
    circular = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    circular.load_state_dict(conv.state_dict())
    functions = [
        *(_scaled(conv, *numbers) for numbers in ((1, 0), (0, 1), (1, 1), (0, 0))),
        _scaled(nn.Sequential(conv, nn.ReLU()), 1, 0),
        _scaled(nn.Sequential(conv, nn.SiLU()), 1, 0),
        _scaled(circular, 1, 0),
        partial(_scaled, times=2, plus=3),
        partial(_scaled, plus=2, times=3),
        partial(_scaled, np.array([1.0])),
        partial(_scaled, np.array([2.0])),
    ]
    assert len({digest_of(one) for one in functions}) == len(functions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": lambda t: math.cos(t), "sigma": lambda t: t}, "alpha cannot be asked for the"),
        ({"alpha": lambda t: 1 - t, "sigma": lambda t: "x"}, "sigma cannot be asked for the times"),
        (
            {"alpha": lambda t: t, "sigma": lambda t: 1 - t},
            r"alpha goes from 0 to 1 and sigma from",
        ),
        ({"alpha": lambda t: 0 * t, "sigma": lambda t: t}, "both must be above 0 between"),
        ({"alpha_bar": torch.linspace(0.9, 0.1, 5), "num_classes": 0}, "num_classes is 0; give at"),
        ({"alpha_bar": torch.linspace(0.9, 0.1, 5), "image_shape": (1.5, 4, 4)}, "image_shape is"),
    ],
)
def test_noise_and_shapes_that_mean_nothing_are_refused(options: dict, message: str) -> None:
    for adapter in (from_eps, from_v, from_x0):
        with pytest.raises(InputError, match=message):
            adapter(lambda y, step: y, **options)


def test_a_constant_is_a_coefficient_and_a_list_is_a_shape() -> None:
    network = from_x0(
        lambda y, t: 0 * y, alpha=lambda t: 1.0, sigma=lambda t: 10 * t, image_shape=[1, 4, 4]
    )
    assert network.image_shape == (1, 4, 4)
    assert network.sample(2, steps=3).shape == (2, 1, 4, 4)
    assert network.identity[2] == [
        "times",
        [1.0] * 33,
        pytest.approx([10 * i / 32 for i in range(33)]),
    ]
