import pytest
import torch
from conftest import random_images

from els.calibration import Scales
from els.errors import InputError
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
    assert one.moments(IMAGES) is other.moments(IMAGES)
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
