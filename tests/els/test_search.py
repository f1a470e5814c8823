"""Calibration by estimates finds what trying everything exactly finds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import shared
from torch import Tensor

from els.calibration import Scales, fit_scales, fit_scales_to_data
from els.criterion import Point, compare
from els.denoiser import Denoiser, Labels, Times
from els.engines import subsample
from els.engines.native_engine import available
from els.images import ImageSet, load_images, to_float
from els.machines import Machine, make_machine
from els.machines.local import PatchMachine
from els.sampling import Starts
from els.schedule import COSINE
from els.search import checked, completed, estimated, exact, lattice, to_check

pytestmark = pytest.mark.skipif(available() is not None, reason="needs the native engine")
SIZES = (3, 5, 7, 9, 11, 13)


@pytest.fixture(scope="module")
def photos() -> ImageSet:
    root = shared("data", "cifar10-jpeg-train.zip")
    return load_images("zip", root=root, size=32, split="all", limit=1500)


@pytest.fixture(autouse=True)
def always() -> Iterator[None]:
    """Sample even where all patches would cost less, as they do of so few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subsample, "_LEAST_PATCHES", 1)
        patch.setattr(subsample, "_PAIR", 1e9)
        patch.setattr(subsample, "_ALONE", 1e3)
        yield


def test_how_far_to_go_is_found_at_a_ninth_of_the_pixels() -> None:
    wanted = lattice(32, 32)
    assert wanted.sum() == 121
    assert wanted[1, 1]
    assert wanted[31, 31]
    assert lattice(1, 1).all()


def test_estimates_of_some_pixels_are_those_pixels(photos: ImageSet) -> None:
    machine = make_machine("boundary", photos, size=7, tolerance=0.02)
    assert isinstance(machine, PatchMachine)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = lattice(32, 32)
    found = machine.estimate(x, 0.9, wanted=wanted)
    exact = machine.estimating(0)(x, 0.9)
    off = (found.mean - exact)[..., wanted].square().mean(dim=(1, 2)).sqrt()
    assert (off <= 0.02).all()
    assert not found.mean[..., ~wanted].any()
    assert (found.seen < 1).all()


def test_scales_of_a_machine_are_found_again(photos: ImageSet) -> None:
    """The network is a machine of known sizes, as the paper's networks nearly are."""
    known = Scales(
        "boundary", "cosine", (0,), (3, 7, 11), (1.0, 0.75, 0.5, 0.25), (11, 9, 7, 3), (), ()
    )
    network = make_machine("boundary", photos, size=known)
    machine = make_machine("boundary", photos)
    starts = Starts(photos.image_shape)
    found = fit_scales(
        network, machine.estimating(0.01), starts, range(3), steps=4, candidates=SIZES
    )
    assert found.values == (11, 9, 7, 3)
    errors = found.standard_errors()
    for t, value in enumerate(found.values):
        assert errors[t][SIZES.index(int(value))] == 0


def test_scales_of_data_are_as_good_as_those_of_all_pixels(photos: ImageSet) -> None:
    root = shared("data", "cifar10-jpeg-test.zip")
    held_out = load_images("zip", root=root, size=32, split="all", limit=3)
    machine = make_machine("boundary", photos)
    found = fit_scales_to_data(machine.estimating(0.01), held_out, steps=4, candidates=SIZES)
    exact = fit_scales_to_data(machine, held_out, steps=4, candidates=SIZES)
    # At t = 1 all sizes are as good but for a millionth.
    for losses, value in zip(exact.mean_table(), found.values, strict=True):
        assert losses[SIZES.index(int(value))] <= 1.01 * min(losses)


