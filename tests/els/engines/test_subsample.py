"""Estimates from a part of the patches are held to the standard errors that they claim."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch
from conftest import random_images, shared
from estimator import Estimator

from els.engines import subsample
from els.engines.dictionary import along_borders, inside
from els.engines.native_engine import available
from els.engines.strata_code import estimate
from els.engines.subsample import Estimate, sampled_mean
from els.errors import InputError
from els.images import ImageSet, load_images, to_float
from els.machines import make_machine
from els.machines.local import PatchMachine
from els.schedule import CosineSchedule

pytestmark = pytest.mark.skipif(available() is not None, reason="needs the native engine")

SCHEDULE = CosineSchedule()
# On the path of a network: large patches in much noise, small ones in little.
PATH = ((0.95, 13), (0.8, 11), (0.65, 9), (0.5, 7), (0.35, 5), (0.2, 3), (0.05, 3))
DRAWS = 2  # of each estimate, as the pixels of one share their random numbers


@pytest.fixture(scope="module")
def garments() -> ImageSet:
    return load_images("garments")


@pytest.fixture(scope="module")
def photos() -> ImageSet:
    root = shared("data", "cifar10-jpeg-train.zip")
    return load_images("zip", root=root, size=32, split="all", limit=2000)


@pytest.fixture(scope="module")
def unseen() -> torch.Tensor:
    root = shared("data", "cifar10-jpeg-test.zip")
    return to_float(load_images("zip", root=root, size=32, split="all", limit=4).pixels)


@pytest.fixture
def always() -> Iterator[None]:
    """Sample even where all patches would cost less, as they do of so few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subsample, "_LEAST_PATCHES", 1)
        patch.setattr(subsample, "_PAIR", 1e9)
        patch.setattr(subsample, "_BORDER_PAIR", 1e9)
        patch.setattr(subsample, "_ALONE", 1e3)
        yield


def noisy(x0: torch.Tensor, t: float) -> torch.Tensor:
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(int(1000 * t)))
    return (SCHEDULE.alpha(t) * x0 + SCHEDULE.sigma(t) * eps).float()


def machines(
    images: ImageSet, *, kind: str = "boundary", tolerance: float = 0.01
) -> tuple[PatchMachine, PatchMachine]:
    """One that estimates, and an exact one."""
    estimating = make_machine(kind, images, size=3, tolerance=tolerance)
    exact = make_machine(kind, images, size=3)
    assert isinstance(estimating, PatchMachine)
    assert isinstance(exact, PatchMachine)
    return estimating, exact


def drawn_anew(machine: PatchMachine, x: torch.Tensor, t: float) -> Estimate:
    """Estimates of several draws, one after another; pixels of one share what is drawn."""
    found = []
    for seed in range(DRAWS):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("els.machines.local.sampled_mean", partial(sampled_mean, seed=seed))
            found.append(machine.estimate(x, t))
    parts = (torch.cat([getattr(one, field.name) for one in found]) for field in fields(Estimate))
    return Estimate(*parts)


