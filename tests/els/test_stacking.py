from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_images
from torch import Tensor

from els.calibration import path_points
from els.errors import InputError
from els.images import ImageSet, load_images
from els.machines import make_machine
from els.sampling import Starts, seeded_noise
from els.schedule import COSINE
from els.stacking import PENALTIES, Weights, _convex, fit_weights, normal_equations, solve


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
    assert mixture.names[-2:] == ("patch_composite_soft 4", "wiener")
    assert "local 7" in mixture.names
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
    for name in ("gram", "right", "square"):
        both = torch.cat([part[name] for part in parts], dim=1)
        torch.testing.assert_close(whole[name], both, atol=1e-4, rtol=1e-5)


def made_equations(gram: list, right: list, square: list) -> dict[str, Tensor]:
    """Those of one time, by seed."""
    found = {"gram": gram, "right": right, "square": square}
    return {name: torch.tensor(one, dtype=torch.float64)[None] for name, one in found.items()}


class TwoParts:
    """As much of a mixture as solving asks."""

    kind, names = "mixture", ("a", "b")


def solved(equations: dict[str, Tensor], seeds: range) -> Weights:
    return solve(equations, TwoParts(), t=(0.5,), seeds=seeds)


def test_a_penalty_draws_weights_together_by_hand() -> None:
    """With G = diag(1, 1), r = (0.8, 0.2) and penalty p: (1 + p) |w|^2 / 2 - r w on the simplex.

    w_1 - w_2 = (r_1 - r_2) / (1 + p), as the trace over the number of components is 1.
    """
    gram, right = np.eye(2), np.array([0.8, 0.2])
    for penalty in (0.0, 0.5, 2.0):
        first, second = _convex(gram, right, penalty)
        assert first + second == pytest.approx(1)
        assert first - second == pytest.approx(0.6 / (1 + penalty), abs=1e-4)


def test_the_penalty_is_picked_on_seeds_that_were_left_out() -> None:
    """Each seed is a picture of two pixels, in which the parts answer one pixel each.

    What is wanted is (0.9, 0.1) of one seed and (0.1, 0.9) of the other: what the one teaches is
    wrong of the other, and the largest penalty is the least wrong. Of two that want the same,
    none is right.
    """
    eye = [[[1.0, 0.0], [0.0, 1.0]]] * 2
    first, second = [0.9, 0.1], [0.1, 0.9]
    apart = solved(made_equations(eye, [first, second], [0.82, 0.82]), range(2))
    assert apart.penalty == PENALTIES[-1]
    w = 0.5 + 0.4 / (1 + PENALTIES[-1])
    assert apart.losses[-1] == pytest.approx((w - 0.1) ** 2 / 0.8**2, rel=1e-3)
    assert apart.losses[0] == 1
    assert apart.weights[0] == pytest.approx((0.5, 0.5), abs=1e-6)
    alike = solved(made_equations(eye, [first, first], [0.82, 0.82]), range(2))
    assert alike.penalty == 0  # which finds (0.9, 0.1) exactly
    assert alike.weights[0] == pytest.approx((0.9, 0.1), abs=1e-4)


def test_a_single_seed_leaves_nothing_to_cross_validate() -> None:
    one = solved(made_equations([[[1.0, 0.0], [0.0, 1.0]]], [[0.9, 0.1]], [0.82]), range(1))
    assert (one.penalty, one.tried, one.losses) == (0.0, (), ())


def test_what_is_mixed_depends_on_what_it_costs() -> None:
    few = load_images("digits", size=8, limit=20)
    kinds = {name.split()[0] for name in make_machine("mixture", few).names}
    mixed = "boundary boundary_soft local pca_local patch_composite_soft wiener"
    assert kinds == set(mixed.split())
    many = ImageSet(torch.zeros(300, 1, 64, 64, dtype=torch.uint8))
    # 300 x 4096^2 x 2 is about 1e10: neither the one nor, nine times as much, the other.
    kinds = {name.split()[0] for name in make_machine("mixture", many).names}
    assert kinds == {"boundary", "boundary_soft", "local", "wiener"}


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
