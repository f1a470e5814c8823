"""The same x: where it lies, who is asked there, and what is known of the answers."""

from __future__ import annotations

import pytest
import torch
from conftest import random_images
from torch import Tensor

from els.agreement import METRICS, agreement, metrics_by_t
from els.calibration import path_points
from els.criterion import data_points
from els.images import to_float
from els.machines import make_machine
from els.same_x import agreement_on_path, answers_on_images
from els.sampling import Starts, ddim_steps, retraced, sample_paths
from els.schedule import COSINE, LinearSteps

IMAGES = random_images(20)
STARTS = Starts(IMAGES.image_shape)
SEEDS = (3, 4, 7)
NETWORK = make_machine("wiener", IMAGES)
MACHINE = make_machine("local", IMAGES, size=3, engine="torch")
PATHS = {
    "network": sample_paths(NETWORK, STARTS, SEEDS, steps=4),
    "machine": sample_paths(MACHINE, STARTS, SEEDS, steps=4),
}


class Recording:
    """A denoiser that remembers where it was asked."""

    def __init__(self, denoiser: object) -> None:
        self.denoiser, self.asked = denoiser, []

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.asked.append((float(t[0]), x))
        return self.denoiser(x, t, label)


def test_paths_are_walked_again_without_asking() -> None:
    noise, _ = STARTS(SEEDS)
    walked = list(ddim_steps(NETWORK, noise, steps=4))
    again = list(retraced(PATHS["network"].x0_hats, noise))
    for one, other in zip(walked, again, strict=True):
        assert (one.t, one.s) == (other.t, other.s)
        assert torch.allclose(one.x, other.x, atol=1e-5)


def test_paths_of_clamped_answers_are_walked_again_by_the_answers_as_they_were() -> None:
    """Eps_hat is that of the answer before it is clamped, and so are calibration's points."""
    network = make_machine("wiener", IMAGES, schedule=LinearSteps())

    def loud(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return 3 * network(x, t, label)

    loud.schedule, loud.identity = network.schedule, "loud"
    paths = sample_paths(loud, STARTS, SEEDS, steps=4)
    assert paths.x0_hats.abs().max() <= 1 < paths.answers.abs().max()
    noise, _ = STARTS(SEEDS)
    options = {"steps": 4, "schedule": network.schedule}
    walked = list(ddim_steps(loud, noise, **options))
    again = list(retraced(paths.answers, noise, schedule=network.schedule))
    for one, other in zip(walked, again, strict=True):
        assert torch.allclose(one.x, other.x, atol=1e-5)
        assert torch.allclose(one.x0_hat, other.x0_hat, atol=1e-5)
    assert torch.equal(paths.first(2).answers, paths.answers[:, :2])
    for point in path_points(loud, noise, label=None, **options):
        t = torch.full((3,), point.t, dtype=torch.float64)
        assert torch.allclose(point.x0_hat, loud(point.x, t), atol=1e-4)


@pytest.mark.parametrize(
    ("of", "walker", "other"), [("network", NETWORK, MACHINE), ("machine", MACHINE, NETWORK)]
)
def test_the_other_is_asked_at_the_x_of_the_path(of: str, walker: object, other: object) -> None:
    asked = Recording(other)
    found = agreement_on_path(PATHS[of], asked, STARTS, SEEDS, of=of)
    noise, _ = STARTS(SEEDS)
    for i, step in enumerate(ddim_steps(walker, noise, steps=4)):
        assert asked.asked[i][0] == step.t
        assert torch.allclose(asked.asked[i][1], step.x, atol=1e-5)
        t = torch.full((3,), step.t, dtype=torch.float64)
        network, machine = NETWORK(step.x, t), MACHINE(step.x, t)
        expected = agreement(machine, network)
        for name in METRICS:
            assert torch.allclose(found[name][i], expected[name], atol=1e-4)


def test_on_images_both_are_asked_under_the_noise_of_the_images_seed() -> None:
    unseen = random_images(3, seed=5)
    answers = [answers_on_images(one, unseen, steps=2) for one in (MACHINE, NETWORK)]
    found = metrics_by_t(*answers)
    points = data_points(to_float(unseen.pixels), seeds=range(3), t=(1, 0.5), schedule=COSINE)
    for i, point in enumerate(points):
        t = torch.full((3,), point.t, dtype=torch.float64)
        expected = agreement(MACHINE(point.x, t), NETWORK(point.x, t))
        for name in METRICS:
            assert torch.allclose(found[name][i], expected[name], atol=1e-4)


def test_a_network_agrees_with_itself_everywhere() -> None:
    everywhere = [
        agreement_on_path(PATHS["network"], NETWORK, STARTS, SEEDS, of="network"),
        agreement_on_path(PATHS["network"], NETWORK, STARTS, SEEDS, of="machine"),
    ]
    for found in everywhere:
        for name in METRICS:
            assert torch.allclose(found[name], torch.ones(()).double(), atol=1e-4)


def test_a_machine_of_half_the_contrast_has_a_correlation_of_one_and_explains_less() -> None:
    """R2 = 1 - sum((y - y / 2)^2) / sum((y - mean)^2), whose target is the network's answer."""

    def half(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return NETWORK(x, t, label) / 2

    found = agreement_on_path(PATHS["network"], half, STARTS, SEEDS, of="network")
    y = PATHS["network"].x0_hats.double().flatten(2)
    rest, whole = (y / 2).square().sum(-1), (y - y.mean(-1, keepdim=True)).square().sum(-1)
    assert torch.allclose(found["pearson_r"], torch.ones(4, 3).double(), atol=1e-4)
    assert torch.allclose(found["R2"], 1 - rest / whole, atol=1e-4)