def check_coverage(
    train: ImageSet,
    x0: torch.Tensor,
    tolerance: float,
    *,
    path: Sequence[tuple[float, int]] = PATH,
    borders: bool = False,
    estimated: float = 1.0,
) -> None:
    """At every t, inside and along borders: the error holds for each image, and each claim for 93 %
    of pixels, also among those whose weight fewest patches carry.

    So many of the pixels are `estimated`; the others are answered in full.
    """
    estimating, exact = machines(train, tolerance=tolerance)
    for t, size in path:
        x, r = noisy(x0, t), size // 2
        found = drawn_anew(estimating.fitted(size), x, t)
        posterior = exact.fitted(size).posterior(x, t).take(torch.arange(len(x)).repeat(DRAWS))
        error = (found.mean - posterior.mean).square().mean(dim=1).sqrt()
        assert (error.square().mean(dim=(1, 2)).sqrt() <= tolerance).all(), (t, size)
        claimed = found.standard_error[:, 0]
        whole = inside(size, *x.shape[2:])
        cut = along_borders(size, *x.shape[2:])
        corner = torch.ones_like(error, dtype=torch.bool)
        for regions in ([whole], cut) if borders else ([whole],):
            some = torch.zeros_like(corner)
            for region in regions:
                some[(slice(None), *region.pixels)] = True
            corner &= ~some
            assert (claimed[some] > 0).float().mean() >= estimated, (t, size)
            some &= claimed > 0
            beyond = (error[some] > 2 * claimed[some]).float()
            assert len(beyond) >= 200
            assert beyond.mean() <= 0.07, (t, size)
            fewest = posterior.effective_size[:, 0][some].argsort()[: len(beyond) // 20]
            chance = math.sqrt(0.07 * 0.93 / len(fewest))
            assert beyond[fewest].mean() <= 0.07 + chance, (t, size)
        if borders:
            assert corner.float().mean() == (2 * r) ** 2 / corner[0].numel()
        assert not claimed[corner].any()  # exact, as what else has too few patches
        assert error[corner].max() < 1e-4
        assert (found.seen < 1).all()


@pytest.mark.usefixtures("always")
def test_errors_hold_on_photos(photos: ImageSet, unseen: torch.Tensor) -> None:
    check_coverage(photos, unseen, 0.01)


@pytest.mark.usefixtures("always")
def test_errors_hold_along_borders(unseen: torch.Tensor) -> None:
    """A border leaves enough patches of more images."""
    root = shared("data", "cifar10-jpeg-train.zip")
    photos = load_images("zip", root=root, size=32, split="all", limit=12_000)
    check_coverage(photos, unseen[:2], 0.01, path=((0.65, 9), (0.35, 5)), borders=True)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("t", "size"), [(0.7, 7), (0.5, 7), (0.3, 5), (0.15, 3), (0.05, 3), (0.1, 5)]
)
def test_errors_hold_beyond_black_and_white(
    photos: ImageSet, unseen: torch.Tensor, t: float, size: int
) -> None:
    """Networks draw what no image holds; there tails of Gaussians promise what no patch has."""
    x = noisy(torch.cat([unseen[:1], 3 * unseen[:2], 6 * unseen[2:3]]), t)
    estimating, exact = (one.fitted(size) for one in machines(photos))
    found, want = estimating.estimate(x, t), exact(x, t)
    error = (found.mean - want).square().mean(dim=1).sqrt()
    assert (error.square().mean(dim=(1, 2)).sqrt() <= 0.01).all()
    claimed, inner = found.standard_error[:, 0], (slice(None), slice(4, -4), slice(4, -4))
    full = (claimed[inner] == 0).float().mean(dim=(1, 2))
    assert full[0] == 0  # of an image, every pixel inside is estimated
    assert full.mean() < 0.15
    assert error[claimed == 0].max() < 1e-4
    wrong = error > 2 * claimed + 1e-4
    assert wrong[claimed > 0].float().mean() <= 0.07
    assert (wrong[inner].float().mean(dim=(1, 2)) <= 0.07).all()


@pytest.mark.usefixtures("always")
def test_pixels_far_from_all_patches_are_answered_in_full_where_that_costs_less(
    photos: ImageSet, unseen: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = noisy(3 * unseen[:1], 0.2)
    estimating, exact = (one.fitted(3) for one in machines(photos))
    shares = []
    for alone in (1e3, 0.008, 0.002):
        monkeypatch.setattr(subsample, "_ALONE", alone)
        found = estimating.estimate(x, 0.2)
        full = found.standard_error[0, 0, 1:-1, 1:-1] == 0
        shares.append(float(full.float().mean()))
        error = (found.mean - exact(x, 0.2)).square().mean(dim=1).sqrt()
        assert error.square().mean().sqrt() <= 0.01
        assert error[0, 1:-1, 1:-1][full].numel() == 0 or error[0, 1:-1, 1:-1][full].max() < 1e-4
    assert shares[0] < 0.01 < shares[1] < 1
    assert shares[1] <= shares[2]


@pytest.mark.usefixtures("always")
def test_errors_hold_on_garments(garments: ImageSet) -> None:
    held_out = load_images("garments", split="val", limit=4)
    check_coverage(garments, to_float(held_out.pixels), 0.02, estimated=0.9)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("t", "size"), [(0.8, 9), (0.5, 7), (0.05, 3)])
