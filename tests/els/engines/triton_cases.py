"""What the Triton engine must compute: run by test_engine_triton.py, in a process of its own.

Triton decides when it is imported whether its kernels run in the interpreter, and the images have
to be tiny there.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import assert_images_told
from oracle import log_weights
from queries import reference, triton
from torch import Tensor

from els.engines import triton_engine
from els.engines.dictionary import RULES
from els.engines.posterior import Posterior
from els.engines.triton_engine import interpreted
from els.errors import InputError
from els.images import to_float
from els.schedule import CosineSchedule

DEVICE = "cpu" if interpreted() else "cuda"
# (n, c, h, w)
SHAPES = [(2, 1, 5, 4), (2, 2, 3, 5), (3, 3, 3, 4), (1, 4, 5, 3)]
if not interpreted():
    SHAPES += [(37, 4, 6, 11), (50, 3, 32, 32), (20, 1, 28, 28), (9, 3, 40, 70), (5, 2, 1, 90)]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Several images and displacements for each program, as there are with large sets."""
    monkeypatch.setattr(triton_engine, "_PROGRAMS", 5)
    monkeypatch.setattr(triton_engine, "_IMAGES", 2)


def coefficients(times: list[float]) -> tuple[Tensor, Tensor]:
    t = torch.tensor(times, dtype=torch.float64)
    return CosineSchedule().alpha(t), CosineSchedule().sigma(t)


def noisy(pixels: Tensor, times: list[float], generator: torch.Generator) -> Tensor:
    alpha, sigma = (value.float().view(-1, 1, 1, 1) for value in coefficients(times))
    clean = to_float(pixels[torch.arange(len(times)) % len(pixels)])
    return alpha * clean + sigma * torch.randn(clean.shape, generator=generator)


