from pathlib import Path

import pytest
import torch
from conftest import random_images
from torch import Tensor

from els.calibration import path_points
from els.errors import InputError
from els.images import load_images
from els.machines import make_machine
from els.sampling import Starts, seeded_noise
from els.schedule import COSINE
from els.stacking import Weights, fit_weights, normal_equations


def test_the_weights_of_a_mixture_are_found_again() -> None:
    images = load_images("digits", size=12, limit=80)
    parts = {name: make_machine(kind, images, size=k) for name, kind, k in (
        ("boundary 5", "boundary", 5), ("local 3", "local", 3), ("wiener", "wiener", None),
    )}  # fmt: skip
    shares = {"boundary 5": 0.5, "local 3": 0.3, "wiener": 0.2}

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return sum(share * parts[name](x, t) for name, share in shares.items())

    mixture = make_machine("mixture", images)
    weights = fit_weights(network, mixture, Starts(images.image_shape), range(6), steps=4)
    for t, row in zip(weights.t, weights.weights, strict=True):
        found = dict(zip(weights.components, row, strict=True))
        assert sum(row) == pytest.approx(1)
        if t < 1:  # at t = 1 the components hardly differ
            for name, share in shares.items():
                assert found[name] == pytest.approx(share, abs=0.02)
    mixture.weights = weights
    x, at = seeded_noise([9, 10], images.image_shape), torch.tensor([0.5, 0.5])
    torch.testing.assert_close(mixture(x, at), network(x, at, None), atol=0.01, rtol=0)


def test_a_mixture_answers_as_its_weights_say_at_each_time_and_label() -> None:
    images = random_images(12, 1, 8, 8, classes=2)

    class Switch:
        def at(self, t: float) -> tuple[float, ...]:
            first = t > 0.5
            chosen = "equivariant 3" if first else "wiener"
            return tuple(float(name == chosen) for name in mixture.names)

    mixture = make_machine("mixture", images, size=Switch(), around="equivariant")
    assert mixture.names[:4] == ("equivariant 3", "equivariant 5", "equivariant 7",
                                 "equivariant_soft 0.5")  # fmt: skip
    assert mixture.names[-2:] == ("local 7", "wiener")
    x, label = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    t = torch.tensor([0.9, 0.2])
    expected = torch.cat([
        make_machine("equivariant", images, size=3)(x[:1], t[:1], label[:1]),
        make_machine("wiener", images)(x[1:], t[1:], label[1:]),
    ])  # fmt: skip
    torch.testing.assert_close(mixture(x, t, label), expected)


def test_sums_over_seeds_are_those_of_all() -> None:
    images = random_images(10)
    network, mixture = make_machine("ideal", images), make_machine("mixture", images)

    def equations(seeds: range) -> dict[str, Tensor]:
        noise = seeded_noise(seeds, images.image_shape)
        points = path_points(network, noise, steps=3, label=None, schedule=COSINE)
        return normal_equations(points, mixture, label=None)

    whole, parts = equations(range(4)), (equations(range(2)), equations(range(2, 4)))
    for name in ("gram", "right"):
        torch.testing.assert_close(whole[name], parts[0][name] + parts[1][name])


def test_symmetries_reach_the_patch_machines_of_a_mixture() -> None:
    images = random_images(6)
    mixture = make_machine("mixture", images, symmetries=["flip"])
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([0.5])
    expected = make_machine("boundary", images, size=3, symmetries=["flip"])(x, t)
    torch.testing.assert_close(mixture.components(x, t)[0], expected)
    with pytest.raises(InputError, match="the mixture machine has no patches"):
        make_machine("mixture", images, temperature=2.0)
    with pytest.raises(InputError, match="the ideal machine has no patches"):
        make_machine("ideal", images, symmetries=["flip"])


def test_weights_survive_the_disk_and_others_are_refused(tmp_path: Path) -> None:
    weights = Weights("mixture", ("a", "b"), (1.0, 0.5), ((0.5, 0.5), (1.0, 0.0)), (0, 1), "here")
    weights.save(tmp_path / "weights.json")
    assert Weights.load(tmp_path / "weights.json") == weights
    assert weights.at(0.6) == (1.0, 0.0)
    (tmp_path / "bad.json").write_text("[]")
    for name in ("bad.json", "none.json"):
        with pytest.raises(InputError, match="holds no weights"):
            Weights.load(tmp_path / name)


def test_a_mixture_without_weights_or_with_others_says_so() -> None:
    images = random_images()
    x, t = torch.zeros(1, 1, 8, 8), torch.ones(1)
    with pytest.raises(InputError, match="needs fitted weights"):
        make_machine("mixture", images)(x, t)
    few = Weights("mixture", ("a",), (1.0,), ((1.0,),), (0,))
    with pytest.raises(InputError, match=r"1 weights for the \d+ components"):
        make_machine("mixture", images, size=few)(x, t)
    with pytest.raises(InputError, match="around is 'local'; it must be boundary or equivariant"):
        make_machine("mixture", images, around="local")


def test_weights_say_in_a_line_what_they_are() -> None:
    weights = Weights("mixture", ("local 3", "wiener"), (1.0, 0.5), ((0.5, 0.5), (0, 1)), (0,))
    assert repr(weights) == "weights of mixture: 2 components at 2 times"
