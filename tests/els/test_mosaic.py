from dataclasses import replace

import pytest
import torch
from conftest import random_images

from els.denoiser import add_noise
from els.images import ImageSet, to_float
from els.machines import make_machine
from els.mosaic import Mosaic, local_consistency, trace
from els.schedule import CosineSchedule

T = 0.05


def traced(machine: object, x: torch.Tensor, *, label: torch.Tensor | None = None) -> Mosaic:
    t = torch.full((len(x),), T, dtype=torch.float64)
    x0_hat, found = trace(machine, x, t, label)
    torch.testing.assert_close(x0_hat, machine(x, t, label))
    return Mosaic.of((T,), {name: value[None] for name, value in found.items()})


def noisy(images: ImageSet, indices: list[int], *, shift: tuple[int, int] = (0, 0)) -> torch.Tensor:
    clean = to_float(images.pixels[indices]).roll(shift, dims=(2, 3))
    eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((len(clean),), T, dtype=torch.float64)
    return add_noise(clean, eps, t, CosineSchedule())


@pytest.mark.parametrize("kind", ["boundary", "local", "boundary_soft"])
def test_a_noisy_training_image_is_a_mosaic_of_one_piece(kind: str) -> None:
    images = random_images(12, 3, 9, 9)
    mosaic = traced(make_machine(kind, images, size=5 if kind != "boundary_soft" else 2.0),
                    noisy(images, [7, 2]))  # fmt: skip
    assert torch.equal(mosaic.pixels[0], images.pixels[[7, 2]])
    assert mosaic.images_drawn_on().tolist() == [1, 1]
    assert mosaic.effective_images().tolist() == [1, 1]
    assert mosaic.largest_piece().tolist() == [1, 1]
    assert mosaic.decided().tolist() == [1, 1]
    assert mosaic.consistency[0].tolist() == [1, 1]
    assert not any(part.any() for part in mosaic.borders())
    assert float(mosaic.weight.min()) > 0.99
    assert float(mosaic.top_share.min()) > 0.99
    assert not (mosaic.second[:, 0] == mosaic.best[0, :, 0]).any()


def test_a_shifted_copy_is_one_piece_too() -> None:
    images = random_images(6, 1, 12, 12)
    mosaic = traced(make_machine("equivariant", images, size=3), noisy(images, [4], shift=(3, 2)))
    image, row, column = mosaic.best[0, 0, :, 4:11, 3:11]  # windows that do not cross the seam
    assert (image == 4).all()
    assert torch.equal(row, torch.arange(1, 8)[:, None].expand(7, 8).int())
    assert torch.equal(column, torch.arange(1, 9).expand(7, 8).int())
    assert float(mosaic.largest_piece()) >= 7 * 8 / 144


def test_two_halves_have_a_border_between_them() -> None:
    images = random_images(8, 1, 10, 10)
    both = images.pixels[[1]].clone()
    both[..., 5:] = images.pixels[[6]][..., 5:]
    with_both = ImageSet(torch.cat([images.pixels, both]))
    mosaic = traced(make_machine("local", images, size=3), noisy(with_both, [8]))
    below, right = mosaic.borders()
    assert right[0, :, 3:6].any(dim=1).all()  # windows across the seam may be either's
    assert not right[0, :, :3].any()
    assert not right[0, :, 6:].any()
    assert not below[0, :, :3].any()
    assert 0.35 <= float(mosaic.largest_piece()) <= 0.65


def test_counts_are_those_of_the_winning_images() -> None:
    best = torch.zeros(1, 2, 3, 2, 2, dtype=torch.int32)
    best[0, 1, 0] = torch.tensor([[5, 5], [5, 9]])
    best[0, :, 1] = torch.tensor([[0, 0], [1, 1]])
    best[0, :, 2] = torch.tensor([[0, 1], [0, 1]])
    blank = torch.ones(1, 2, 2, 2)
    mosaic = Mosaic(
        (T,), (3,), blank[:, :, None].byte(), best, blank, blank, blank, best[0], blank[0],
        torch.ones(1, 2),
    )  # fmt: skip
    assert mosaic.images_drawn_on().tolist() == [1, 2]
    assert mosaic.effective_images().tolist() == [1, pytest.approx(16 / 10)]
    assert mosaic.largest_piece().tolist() == [1, 0.75]
    assert mosaic.decided().tolist() == [1, 1]
    half = torch.tensor([[0.5, 0.6], [0.4, 1]]).expand(1, 2, 2, 2)
    assert replace(mosaic, top_share=half).decided().tolist() == [0.5, 0.5]
    moved = replace(mosaic, best=best + torch.tensor([0, 2, 1])[:, None, None])
    assert moved.largest_piece().tolist() == [1, 0.75]


@pytest.mark.parametrize("kind", ["boundary", "equivariant", "local"])
@pytest.mark.parametrize("window", ["hard", "gaussian"])
def test_consistency_is_that_of_a_plain_loop(kind: str, window: str) -> None:
    images = random_images(4, 2, 7, 7, seed=3)
    size = 3 if window == "hard" else 0.9
    machine = make_machine(kind, images, size=size, window=window)
    x = torch.randn(2, 2, 7, 7, generator=torch.Generator().manual_seed(2))
    t = torch.full((2,), 0.5, dtype=torch.float64)
    best = machine.posterior(x, t).best
    pixels = images.pixels[best[:, 0], :, best[:, 1], best[:, 2]].permute(0, 3, 1, 2)
    got = local_consistency(machine, pixels, best, 0.5)
    radius = 1 if window == "hard" else 2
    for b in range(2):
        centres, total, weight = to_float(pixels[b]).double(), 0.0, 0.0
        for u in ((i, j) for i in range(7) for j in range(7)):
            image, row, column = best[b, :, u[0], u[1]].tolist()
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    v = (u[0] + dy, u[1] + dx)
                    if kind == "equivariant":
                        v = (v[0] % 7, v[1] % 7)
                    if (dy, dx) == (0, 0) or not (0 <= v[0] < 7 and 0 <= v[1] < 7):
                        continue
                    factor = 1.0
                    if window == "gaussian":
                        factor = float(torch.tensor(-(dy**2 + dx**2) / (2 * size**2)).exp())
                    said = to_float(images.pixels[image, :, row + dy, column + dx]).double()
                    total += factor * float((said - centres[:, v[0], v[1]]).square().sum())
                    weight += factor * 2
        spread = 2 * centres.var(dim=(1, 2), correction=0).mean()
        assert float(got[b]) == pytest.approx(float(1 - total / weight / spread), abs=1e-4)


def test_symmetries_leave_consistency_open() -> None:
    images = random_images(4, 1, 8, 8)
    machine = make_machine("boundary", images, size=3, symmetries=["flip"])
    assert traced(machine, noisy(images, [1])).consistency.isnan().all()


def test_labels_draw_on_their_own_class() -> None:
    images = random_images(10, 1, 8, 8, classes=2)
    label = torch.tensor([0, 1])
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    mosaic = traced(make_machine("boundary", images, size=3), x, label=label)
    for one, other in ((mosaic.best[0], mosaic.second),):
        for of in (one, other):
            assert torch.equal(of[:, 0] % 2, label[:, None, None].expand(2, 8, 8).int())