def random_case(
    shape: tuple[int, int, int, int], times: list[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy copies of random images: x (b c h w), pixels (n c h w), alpha (b,), sigma (b,)."""
    generator = torch.Generator().manual_seed(sum(shape))
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return noisy(pixels, times, generator), pixels, *coefficients(times)


def sizes_for(kind: str, h: int, w: int) -> list[int]:
    largest = min(h, w) if kind == "equivariant" else min(2 * max(h, w) - 1, 17)
    return list(range(1, largest + 1, 2))


def check(x: Tensor, pixels: Tensor, alpha: Tensor, sigma: Tensor, *, kind: str, sizes: list[int],
          details: bool = False):  # fmt: skip
    """Hold the answers at every size to the torch engine in float64."""
    ask = {"kind": kind, "details": details}
    got_all = triton(x.to(DEVICE), pixels, alpha, sigma, sizes=sizes, **ask)
    to_score = (alpha / sigma**2).view(-1, 1, 1, 1)
    for size, got in zip(sizes, got_all, strict=True):
        want = reference(x.double(), pixels, alpha, sigma, size=size, **ask)
        assert got.mean.dtype == torch.float32
        assert got.mean.device.type == DEVICE
        score = to_score * want.mean - x.double() / sigma.view(-1, 1, 1, 1) ** 2
        error = to_score * (got.mean.cpu().double() - want.mean)
        relative = error.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)
        assert relative.max() < 5e-5, f"k = {size}"
        torch.testing.assert_close(got.log_normaliser.cpu().double(), want.log_normaliser,
                                   rtol=1e-6, atol=2e-4)  # fmt: skip
        assert (got.details is None) == (not details)
        if details:
            torch.testing.assert_close(got.effective_size.cpu().double(), want.effective_size,
                                       rtol=1e-3, atol=0)  # fmt: skip
            assert torch.equal(got.best.cpu(), want.best)
            check_images(got, want)


def check_images(got: Posterior, want: Posterior) -> None:
    torch.testing.assert_close(got.top_share.cpu().double(), want.top_share, rtol=1e-3, atol=0)
    torch.testing.assert_close(got.entropy.cpu().double(), want.entropy, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got.told.second_peak.cpu().double(), want.told.second_peak,
                               rtol=1e-5, atol=2e-4)  # fmt: skip
    there = want.told.second_peak.isfinite()
    assert torch.equal(got.second.cpu() * there, want.second * there)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", RULES)
def test_every_size_equals_the_torch_engine_in_float64(kind, shape):
    times = [0.1] if interpreted() else [0.1, 0.8]
    check(*random_case(shape, times), kind=kind, sizes=sizes_for(kind, *shape[2:]))


@pytest.mark.parametrize("shape", [(1, 1, 9, 3), (1, 1, 3, 13), (1, 1, 5, 5)], ids=str)
@pytest.mark.parametrize("kind", RULES)
def test_images_larger_than_a_tile(kind, shape, monkeypatch):
    """Windows reach over one tile, over several, over a part of one, and round the image."""
    if interpreted():
        monkeypatch.setattr(triton_engine, "_LEAST_TILE", 4)
        monkeypatch.setattr(triton_engine, "_MOST_TILE", 4)
    else:
        shape = (2, 1, 9 * shape[2], 9 * shape[3])
    sizes = [size for size in sizes_for(kind, *shape[2:]) if size in (3, 7, 17)]
    check(*random_case(shape, [0.3]), kind=kind, sizes=sizes)


@pytest.mark.parametrize(("kind", "sizes"), [("local", [3, 35]), ("boundary", [39])])
def test_tiles_of_their_real_size(kind, sizes):
    """With few displacements, so that the interpreter can do it."""
    check(*random_case((3, 3, 40, 20), [0.3]), kind=kind, sizes=sizes)


@pytest.mark.parametrize("kind", RULES)
def test_details_equal_the_torch_engine_in_float64(kind, monkeypatch):
    """Also over several parts and chunks of images, whose indices start anew."""
    monkeypatch.setattr(triton_engine, "_IMAGE_BYTES", 2 * 2 * 4 * 3)
    check(*random_case((5, 2, 4, 3), [0.3]), kind=kind, sizes=[3], details=True)


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("programs", [1, 1000])
def test_top_and_second_equal_a_naive_loop_in_float64(kind, programs, monkeypatch):
    """With all images in one part, and with a part for each."""
    monkeypatch.setattr(triton_engine, "_PROGRAMS", programs)
    x, pixels, alpha, sigma = random_case((4, 1, 3, 4), [0.6])
    (got,) = triton(x.to(DEVICE), pixels, alpha, sigma, kind=kind, sizes=[3],
                              details=True)  # fmt: skip
    query, images = x[0].double().numpy(), to_float(pixels).double().numpy()
    for u in np.ndindex(3, 4):
        assert_images_told(
            got, u, log_weights(query, images, float(alpha), float(sigma), kind, 3, u)
        )


@pytest.mark.parametrize("kind", RULES)
def test_one_image_has_no_second(kind):
    check(*random_case((1, 2, 3, 4), [0.3]), kind=kind, sizes=[1, 3], details=True)


@pytest.mark.parametrize("programs", [1, 1000])
def test_of_two_equal_images_one_is_best_and_one_second(programs, monkeypatch):
    monkeypatch.setattr(triton_engine, "_PROGRAMS", programs)
    x, pixels, alpha, sigma = random_case((3, 2, 3, 4), [0.05])
    pixels[2] = pixels[0]
    (got,) = triton(x.to(DEVICE), pixels, alpha, sigma, kind="local", sizes=[3],
                              details=True)  # fmt: skip
    torch.testing.assert_close(got.top_share, torch.full_like(got.mass, 0.5))
    torch.testing.assert_close(got.told.second_peak, got.peak)
    assert (got.best[:, 0] + got.second[:, 0] == 2).all()
    assert (got.best[:, 0] != got.second[:, 0]).all()


@pytest.mark.parametrize("kind", RULES)
def test_near_duplicates_at_low_noise(kind):
    """At alpha / sigma^2 = 160 images that differ by single grey levels share the weight."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(8, 248, (2, 3, 5, 5), generator=generator)
    shifts = torch.randint(-3, 4, (5, 3, 5, 5), generator=generator)
    pixels = (base[torch.arange(5) % 2] + shifts).to(torch.uint8)
    x = noisy(pixels, [0.05], generator)
    check(x, pixels, *coefficients([0.05]), kind=kind, sizes=[3])


def test_weights_that_all_underflow_are_not_lost():
    x, pixels, alpha, sigma = random_case((4, 3, 4, 3), [0.05])
    x = x + 20
    (got,) = triton(x.to(DEVICE), pixels, alpha, sigma, kind="boundary", sizes=[3])
    want = reference(x.double(), pixels, alpha, sigma, kind="boundary", size=3)
    assert want.log_normaliser.max() < -1e5
    assert (got.mean.cpu() - want.mean).abs().max() < 0.05  # float32 keeps 7 digits of the weights
    torch.testing.assert_close(got.log_normaliser.cpu().double(), want.log_normaliser,
                               rtol=1e-5, atol=0)  # fmt: skip


def test_chunks_parts_and_batches_agree(monkeypatch):
    x, pixels, alpha, sigma = random_case((5, 1, 3, 4), [0.1, 0.4, 0.9])
    want = triton(x.to(DEVICE), pixels, alpha, sigma, kind="boundary", sizes=[3])[0]
    for name, value in (("_TERMS", 3), ("_IMAGE_BYTES", 3 * 12), ("_BUDGET", 1)):  # cumulatively
        monkeypatch.setattr(triton_engine, name, value)
        (got,) = triton(x.to(DEVICE), pixels, alpha, sigma, kind="boundary", sizes=[3])
        torch.testing.assert_close(got.mean, want.mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.log_normaliser, want.log_normaliser, rtol=1e-5, atol=1e-5)


def test_sizes_in_any_order_and_images_not_contiguous():
    x, pixels, alpha, sigma = random_case((4, 2, 3, 3), [0.5])
    ask = {"kind": "local"}
    small, big = triton(x.to(DEVICE), pixels, alpha, sigma, sizes=[1, 5], **ask)
    strided = pixels.to(memory_format=torch.channels_last)
    again = triton(x.to(DEVICE), strided, alpha, sigma, sizes=[5, 1, 5], **ask)
    assert [p.mean.tolist() for p in again] == [p.mean.tolist() for p in (big, small, big)]


def test_no_images_and_no_queries():
    x, pixels, alpha, sigma = random_case((4, 1, 8, 8), [0.5, 0.6])
    x = x.to(DEVICE)
    (nothing,) = triton(x, pixels[:0], alpha, sigma, kind="boundary", sizes=[3])
    assert nothing.peak.isneginf().all()
    assert not nothing.mass.any()
    (empty,) = triton(x[:0], pixels, alpha[:0], sigma[:0], kind="boundary", sizes=[3])
    assert empty.mean.shape == (0, 1, 8, 8)


def test_bad_input_is_refused():
    x, pixels, alpha, sigma = random_case((4, 1, 8, 8), [0.5])
    ask = {"kind": "boundary", "sizes": [3]}
    with pytest.raises(InputError, match="shape"):
        triton(x, pixels[..., :7], alpha, sigma, **ask)
    with pytest.raises(InputError, match="the triton engine takes 1 to 4"):
        triton(x.expand(-1, 5, -1, -1), pixels.expand(-1, 5, -1, -1), alpha, sigma, **ask)
    with pytest.raises(InputError, match="NaN"):
        triton(x * torch.nan, pixels, alpha, sigma, **ask)
