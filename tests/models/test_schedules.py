import pytest
import torch

from els.models.schedules import WarmupCosine


def rates(scheduler: WarmupCosine, steps: int) -> list[float]:
    values = []
    for _ in range(steps):
        values.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return values


def make(**options: int) -> WarmupCosine:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    return WarmupCosine(optimizer, **options)


def test_it_rises_then_falls_to_zero_and_stays_there() -> None:
    values = rates(make(warmup_steps=10, total_steps=100), 120)
    assert values[0] == pytest.approx(0.2, rel=1e-3)
    assert max(values) == pytest.approx(2.0, rel=0.05)
    assert values.index(max(values)) == 9
    assert values[50] == pytest.approx(1.0, rel=1e-6)
    assert values[100:] == pytest.approx([0] * 20, abs=1e-6)


def test_a_resumed_schedule_goes_on_and_may_be_longer() -> None:
    whole = rates(make(warmup_steps=5, total_steps=40), 40)
    first = make(warmup_steps=5, total_steps=40)
    rates(first, 15)
    second = make(warmup_steps=5, total_steps=40)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert rates(second, 25) == pytest.approx(whole[15:])
    longer = make(warmup_steps=5, total_steps=400)
    longer.load_state_dict(first.state_dict())
    assert longer.total_steps == 400
