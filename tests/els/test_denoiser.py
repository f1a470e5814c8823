import torch

from els.denoiser import add_noise, eps_from_x0, score_from_x0, x0_from_eps
from els.schedule import CosineSchedule


def test_conversions_are_inverse_to_each_other() -> None:
    schedule, t = CosineSchedule(), torch.tensor([0.05, 0.5, 1.0])
    x0, eps = torch.rand(3, 2, 4, 4).double(), torch.randn(3, 2, 4, 4).double()
    x = add_noise(x0, eps, t, schedule)
    torch.testing.assert_close(eps_from_x0(x, x0, t, schedule), eps)
    torch.testing.assert_close(x0_from_eps(x, eps, t, schedule), x0)


def test_score_is_minus_eps_over_sigma() -> None:
    schedule, t = CosineSchedule(), torch.tensor([0.1, 0.9])
    x, x0_hat = torch.randn(2, 1, 4, 4).double(), torch.rand(2, 1, 4, 4).double()
    eps = eps_from_x0(x, x0_hat, t, schedule)
    sigma = schedule.sigma(t.double())[:, None, None, None]
    torch.testing.assert_close(score_from_x0(x, x0_hat, t, schedule), -eps / sigma)
