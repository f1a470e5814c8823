"""How well denoisers denoise, held to what is known of Gaussian images."""

from __future__ import annotations

import pytest
import torch
from conftest import random_images

from els.denoising import FewImages, beyond_range, denoising_errors
from els.images import to_float
from els.machines import make_machine

T = [0.1, 0.5, 0.9]


def test_the_filter_of_many_images_is_the_wiener_machine() -> None:
    images = random_images(300)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor(T, dtype=torch.float64)
    found = FewImages(to_float(images.pixels))(x, t)
    assert torch.allclose(found, make_machine("wiener", images)(x, t), atol=1e-6)


def test_of_few_images_the_rest_is_one_variance() -> None:
    images = to_float(random_images(20).pixels)
    few = FewImages(images)
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
