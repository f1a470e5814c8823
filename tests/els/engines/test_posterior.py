"""What a posterior carries when details are asked for, and how its parts come together."""

import functools

import numpy as np
import pytest
import torch
from conftest import assert_images_told, random_images
from hypothesis import given
from hypothesis import strategies as st
from oracle import KINDS, log_weights
from queries import assert_held_alike, dispatched
from torch import Tensor

from els.engines.dictionary import RULES
from els.engines.native_engine import available
from els.engines.posterior import Details, Posterior
from els.engines.torch_engine import image_posterior
from els.engines.windows import window
from els.images import ImageSet, to_float
from els.machines import make_machine
from els.schedule import CosineSchedule

SCHEDULE = CosineSchedule()
ENGINES = [
    "torch",
    pytest.param(
        "native", marks=pytest.mark.skipif(available() is not None, reason=f"{available()}")
    ),
]


@pytest.fixture
def one_thread() -> None:
    """The native engine then has few items of work, in which a lane sees several images."""
    torch.set_num_threads(1)


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
    assert_held_alike(a, b, 5e-4)
    assert torch.equal(a.best, b.best)
    there = a.told.second_peak.isfinite()
    assert torch.equal(a.second * there, b.second * there)


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
        assert float(got.told.square[0, 0][u]) == pytest.approx((weights**2).sum(), rel=1e-3)
        assert float(got.best_weight[0, 0][u]) == pytest.approx(1 / weights.sum(), rel=1e-3)
        shares = weights / weights.sum()
        entropy = -sum(w * np.log(w) for w in shares if w > 0)
        assert float(got.entropy[0, 0][u]) == pytest.approx(entropy, rel=1e-3, abs=1e-4)
        best = tuple(got.best[0, :, u[0], u[1]].tolist())
        assert logs[best] == pytest.approx(peak, abs=1e-3)
        assert_images_told(got, u, logs)


VARIATIONS = [
    ("ideal", {}),
    *((kind, {"size": 3}) for kind in RULES),
    ("boundary", {"size": 1, "shift": 1}),
    ("boundary", {"size": 3.6, "window": "flat"}),
    ("equivariant", {"size": 0.4, "window": "gaussian"}),
    ("boundary", {"size": 3, "symmetries": ["flip"]}),
    ("local", {"size": 3, "symmetries": ["flip"], "temperature": 5.0}),
]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "options"), VARIATIONS, ids=str)
@pytest.mark.parametrize("t", [0.1, 0.8])
def test_top_and_second_over_more_images_than_lanes_and_chunks(
    engine: str, kind: str, options: dict, t: float
) -> None:
    images = random_images(37, 1, 3, 4)
    x, times = noisy(images, [t])
    got = make_machine(kind, images, engine=engine, chunk=5, **options).posterior(x, times)
    pixels = images.pixels
    if options.get("symmetries"):
        pixels = torch.cat([pixels, pixels.flip(-1)])
    size, profile = window(options.get("window", "hard"), options.get("size", 3))
    sigma = float(SCHEDULE.sigma(times)) * options.get("temperature", 1) ** 0.5
    for u in np.ndindex(3, 4):
        logs = log_weights(
            x[0].double().numpy(), to_float(pixels).double().numpy(),
            float(SCHEDULE.alpha(times)), sigma, kind, size, u, shift=options.get("shift"),
            profile=None if options.get("window", "hard") == "hard" else profile,
        )  # fmt: skip
        assert_images_told(got, u, logs, images=len(images))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("t", [0.05, 0.5])
