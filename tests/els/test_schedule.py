import pytest
import torch

from els.schedule import CosineSchedule, LinearSteps


def test_signal_and_noise_have_unit_power_together() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    schedule = CosineSchedule()
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t))


def test_values_of_the_papers_code() -> None:
    t = torch.tensor([0.0, 0.05, 1.0], dtype=torch.float64)
    schedule = CosineSchedule()
    expected = 1 - torch.cos(torch.pi * t / (2 * 1.008)) ** 2
    torch.testing.assert_close(schedule.sigma(t) ** 2, expected)
    assert float(schedule.alpha(1.0)) == pytest.approx(0.01247, abs=1e-5)
    at = torch.tensor(0.05, dtype=torch.float64)
    assert float(schedule.alpha(at) / schedule.sigma(at) ** 2) == pytest.approx(164, abs=1)


def test_timesteps_run_from_noise_to_image() -> None:
    assert CosineSchedule().timesteps(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    with pytest.raises(ValueError, match="steps is 0"):
        CosineSchedule().timesteps(0)


def test_time_is_the_inverse_of_alpha() -> None:
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(CosineSchedule().time(CosineSchedule().alpha(t)), t)


def test_linear_steps_are_those_of_linear_betas() -> None:
    """At each of them alpha^2 is the product of 1 - beta up to it, worked out one by one."""
    schedule = LinearSteps()
    t = schedule.timesteps(10)
    assert t[-1] == 0
    for time, last in zip(t[:-1], range(900, -1, -100), strict=True):
        kept = 1.0
        for i in range(last + 1):
            kept *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
        assert float(schedule.alpha(time)) ** 2 == pytest.approx(kept, rel=1e-9)
    assert schedule.identity != CosineSchedule().identity
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"steps is {steps}; it must be 1 to 1000"):
            schedule.timesteps(steps)
