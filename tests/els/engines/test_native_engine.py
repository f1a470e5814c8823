"""The compiled engine against the PyTorch one in float64, and how it is built and kept."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from queries import assert_held_alike, native, reference
from torch import Tensor

from els.denoiser import add_noise
from els.engines import compiled, native_engine
from els.engines.dictionary import RULES
from els.engines.native_engine import NativeUnavailableError, available
from els.engines.posterior import Posterior
from els.errors import InputError
from els.images import load_images, to_float
from els.sampling import seeded_noise
from els.schedule import CosineSchedule

ROOT = Path(__file__).parents[3]
# (n, c, h, w): odd, even, oblong and thin images, fewer and more than the lanes of a vector.
SHAPES = [(1, 1, 8, 8), (5, 2, 7, 9), (16, 3, 12, 10), (37, 4, 6, 11), (20, 3, 16, 16),
          (33, 1, 5, 14), (3, 2, 1, 5)]  # fmt: skip

without_compiler = available()
needs_compiler = pytest.mark.skipif(without_compiler is not None, reason=str(without_compiler))


def random_case(
    shape: tuple[int, int, int, int], times: list[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy copies of random images: x (b c h w), pixels (n c h w), alpha (b,), sigma (b,)."""
    generator = torch.Generator().manual_seed(sum(shape))
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return noisy(pixels, times, generator), pixels, *coefficients(times)


def noisy(pixels: Tensor, times: list[float], generator: torch.Generator) -> Tensor:
    alpha, sigma = (value.float().view(-1, 1, 1, 1) for value in coefficients(times))
    clean = to_float(pixels[torch.arange(len(times)) % len(pixels)])
    return alpha * clean + sigma * torch.randn(clean.shape, generator=generator)


def coefficients(times: list[float]) -> tuple[Tensor, Tensor]:
    t = torch.tensor(times, dtype=torch.float64)
    return CosineSchedule().alpha(t), CosineSchedule().sigma(t)


def sizes_for(kind: str, h: int, w: int) -> list[int]:
    return list(range(1, (min(h, w) if kind == "equivariant" else 2 * max(h, w) - 1) + 1, 2))