def test_the_compiled_estimator_does_what_the_readable_one_does(
    garments: ImageSet,
    photos: ImageSet,
    unseen: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    t: float,
    size: int,
) -> None:
    """Round by round with the same random numbers: not only are their averages alike."""
    compared = []

    def both(tensors: dict[str, torch.Tensor], **numbers: float) -> None:
        readable = Estimator(tensors, **numbers)
        readable.run()
        estimate(tensors, **numbers)
        mean, variance, drawn = (tensors[name].numpy() for name in ("mean", "variance", "draws"))
        queries = readable.queries
        left = np.array([query.drawn < 0 for query in queries])
        assert ((drawn < 0) == left).all()
        assert not left.reshape(-1, int(numbers["group"])).all(axis=1).any()
        off = np.abs([query.mean for query in queries] - mean).max(axis=1)[~left]
        assert np.quantile(off, 0.95) < 5e-3 * numbers["tolerance"]  # float32 against float64
        # In little noise rounding decides on whether a patch or two of thousands are drawn.
        assert off.max() < 0.2 * numbers["tolerance"]
        for name, found in (("variance", variance), ("drawn", drawn)):
            ratio = found[~left] / np.array([getattr(query, name) for query in queries])[~left]
            assert np.quantile(np.abs(ratio - 1), 0.9) < 5e-3, name
        compared.append((len(queries), sum(query.far for query in queries)))

    monkeypatch.setattr(subsample, "estimate", both)
    monkeypatch.setattr(subsample, "_LEAST_AT_BORDER", 1 << 40)
    held_out = load_images("garments", split="val", limit=2)
    for images, x0 in (
        (photos.take(torch.arange(400)), torch.cat([unseen[:1], 3 * unseen[1:2]])),
        (garments, to_float(held_out.pixels)),
    ):
        wanted = torch.zeros(x0.shape[2:], dtype=torch.bool)
        wanted[4:-4:4, 4:-4:4] = True
        machine = machines(images, tolerance=0.02)[0].fitted(size)
        machine.estimate(noisy(x0, t), t, wanted=wanted)
    assert [count for count, _ in compared] == [72, 50]
    assert (compared[0][1] > 0) == (t < 0.8)  # far from all patches; in much noise none is
    assert compared[1][1] == 0


@pytest.mark.usefixtures("always")
def test_the_equivariant_machine_is_estimated_everywhere(
    photos: ImageSet, unseen: torch.Tensor
) -> None:
    x = noisy(unseen[:2], 0.6)
    estimating, exact = (one.fitted(7) for one in machines(photos, kind="equivariant"))
    found = estimating.estimate(x, 0.6)
    assert (found.standard_error > 0).float().mean() > 0.9
    assert (found.mean - exact(x, 0.6)).square().mean(dim=(1, 2, 3)).sqrt().max() <= 0.01


@pytest.mark.usefixtures("always")
def test_a_tighter_tolerance_sees_more(photos: ImageSet, unseen: torch.Tensor) -> None:
    x = noisy(unseen[:2], 0.6)
    exact = machines(photos)[1].fitted(7)(x, 0.6)
    seen = []
    for tolerance in (0.05, 0.01, 0.004):
        found = machines(photos, tolerance=tolerance)[0].fitted(7).estimate(x, 0.6)
        assert (found.mean - exact).square().mean(dim=(1, 2, 3)).sqrt().max() <= tolerance
        seen.append(float(found.seen.mean()))
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]


@pytest.mark.usefixtures("always")
def test_answers_depend_on_neither_batch_nor_threads_but_on_time(photos: ImageSet) -> None:
    x = noisy(to_float(photos.pixels[:3]) * torch.tensor([1, 1, 3])[:, None, None, None], 0.5)
    machine = machines(photos)[0].fitted(5)
    t = torch.tensor([0.5, 0.7, 0.5])
    together = machine.estimate(x, t)
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        alone = [machine.estimate(x[i : i + 1], t[i : i + 1]) for i in range(3)]
    finally:
        torch.set_num_threads(before)
    for i, one in enumerate(alone):
        torch.testing.assert_close(one.mean[0], together.mean[i], rtol=0, atol=1e-5)
        assert float(one.seen[0]) == pytest.approx(float(together.seen[i]), rel=1e-3)
    same_image = machine.estimate(x[:1].repeat(2, 1, 1, 1), torch.tensor([0.5, 0.5]))
    assert torch.equal(same_image.mean[0], same_image.mean[1])


