import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from els.engines.dictionary import RULES, axis_groups, check_size
from els.errors import InputError


@given(rule=st.sampled_from(RULES), length=st.integers(1, 12), radius=st.integers(0, 12))
def test_every_place_is_in_one_group_and_uses_what_its_rule_says(
    rule: str, length: int, radius: int
) -> None:
    size = 2 * radius + 1
    if rule == "equivariant" and size > length:
        return
    allowed: dict[int, set[int]] = {}
    for group in axis_groups(rule, length, size):
        for queries, training in zip(group.query, group.training, strict=True):
            for place in queries.tolist():
                assert place not in allowed
                allowed[place] = set(training.tolist())
    inside = {v for v in range(length) if radius <= v < length - radius}
    for u in range(length):
        expected = {
            "local": {u},
            "equivariant": inside,
            "boundary": inside if u in inside else {u},
        }[rule]
        assert allowed[u] == expected


@pytest.mark.parametrize("rule", RULES)
def test_sizes_without_a_meaning_are_refused(rule: str) -> None:
    shape = (1, 6, 9)
    largest = 5 if rule == "equivariant" else 17
    check_size(rule, largest, shape)
    for size in (0, -1, 4):
        with pytest.raises(InputError, match=f"patch size {size} is not a positive odd number"):
            check_size(rule, size, shape)
    with pytest.raises(InputError, match=f"the largest is {largest}"):
        check_size(rule, largest + 2, shape)


def test_places_are_integers_that_index() -> None:
    (group,) = axis_groups("equivariant", 5, 3)
    assert group.query.dtype == torch.int64
    assert torch.arange(5)[group.training].tolist() == [[1, 2, 3]]