def test_top_and_second_at_the_places_that_are_wanted(engine: str, kind: str, t: float) -> None:
    """With windows that are given up when they are far behind the best, in the native engine."""
    asked = ask(random_images(100, 1, 3, 4), [t])
    wanted = torch.zeros(1, 3, 4, dtype=torch.bool)
    wanted[0, [0, 1, 2], [1, 2, 3]] = True
    (got,) = dispatched(**asked, kind=kind, sizes=[3], engine=engine, details=True, wanted=wanted)
    query = asked["x"][0].double().numpy()
    dictionary = to_float(asked["pixels"]).double().numpy()
    alpha, sigma = float(asked["alpha"]), float(asked["sigma"])
    for u in wanted[0].nonzero().tolist():
        logs = log_weights(query, dictionary, alpha, sigma, kind, 3, tuple(u))
        assert_images_told(got, tuple(u), logs)
    assert got.told.second_peak[~wanted[:, None]].isneginf().all()
    assert not got.told.top[~wanted[:, None]].any()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_far_behind_is_found_in_the_lane_of_the_best(engine: str) -> None:
    """Where all lanes have seen nearer images, but only one of them in the lane of the second."""
    levels = torch.tensor([128, *[168] * 15, 164, *[255] * 15], dtype=torch.uint8)
    asked = ask(ImageSet(levels.view(-1, 1, 1, 1).expand(-1, 1, 5, 5).contiguous()), [0.02])
    wanted = torch.zeros(1, 5, 5, dtype=torch.bool)
    wanted[0, 2, 2] = True
    (got,) = dispatched(
        **asked, kind="local", sizes=[3], engine=engine, details=True, wanted=wanted
    )
    assert got.best[0, :, 2, 2].tolist() == [0, 2, 2]
    assert got.second[0, :, 2, 2].tolist() == [16, 2, 2]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_one_image_has_no_second_and_all_the_weight(engine: str, kind: str) -> None:
    images = random_images(1, 2, 6, 7)
    x, t = noisy(images, [0.4])
    for symmetries in [[], ["flip"]] if kind != "ideal" else [[]]:
        options = {"symmetries": symmetries} if symmetries else {}
        machine = make_machine(kind, images, size=3, engine=engine, **options)
        got = machine.posterior(x, t)
        assert got.told.second_peak.isneginf().all()
        assert not got.second_weight.any()
        if not symmetries:
            torch.testing.assert_close(got.top_share, torch.ones_like(got.mass))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("others", [0, 31, 40])
def test_of_two_equal_images_one_is_best_and_one_second(
    engine: str, kind: str, others: int
) -> None:
    """Both in one chunk, in one lane of the native engine, or in neither.

    Looked at where windows of 5 lie inside, as the `equivariant` machine's wrap elsewhere.
    """
    images = random_images(others + 1, 1, 6, 6)
    images = ImageSet(torch.cat([images.pixels, images.pixels[:1]]))
    x, t = noisy(images, [0.02])
    got = make_machine(kind, images, size=5, engine=engine, chunk=7).posterior(x, t)
    got = got.transformed(lambda value: value[..., 2:4, 2:4])
    torch.testing.assert_close(got.top_share, torch.full_like(got.mass, 0.5))
    torch.testing.assert_close(got.second_weight, got.best_weight)
    pair = torch.cat([got.best[:, :1], got.second[:, :1]], dim=1)
    assert torch.equal(pair.amin(dim=1), torch.zeros(1, 2, 2).long())
    assert torch.equal(pair.amax(dim=1), torch.full((1, 2, 2), others + 1))
    assert torch.equal(got.best[:, 1:], got.second[:, 1:])


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
        assert_same(got.take([i]), want.with_images(of_class.__getitem__))
    for patch in (got.best, got.second):
        assert torch.equal(images.labels[patch[:, 0]], label.view(-1, 1, 1).expand(-1, 8, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_no_queries_give_no_posteriors(kind: str) -> None:
    machine = make_machine(kind, random_images(), size=3)
    nothing = machine.posterior(torch.zeros(0, 1, 8, 8), torch.zeros(0))
    assert nothing.best.shape == nothing.second.shape == (0, 3, 8, 8)
    assert nothing.mean.shape == (0, 1, 8, 8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", RULES)
def test_merged_parts_of_the_images_equal_the_whole(engine: str, kind: str) -> None:
    asked = ask(random_images(20, 2, 8, 9), [0.1, 0.6])
    options = {"kind": kind, "sizes": [3, 5], "engine": engine, "details": True}
    whole = dispatched(**asked, **options)
    parts = [
        [part.shifted(first) for part in dispatched(**asked | {"pixels": pixels}, **options)]
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
        dispatched(**asked, **options, details=details) for details in (False, True)
    )
    merged = detailed.merge(plain)
    for posterior in (plain, merged, plain.shifted(5), image_posterior(**asked)):
        assert posterior.details is None
        for name in ("best", "second", "effective_size", "entropy", "top_share", "second_weight"):
            with pytest.raises(ValueError, match="found without details"):
                getattr(posterior, name)
    torch.testing.assert_close(merged.mass, 2 * plain.mass)


def test_an_empty_part_changes_nothing() -> None:
    asked = ask(random_images(), [0.5])
    whole = image_posterior(**asked, details=True)
    nothing = Posterior.empty(asked["x"], torch.float32, details=True)
    assert_same(whole.merge(nothing), whole)
    assert_same(nothing.merge(whole), whole)


def of_patches(patches: list[tuple[int, float]]) -> Posterior:
    """The posterior of one pixel over patches given by their image and log-weight."""
    images, logs = torch.tensor([i for i, _ in patches]), torch.tensor([log for _, log in patches])
    weights = (logs - logs.max()).exp()
    best = int(logs.argmax())
    others = logs.masked_fill(images == images[best], -torch.inf)
    second = int(others.argmax())
    top = max(weights[images == image].sum() for image in images)
    square, second_peak = weights.square().sum(), others.max()
    peak, mass, square, top, second_peak = (
        value.view(1, 1, 1, 1) for value in (logs.max(), weights.sum(), square, top, second_peak)
    )
    first, next_best = (torch.tensor([images[i], i, 0]).view(1, 3, 1, 1) for i in (best, second))
    energy = (weights * (logs.max() - logs)).sum().view(1, 1, 1, 1)
    details = Details(square, first, top, next_best, second_peak, energy)
    return Posterior(peak, mass, mass.clone(), details)


PATCHES = st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 0).map(float)), min_size=1,
                   max_size=6)  # fmt: skip


