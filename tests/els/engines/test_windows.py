import math

import pytest

from els.engines.windows import window


def test_a_hard_window_weighs_all_its_cells_alike() -> None:
    assert window("hard", 7) == (7, None)


@pytest.mark.parametrize("width", [0.5, 1.0, 1.7, 4.0])
def test_a_gaussian_window_falls_off_to_where_it_ends(width: float) -> None:
    size, profile = window("gaussian", width)
    assert size == 2 * (len(profile) - 1) + 1
    assert profile[0] == 1
    for d, weight in enumerate(profile):
        assert weight == pytest.approx(math.exp(-(d**2) / (2 * width**2)))
    assert len(profile) - 1 >= 2 * width


@pytest.mark.parametrize("width", [1.0, 2.5, 3.0, 3.5, 4.0, 6.2, 7.0])
def test_a_flat_window_has_the_side_it_is_given(width: float) -> None:
    size, profile = window("flat", width)
    assert size == 2 * (len(profile) - 1) + 1
    side = 2 * sum(profile) - profile[0]
    assert side == pytest.approx(width)
    assert all(weight == 1 for weight in profile[:-1])
    assert 0 < profile[-1] <= 1
