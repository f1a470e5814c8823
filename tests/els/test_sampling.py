import pytest
import torch
from torch import Tensor

from els.denoiser import x0_from_eps
from els.errors import InputError
from els.sampling import (
    Sampler,
    Starts,
    ddim,
    ddim_steps,
    sample,
    sample_paths,
    seeded_labels,
    seeded_noise,
)
from els.schedule import CosineSchedule, LinearSteps


def test_a_perfect_denoiser_is_followed_to_its_image() -> None:
    x0 = torch.rand(3, 1, 4, 4) * 2 - 1
    torch.testing.assert_close(ddim(lambda x, t, label: x0, torch.randn(3, 1, 4, 4), steps=7), x0)


def test_gaussian_data_end_where_the_probability_flow_leads() -> None:
    # For N(0, s^2) data the flow's solution is known: x_0 = x_1 * s / std(x_1).
    schedule, s = CosineSchedule(), 0.5
    steps = 2000

    def denoiser(x: torch.Tensor, t: torch.Tensor, label: None) -> torch.Tensor:
        alpha, sigma = schedule.alpha(t[0]), schedule.sigma(t[0])
        return x * alpha * s**2 / (alpha**2 * s**2 + sigma**2)

    x = torch.randn(2, 1, 4, 4).double()
    one = torch.tensor(1.0, dtype=torch.float64)
    std = (schedule.alpha(one) ** 2 * s**2 + schedule.sigma(one) ** 2).sqrt()
    torch.testing.assert_close(ddim(denoiser, x, steps=steps), x * s / std, rtol=2e-3, atol=0)


def test_steps_chain_and_cover_the_grid() -> None:
    noise = torch.randn(1, 1, 4, 4)
    steps = list(ddim_steps(lambda x, t, label: x * 0.5, noise, steps=5))
    assert [(s.i, s.t, s.s) for s in steps] == [
        (0, 1.0, 0.8), (1, 0.8, 0.6), (2, 0.6, 0.4), (3, 0.4, 0.2), (4, 0.2, 0.0)
    ]  # fmt: skip
    for before, after in zip(steps[:-1], steps[1:], strict=True):
        assert before.x_next is after.x


def test_paths_are_those_of_ddim_from_each_seeds_noise_and_class() -> None:
    starts = Starts((1, 4, 4), num_classes=7)

    def denoiser(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) * (1 + label[:, None, None, None])

    paths = sample_paths(denoiser, starts, range(3, 8), steps=4)
    noise, label = seeded_noise(range(3, 8), (1, 4, 4)), seeded_labels(range(3, 8), 7)
    steps = list(ddim_steps(denoiser, noise, steps=4, label=label))
    assert paths.t == (1, 0.75, 0.5, 0.25)
    torch.testing.assert_close(paths.samples, steps[-1].x_next)
    torch.testing.assert_close(paths.last, steps[-1].x)
    torch.testing.assert_close(paths.x0_hats, torch.stack([step.x0_hat for step in steps]))
    assert torch.equal(paths.seen, torch.ones(4, 5))
    assert not paths.traces


def test_one_class_can_be_wanted_of_every_seed() -> None:
    assert Starts((1, 4, 4), num_classes=7, label=2)(range(3))[1].tolist() == [2, 2, 2]
    assert Starts((1, 4, 4))(range(3))[1] is None


def test_a_seed_gives_the_same_noise_in_any_company() -> None:
    alone, among = seeded_noise([7], (1, 4, 4)), seeded_noise([3, 7, 5], (1, 4, 4))
    assert torch.equal(alone[0], among[1])
    assert not torch.equal(among[0], among[1])
    assert torch.equal(seeded_labels([7], 10), seeded_labels([3, 7], 10)[1:])


class Conditional(Sampler):
    """A denoiser of seven classes that says what its images are like."""

    image_shape = (1, 4, 4)
    num_classes = 7
    schedule = CosineSchedule(0.02)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        assert label.shape == t.shape == x.shape[:1]
        return torch.tanh(x) * (1 + label[:, None, None, None])