@pytest.mark.usefixtures("always")
def test_each_image_of_a_batch_chooses_between_some_patches_and_all(
    photos: ImageSet, unseen: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subsample, "_PAIR", 0.03)  # between what the two images take
    x = noisy(unseen[:2] * torch.tensor([1, 3])[:, None, None, None], 0.2)
    estimating, exact = (one.fitted(3) for one in machines(photos))
    found = estimating.estimate(x, 0.2)
    assert (found.standard_error[0, 0, 1:-1, 1:-1] > 0).all()
    assert not found.standard_error[1].any()
    assert found.seen[0] < found.seen[1] == 1
    torch.testing.assert_close(found.mean[1:], exact(x[1:], 0.2), rtol=0, atol=1e-5)
    unanswered = estimating.estimate(x, 0.2, in_full=False)
    assert torch.equal(unanswered.mean[0], found.mean[0])
    assert unanswered.mean[1].isnan().all()
    assert unanswered.seen[1] == 0
    for i in range(2):
        alone = estimating.estimate(x[i : i + 1], 0.2)
        torch.testing.assert_close(alone.mean[0], found.mean[i], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("always")
def test_pixels_by_which_an_image_claims_too_much_are_answered_in_full(
    photos: ImageSet, unseen: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = noisy(unseen[:2], 0.35)
    estimating, exact = (one.fitted(5) for one in machines(photos))
    before = estimating.estimate(x, 0.35)
    claim = before.standard_error.square().mean(dim=(1, 2, 3)).sqrt() / 0.01  # of the tolerance
    most = float(claim.mean())
    monkeypatch.setattr(subsample, "_MOST_CLAIMED", most)
    found = estimating.estimate(x, 0.35)
    worse, better = int(claim.argmax()), int(claim.argmin())
    assert torch.equal(found.mean[better], before.mean[better])
    claimed, full = before.standard_error[worse, 0], found.standard_error[worse, 0] == 0
    newly = full & (claimed > 0)
    assert 0 < newly.float().mean() < 0.1
    assert claimed[newly].min() >= claimed[~full].max()
    assert found.standard_error[worse].square().mean().sqrt() <= most * 0.01
    want = exact(x, 0.35)[worse]
    torch.testing.assert_close(found.mean[worse][:, full], want[:, full], rtol=0, atol=1e-5)
    assert torch.equal(found.mean[worse][:, ~full], before.mean[worse][:, ~full])
    assert before.seen[worse] < found.seen[worse] < 1


@pytest.mark.usefixtures("always")
def test_several_threads_give_the_same_bytes_every_time(photos: ImageSet) -> None:
    x = noisy(to_float(photos.pixels[:2]), 0.5)
    machine = machines(photos)[0].fitted(5)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, second = (machine.estimate(x, 0.5) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.standard_error, second.standard_error)


@pytest.mark.usefixtures("always")
def test_a_class_has_strata_of_its_own(garments: ImageSet) -> None:
    x = noisy(to_float(garments.pixels[:2]), 0.4)
    estimating, exact = (one.fitted(5) for one in machines(garments, tolerance=0.02))
    label = torch.tensor([1, 3])
    found = estimating.estimate(x, 0.4, label)
    assert (found.mean - exact(x, 0.4, label)).square().mean(dim=(1, 2, 3)).sqrt().max() <= 0.02
    assert (found.seen < 1).all()


def test_what_costs_less_in_full_is_exact(garments: ImageSet) -> None:
    x = noisy(to_float(garments.pixels[:1]), 0.5)
    for kind, options in (
        ("local", {}),
        ("boundary", {"symmetries": ("flip",)}),
        ("boundary", {"window": "gaussian"}),
        ("boundary", {"engine": "torch"}),
        ("boundary", {}),
    ):
        few = garments.take(torch.arange(200))
        machine = make_machine(kind, few, size=3, tolerance=0.01, **options)
        assert isinstance(machine, PatchMachine)
        found = machine.estimate(x, 0.5)
        exact = make_machine(kind, few, size=3, **options)
        torch.testing.assert_close(found.mean, exact(x, 0.5), rtol=0, atol=1e-5)
        assert not found.standard_error.any()
        assert (found.seen == 1).all()


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf])
def test_bad_tolerances_are_refused(tolerance: float) -> None:
    with pytest.raises(InputError, match="tolerance is"):
        make_machine("boundary", random_images(), size=3, tolerance=tolerance)
