import pytest
import torch
from conftest import random_images

from els.images import ImageSet, to_float
from els.novelty import SAME, Share, copied_share, nearest_images


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
        # The second nearest is another image, not the nearest one elsewhere.
        by_image, still = apart.min(dim=0).values.sort().values, apart[0].sort().values
        assert float(found.second[i]) == pytest.approx(float(by_image[1]), abs=1e-6)
        assert float(found.second_in_place[i]) == pytest.approx(float(still[1]), abs=1e-6)
        assert float(found.ratio[i]) == pytest.approx(float(by_image[0] / by_image[1]), abs=1e-6)
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


def test_two_images_by_hand() -> None:
    """Flat images at -1 and 1: a flat sample at a is |a + 1| and |a - 1| from them."""
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    x = torch.tensor([-1.0, -0.6, -0.4, 0.0, 0.8]).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    found = nearest_images(x, ImageSet(pixels.contiguous()))
    want = [0, 0.4 / 1.6, 0.6 / 1.4, 1, 0.2 / 1.8]
    assert found.ratio_in_place.tolist() == pytest.approx(want, abs=1e-6)
    assert found.ratio.tolist() == pytest.approx(want, abs=1e-6)
    share = copied_share(found.ratio)
    assert share is not None
    assert (share.share, share.count) == (0.6, 5)


def test_of_one_image_alone_no_share_is_known() -> None:
    found = nearest_images(torch.zeros(2, 1, 4, 4), random_images(1, 1, 4, 4))
    assert found.second.tolist() == [float("inf")] * 2
    assert found.ratio.isnan().all()
    assert copied_share(found.ratio) is None


@pytest.mark.parametrize("noise", [0, 0.02])
def test_a_copy_of_an_image_that_is_there_twice_is_a_copy(noise: float) -> None:
    images = random_images(3, 1, 4, 4)
    twice = ImageSet(images.pixels[[1, 0, 2, 0, 1]])
    x = to_float(images.pixels[:1])
    x = torch.cat([x, x.roll((1, 1), dims=(2, 3))])
    x += noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found, once = nearest_images(x, twice), nearest_images(x, images)
    assert found.nearest.tolist() == [1, 1]
    assert torch.equal(found.ratio, once.ratio)
    assert torch.equal(found.ratio_in_place, once.ratio_in_place)
    assert copied_share(found.ratio).share == 1
    assert float(found.ratio_in_place[0]) < 0.1
    assert float(found.ratio_in_place[1]) > 0.5  # in place it is none


def test_of_images_that_are_all_the_same_no_share_is_known() -> None:
    alike = ImageSet(random_images(1).pixels.repeat(4, 1, 1, 1))
    assert alike.distinct.tolist() == [0]
    assert nearest_images(torch.zeros(2, *alike.image_shape), alike).ratio.isnan().all()


def test_the_interval_of_a_share_is_exact() -> None:
    """Of 0 of n the upper end is 1 - 0.025^(1 / n); of all of n the lower end is 0.025^(1 / n)."""
    none, every = copied_share(torch.ones(10)), copied_share(torch.zeros(10))
    assert none == Share(0, (0, pytest.approx(1 - 0.025**0.1)), 10)
    assert every == Share(1, (pytest.approx(0.025**0.1), 1), 10)
