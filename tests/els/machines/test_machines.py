"""The four machines against the definition, the paper's own code, and what must hold of them."""

import itertools

import numpy as np
import pytest
import torch
from conftest import random_images, shared
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import KINDS, posterior_mean
from torch import Tensor

from els.denoiser import score_from_x0
from els.engines.native_engine import available
from els.errors import InputError
from els.images import ImageSet, load_images, to_float
from els.machines import make_machine
from els.schedule import CosineSchedule

SCHEDULE = CosineSchedule()
PAPER_NAMES = {"is": "ideal", "ls": "local", "els": "equivariant", "bbels": "boundary"}


ENGINES = [
    pytest.param("torch"),
    pytest.param(
        "native", marks=pytest.mark.skipif(available() is not None, reason=f"{available()}")
    ),
]


def noisy(images: ImageSet, b: int, t: float, seed: int = 1) -> tuple[Tensor, Tensor]:
    """b noisy versions of the first images at time t."""
    generator = torch.Generator().manual_seed(seed)
    x0 = to_float(images.pixels)[torch.arange(b) % len(images)]
    eps = torch.randn(x0.shape, generator=generator)
    x = SCHEDULE.alpha(t) * x0 + SCHEDULE.sigma(t) * eps
    return x.float(), torch.full((b,), t, dtype=torch.float64)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "size"), [((1, 6, 6), 3), ((2, 5, 7), 3), ((3, 6, 5), 5)])
@pytest.mark.parametrize("t", [0.05, 0.4, 1.0])
def test_equals_a_naive_loop_in_float64(
    engine: str, kind: str, shape: tuple[int, int, int], size: int, t: float
) -> None:
    images = random_images(4, *shape)
    x, times = noisy(images, 1, t)
    at = torch.tensor(t, dtype=torch.float64)
    truth = posterior_mean(
        x[0].double().numpy(), to_float(images.pixels).double().numpy(),
        float(SCHEDULE.alpha(at)), float(SCHEDULE.sigma(at)), kind, size,
    )  # fmt: skip
    answer = make_machine(kind, images, size=size, engine=engine)(x, times)[0].double()
    score, true_score = (
        score_from_x0(x.double(), x0_hat[None], times, SCHEDULE)
        for x0_hat in (answer, torch.from_numpy(truth))
    )
    assert relative(score, true_score) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("data", ["mnist", "cifar10"])
