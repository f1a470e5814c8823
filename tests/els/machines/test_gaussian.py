"""Images' moments by three ways, each against the full eigenproblem of the covariance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import random_images
from torch import Tensor

from els.images import ImageSet, load_images, to_float
from els.machines import gaussian as module
from els.machines import make_machine
from els.machines.gaussian import (
    Gaussian,
    from_covariance,
    from_inner_products,
    gaussian_of,
    gaussian_of_set,
    lanczos,
)
from els.schedule import CosineSchedule

SCHEDULE = CosineSchedule()
TIMES = torch.tensor([0.02, 0.1, 0.3, 0.6, 0.9, 1.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def garments() -> Tensor:
    """2,000 images of 256 pixels, as uint8 (n d)."""
    return load_images("garments", size=16).pixels.flatten(1)


def noised(pixels: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All images with noise (n d), alpha (n,) and sigma (n,)."""
    times = t.expand(len(pixels))
    alpha, sigma = SCHEDULE.alpha(times), SCHEDULE.sigma(times)
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
    return alpha[:, None] * to_float(pixels).double() + sigma[:, None] * eps, alpha, sigma


def errors(one: Gaussian, other: Gaussian, pixels: Tensor) -> list[float]:
    """Root mean square difference of x0_hat over noised images, at every time."""
    found = []
    for t in TIMES:
        asked = noised(pixels, t)
        found.append(float((one.denoise(*asked) - other.denoise(*asked)).square().mean().sqrt()))
    return found


@pytest.mark.parametrize("n", [1, 2, 60, 255, 256, 700])
def test_inner_products_answer_as_the_covariance(garments: Tensor, n: int) -> None:
    pixels = garments[:n]
    small, full = from_inner_products(pixels), from_covariance(pixels)
    assert max(errors(small, full, pixels)) < 1e-9
    assert small.directions.shape[1] <= min(n - 1, 256)
    own = small.directions.T @ small.directions
    torch.testing.assert_close(own, torch.eye(len(own), dtype=own.dtype), atol=1e-6, rtol=0)
    assert small.error == full.error == 0


def test_images_that_come_twice_add_no_direction(garments: Tensor) -> None:
    twice = torch.cat([garments[:40], garments[:40]])
    assert from_inner_products(twice).directions.shape == (256, 39)


def test_a_whole_basis_is_the_full_eigenproblem(garments: Tensor) -> None:
    found = lanczos(garments, tolerance=0, block=48)
    full = from_covariance(garments)
    torch.testing.assert_close(found.variances, full.variances, atol=1e-9, rtol=1e-9)
    assert max(errors(found, full, garments)) < 1e-9
    assert found.error < 1e-6


@pytest.mark.parametrize("tolerance", [0.1, 0.03, 0.01])
@pytest.mark.parametrize("block", [8, 32])
def test_the_basis_is_as_large_as_the_tolerance_asks(
    garments: Tensor, tolerance: float, block: int
) -> None:
    found = lanczos(garments, tolerance=tolerance, block=block)
    differ = max(errors(found, from_covariance(garments), garments))
    assert differ <= max(found.error, 1e-9)
    assert found.error <= tolerance
    fewer = lanczos(garments, tolerance=0, most=len(found.variances) - block, block=block)
    assert fewer.error > tolerance  # a block less would not have been enough


@pytest.mark.parametrize("most", [0, 1, 10, 100])
def test_what_a_smaller_basis_leaves_is_said(garments: Tensor, most: int) -> None:
    full, found = from_covariance(garments), lanczos(garments, most=most, block=8)
    assert found.directions.shape == (256, most)
    total = found.variances.sum() + found.rest * (256 - most)
    torch.testing.assert_close(total, full.variances.sum())
    assert max(errors(found, full, garments)) <= found.error


def test_a_basis_finds_fewer_images_than_pixels(garments: Tensor) -> None:
    pixels = garments[:100]
    found = lanczos(pixels, tolerance=1e-6, block=32)
    assert max(errors(found, from_covariance(pixels), pixels)) < 1e-6
    assert found.directions.isfinite().all()


def test_leading_directions_keep_the_variance(garments: Tensor) -> None:
    full = from_covariance(garments)
    few = full.leading(30)
    assert few.directions.shape == (256, 30)
    torch.testing.assert_close(few.variances, full.variances[-30:])
    again = few.leading(20)
    torch.testing.assert_close(again.rest * 236, float(full.variances[:-20].sum()))
    assert max(errors(few, full, garments)) <= few.error
    assert max(errors(again, full, garments)) <= again.error
    assert torch.equal(full.leading(999).directions, full.directions)


