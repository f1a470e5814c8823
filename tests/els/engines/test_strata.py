"""Strata hold every patch, and their models say what its weight will be."""

import math

import pytest
import torch
from conftest import shared

from els.engines.dictionary import Region, along_borders, inside
from els.engines.native_engine import available
from els.engines.strata import MIDDLE, Shelf, Strata, build_strata, bytes_of, most_bytes
from els.images import load_images, to_float
from els.schedule import CosineSchedule

pytestmark = pytest.mark.skipif(available() is not None, reason="needs the native engine")

SCHEDULE = CosineSchedule()


def test_strata_hold_every_patch_once_and_their_moments() -> None:
    pixels = load_images("garments").pixels[:300]
    strata = build_strata(pixels, bytes_of(pixels), inside(5, 28, 28))
    assert len(strata.order) == 300 * 24 * 24
    pixel = torch.arange(300 * 28 * 28).view(300, 28, 28)[:, :24, :24].flatten()
    assert torch.equal(strata.order.long().sort().values, pixel)
    assert strata.start[-1] == len(strata.order)
    largest = int((strata.start[1:] - strata.start[:-1]).argmax())
    members = strata.order[strata.start[largest] : strata.start[largest + 1]].long()
    image, row, column = members // 784, members % 784 // 28, members % 28
    centre = pixels[image, 0, row + 2, column + 2].float() - MIDDLE
    assert float(strata.centre[largest]) == pytest.approx(float(centre.mean()), abs=1e-2)
    assert float(strata.spread[largest]) == pytest.approx(
        float(centre.var(unbiased=False)), rel=1e-2, abs=1e-2
    )
    assert image.float().diff().abs().mean() > 50  # shuffled: neighbours are of other images


def test_windows_that_a_border_cuts_have_strata_of_their_own() -> None:
    pixels = load_images("garments").pixels[:100]
    for region in along_borders(7, 28, 28):
        strata = build_strata(pixels, bytes_of(pixels), region)
        pixel = torch.arange(100 * 28 * 28).view(100, 28, 28)
        first = pixel[:, region.rows.first, region.columns.first]
        down, across = torch.arange(region.rows.places), torch.arange(region.columns.places)
        expected = first[:, None, None] + down[:, None] * 28 + across
        assert torch.equal(strata.order.long().sort().values, expected.flatten().sort().values)
        assert len(strata.origin) == region.rows.cells * region.columns.cells
        inner = strata.components.T @ strata.components
        torch.testing.assert_close(inner, torch.eye(len(inner)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [3, 9])
def test_codes_tell_what_patches_look_like(size: int) -> None:
    """Coordinates, what these leave out, and the centre pixel, against the patches themselves."""
    pixels = load_images("garments").pixels[:200]
    region = inside(size, 28, 28)
    strata = build_strata(pixels, bytes_of(pixels), region)
    levels, offset, d = pixels[:, 0].float() - MIDDLE, torch.arange(size), len(strata.mean.T)
    off, off_rest, unknown = [], [], 0
    for s in range(len(strata.start) - 1):
        begin, end = strata.start[s : s + 2].tolist()
        if begin == end:
            continue
        codes = strata.codes[begin * (d + 2) : end * (d + 2)].view(d + 2, -1).T.float()
        along = strata.centres[s] + strata.steps[s, :d] * (codes[:, :d] - 128)
        rest = (strata.steps[s, d] * codes[:, d]).square()
        members = strata.order[begin:end].long()
        image, row, column = members // 784, members % 784 // 28, members % 28
        patches = levels[
            image[:, None, None],
            row[:, None, None] + offset[:, None],
            column[:, None, None] + offset,
        ].flatten(1)
        away = patches - strata.origin
        exact = away @ strata.components
        assert torch.equal(codes[:, -1] - MIDDLE, patches[:, size * size // 2])
        left = (away.square().sum(dim=1) - exact.square().sum(dim=1)).clamp(min=0)
        known = codes[:, d] < 255  # that of those which do not fit
        unknown += int((~known).sum())
        assert (strata.lowest[s] - 0.01 <= exact).all()  # of these, too
        assert (exact <= strata.highest[s] + 0.01).all()
        assert ((left - 4).clamp(min=0).sqrt() <= strata.reach[s]).all()  # 4: rounded
        off += [[(along - exact)[known].square().sum(), exact[known].square().sum()]]
        off_rest += [[(rest - left)[known].abs().sum(), left[known].sum()]]
    assert 0 < unknown < 0.02 * len(strata.order)
    (difference, square), (rest, left) = (torch.tensor(one).sum(dim=0) for one in (off, off_rest))
    assert difference < 1e-3 * square
    assert rest < 0.02 * left + 1e-3 * square


def test_the_model_of_a_stratum_predicts_its_weights() -> None:
    """E w^2 of the largest strata, against that of their patches."""
    root = shared("data", "cifar10-jpeg-train.zip")
    photos = load_images("zip", root=root, size=32, split="all", limit=1501)
    pixels = photos.pixels[:1000]
    strata = build_strata(pixels, bytes_of(pixels), inside(5, 32, 32))
    alpha, sigma = float(SCHEDULE.alpha(0.8)), float(SCHEDULE.sigma(0.8))
    x0 = to_float(photos.pixels[1500:])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(800))
    x = (alpha * x0 + sigma * eps).float()
    query = x[0, :, 10:15, 10:15].permute(1, 2, 0).reshape(1, -1) * MIDDLE
    predicted = (strata.features(query, alpha) @ strata.terms(alpha, sigma))[0]
    offset = torch.arange(5)
    levels = pixels.permute(0, 2, 3, 1).float() - MIDDLE
    sizes = strata.start[1:] - strata.start[:-1]
    for s in sizes.argsort(descending=True)[:20].tolist():
        members = strata.order[strata.start[s] : strata.start[s + 1]].long()
        image, row, column = members // 1024, members % 1024 // 32, members % 32
        patches = levels[
            image[:, None, None],
            row[:, None, None] + offset[:, None],
            column[:, None, None] + offset,
        ].flatten(1)
        log_weight = (2 * alpha * patches @ query[0] - alpha**2 * patches.square().sum(1)).double()
        log_weight /= 2 * (sigma * MIDDLE) ** 2
        found = (2 * log_weight).logsumexp(0) - math.log(len(members))
        assert float(predicted[s]) == pytest.approx(float(found) / 2 / math.log(2), abs=0.5)


def test_a_shelf_keeps_what_fits_and_makes_the_rest_anew() -> None:
    pixels = load_images("garments").pixels[:40]
    images, made = bytes_of(pixels), []

    def get(shelf: Shelf, size: int, region: Region) -> None:
        def make() -> Strata:
            made.append(region)
            return build_strata(pixels, images, region)

        assert shelf.get(size, region, make).region == region

    first = inside(9, 28, 28)
    shelf = Shelf(1.01 * build_strata(pixels, images, first).bytes)
    others = [
        (size, one)
        for size in (7, 5)
        for one in (inside(size, 28, 28), *along_borders(size, 28, 28)[:2])
    ]
    for _ in range(2):
        get(shelf, 9, first)
        for _ in range(2):  # those of one size are used together, time after time
            for size, region in others[:3]:
                get(shelf, size, region)
        for size, region in others[3:]:
            get(shelf, size, region)
    every = [region for _, region in others]
    assert made == [first, *every, *every]
    assert 0 < most_bytes() <= 4e9
