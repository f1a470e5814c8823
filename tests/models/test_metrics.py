import torch

from els.models.metrics import LossByNoise


def test_bins_and_total_are_means_over_images_not_over_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    loss, t = torch.rand(50, generator=generator), 1 - torch.rand(50, generator=generator)
    metric = LossByNoise(bins=5)
    for part in (slice(0, 7), slice(7, 50)):
        metric.update(loss[part], t[part])
    values = metric.compute()
    torch.testing.assert_close(values["loss"], loss.mean())
    for i in range(5):
        inside = (t > i / 5) & (t <= (i + 1) / 5)
        name = f"loss_t{i / 5:.1f}-{(i + 1) / 5:.1f}"
        torch.testing.assert_close(values[name], loss[inside].mean())


def test_an_empty_bin_is_left_out() -> None:
    metric = LossByNoise(bins=2)
    metric.update(torch.ones(1), torch.ones(1))
    assert set(metric.compute()) == {"loss", "loss_t0.5-1.0"}
