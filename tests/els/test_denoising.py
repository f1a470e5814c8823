"""How well denoisers denoise, held to what is known of Gaussian images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import random_images

from els.criterion import data_points
from els.denoising import (
    FewImages,
    beyond_range,
    denoising_errors,
    image_errors,
)
from els.images import to_float
from els.machines import make_machine
from els.machines.gaussian import gaussian_of_set
from els.sampling import seeded_noise
from els.schedule import COSINE
from els.work import Work

T = [0.1, 0.5, 0.9]


def test_the_filter_of_many_images_is_the_wiener_machine() -> None:
    images = random_images(300)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor(T, dtype=torch.float64)
    found = FewImages(to_float(images.pixels))(x, t)
    assert torch.allclose(found, make_machine("wiener", images)(x, t), atol=1e-6)


def test_of_few_images_the_rest_is_one_variance() -> None:
    images = to_float(random_images(20).pixels)
    few = FewImages(images).gaussian
    assert few.directions.shape == (64, 5)
    total = few.variances.sum() + few.rest * (64 - 5)
    assert torch.isclose(total, images.double().var(dim=0, correction=0).sum())
    gram = few.directions.T @ few.directions
    assert torch.allclose(gram, torch.eye(5, dtype=torch.float64), atol=1e-6)


def test_images_that_are_all_the_same_are_answered_by_their_mean() -> None:
    images = torch.full((6, 1, 4, 4), 0.25)
    found = FewImages(images)(torch.randn(2, 1, 4, 4), torch.tensor([0.5, 1.0]))
    assert torch.allclose(found, images[:2], atol=1e-4)


def test_errors_are_mean_squares_at_each_time() -> None:
    clean = to_float(random_images(4).pixels)
    zeros = denoising_errors(lambda x, t, label: 0 * x, clean, T)
    assert zeros == pytest.approx([float(clean.square().mean())] * 3)
    noisy = denoising_errors(lambda x, t, label: x, clean, T)
    assert noisy[0] < noisy[1] < noisy[2]
    assert beyond_range(torch.full((1, 1, 2, 2), -3.0)) == 2


def test_the_error_of_the_filter_on_its_own_images_is_that_of_gaussians() -> None:
    """Of a linear answer the error depends on mean and covariance alone, whatever the images."""
    images = random_images(400)
    machine = make_machine("wiener", images)
    found = image_errors(machine, images, steps=3)
    assert found.shape == (3, 400)
    variances = gaussian_of_set(images).variances
    for t, errors in zip((1.0, 2 / 3, 1 / 3), found, strict=True):
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = machine.schedule.alpha(time), machine.schedule.sigma(time)
        expected = (variances * sigma**2 / (alpha**2 * variances + sigma**2)).mean()
        assert float(errors.mean()) == pytest.approx(float(expected), rel=0.02)


def test_one_image_is_known_by_heart_and_another_is_not() -> None:
    one, other = random_images(1), random_images(1, seed=1)
    machine = make_machine("ideal", one)
    assert image_errors(machine, one, steps=2).abs().max() < 1e-12
    a, b = (to_float(images.pixels) for images in (one, other))
    expected = float((a - b).square().mean())
    assert image_errors(machine, other, steps=2).flatten().tolist() == pytest.approx([expected] * 2)


def test_of_two_images_the_error_is_a_logistic_function() -> None:
    """x0_hat = w a + (1 - w) b, so that the error on a is (1 - w)^2 |a - b|^2 / d."""
    images = random_images(2, 1, 4, 4)
    a, b = to_float(images.pixels).double()
    found = image_errors(make_machine("ideal", images), images, steps=4)[:, 0]
    eps = seeded_noise([0], a.shape)[0].double()
    for t, error in zip((1.0, 0.75, 0.5, 0.25), found.tolist(), strict=True):
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = COSINE.alpha(time), COSINE.sigma(time)
        x = alpha * a + sigma * eps
        distances = [(x - alpha * y).square().sum() / (2 * sigma**2) for y in (a, b)]
        w = torch.sigmoid(distances[1] - distances[0])
        expected = float((1 - w) ** 2 * (a - b).square().mean())
        assert error == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_images_are_denoised_as_those_of_their_class() -> None:
    images = random_images(12, classes=3)
    machine = make_machine("ideal", images)
    told = image_errors(machine, images, steps=2, conditional=True)
    for i in (0, 5):
        alone = make_machine("ideal", images.of_class(int(images.labels[i])))
        clean = to_float(images.pixels[i : i + 1])
        (point,) = data_points(clean, seeds=[i], t=[0.5], schedule=COSINE)
        error = (alone(point.x, 0.5) - clean).square().mean()
        assert float(told[1, i]) == pytest.approx(float(error), abs=1e-6)


def test_more_images_leave_the_first_as_they_are(tmp_path: Path) -> None:
    images, machine = random_images(6), make_machine("ideal", random_images(5, seed=1))
    few = image_errors(machine, images.take(torch.arange(4)), steps=2, work=Work(tmp_path))
    work = Work(tmp_path)
    many = image_errors(machine, images, steps=2, work=work)
    assert work.computed["denoising"] == 2
    assert torch.equal(many[:, :4], few)
