import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from els.engines.dictionary import RULES, along_borders, axis_groups, check_size, inside
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


def test_regions_are_the_rule_of_boundary_where_at_most_one_border_cuts() -> None:
    """Each pixel but those of the corners lies in one, with the places that the rule gives it."""
    size, h, w = 5, 9, 12
    allowed = {
        (int(i), int(j)): (set(rows.training[a].tolist()), set(columns.training[b].tolist()))
        for rows in axis_groups("boundary", h, size)
        for columns in axis_groups("boundary", w, size)
        for a, down in enumerate(rows.query)
        for b, across in enumerate(columns.query)
        for i in down
        for j in across
    }
    seen = []
    for region in (inside(size, h, w), *along_borders(size, h, w)):
        down, across = (range(one.start, one.stop) for one in region.pixels)
        assert region.places == len(down) * len(across)
        for i in down:
            for j in across:
                assert allowed[i, j] == (set(down), set(across))
                seen.append((i, j))
        for span, pixels, length in zip(region, (down, across), (h, w), strict=True):
            # What a window sees is what the image has of it.
            assert span.first == max(0, pixels.start - size // 2)
            assert span.first + span.length == min(length, pixels.stop + size // 2)
    assert len(seen) == len(set(seen)) == h * w - 4 * (size // 2) ** 2
