"""The criterion of calibration, by hand and with estimates."""

import math

import torch

from els.criterion import Point, best_of, compare
from els.schedule import COSINE

T = 0.5


def a_point(count: int = 2) -> Point:
    generator = torch.Generator().manual_seed(0)
    x, answer = (torch.randn(count, 3, 6, 6, generator=generator) for _ in range(2))
    return Point(T, x, answer)


def test_criteria_by_hand() -> None:
    point = a_point()
    answer = point.x0_hat + 0.1
    alpha, sigma = COSINE.alpha(T), COSINE.sigma(T)
    eps = [((point.x - alpha * one) / sigma).double().flatten(1) for one in (point.x0_hat, answer)]
    cosine = (eps[0] * eps[1]).sum(1) / (eps[0].norm(dim=1) * eps[1].norm(dim=1))
    torch.testing.assert_close(compare(point, answer, "cosine", COSINE), cosine)
    for criterion, expected in (("l2", 0.1 * alpha / sigma), ("mse", 0.01)):
        found = compare(point, answer, criterion, COSINE)
        torch.testing.assert_close(found, torch.full((2,), float(expected), dtype=torch.float64))


def test_only_wanted_pixels_count() -> None:
    point = a_point()
    wanted = torch.zeros(6, 6, dtype=torch.bool)
    wanted[2, 3] = True
    elsewhere = point.x0_hat + ~wanted
    assert compare(point, elsewhere, "mse", COSINE, wanted=wanted).abs().max() < 1e-12
    assert compare(point, elsewhere, "cosine", COSINE, wanted=wanted).min() > 1 - 1e-9
    assert compare(point, elsewhere, "mse", COSINE).min() > 0.9


def test_the_best_of_what_was_tried() -> None:
    table = torch.tensor([[0.5, math.nan, 0.9], [0.7, 0.8, 0.8], [math.nan, 0.9, 0.1]])
    assert best_of(table, "cosine") == ([1, 2, 0], 1)
    assert best_of(table, "l2") == ([0, 1, 2], 1)
    whole = torch.tensor([[0.5, 0.2], [0.3, 0.3], [0.1, 0.9]])
    assert best_of(whole, "mse") == ([2, 0], 1)  # the best on average