def score_errors(
    x0_hat: Tensor, reference: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """Relative L2 error of the score of each query (b,)."""
    alpha, sigma = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    score = (alpha * reference.double() - x.double()) / sigma**2
    error = alpha * (x0_hat.double() - reference.double()) / sigma**2
    return error.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", RULES)
def test_every_size_equals_the_torch_engine_in_float64(kind, shape):
    x, pixels, alpha, sigma = random_case(shape, [0.1, 0.5, 1.0])
    # Of the largest images every third size: the reference takes seconds for each.
    sizes = sizes_for(kind, *shape[2:])[:: 3 if shape[2:] == (16, 16) else 1]
    posteriors = native(x, pixels, alpha, sigma, kind=kind, sizes=sizes)
    for size, got in zip(sizes, posteriors, strict=True):
        want = reference(x.double(), pixels, alpha, sigma, kind=kind, size=size)
        assert got.mean.dtype == torch.float32
        assert score_errors(got.mean, want.mean, x, alpha, sigma).max() < 5e-5
        torch.testing.assert_close(got.log_normaliser.double(), want.log_normaliser,
                                   rtol=1e-6, atol=2e-4)  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("kind", RULES)
def test_one_size_equals_the_same_size_among_many(kind):
    x, pixels, alpha, sigma = random_case((18, 3, 13, 11), [0.2, 0.7])
    sizes = sizes_for(kind, 13, 11)
    together = native(x, pixels, alpha, sigma, kind=kind, sizes=sizes)
    for size, one_of_many in zip(sizes, together, strict=True):
        (alone,) = native(x, pixels, alpha, sigma, kind=kind, sizes=[size])
        torch.testing.assert_close(alone.mean, one_of_many.mean, rtol=1e-4, atol=1e-4)


@needs_compiler
def test_sizes_come_back_in_the_order_asked_for():
    x, pixels, alpha, sigma = random_case((4, 1, 8, 8), [0.5])
    ask = {"kind": "boundary"}
    big, small, again = native(x, pixels, alpha, sigma, sizes=[7, 3, 7], **ask)
    small_first = native(x, pixels, alpha, sigma, sizes=[3, 7], **ask)
    torch.testing.assert_close(small.mean, small_first[0].mean)
    torch.testing.assert_close(big.mean, small_first[1].mean)
    assert torch.equal(big.mean, again.mean)


@needs_compiler
@pytest.mark.parametrize("kind", RULES)
def test_near_duplicates_at_low_noise(kind):
    """At alpha / sigma^2 = 160 images that differ by single grey levels share the weight."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(8, 248, (3, 3, 14, 14), generator=generator)
    shifts = torch.randint(-3, 4, (24, 3, 14, 14), generator=generator)
    pixels = (base.repeat(8, 1, 1, 1) + shifts).to(torch.uint8)
    times = [0.05, 0.05]
    x, (alpha, sigma) = noisy(pixels, times, generator), coefficients(times)
    sizes = [3, 7, 11, 13]
    posteriors = native(x, pixels, alpha, sigma, kind=kind, sizes=sizes)
    for size, got in zip(sizes, posteriors, strict=True):
        want = reference(x.double(), pixels, alpha, sigma, kind=kind, size=size)
        assert score_errors(got.mean, want.mean, x, alpha, sigma).max() < 1e-4


@needs_compiler
@pytest.mark.parametrize("kind", RULES)
def test_threads_batches_and_chunks_agree(kind, monkeypatch):
    x, pixels, alpha, sigma = random_case((70, 3, 9, 12), [0.1, 0.4, 0.9])
    ask = {"kind": kind, "sizes": [3, 7]}
    want = native(x, pixels, alpha, sigma, threads=1, **ask)
    others = [native(x, pixels, alpha, sigma, threads=n, **ask) for n in (2, 5)]
    single = [native(x[i : i + 1], pixels, alpha[i : i + 1], sigma[i : i + 1], **ask)
              for i in range(3)]  # fmt: skip
    monkeypatch.setattr(native_engine, "_PAIRS_PER_CALL", 1)
    others.append(native(x, pixels, alpha, sigma, threads=1, **ask))
    for i, posterior in enumerate(want):
        for other in others:
            torch.testing.assert_close(other[i].mean, posterior.mean, rtol=1e-5, atol=1e-6)
        batch = torch.cat([one[i].mean for one in single])
        torch.testing.assert_close(batch, posterior.mean, rtol=1e-5, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("shape", [(70, 3, 9, 12), (33, 1, 5, 14)], ids=str)
@pytest.mark.parametrize("kind", RULES)
def test_details_equal_the_torch_engine_in_float64(kind, shape, monkeypatch):
    x, pixels, alpha, sigma = random_case(shape, [0.04, 0.1, 0.5])
    ask = {"kind": kind, "sizes": [3, 5], "details": True}
    answers = [native(x, pixels, alpha, sigma, threads=n, **ask) for n in (1, 3)]
    monkeypatch.setattr(native_engine, "_PAIRS_PER_CALL", 1)
    answers.append(native(x, pixels, alpha, sigma, threads=1, **ask))
    plain = native(x, pixels, alpha, sigma, threads=1, **ask | {"details": False})
    for i, size in enumerate(ask["sizes"]):
        want = reference(x.double(), pixels, alpha, sigma, kind=kind, size=size, details=True)
        for got in (answer[i] for answer in answers):
            torch.testing.assert_close(got.mean, plain[i].mean, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(got.effective_size.double(), want.effective_size,
                                       rtol=2e-3, atol=0)  # fmt: skip
            # Where the first two are as good as equal, rounding may choose the second.
            assert (got.best == want.best).all(dim=1).double().mean() > 0.99
            assert (got.second == want.second).all(dim=1).double().mean() > 0.99
            torch.testing.assert_close(got.told.second_peak.double(), want.told.second_peak,
                                       rtol=1e-5, atol=1e-3)  # fmt: skip
            torch.testing.assert_close(got.top_share.double(), want.top_share, rtol=2e-3, atol=0)
            torch.testing.assert_close(got.entropy.double(), want.entropy, rtol=1e-3, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", RULES)
def test_places_not_asked_for_stay_empty_and_leave_the_others_alone(kind, shape, share):
    x, pixels, alpha, sigma = random_case(shape, [0.1, 0.8])
    wanted = torch.rand(2, *shape[2:], generator=torch.Generator().manual_seed(1)) < share
    wanted[0, -1, -1] = True
    sizes = sizes_for(kind, *shape[2:])
    for asked in (sizes, sizes[:1], sizes[-1:], sizes[len(sizes) // 2 :][:2]):
        some = native(x, pixels, alpha, sigma, kind=kind, sizes=asked, details=True, wanted=wanted)
        whole = native(x, pixels, alpha, sigma, kind=kind, sizes=asked, details=True)
        for got, full in zip(some, whole, strict=True):
            want = full.masked(wanted)
            assert_held_alike(got, want, 2e-4)


@needs_compiler
def test_images_mapped_from_a_file_and_not_contiguous(tmp_path):
    x, pixels, alpha, sigma = random_case((20, 3, 8, 8), [0.5])
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "pixels.npy", mmap_mode="c"))
    strided = pixels.to(memory_format=torch.channels_last)
    want, *others = (native(x, images, alpha, sigma, kind="boundary", sizes=[3])[0].mean
                     for images in (pixels, mapped, strided))  # fmt: skip
    assert all(torch.equal(want, other) for other in others)


@needs_compiler
def test_no_images_and_no_queries():
    x, pixels, alpha, sigma = random_case((4, 1, 8, 8), [0.5, 0.6])
    (nothing,) = native(x, pixels[:0], alpha, sigma, kind="boundary", sizes=[3])
    assert nothing.peak.isneginf().all()
    assert not nothing.mass.any()
    (empty,) = native(x[:0], pixels, alpha[:0], sigma[:0], kind="boundary", sizes=[3])
    assert empty.mean.shape == (0, 1, 8, 8)


@needs_compiler
def test_bad_input_is_refused():
    x, pixels, alpha, sigma = random_case((4, 1, 8, 8), [0.5])
    ask = {"kind": "boundary", "sizes": [3]}
    with pytest.raises(InputError, match="shape"):
        native(x, pixels[..., :7], alpha, sigma, **ask)
    with pytest.raises(InputError, match="channels"):
        native(x.expand(-1, 5, -1, -1), pixels.expand(-1, 5, -1, -1), alpha, sigma, **ask)
    with pytest.raises(InputError, match="NaN"):
        native(x * torch.nan, pixels, alpha, sigma, **ask)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, for this process and those it starts."""
    monkeypatch.setenv("ELS_CACHE", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    native_engine.library.cache_clear()
    yield tmp_path
    native_engine.library.cache_clear()


@pytest.fixture
def quick(cache, tmp_path_factory, monkeypatch):
    """A compiler that does not optimise: what is tested here is when it runs, not what it makes."""
    script = tmp_path_factory.mktemp("compiler") / "quick"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(native_engine._compiler())} "$@" -O0\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))