@given(parts=st.lists(PATCHES, min_size=1, max_size=4), disjoint=st.booleans())
def test_merging_any_parts_keeps_the_two_best_images(
    parts: list[list[tuple[int, float]]], disjoint: bool
) -> None:
    """Parts hold the same images, as with symmetries, or images of their own; ties are likely."""
    if disjoint:
        parts = [[(4 * i + image, log) for image, log in part] for i, part in enumerate(parts)]
    singles = [of_patches(part) for part in parts]
    got = functools.reduce(Posterior.merge, singles)
    logs = [(image, log) for part in parts for image, log in part]
    whole = of_patches(logs)
    torch.testing.assert_close(got.peak, whole.peak)
    torch.testing.assert_close(got.mass, whole.mass)
    torch.testing.assert_close(got.entropy, whole.entropy)
    best, second = int(got.best[0, 0]), int(got.second[0, 0])
    others = {image: log for image, log in sorted(logs) if image != best}
    assert max(log for image, log in logs if image == best) == float(got.peak)
    assert float(got.told.second_peak) == max(others.values(), default=-torch.inf)
    if others:
        assert others[second] == float(got.told.second_peak)
    masses = [one.told.top * (one.peak - got.peak).exp() for one in singles]
    torch.testing.assert_close(got.told.top, max(masses))
    if disjoint:
        torch.testing.assert_close(got.told.top, whole.told.top)


def test_everything_about_the_second_goes_along() -> None:
    one, other = of_patches([(0, -1.0), (2, -3.0)]), of_patches([(5, -2.0), (1, -2.5)])
    both = Posterior.cat([one, other])
    assert both.second[:, 0].flatten().tolist() == [2, 1]
    assert both.take(torch.tensor([1])).told.second_peak.item() == -2.5
    assert both.shifted(10).second[:, 0].flatten().tolist() == [12, 11]
    assert both.shifted(10).second[:, 1].flatten().tolist() == [1, 1]
    hidden = both.masked(torch.tensor([True, False]).view(2, 1, 1))
    assert hidden.told.second_peak.flatten().tolist() == [-3.0, -torch.inf]
    assert hidden.told.top.flatten().tolist() == [1.0, 0.0]
    assert both.transformed(lambda value: value.flip(0)).told.second_peak.flatten().tolist() == [
        -2.5,
        -3.0,
    ]
