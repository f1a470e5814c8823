import re

import pytest
import torch
from conftest import random_images

from els.calibration import Scales
from els.errors import InputError
from els.images import ImageSet, to_float
from els.machines import make_machine
from els.machines.base import value_identity

IMAGES = random_images(6, 1, 8, 8, classes=2)


def scales(*values: int) -> Scales:
    return Scales("local", "cosine", (0,), values, (1.0, 0.5), values, (), ())


def test_a_value_of_the_scale_is_one_for_all_times_or_one_for_each() -> None:
    machine = make_machine("local", IMAGES)
    assert machine.fitted(5).value_at(0.3) == 5
    assert machine.fitted(scales(7, 3)).value_at(0.9) == 7
    assert machine.fitted(scales(7, 3)).value_at(0.2) == 3
    with pytest.raises(InputError, match="the local machine needs a size: one, or fitted scales"):
        machine(torch.zeros(1, 1, 8, 8), torch.ones(1))


def test_machines_at_other_values_share_what_they_know() -> None:
    machine = make_machine("pca_local", IMAGES)
    one, other = machine.fitted(0.1), machine.fitted(0.3)
    assert one.once("known", lambda: [1]) is other.once("known", lambda: [2])
    assert one.of_class(1) is other.of_class(1)
    assert one.of_class(None) is IMAGES


def test_queries_are_sorted_by_value_and_class() -> None:
    machine = make_machine("local", IMAGES, size=scales(7, 3))
    t, label = torch.tensor([1.0, 0.5, 1.0, 0.9]), torch.tensor([0, 0, 1, 0])
    groups = machine.group_queries(t, label, None)
    assert groups == {((7,), 0): [0, 3], ((3,), 0): [1], ((7,), 1): [2]}
    assert machine.group_queries(t, None, [3, 5]) == {((3, 5), None): [0, 1, 2, 3]}


def test_values_that_cannot_be_told_apart_have_no_identity() -> None:
    assert value_identity(None) is None
    assert value_identity(5) == 5
    assert value_identity(scales(7, 3)) == [[1.0, 0.5], [7, 3]]
    with pytest.raises(TypeError, match="has no identity"):
        value_identity(object())


def test_only_patch_machines_estimate() -> None:
    patches, whole = make_machine("local", IMAGES, size=3), make_machine("ideal", IMAGES)
    assert patches.estimating(0.1).tolerance == 0.1
    assert patches.tolerance == 0
    assert whole.estimating(0.1) is whole


def test_a_scale_that_is_neither_a_number_nor_fitted_is_refused() -> None:
    fitted = scales(7, 3)
    for size in (fitted.at, "5", [5]):
        with pytest.raises(InputError, match=r"the size of the local machine is .*fit_scales"):
            make_machine("local", IMAGES, size=size)
        with pytest.raises(InputError, match=r"the size of the local machine is"):
            make_machine("local", IMAGES).fitted(size)
    with pytest.raises(InputError, match="odd"):
        make_machine("local", IMAGES).fitted(4)
    assert make_machine("local", IMAGES, size=torch.tensor(5)).value == 5
    mixture = make_machine("mixture", IMAGES)
    with pytest.raises(InputError, match="they must be fitted"):
        mixture.fitted(0.5)
    with pytest.raises(InputError, match="there are 1 weights for the"):
        mixture.fitted(fitted)(torch.zeros(2, 1, 8, 8), 0.5)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("boundary", {"size": 5}, "boundary, size 5, 6 images of 1 x 8 x 8"),
        ("local", {}, "local, no size yet, 6 images of 1 x 8 x 8"),
        ("ideal", {}, "ideal, 6 images of 1 x 8 x 8"),
        (
            "local",
            {"size": scales(7, 3)},
            "local, size 7 at t = 1 to 3 at t = 0.05, 6 images of 1 x 8 x 8",
        ),
        (
            "boundary",
            {"size": 3, "engine": "torch", "tolerance": 0.1, "symmetries": ["flip"]},
            "boundary, size 3, 6 images of 1 x 8 x 8, engine torch, tolerance 0.1, "
            "symmetries ('flip',)",
        ),
        ("tempered", {"size": 2.0}, "tempered, temperature 2, 6 images of 1 x 8 x 8"),
    ],
)
def test_a_machine_says_in_a_line_what_it_is(kind: str, options: dict, said: str) -> None:
    assert repr(make_machine(kind, IMAGES, **options)) == said


def test_a_mixture_says_how_many_components_it_has() -> None:
    said = repr(make_machine("mixture", IMAGES))
    assert re.fullmatch(r"mixture, \d+ components, no weights yet, 6 images of 1 x 8 x 8", said)


def test_pixels_alone_make_a_machine() -> None:
    x = torch.randn(2, 1, 8, 8)
    want = make_machine("boundary", ImageSet(IMAGES.pixels), size=3)(x, 0.5)
    for pixels in (IMAGES.pixels, to_float(IMAGES.pixels), to_float(IMAGES.pixels).double()):
        assert torch.equal(make_machine("boundary", pixels, size=3)(x, 0.5), want)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (IMAGES.pixels.float(), r"values from \d+ to 25\d; floats must lie in \[-1, 1\]"),
        (IMAGES.pixels[0], r"are a Tensor of shape \(1, 8, 8\); they must be what load_images"),
        (IMAGES.pixels.numpy(), r"are a ndarray of shape \(6, 1, 8, 8\)"),
        (IMAGES.pixels.long(), r"pixels are a Tensor of torch.int64"),
        (IMAGES.pixels.float() * torch.nan, "values from nan to nan"),
        ("digits", "are a str; they must be what load_images returns"),
        (IMAGES.pixels[:0], "was given no training images"),
    ],
)
def test_what_is_no_set_of_images_makes_none(images: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_machine("boundary", images)