def start() -> subprocess.Popen:
    """Another process that says whether the engine is available there."""
    code = "from els.engines.native_engine import available; print(available())"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE)  # fmt: skip


@needs_compiler
@pytest.mark.usefixtures("quick")
def test_two_processes_build_at_once_and_a_third_does_not(cache):
    both = [start(), start()]
    assert [process.communicate()[0].strip() for process in both] == ["None", "None"]
    library, digest = sorted((cache / "compiled").iterdir())
    assert digest.name == f"{library.name}.sha256"
    built = library.stat()
    assert start().communicate()[0].strip() == "None"
    assert (library.stat().st_mtime_ns, library.stat().st_ino) == (built.st_mtime_ns, built.st_ino)


@needs_compiler
@pytest.mark.usefixtures("quick")
def test_a_damaged_library_is_built_anew(cache):
    compiled.own_folder()
    name = f"native-{native_engine._fingerprint(native_engine._compiler())}.so"
    library = cache / "compiled" / name
    library.write_bytes(b"half a file")
    assert available() is None
    assert library.stat().st_size > 1000


def test_without_a_compiler_there_is_a_reason(cache, monkeypatch):
    monkeypatch.setenv("PATH", str(cache))
    assert "no C++ compiler" in available()
    monkeypatch.setenv("CXX", "absent-compiler")
    assert "absent-compiler" in available()
    x, pixels, alpha, sigma = random_case((2, 1, 4, 4), [0.5])
    with pytest.raises(NativeUnavailableError):
        native(x, pixels, alpha, sigma, kind="local", sizes=[3])


@needs_compiler
def test_a_compiler_that_fails_leaves_nothing_behind(cache, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    assert "does not compile" in available()
    assert not list((cache / "compiled").iterdir())


@pytest.mark.parametrize(
    ("message", "calls"),
    [("no such file", 1), ("bad value 'native' for '-march='", 2), ("unknown target CPU", 3)],
)
def test_a_compiler_that_fails_is_asked_again_only_where_it_does_not_know_the_machine(
    message, calls, cache, monkeypatch
):
    script = cache / "failing"
    script.write_text(f'#!/bin/sh\necho x >> {cache}/calls\necho "{message}" >&2\nexit 1\n')
    script.chmod(0o755)
    with pytest.raises(NativeUnavailableError, match=message):
        native_engine.compile_library([], cache / "built.so", [str(script)])
    assert len((cache / "calls").read_text().split()) == calls


@needs_compiler
def test_a_cache_that_cannot_be_written_says_how_to_move_it(cache, monkeypatch):
    (cache / "file").touch()
    monkeypatch.setenv("ELS_CACHE", str(cache / "file"))
    assert "ELS_CACHE" in available()


def test_equal_patches_are_told_apart_alike_by_any_number_of_threads_and_any_batch() -> None:
    """Digits are full of equal patches; which of them wins depends on their images' order alone."""
    images = load_images("digits")
    schedule, t = CosineSchedule(), torch.full((3,), 0.05, dtype=torch.float64)
    x = add_noise(to_float(images.pixels[:3]), seeded_noise(range(3), (1, 16, 16)), t, schedule)

    def best(rows: slice, threads: int) -> Posterior:
        at = t[rows]
        (found,) = native(
            x[rows], images.pixels, schedule.alpha(at), schedule.sigma(at), kind="boundary",
            sizes=[3], threads=threads, details=True,
        )  # fmt: skip
        return found

    together = best(slice(None), 1)
    for threads in (1, 2, 8):
        alone = Posterior.cat([best(slice(i, i + 1), threads) for i in range(3)])
        for found in (best(slice(None), threads), alone):
            assert torch.equal(found.best, together.best)
            assert torch.equal(found.second, together.second)
