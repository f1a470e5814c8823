import numpy as np
import pytest
import torch

from els.denoiser import (
    add_noise,
    as_labels,
    as_times,
    eps_from_x0,
    score_from_x0,
    x0_from_eps,
)
from els.errors import InputError
from els.schedule import CosineSchedule


def test_conversions_are_inverse_to_each_other() -> None:
    schedule, t = CosineSchedule(), torch.tensor([0.05, 0.5, 1.0])
    x0, eps = torch.rand(3, 2, 4, 4).double(), torch.randn(3, 2, 4, 4).double()
    x = add_noise(x0, eps, t, schedule)
    torch.testing.assert_close(eps_from_x0(x, x0, t, schedule), eps)
    torch.testing.assert_close(x0_from_eps(x, eps, t, schedule), x0)


def test_score_is_minus_eps_over_sigma() -> None:
    schedule, t = CosineSchedule(), torch.tensor([0.1, 0.9])
    x, x0_hat = torch.randn(2, 1, 4, 4).double(), torch.rand(2, 1, 4, 4).double()
    eps = eps_from_x0(x, x0_hat, t, schedule)
    sigma = schedule.sigma(t.double())[:, None, None, None]
    torch.testing.assert_close(score_from_x0(x, x0_hat, t, schedule), -eps / sigma)


X = torch.randn(3, 1, 4, 4)
NUMBERS = [0.05, np.float64(0.05), torch.tensor(0.05, dtype=torch.float64)]


@pytest.mark.parametrize("t", NUMBERS, ids=lambda t: type(t).__name__)
def test_one_time_stands_for_all_images(t: torch.Tensor | float) -> None:
    times = as_times(t, X)
    assert times.dtype == torch.float64
    assert times.tolist() == [0.05] * 3
    for convert in (add_noise, eps_from_x0, x0_from_eps, score_from_x0):
        got = convert(X, X, t, CosineSchedule())
        torch.testing.assert_close(got, convert(X, X, times, CosineSchedule()))
    assert as_times(1, X).tolist() == [1.0] * 3
    assert as_times(torch.tensor([1, 1, 1]), X).dtype == torch.float64


def test_times_of_each_image_are_left_as_they_are() -> None:
    t = torch.tensor([0.1, 0.5, 1.0])
    assert as_times(t, X).data_ptr() == t.data_ptr()
    assert as_times(torch.empty(0), X[:0]).shape == (0,)
    assert as_times(0.5, X[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("t", "told"),
    [
        (0.0, "t is 0; times are above 0"),
        (1.5, "t is 1.5; times are above 0"),
        (-0.1, "t is -0.1; times"),
        (float("nan"), "t is nan; times"),
        (torch.tensor([0.5, 0.5]), r"t has shape \(2,\) for 3 images; give one number"),
        (torch.full((3, 1), 0.5), r"t has shape \(3, 1\) for 3 images"),
        ("half", "t is 'half'; it must be a number or a tensor"),
        (None, "t is None; it must be a number or a tensor"),
    ],
)
def test_times_that_are_none_of_these_images_are_refused(t: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        as_times(t, X)


def test_labels_are_taken_in_the_same_way() -> None:
    assert as_labels(None, X) is None
    for label in (2, np.int64(2), torch.tensor(2), torch.tensor([2, 2, 2], dtype=torch.int32)):
        found = as_labels(label, X)
        assert found.dtype == torch.int64
        assert found.tolist() == [2, 2, 2]
    with pytest.raises(InputError, match=r"label has shape \(2,\) for 3 images"):
        as_labels(torch.tensor([0, 1]), X)
    with pytest.raises(InputError, match=r"label is of torch.float32; classes are whole numbers"):
        as_labels(1.0, X)
    with pytest.raises(InputError, match="label is 'cat'; it must be a number or a tensor"):
        as_labels("cat", X)
