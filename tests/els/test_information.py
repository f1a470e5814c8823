"""Entropy of posteriors over patches: worked out by hand, in closed form, and for Gaussian data."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_images
from oracle import log_weights
from stages import assert_alike

from els.errors import InputError
from els.images import ImageSet, to_float, to_uint8
from els.information import (
    Information,
    gaussian_information,
    measure_information,
    patch_count,
)
from els.machines import make_machine
from els.sampling import Starts, ddim_steps
from els.schedule import COSINE
from els.work import Work


def ask(images: ImageSet, kind: str, candidates: list, *, seeds: int = 2, **options) -> Information:
    """On the path of a network that answers with the mean image."""
    mean = to_float(images.pixels).mean(dim=0)

    def network(x, t, label=None):
        return mean.expand_as(x)

    starts = options.pop("starts", Starts(images.image_shape))
    return measure_information(
        network, make_machine(kind, images, **options), starts, range(seeds), steps=4,
        candidates=candidates,
    )  # fmt: skip


def test_one_image_at_its_own_place_is_one_patch() -> None:
    found = ask(random_images(1), "local", [3, 5])
    assert found.entropy.max() == 0
    torch.testing.assert_close(found.largest, torch.ones_like(found.largest))
    torch.testing.assert_close(found.effective_patches, torch.ones(4, 2, dtype=torch.float64))
    assert found.log_count.tolist() == [0, 0]
    assert found.predicted.max() == 0
    # Not even at the smallest scale does a patch have less than half.
    assert found.k_mem == (None,) * 4
    assert found.k_collapse == (None,) * 4


def test_two_images_in_closed_form() -> None:
    """The weights of two patches are logistic in the difference of their squared distances."""
    images = random_images(2, 1, 5, 5)
    found = ask(images, "local", [1], seeds=1)
    x, _ = Starts(images.image_shape)([0])
    y = to_float(images.pixels).double()
    path = ddim_steps(lambda x, t, label: y.mean(dim=0).float().expand_as(x), x, steps=4)
    for i, step in enumerate(path):
        alpha, sigma = float(COSINE.alpha(step.t)), float(COSINE.sigma(step.t))
        a, b = (step.x[0, 0].double() - alpha * one[0] for one in y)
        p = torch.sigmoid((b**2 - a**2) / (2 * sigma**2))
        entropy = -(p * p.log() + (1 - p) * (1 - p).log())
        torch.testing.assert_close(found.entropy[i, 0, 0].double(), entropy, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            found.largest[i, 0, 0].double(), torch.maximum(p, 1 - p), rtol=1e-4, atol=1e-5
        )
    assert found.log_count.tolist() == pytest.approx([math.log(2)])


def test_alike_images_are_as_many_patches() -> None:
    """All weigh the same: H = ln N wherever the machine is asked."""
    images = ImageSet(random_images(1).pixels.repeat(8, 1, 1, 1))
    found = ask(images, "local", [3, 5])
    torch.testing.assert_close(found.entropy, torch.full_like(found.entropy, math.log(8)))
    assert found.k_mem == (5,) * 4
    torch.testing.assert_close(found.predicted, torch.full((4, 2), math.log(8)).double())


def test_a_loop_over_patches_says_the_same_at_every_scale_and_class() -> None:
    images = random_images(6, 1, 5, 6, classes=2)
    starts = Starts(images.image_shape, num_classes=2)
    found = ask(images, "boundary", [5, 3], seeds=3, starts=starts, temperature=2.0)
    assert found.candidates == (3, 5)
    x, label = starts(range(3))
    y = to_float(images.pixels)
    path = list(ddim_steps(lambda x, t, label: y.mean(dim=0).expand_as(x), x, steps=4))
    assert label is not None
    assert images.labels is not None
    assert len(set(label.tolist())) == 2
    for i, k, n in np.ndindex(4, 2, 3):
        step, u = path[i], (1 + k, 2 + n)
        own = y[images.labels == label[n]].double().numpy()
        logs = log_weights(
            step.x[n].double().numpy(), own, float(COSINE.alpha(step.t)),
            float(COSINE.sigma(step.t)) * 2**0.5, "boundary", found.candidates[k], u,
        )  # fmt: skip
        weights = np.exp(np.array(list(logs.values())) - max(logs.values()))
        weights /= weights.sum()
        entropy = -(weights * np.log(weights)).sum()
        assert float(found.entropy[i, k, n][u]) == pytest.approx(entropy, rel=1e-3, abs=1e-4)
        assert float(found.largest[i, k, n][u]) == pytest.approx(weights.max(), rel=1e-3)


def test_gaussian_pixels_have_the_entropy_that_theory_says() -> None:
    """E[H] = ln N - I of N independent Gaussian vectors, as long as that is well above 0."""
    generator = torch.Generator().manual_seed(0)
    clean = 0.25 * torch.randn(20_000, 3, 1, 1, generator=generator)
    images = ImageSet(to_uint8(clean))
    machine = make_machine("local", images)
    x0 = 0.25 * torch.randn(200, 3, 1, 1, generator=generator)
    for t in (0.9, 0.5, 0.3):
        alpha, sigma = float(COSINE.alpha(t)), float(COSINE.sigma(t))
        x = alpha * x0 + sigma * torch.randn(x0.shape, generator=generator)
        time = torch.full((200,), t, dtype=torch.float64)
        (part,) = machine.posteriors(x, time, images.pixels, [1], details=True)
        ratio = torch.tensor([(alpha / sigma) ** 2], dtype=torch.float64)
        told = float(gaussian_information(machine, images, 1, ratio))
        assert told == pytest.approx(1.5 * math.log1p(0.25**2 * float(ratio)), rel=0.02)
        assert float(part.entropy.mean()) == pytest.approx(math.log(20_000) - told, rel=0.01)


def test_the_variances_are_those_of_the_patches_that_may_move() -> None:
    images = random_images(5, 2, 6, 7)
    y = to_float(images.pixels).double().numpy()
    windows = np.lib.stride_tricks.sliding_window_view(y, (3, 3), axis=(2, 3))
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(5 * 4 * 5, -1)
    ratio = torch.tensor([0.1, 4.0], dtype=torch.float64)

    def of(rows: np.ndarray) -> list[float]:
        variances = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
        return [0.5 * np.log1p(float(one) * variances.clip(0)).sum() for one in ratio]

    moving = make_machine("boundary", images)
    assert gaussian_information(moving, images, 3, ratio).tolist() == pytest.approx(of(patches))
    assert patch_count(moving, images, 3) == 100
    # A soft window counts cells by their weight.
    soft = make_machine("boundary_soft", images)
    line = np.exp(-(np.array([1, 0, 1]) ** 2) / (2 * 0.5**2))
    weight = np.sqrt(np.outer(line, line))
    weighed = (windows.transpose(0, 2, 3, 1, 4, 5) * weight).reshape(100, -1)
    assert gaussian_information(soft, images, 0.5, ratio).tolist() == pytest.approx(of(weighed))
    # At its own place: the mean over nine places, whose windows end at the border.
    own = make_machine("local", images)
    told = [
        of(y[:, :, max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].reshape(5, -1))
        for r in (1, 3, 5) for c in (1, 3, 5)
    ]  # fmt: skip
    assert gaussian_information(own, images, 3, ratio).tolist() == pytest.approx(
        np.mean(told, axis=0).tolist()
    )
    assert patch_count(own, images, 3) == 5
    assert patch_count(moving, images, 7) == 5  # a window larger than the image keeps to its place


def test_symmetries_and_shifts_count() -> None:
    images = random_images(4, 1, 6, 6)
    assert patch_count(make_machine("boundary", images, symmetries=["flip"]), images, 3) == 4 * 32
    assert patch_count(make_machine("boundary", images, shift=1), images, 3) == 4 * 9
    ratio = torch.tensor([1.0], dtype=torch.float64)
    flipped = ImageSet(torch.cat([images.pixels, images.pixels.flip(-1)]))
    assert float(
        gaussian_information(
            make_machine("boundary", images, symmetries=["flip"]), images, 3, ratio
        )
    ) == pytest.approx(
        float(gaussian_information(make_machine("boundary", flipped), flipped, 3, ratio))
    )


def test_the_scale_of_memory_is_that_before_the_first_with_half_the_weight() -> None:
    largest = torch.tensor([[0.1, 0.4, 0.6], [0.1, 0.7, 0.4], [0.6, 0.7, 0.9], [0.1, 0.2, 0.3]])
    maps = largest[:, :, None, None, None].expand(4, 3, 2, 3, 3)
    found = Information(
        "boundary", "size", (0, 1), (1.0, 0.75, 0.5, 0.25), (3, 5, 7), torch.zeros_like(maps), maps,
        torch.tensor([3.0, 2.0, 1.0]),
        torch.tensor([[1.0, 1.5, 2.0], [4.0, 0, 0], [2.0, 2.0, 0.5], [0, 0, 0]]),
    )  # fmt: skip
    assert found.k_mem == (5, 3, None, 7)
    assert found.predicted.tolist()[0] == [2.0, 0.5, 0.0]
    assert found.k_collapse == (5, None, 3, 7)


def test_the_median_is_that_of_the_number_of_patches_and_not_of_its_logarithm() -> None:
    """Between two seeds of 1 and 9 patches it is 5: exp of the median of H would say 3."""
    entropy = torch.tensor([1.0, 9.0]).log().view(1, 1, 2, 1, 1)
    found = Information(
        "boundary", "size", (0, 1), (1.0,), (3,), entropy, torch.ones_like(entropy),
        torch.ones(1), torch.ones(1, 1),
    )  # fmt: skip
    assert found.effective_patches.tolist() == [[pytest.approx(5)]]


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    for kind, candidates in (("boundary", [3, 5]), ("boundary_soft", [0.5, 1.0])):
        found = ask(random_images(3), kind, candidates)
        found.save(tmp_path / "information.npz")
        again = Information.load(tmp_path / "information.npz")
        assert_alike(again, found, 0)
        assert [type(one) for one in again.candidates] == [type(one) for one in candidates]


def test_covariances_are_kept_by_class_and_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(6, 1, 5, 6, classes=2)
    starts = Starts(images.image_shape, num_classes=2)
    machine = make_machine("boundary", images)
    network = make_machine("boundary", images, size=3)
    whole = measure_information(network, machine, starts, range(3), steps=2, candidates=[3, 5])
    name = "covariances of the patches of boundary"

    def computed(candidates: list[int]) -> int:
        work = Work(tmp_path)
        found = measure_information(
            network, machine, starts, range(3), steps=2, candidates=candidates, work=work
        )
        at = [(3, 5).index(value) for value in candidates]
        assert torch.equal(found.told, whole.told[:, at])
        assert torch.equal(found.log_count, whole.log_count[at])
        return work.computed[name]

    assert computed([5]) == 2  # of each class
    assert computed([3, 5]) == 2  # the other scale
    monkeypatch.setattr("els.information.gaussian_information", None)
    assert computed([3, 5]) == 0


def test_some_of_very_many_patches_are_taken_without_a_list_of_all() -> None:
    """A list of 16 billion patches would take 128 GB."""
    few = random_images(1, 1, 6, 6)
    many = ImageSet(few.pixels.expand(10**9, 1, 6, 6))
    machine, ratio = make_machine("boundary", few), torch.ones(1, dtype=torch.float64)
    told = float(gaussian_information(machine, many, 3, ratio))
    assert told == pytest.approx(float(gaussian_information(machine, few, 3, ratio)), rel=0.02)


def test_nothing_to_ask_is_refused() -> None:
    with pytest.raises(InputError, match="0 seeds and 1 values"):
        ask(random_images(3), "local", [3], seeds=0)