def test_a_block_of_the_filter_is_a_part_of_what_it_does(garments: Tensor) -> None:
    found = from_covariance(garments).leading(40)
    alpha, sigma = SCHEDULE.alpha(TIMES[2:3]), SCHEDULE.sigma(TIMES[2:3])
    eye, every = torch.eye(256, dtype=torch.float64), (alpha.expand(256), sigma.expand(256))
    answers = found.denoise(eye, *every) - found.denoise(0 * eye, *every)
    rows, columns = slice(0, 100), slice(100, 256)
    for one, other in ((rows, rows), (rows, columns), (columns, rows)):
        torch.testing.assert_close(
            found.filter(alpha, sigma, one, other), answers[other, one].T, atol=1e-10, rtol=0
        )


@pytest.mark.parametrize("n", [30, 100, 300])
def test_no_large_eigenproblem_is_solved(
    garments: Tensor, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    eigh = torch.linalg.eigh

    def counted(matrix: Tensor, **options: str) -> object:
        sizes.append(len(matrix))
        return eigh(matrix, **options)

    monkeypatch.setattr(torch.linalg, "eigh", counted)
    monkeypatch.setattr(module, "MOST", 64)
    found = gaussian_of(garments[:n])
    assert max(sizes) <= 64
    assert found.directions.shape[1] <= 64


def test_moments_are_kept_by_what_the_images_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_kept", type(module._kept)())
    one, same, other = random_images(), random_images(), random_images(seed=1)
    found = gaussian_of_set(one)
    assert gaussian_of_set(same) is found
    assert gaussian_of_set(other) is not found
    monkeypatch.setattr(module, "_MOST_BYTES", 1)
    gaussian_of_set(random_images(seed=2))
    assert gaussian_of_set(same) is not found  # there was no room for two


def test_moments_that_take_long_stay_on_disk(
    tmp_path: Path, garments: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageSet(garments.view(-1, 1, 16, 16))
    monkeypatch.setenv("ELS_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "MOST", 128)
    computed: list[int] = []

    def counted(values: Tensor) -> Gaussian:
        computed.append(len(values))
        return lanczos(values, most=128)

    monkeypatch.setattr(module, "lanczos", counted)

    def again() -> Gaussian:
        monkeypatch.setattr(module, "_kept", type(module._kept)())
        return gaussian_of_set(images)

    first = again()
    assert torch.equal(again().directions, first.directions)
    assert again().error == first.error
    assert len(computed) == 1
    (path,) = (tmp_path / "moments").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    assert torch.equal(again().directions, first.directions)
    assert len(computed) == 2
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("in the way")  # a cache folder that cannot be written to
    assert torch.equal(again().directions, first.directions)


@pytest.mark.parametrize("kind", ["wiener", "pca_local"])
def test_machines_of_a_basis_answer_much_as_those_of_all_directions(
    kind: str, garments: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageSet(garments[:600].view(-1, 1, 16, 16))
    monkeypatch.setenv("ELS_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_kept", type(module._kept)())
    x = noised(garments[600:608], TIMES[3])[0].view(-1, 1, 16, 16)
    value = 0.2 if kind == "pca_local" else None
    want = make_machine(kind, images)(x, TIMES[3], size=value)
    monkeypatch.setattr(module, "MOST", 160)
    module._kept.clear()
    got = make_machine(kind, images)(x, TIMES[3], size=value)
    assert 0 < gaussian_of_set(images).error <= 0.1
    assert 0 < (got - want).square().mean().sqrt() < 0.02


def test_images_of_64_by_64_solve_the_equations_of_fewer_images_than_pixels() -> None:
    images = random_images(9, 3, 64, 64)
    alpha, sigma = (float(of(TIMES[2])) for of in (SCHEDULE.alpha, SCHEDULE.sigma))
    y = to_float(images.pixels).flatten(1).double()
    mean, centred = y.mean(0), y - y.mean(0)
    x = alpha * y[:3] + sigma * torch.randn(3, 12288, generator=torch.Generator().manual_seed(0))
    # alpha C (alpha^2 C + sigma^2)^-1 = alpha Y^T (alpha^2 Y Y^T + n sigma^2)^-1 Y
    inner = alpha**2 * centred @ centred.T + 9 * sigma**2 * torch.eye(9, dtype=torch.float64)
    weights = torch.linalg.solve(inner, centred @ (x - alpha * mean).T)
    truth = mean + alpha * (centred.T @ weights).T
    answer = make_machine("wiener", images)(x.view(3, 3, 64, 64), TIMES[2])
    torch.testing.assert_close(answer.flatten(1), truth, atol=1e-10, rtol=0)
