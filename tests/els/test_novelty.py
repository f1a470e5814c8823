import pytest
import torch
from conftest import random_images

from els.images import ImageSet, to_float
from els.novelty import SAME, nearest_images


def test_the_nearest_image_is_that_of_a_plain_search_over_all_shifts() -> None:
    images = random_images(5, 3, 6, 7)
    x = torch.randn(4, 3, 6, 7, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    found = nearest_images(x, images)
    y = to_float(images.pixels).double()
    for i in range(len(x)):
        shifts = [(a, b) for a in range(6) for b in range(7)]
        apart = torch.stack([
            (x[i].double() - y.roll(s, dims=(2, 3))).square().mean(dim=(1, 2, 3)).sqrt()
            for s in shifts
        ])  # (shifts images)  # fmt: skip
        assert float(found.distance[i]) == pytest.approx(float(apart.min()), abs=1e-6)
        place, image = divmod(int(apart.argmin()), len(y))
        assert int(found.nearest[i]) == image
        assert [int(found.shift[i, 0]) % 6, int(found.shift[i, 1]) % 7] == list(shifts[place])
        assert -3 <= int(found.shift[i, 0]) <= 3
        assert -3 <= int(found.shift[i, 1]) <= 3
        assert float(found.in_place[i]) == pytest.approx(float(apart[0].min()), abs=1e-6)
        same = (x[i].double() - y[image].roll(shifts[place], dims=(1, 2))).abs() <= SAME
        assert float(found.matching[i]) == pytest.approx(float(same.all(dim=0).double().mean()))


def test_a_shifted_copy_is_found_where_a_plain_distance_misses_it() -> None:
    images = random_images(20, 1, 8, 8)
    x = to_float(images.pixels[[3, 11]]).roll((2, -3), dims=(2, 3))
    found = nearest_images(x, images)
    assert found.nearest.tolist() == [3, 11]
    assert found.shift.tolist() == [[2, -3], [2, -3]]
    assert found.distance.tolist() == [0, 0]
    assert found.matching.tolist() == [1, 1]
    assert found.memorised.tolist() == [1, 1]
    assert float(found.in_place.min()) > 0.5


def test_samples_do_not_know_of_each_other_nor_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(9, 1, 5, 5)
    x = torch.randn(3, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    together = nearest_images(x, images)
    monkeypatch.setattr("els.novelty._BUDGET", 2 * 25)
    alone = [nearest_images(x[i : i + 1], images) for i in range(3)]
    for name, value in together.tensors().items():
        torch.testing.assert_close(
            torch.cat([one.tensors()[name] for one in alone]), value, msg=name
        )


def test_a_plain_background_is_not_memorised() -> None:
    """Of images that are black around random pixels in the middle, all match most of any other."""
    random = random_images(9, 1, 3, 3).pixels
    pixels = torch.zeros(9, 1, 8, 8, dtype=torch.uint8)
    pixels[..., 2:5, 2:5] = random
    other, copy = to_float(pixels[8:]), to_float(pixels[[2]])
    found = nearest_images(torch.cat([other, copy]), ImageSet(pixels[:8]))
    assert float(found.matching[0]) >= 55 / 64
    assert abs(float(found.memorised[0])) < 0.3
    assert float(found.memorised[1]) == 1
