"""Estimates from a part of the images are held to the standard errors that they claim."""

import math

import pytest
import torch
from conftest import random_images

from els.engines.dictionary import RULES
from els.errors import InputError
from els.images import ImageSet, load_images, to_float
from els.machines import make_machine
from els.schedule import CosineSchedule

SCHEDULE = CosineSchedule()


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_images("digits", size=12)


def queries(images: ImageSet, b: int, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(int(1000 * t))
    x0 = to_float(images.pixels[torch.randperm(len(images), generator=generator)[:b]])
    eps = torch.randn(x0.shape, generator=generator)
    at = torch.full((b,), t, dtype=torch.float64)
    return (SCHEDULE.alpha(t) * x0 + SCHEDULE.sigma(t) * eps).float(), at


def test_the_true_error_is_within_three_standard_errors(digits: ImageSet) -> None:
    judged = beyond = stopped_early = 0
    for kind in RULES:
        for t in (0.4, 0.8):
            for size in (3, 7):
                x, at = queries(digits, 8, t)
                exact = make_machine(kind, digits, size=size)(x, at)
                estimate = make_machine(kind, digits, size=size, tolerance=0.05).estimate(x, at)
                error = (estimate.mean - exact).abs()
                scanned = estimate.standard_error == 0
                torch.testing.assert_close(
                    estimate.mean[scanned], exact[scanned], atol=1e-3, rtol=0
                )
                judged += int((~scanned).sum())
                beyond += int((error > 3 * estimate.standard_error)[~scanned].sum())
                stopped_early += int((estimate.seen < 1).sum())
    assert judged > 10_000
    assert stopped_early > 33
    assert beyond / judged < 0.02


@pytest.mark.parametrize("tolerance", [0.1, 0.03])
def test_a_query_stops_at_the_tolerance(digits: ImageSet, tolerance: float) -> None:
    x, at = queries(digits, 6, 0.7)
    estimate = make_machine("boundary", digits, size=5, tolerance=tolerance).estimate(x, at)
    exact = make_machine("boundary", digits, size=5)(x, at)
    assert (estimate.seen < 1).any()
    rms = estimate.standard_error.square().mean(dim=(1, 2, 3)).sqrt()
    assert (rms <= 1.01 * tolerance).all()
    assert ((estimate.mean - exact).square().mean(dim=(1, 2, 3)).sqrt() < 2 * tolerance).all()


def test_every_engine_gives_the_same_estimate(digits: ImageSet) -> None:
    x, at = queries(digits, 2, 0.6)
    estimates = [
        make_machine("boundary", digits, size=5, tolerance=0.05, engine=engine).estimate(x, at)
        for engine in ("auto", "torch")
    ]
    torch.testing.assert_close(estimates[0].mean, estimates[1].mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(estimates[0].seen, estimates[1].seen, rtol=0.02, atol=0)


def test_a_tighter_tolerance_sees_more_and_a_tiny_one_everything(digits: ImageSet) -> None:
    x, at = queries(digits, 4, 0.7)
    seen = [
        make_machine("boundary", digits, size=5, tolerance=tolerance).estimate(x, at).seen
        for tolerance in (0.1, 0.03, 1e-9)
    ]
    assert (seen[0] <= seen[1]).all()
    assert (seen[1] < 1).any()
    assert (seen[2] > 0.99).all()  # what cannot vary, such as a black margin, is known early
    exact = make_machine("boundary", digits, size=5)(x, at)
    full = make_machine("boundary", digits, size=5, tolerance=1e-9)(x, at)
    torch.testing.assert_close(full, exact, atol=1e-5, rtol=0)


def test_a_hard_choice_is_scanned_to_the_end(digits: ImageSet) -> None:
    x, at = queries(digits, 3, 0.05)
    estimate = make_machine("local", digits, size=9, tolerance=0.1).estimate(x, at)
    exact = make_machine("local", digits, size=9)(x, at)
    torch.testing.assert_close(estimate.mean, exact, atol=1e-4, rtol=0)
    assert not estimate.standard_error.any()


def test_batches_and_labels_do_not_change_an_estimate() -> None:
    images = random_images(600, 1, 8, 8, classes=2)
    x, at = queries(images, 4, 0.8)
    label = torch.tensor([0, 1, 1, 0])
    machine = make_machine("boundary", images, size=3, tolerance=0.05)
    together = machine.estimate(x, at, label)
    for i in range(4):
        alone = machine.estimate(x[i : i + 1], at[i : i + 1], label[i : i + 1])
        torch.testing.assert_close(alone.mean[0], together.mean[i])
        assert float(alone.seen[0]) == pytest.approx(float(together.seen[i]))


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
def test_bad_tolerances_are_refused(tolerance: float) -> None:
    with pytest.raises(InputError, match="tolerance is"):
        make_machine("boundary", random_images(), size=3, tolerance=tolerance)