def test_equals_the_papers_own_code(data: str, engine: str) -> None:
    golden = np.load(shared("golden", f"machines_{data}.npz"))
    images = ImageSet(torch.from_numpy(golden["images"]), torch.from_numpy(golden["labels"]).long())
    label = images.labels[3:4]
    cases = [key for key in golden if key.split("/")[0] in PAPER_NAMES]
    assert len(cases) > 50
    for key in cases:
        kind, step, *rest = key.split("/")
        i = int(step.removeprefix("t"))
        size = next((int(part[1:]) for part in rest if part.startswith("k")), None)
        x, t = torch.from_numpy(golden["x"][i : i + 1]), torch.tensor([golden["t"][i]])
        machine = make_machine(PAPER_NAMES[kind], images, engine=engine)
        x0_hat = machine(x, t, label if "labelled" in rest else None, size=size)
        score = score_from_x0(x, x0_hat, t, SCHEDULE)[0]
        bound = 2e-3 if golden["t"][i] == 0.1 else 1e-3
        assert relative(score, torch.from_numpy(golden[key])) < bound, key


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0.05, 0.6])
def test_chunks_batches_and_order_do_not_matter(engine: str, kind: str, t: float) -> None:
    images = random_images(9, 2, 8, 8)
    x, times = noisy(images, 3, t)
    ask = {"size": 3, "engine": engine}
    expected = make_machine(kind, images, **ask)(x, times)
    for chunk in (1, 7, len(images)):
        torch.testing.assert_close(
            make_machine(kind, images, chunk=chunk, **ask)(x, times), expected
        )
    machine = make_machine(kind, images, **ask)
    for b in (1, 2):
        parts = [machine(*part) for part in zip(x.split(b), times.split(b), strict=True)]
        torch.testing.assert_close(torch.cat(parts), expected)
    shuffled = images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(make_machine(kind, shuffled, **ask)(x, times), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_different_times_and_labels_equals_its_singletons(kind: str) -> None:
    images = random_images(8, 1, 8, 8, classes=2)
    x = torch.cat([noisy(images, 1, t)[0] for t in (0.1, 0.5, 0.5, 0.9)])
    times, label = torch.tensor([0.1, 0.5, 0.5, 0.9]), torch.tensor([0, 1, 0, 1])
    machine = make_machine(kind, images, size=3)
    alone = [machine(x[i : i + 1], times[i : i + 1], label[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(machine(x, times, label), torch.cat(alone))
    only = make_machine(kind, images.of_class(1), size=3)
    torch.testing.assert_close(machine(x, times, label)[1::2], only(x, times)[1::2])


@pytest.mark.parametrize("t", [0.1, 0.7])
def test_a_local_window_over_everything_is_the_ideal_score(t: float) -> None:
    images = random_images(6, 1, 6, 5)
    x, times = noisy(images, 2, t)
    torch.testing.assert_close(
        make_machine("local", images, size=11)(x, times), make_machine("ideal", images)(x, times)
    )


@pytest.mark.parametrize(("h", "size"), [(7, 7), (8, 9), (6, 11)])
def test_a_boundary_window_as_large_as_the_image_is_local(h: int, size: int) -> None:
    images = random_images(6, 1, h, h)
    x, times = noisy(images, 2, 0.5)
    boundary, local = (
        make_machine(kind, images, size=size)(x, times) for kind in ("boundary", "local")
    )
    torch.testing.assert_close(boundary, local)


@settings(max_examples=20, deadline=None)
@given(dy=st.integers(-8, 8), dx=st.integers(-8, 8), t=st.sampled_from([0.1, 0.5, 0.9]))
def test_shifting_the_query_shifts_the_equivariant_answer(dy: int, dx: int, t: float) -> None:
    images = random_images(5, 2, 8, 7)
    x, times = noisy(images, 1, t)
    machine = make_machine("equivariant", images, size=3)
    shifted = machine(x.roll((dy, dx), dims=(2, 3)), times)
    torch.testing.assert_close(
        shifted, machine(x, times).roll((dy, dx), dims=(2, 3)), atol=1e-5, rtol=0
    )


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    size=st.sampled_from([1, 3, 5]),
    t=st.floats(0.01, 1.0),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_the_posterior_mean_lies_within_the_training_pixels(
    kind: str, size: int, t: float, scale: float, seed: int
) -> None:
    images = random_images(4, 2, 6, 6, seed=seed)
    x = scale * torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    x0_hat = make_machine(kind, images, size=size)(x, torch.tensor([t]))
    low, high = (to_float(images.pixels.amin((0, 2, 3))), to_float(images.pixels.amax((0, 2, 3))))
    assert x0_hat.isfinite().all()
    assert (x0_hat >= low[:, None, None] - 1e-4).all()
    assert (x0_hat <= high[:, None, None] + 1e-4).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_near_duplicates_at_low_noise_are_told_apart_as_in_float64(engine: str) -> None:
    # alpha / sigma^2 is above 160 here, so the softmax is a hard choice between close patches.
    base = load_images("digits", size=16, limit=40)
    generator = torch.Generator().manual_seed(0)
    nudge = torch.randint(-2, 3, base.pixels.shape, generator=generator)
    twins = (base.pixels.int() + nudge).clamp(0, 255).to(torch.uint8)
    images = ImageSet(torch.cat([base.pixels, twins]))
    x, times = noisy(images, 2, 0.05)
    for kind, size in itertools.product(("local", "equivariant", "boundary"), (3, 7, 15)):
        machine = make_machine(kind, images, size=size, engine=engine)
        exact = make_machine(kind, images, size=size, engine="torch")
        score, true_score = (
            score_from_x0(x.double(), x0_hat.double(), times, SCHEDULE)
            for x0_hat in (machine(x, times), exact(x.double(), times))
        )
        assert relative(score, true_score) < 1e-3, (kind, size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "magic"}, "unknown machine 'magic'"),
        ({"kind": "local", "size": 4}, "patch size 4 is not a positive odd number"),
        ({"kind": "local", "size": 17}, "patch size 17 is too large"),
        ({"kind": "equivariant", "size": 9}, "the largest is 7"),
        ({"kind": "boundary", "chunk": 0}, "chunk is 0"),
        ({"kind": "boundary", "engine": "steam"}, "unknown engine 'steam'"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_machine(images=random_images(), **options)


def test_bad_queries_are_refused() -> None:
    machine = make_machine("boundary", random_images(classes=2))
    x, t = torch.zeros(1, 1, 8, 8), torch.ones(1)
    with pytest.raises(InputError, match="needs a size: one, or fitted scales"):
        machine(x, t)
    with pytest.raises(InputError, match="shape"):
        machine(x[..., :7], t, size=3)
    with pytest.raises(InputError, match="NaN or infinite"):
        machine(x * torch.nan, t, size=3)
    with pytest.raises(InputError, match="no image has label 5"):
        machine(x, t, torch.tensor([5]), size=3)
    with pytest.raises(InputError, match="at no value of its scale"):
        machine.at_values(x, t, [])
    estimating = make_machine("boundary", random_images(), tolerance=0.1)
    with pytest.raises(InputError, match="patch size 0 is not"):
        estimating(x, t, size=0)
    with pytest.raises(InputError, match="no training images"):
        make_machine("ideal", random_images(0))
