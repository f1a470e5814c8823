"""What a posterior carries when details are asked for, and how its parts come together."""

import numpy as np
import pytest
import torch
from conftest import random_images
from oracle import KINDS, log_weights
from torch import Tensor

from els.images import ImageSet, to_float
from els.machines import make_machine
from els.machines.engine_native import available
from els.machines.engine_torch import image_posterior
from els.machines.engines import patch_posteriors
from els.machines.places import PATCH_MACHINES
from els.machines.posterior import Posterior
from els.schedule import CosineSchedule

SCHEDULE = CosineSchedule()
ENGINES = [
    "torch",
    pytest.param(
        "native", marks=pytest.mark.skipif(available() is not None, reason=f"{available()}")
    ),
]


def noisy(images: ImageSet, times: list[float]) -> tuple[Tensor, Tensor]:
    """Noisy versions of the first images, one at each time."""
    generator = torch.Generator().manual_seed(1)
    t = torch.tensor(times, dtype=torch.float64)
    x0 = to_float(images.pixels[: len(t)]).double()
    alpha, sigma = (value.view(-1, 1, 1, 1) for value in (SCHEDULE.alpha(t), SCHEDULE.sigma(t)))
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    return (alpha * x0 + sigma * eps).float(), t


def ask(images: ImageSet, times: list[float]) -> dict[str, Tensor]:
    x, t = noisy(images, times)
    return {"x": x, "pixels": images.pixels, "alpha": SCHEDULE.alpha(t), "sigma": SCHEDULE.sigma(t)}


def assert_same(a: Posterior, b: Posterior) -> None:
    """Equal up to float32's rounding of the log-weights."""
    for name in ("peak", "mass", "moment", "square"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=5e-4, atol=5e-4)
    assert torch.equal(a.best, b.best)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_details_equal_a_naive_loop_in_float64(engine: str, kind: str, t: float) -> None:
    images = random_images(4, 2, 5, 7)
    x, times = noisy(images, [t])
    got = make_machine(kind, images, size=3, engine=engine).posterior(x, times)
    alpha, sigma = float(SCHEDULE.alpha(times)), float(SCHEDULE.sigma(times))
    query, dictionary = x[0].double().numpy(), to_float(images.pixels).double().numpy()
    for u in np.ndindex(5, 7):
        logs = log_weights(query, dictionary, alpha, sigma, kind, 3, u)
        peak = max(logs.values())
        weights = np.exp(np.array(list(logs.values())) - peak)
        effective_size = weights.sum() ** 2 / (weights**2).sum()
        assert float(got.effective_size[0, 0][u]) == pytest.approx(effective_size, rel=1e-3)
        assert float(got.square[0, 0][u]) == pytest.approx((weights**2).sum(), rel=1e-3)
        assert float(got.best_weight[0, 0][u]) == pytest.approx(1 / weights.sum(), rel=1e-3)
        best = tuple(got.best[0, :, u[0], u[1]].tolist())
        assert logs[best] == pytest.approx(peak, abs=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_best_names_images_of_the_whole_set_whatever_the_label(engine: str, kind: str) -> None:
    images = random_images(9, 1, 8, 8, classes=3)
    x, t = noisy(images, [0.2, 0.6, 0.2, 0.6])
    label = torch.tensor([2, 0, 1, 2])
    machine = make_machine(kind, images, size=3, engine=engine)
    got = machine.posterior(x, t, label)
    torch.testing.assert_close(got.mean, machine(x, t, label))
    for i, one_label in enumerate(label.tolist()):
        only = make_machine(kind, images.of_class(one_label), size=3, engine=engine)
        want = only.posterior(x[i : i + 1], t[i : i + 1])
        of_class = torch.nonzero(images.labels == one_label).flatten()
        assert_same(got.take([i]), want.with_images(of_class[want.best[:, :1]]))
    assert torch.equal(images.labels[got.best[:, 0]], label.view(-1, 1, 1).expand(-1, 8, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_no_queries_give_no_posteriors(kind: str) -> None:
    machine = make_machine(kind, random_images(), size=3)
    nothing = machine.posterior(torch.zeros(0, 1, 8, 8), torch.zeros(0))
    assert nothing.best.shape == (0, 3, 8, 8)
    assert nothing.mean.shape == (0, 1, 8, 8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", PATCH_MACHINES)
def test_merged_parts_of_the_images_equal_the_whole(engine: str, kind: str) -> None:
    asked = ask(random_images(20, 2, 8, 9), [0.1, 0.6])
    options = {"kind": kind, "sizes": [3, 5], "engine": engine, "details": True}
    whole = patch_posteriors(**asked, **options)
    parts = [
        [part.shifted(first) for part in patch_posteriors(**asked | {"pixels": pixels}, **options)]
        for first, pixels in ((0, asked["pixels"][:3]), (3, asked["pixels"][3:]))
    ]
    for one, other, both in zip(*parts, whole, strict=True):
        assert_same(one.merge(other), both)
        assert_same(other.merge(one), both)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_do_not_change_the_details(kind: str) -> None:
    images = random_images(7, 1, 6, 6)
    x, t = noisy(images, [0.1, 0.6])
    whole, chunked = (
        make_machine(kind, images, size=3, engine="torch", chunk=chunk).posterior(x, t)
        for chunk in (None, 2)
    )
    assert_same(whole, chunked)


@pytest.mark.parametrize("engine", ENGINES)
def test_details_are_none_unless_asked_for(engine: str) -> None:
    asked = ask(random_images(), [0.5])
    options = {"kind": "boundary", "sizes": [3], "engine": engine}
    (plain,), (detailed,) = (
        patch_posteriors(**asked, **options, details=details) for details in (False, True)
    )
    merged = detailed.merge(plain)
    for posterior in (plain, merged, plain.shifted(5), image_posterior(**asked)):
        assert posterior.square is None
        assert posterior.best is None
        assert posterior.effective_size is None
    torch.testing.assert_close(merged.mass, 2 * plain.mass)


def test_an_empty_part_changes_nothing() -> None:
    asked = ask(random_images(), [0.5])
    whole = image_posterior(**asked, details=True)
    nothing = Posterior.empty(asked["x"], torch.float32, details=True)
    assert_same(whole.merge(nothing), whole)
    assert_same(nothing.merge(whole), whole)
