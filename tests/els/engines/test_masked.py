import pytest
import torch
from conftest import random_images

from els.engines import masked
from els.engines.masked import masked_posterior
from els.images import to_float


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("chunk", [None, 2])
def test_every_pixel_weighs_images_by_the_cells_of_its_own_mask(
    chunk: int | None, sparse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sparse:
        monkeypatch.setattr(masked, "_MANY", 1)
        monkeypatch.setattr(masked, "_FEW", 1)
    images = random_images(5, 2, 3, 4)
    x = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.4
    alpha, sigma = (torch.tensor([value], dtype=torch.float64) for value in (0.8, 0.6))
    found = masked_posterior(x, images.pixels, mask, alpha, sigma, chunk=chunk)
    y = to_float(images.pixels).double().flatten(2)  # (n c p)
    query = x.double().flatten(2)[0]
    for u in range(12):
        squares = (query - 0.8 * y).square().sum(dim=1)[:, mask[u]].sum(dim=1)
        weights = (-squares / (2 * 0.6**2)).softmax(dim=0)
        expected = torch.einsum("n,nc->c", weights, y[:, :, u])
        torch.testing.assert_close(found.mean[u].double(), expected, rtol=1e-4, atol=1e-5)