def test_samples_are_those_of_an_analysis_from_the_same_seeds() -> None:
    denoiser, seeds = Conditional(), range(2, 22)  # more than one batch
    want = sample_paths(denoiser, Starts.of(denoiser), seeds, steps=3).samples
    assert torch.equal(sample(denoiser, seeds, steps=3), want)
    assert torch.equal(denoiser.sample(20, seed=2, steps=3), want)
    assert torch.equal(denoiser.sample(1, 5, 3), want[3:4])
    assert torch.equal(sample(denoiser, torch.arange(2, 22), steps=3), want)


def test_samples_can_be_of_a_class_or_of_one_for_each() -> None:
    denoiser = Conditional()
    noise = seeded_noise(range(3), (1, 4, 4))
    for label in (2, torch.tensor(2), torch.tensor([0, 6, 3])):
        want = ddim(denoiser, noise, label=label, schedule=denoiser.schedule)
        assert torch.equal(denoiser.sample(3, label=label), want)
    assert Starts((1, 4, 4), label=2)(range(2))[1].tolist() == [2, 2]  # of a machine
    one = Starts.of(denoiser, label=2)
    assert torch.equal(sample_paths(denoiser, one, range(3)).samples, denoiser.sample(3, label=2))


def test_what_cannot_be_sampled_is_told() -> None:
    with pytest.raises(InputError, match=r"has no image_shape: give it one, or call ddim"):
        sample(lambda x, t, label: x, range(2))
    for seeds in (4, [], range(0)):
        with pytest.raises(InputError, match=r"give at least one, such as range\(8\)"):
            sample(Conditional(), seeds)
    with pytest.raises(InputError, match="steps is 0; it must be at least 1"):
        Conditional().sample(2, steps=0)


def test_paths_and_steps_say_what_they_are_without_their_pixels() -> None:
    paths = sample_paths(Conditional(), Starts.of(Conditional()), range(2), steps=3)
    assert repr(paths) == "Paths(3 steps, 2 x 1 x 4 x 4)"
    (step,) = ddim_steps(lambda x, t, label: x, torch.zeros(2, 1, 4, 4), steps=1)
    assert repr(step) == "Step(0, t = 1 to 0, 2 x 1 x 4 x 4)"


@pytest.mark.parametrize("steps", [10, 5])
def test_linear_steps_are_those_of_diffusers(steps: int) -> None:
    """DDIMScheduler with its defaults, on a toy network whose x0_hat leaves the range."""
    diffusers = pytest.importorskip("diffusers", reason="needs diffusers, an optional library")
    scheduler = diffusers.DDIMScheduler()
    scheduler.set_timesteps(steps)

    def eps_of(x: Tensor, i: int) -> Tensor:
        return 0.8 * torch.tanh(x + i / 1000) + 0.1 * x.roll(1, dims=-1)

    schedule = LinearSteps()
    grid = schedule.timesteps(steps)[:-1]

    def denoiser(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        i = int(scheduler.timesteps[int((grid - t[0]).abs().argmin())])
        return x0_from_eps(x, eps_of(x, i), t, schedule)

    noise = seeded_noise(range(3), (2, 6, 6))
    x, clamped = noise, 0
    path = list(ddim_steps(denoiser, noise, steps=steps, schedule=schedule))
    for i, step in zip(scheduler.timesteps.tolist(), path, strict=True):
        torch.testing.assert_close(step.x, x, atol=1e-5, rtol=1e-5)
        found = scheduler.step(eps_of(x, i), i, x)
        torch.testing.assert_close(step.x0_hat, found.pred_original_sample, atol=1e-5, rtol=1e-5)
        clamped += int((step.x0_hat.abs() == 1).sum())
        x = found.prev_sample
    torch.testing.assert_close(path[-1].x_next, x, atol=1e-5, rtol=1e-5)
    assert torch.equal(path[-1].x_next, path[-1].x0_hat)  # the last x0_hat is the image
    assert clamped > 100
