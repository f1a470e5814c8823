import pytest
import torch
from conftest import random_images
from queries import query

from els.engines.query import refuses_numbers
from els.errors import InputError

IMAGES = random_images(3, 2, 6, 6)
X = torch.zeros(2, 2, 6, 6)
AT = torch.full((2,), 0.5, dtype=torch.float64)


def asked(**options):
    options = {"x": X, "pixels": IMAGES.pixels} | options
    return query(options.pop("x"), options.pop("pixels"), AT, AT, kind="boundary", sizes=[3, 5],
                 **options)  # fmt: skip


def test_hard_windows_at_any_displacement_are_plain() -> None:
    assert asked().plain
    assert not asked(shift=2).plain
    assert not asked(profiles=((1.0, 0.5), (1.0, 0.5, 0.2))).plain


def test_some_of_the_queries_have_their_own_times_and_every_place() -> None:
    part = asked(wanted=torch.ones(2, 6, 6, dtype=torch.bool)).some(slice(1, 2))
    assert (len(part.x), len(part.alpha), len(part.sigma)) == (1, 1, 1)
    assert part.wanted is None
    assert part.sizes == (3, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": IMAGES.pixels.float()}, "expected uint8 of the queries' shape"),
        ({"pixels": IMAGES.pixels[..., :5]}, r"of shape \(2, 6, 5\)"),
        ({"x": torch.zeros(1, 5, 6, 6), "pixels": torch.zeros(1, 5, 6, 6).byte()},
         "have 5 channels; the fast engine takes 1 to 4"),
        ({"x": X * torch.nan}, "NaN or infinite pixels"),
    ],
)  # fmt: skip
def test_what_would_be_read_past_its_end_is_refused(options: dict, message: str) -> None:
    asked().check("fast", most_channels=4)
    with pytest.raises(InputError, match=message):
        asked(**options).check("fast", most_channels=4)


def test_compiled_engines_take_float32_of_a_few_channels() -> None:
    assert refuses_numbers(X, 4) is None
    assert "computes in float32" in refuses_numbers(X.double(), 4)
    assert "2 channels" in refuses_numbers(X, 1)