def test_scales_are_those_of_exact_answers_where_several_are_nearly_as_good(
    photos: ImageSet,
) -> None:
    """The network lies between machines, so that the criterion is flat and seeds differ."""
    machine = make_machine("boundary", photos.take(torch.arange(500)))

    def network(x: Tensor, t: Times, label: Labels = None) -> Tensor:
        return 0.4 * machine(x, t, label, 5) + 0.6 * machine(x, t, label, 9)

    starts = Starts(photos.image_shape)
    exact, found = (
        fit_scales(network, one, starts, range(4), steps=3, candidates=SIZES)
        for one in (machine, machine.estimating(0.01))
    )
    assert found.values == exact.values
    same = [
        a == b
        for one, other in zip(found.by_seed, exact.by_seed, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    assert sum(same) >= len(same) - 1


class Found(NamedTuple):
    """The criterion for each size and image, looks at estimates, and whether one was refused."""

    table: Tensor
    looks: list[Tensor]
    refused: bool


def search(point: Point, machine: PatchMachine, sizes: Sequence[int]) -> Found:
    """Estimates at all sizes, what completes them, and looks at what is chosen by them."""
    tables = [estimated(point, machine, k, None, "cosine") for k in sizes]
    estimates = torch.stack(tables)
    table = completed(point, estimates, machine, sizes, None, "cosine")
    checks = [
        checked(point, machine, sizes[i], None, turn=0)
        for i in to_check(table, estimates, "cosine")
    ]
    refused = any(wrong for _, wrong in checks)
    if refused:
        table = exact(point, machine, sizes, None, "cosine")
    return Found(table, [one for one, _ in checks], refused)


def test_sizes_that_take_all_patches_are_answered_in_one_pass_as_far_as_need_be(
    photos: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subsample, "_PAIR", 0)  # nothing is cheaper than all patches
    truth: Denoiser = make_machine("boundary", photos, size=5)
    machine = make_machine("boundary", photos, tolerance=0.01)
    assert isinstance(machine, PatchMachine)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    point, asked = Point(0.5, x, truth(x, 0.5)), list[object]()
    monkeypatch.setattr(
        PatchMachine,
        "at_values",
        lambda self, x, t, values, label=None: (
            asked.append(values) or Machine.at_values(self, x, t, values, label)
        ),
    )
    found = search(point, machine, SIZES)
    assert asked == [[3, 5, 7]]  # one beyond what a few images suggest
    whole = machine.estimating(0)
    want = [compare(point, whole(x, 0.5, size=k), "cosine", COSINE) for k in (3, 5, 7)]
    assert torch.allclose(found.table[:3], torch.stack(want), atol=1e-6)
    assert found.table[3:].isnan().all()
    assert not found.looks


def test_a_search_sees_what_is_best_from_afar(photos: ImageSet) -> None:
    """Every size that can be estimated is tried: curves may have two tops."""
    x0 = to_float(photos.pixels[:2])
    machine = make_machine("boundary", photos, tolerance=0.01)
    assert isinstance(machine, PatchMachine)
    for t, size in ((0.9, 13), (0.1, 3)):
        x = (COSINE.alpha(t) * x0 + COSINE.sigma(t) * torch.randn_like(x0)).float()
        truth: Denoiser = make_machine("boundary", photos, size=size)
        table = search(Point(t, x, truth(x, t)), machine, SIZES).table
        best = table.nan_to_num(nan=-1).mean(dim=1).argmax()
        assert SIZES[int(best)] == size
    assert not estimated(Point(0.9, x, x), machine, 13, None, "mse").isnan().any()


def test_what_calibration_went_by_is_checked_at_each_time(photos: ImageSet) -> None:
    network = make_machine("boundary", photos, size=7)
    machine = make_machine("boundary", photos)
    starts = Starts(photos.image_shape)
    found = fit_scales(
        network, machine.estimating(0.01), starts, range(2), steps=4, candidates=(7, 9, 5)
    )
    audit = found.audit
    assert audit is not None
    assert audit.holds
    assert 0 < audit.found < audit.tolerance == 0.01
    assert audit.t == tuple(t for t in found.t for _ in range(2))  # the size, and that beside it
    assert audit.pixels == 8 * 32
    assert not audit.refused
    assert fit_scales(network, machine, starts, [0], steps=2, candidates=(5, 7)).audit is None


def test_where_estimates_are_off_by_too_much_all_sizes_are_tried_exactly(
    photos: ImageSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As if estimates below t = 0.7 missed what holds the weight, and did not know."""
    machine = make_machine("boundary", photos.take(torch.arange(500)))
    network = make_machine("boundary", machine.images, size=7)
    estimate = PatchMachine.estimate

    def worse(
        self: PatchMachine, x: Tensor, t: Times, *args: object, **options: bool
    ) -> subsample.Estimate:
        found = estimate(self, x, t, *args, **options)
        low = torch.as_tensor(t).max() < 0.7
        return replace(found, mean=found.mean + 0.3 * x.sign()) if low else found

    monkeypatch.setattr(PatchMachine, "estimate", worse)
    starts = Starts(photos.image_shape)
    exact, found = (
        fit_scales(network, one, starts, range(2), steps=4, candidates=SIZES)
        for one in (machine, machine.estimating(0.01))
    )
    assert found.audit is not None
    assert found.audit.refused == (0.5, 0.25)
    assert set(found.audit.t) == {1.0, 0.75}
    assert found.audit.holds
    assert "exact in the end at t = 0.5, 0.25)" in str(found.audit)
    assert found.table[2:] == exact.table[2:]
    assert found.values == exact.values == (7, 7, 7, 7)
    found.save(tmp_path / "scales.json")
    assert Scales.load(tmp_path / "scales.json") == found


def test_a_wrong_estimate_that_loses_for_it_is_found_beside_the_one_that_wins(
    photos: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if estimates missed what holds the weight at the size that is the best in truth."""
    machine = make_machine("boundary", photos.take(torch.arange(500)), tolerance=0.01)
    assert isinstance(machine, PatchMachine)
    truth: Denoiser = make_machine("boundary", machine.images, size=5)
    estimate = PatchMachine.estimate

    def worse(
        self: PatchMachine, x: Tensor, t: Times, label: Labels, size: int, **options: bool
    ) -> subsample.Estimate:
        found = estimate(self, x, t, label, size, **options)
        return replace(found, mean=found.mean + 0.3 * x.sign()) if size == 5 else found

    monkeypatch.setattr(PatchMachine, "estimate", worse)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    found = search(Point(0.7, x, truth(x, 0.7)), machine, (3, 5, 7))
    assert found.refused
    assert found.looks[0][0] < 0.01 < found.looks[1][0]
    assert found.table.mean(dim=1).argmax() == 1


def test_what_some_images_alone_can_be_estimated_at_is_exact_for_the_others(
    photos: ImageSet,
) -> None:
    machine = make_machine("boundary", photos.take(torch.arange(300)), tolerance=0.01)
    assert isinstance(machine, PatchMachine)
    truth: Denoiser = make_machine("boundary", machine.images, size=5)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    point = Point(0.7, x, truth(x, 0.7))
    whole = torch.stack([estimated(point, machine, k, None, "cosine") for k in (3, 5, 7)])
    table = whole.clone()
    table[1, 0] = torch.nan
    found = completed(point, table, machine, (3, 5, 7), None, "cosine")
    want = compare(point, machine.estimating(0)(x, 0.7, size=5), "cosine", COSINE)
    assert found[1, 0] == pytest.approx(float(want[0]), abs=1e-9)
    assert torch.equal(found[whole == table], whole[whole == table])
