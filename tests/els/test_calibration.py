import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import random_images, shared
from torch import Tensor

from els.calibration import Scales, fit_scales, fit_scales_to_data
from els.denoiser import add_noise, eps_from_x0
from els.errors import InputError
from els.images import load_images, to_float
from els.machines import make_machine
from els.sampling import Starts, ddim_steps, seeded_noise
from els.schedule import CosineSchedule

SEEDS = (0, 1, 2)


class ChangingSize:
    """A machine that is its own network, with another patch size at high noise."""

    def at(self, t: float) -> int:
        return 7 if t > 0.5 else 3


@pytest.mark.parametrize("criterion", ["cosine", "l2"])
@pytest.mark.parametrize("kind", ["boundary", "local"])
def test_the_sizes_of_a_machine_are_found_again(kind: str, criterion: str) -> None:
    images = load_images("digits", limit=60)
    network = make_machine(kind, images, size=ChangingSize())
    scales = fit_scales(
        network, make_machine(kind, images), Starts(images.image_shape), SEEDS,
        candidates=(3, 5, 7, 9), steps=8, criterion=criterion,
    )  # fmt: skip
    assert scales.values == tuple(ChangingSize().at(t) for t in scales.t)
    assert scales.t == (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)
    assert scales.at(0.625) == 7
    assert scales.at(0.5) == 3


def test_the_table_holds_the_cosines_of_the_eps_hats() -> None:
    images, schedule = random_images(5), CosineSchedule()
    machine, noise = make_machine("local", images), seeded_noise(SEEDS, images.image_shape)

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return torch.tanh(x)

    starts = Starts(images.image_shape)
    scales = fit_scales(network, machine, starts, SEEDS, candidates=(1, 5), steps=3)
    for i, step in enumerate(ddim_steps(network, noise, steps=3)):
        t = torch.full((3,), step.t, dtype=torch.float64)
        for j, k in enumerate((1, 5)):
            a, b = (
                eps_from_x0(step.x, x0_hat, t, schedule).flatten(1)
                for x0_hat in (step.x0_hat, machine(step.x, t, size=k))
            )
            expected = torch.nn.functional.cosine_similarity(a, b)
            torch.testing.assert_close(
                torch.tensor(scales.table[i][j], dtype=torch.float32), expected, atol=1e-5, rtol=0
            )


def test_scales_survive_the_disk(tmp_path: Path) -> None:
    scales = Scales(
        machine="boundary", criterion="cosine", seeds=(0, 1), candidates=(3, 5), t=(1.0, 0.5),
        values=(5, 3), by_seed=((5, 5), (3, 5)), table=(((0.1, 0.2), (0.3, 0.4)),) * 2,
    )  # fmt: skip
    scales.save(tmp_path / "scales.json")
    assert Scales.load(tmp_path / "scales.json") == scales
    assert scales.at(0.51) == 3
    with pytest.raises(InputError, match="there is no file"):
        Scales.load(tmp_path / "none.json")
    for text in ("{", "[]", '{"a": 1}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match="holds no fitted scales"):
            Scales.load(tmp_path / "bad.json")


def test_the_papers_scales_are_read_by_the_value_of_t() -> None:
    path = shared("golden", "paper_scales.json")
    scales = Scales.load(path, name="MNIST_UNet_zeros")
    assert (scales.at(1.0), scales.at(0.95), scales.at(0.05)) == (27, 25, 3)
    assert scales.at(0.7) == 15  # number 13 of the list, for t = 14 / 20
    assert (len(scales.t), scales.t[0], scales.t[-1]) == (20, 1.0, 0.05)
    with pytest.raises(InputError, match="it holds several: give one of CIFAR10_ResNet_circular"):
        Scales.load(path)
    with pytest.raises(InputError, match="it has none called 'VGG'"):
        Scales.load(path, name="VGG")


@pytest.mark.parametrize("content", [
    [3, 5, 7, 9], torch.tensor([3, 5, 7, 9]), torch.tensor([3.0, 5, 7, 9]),
    [torch.tensor(k) for k in (3, 5, 7, 9)],
])  # fmt: skip
def test_scales_in_torch_files(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "scales.pt")
    scales = Scales.load(tmp_path / "scales.pt")
    assert (scales.t, scales.values) == ((1.0, 0.75, 0.5, 0.25), (9, 7, 5, 3))
    scales.save(tmp_path / "scales.json")
    assert Scales.load(tmp_path / "scales.json") == scales
    images = random_images()
    x, t = seeded_noise([0], images.image_shape), torch.tensor([0.5])
    fitted, fixed = (make_machine("local", images, size=size) for size in (scales, 5))
    assert torch.equal(fitted(x, t), fixed(x, t))


def test_files_without_odd_sizes_are_no_scales(tmp_path: Path) -> None:
    for i, content in enumerate(([3, 4], [3.5], [], {"a": 3}, ["x"], torch.zeros(2, 2))):
        torch.save(content, tmp_path / f"{i}.pt")
        with pytest.raises(InputError, match="holds no fitted scales"):
            Scales.load(tmp_path / f"{i}.pt")
    (tmp_path / "a.pt").write_bytes(b"hello")
    with pytest.raises(InputError, match="holds no fitted scales"):
        Scales.load(tmp_path / "a.pt")


def test_images_alone_choose_the_value_that_denoises_them_best() -> None:
    images, held_out = (load_images("digits", size=12, split=split) for split in ("train", "val"))
    machine, schedule = make_machine("boundary", images.take(torch.arange(200))), CosineSchedule()
    ten = held_out.take(torch.arange(10))
    scales = fit_scales_to_data(machine, ten, candidates=(3, 7, 11), steps=4)
    assert (scales.criterion, scales.seeds, scales.scale) == ("mse", tuple(range(10)), "size")
    x0 = to_float(held_out.pixels[:10])
    eps = seeded_noise(range(10), images.image_shape)
    for i, t in enumerate(scales.t):
        at = torch.full((10,), t, dtype=torch.float64)
        x = add_noise(x0, eps, at, schedule)
        errors = [float((machine(x, at, size=k) - x0).square().mean()) for k in (3, 7, 11)]
        assert scales.mean_table()[i] == pytest.approx(errors, rel=1e-4)
        assert scales.values[i] == (3, 7, 11)[errors.index(min(errors))]
    assert scales.values[0] > scales.values[-1]


@pytest.mark.parametrize(
    ("kind", "value", "scale"),
    [("boundary_soft", 1.0, "width"), ("pca_local", 0.1, "threshold"),
     ("smoothed", 0.3, "smoothing"), ("tempered", 4.0, "temperature"),
     ("patch_composite", 5, "size")],
)  # fmt: skip
def test_every_scale_is_found_again(kind: str, value: float, scale: str) -> None:
    images = load_images("digits", size=12, limit=60)
    network, machine = make_machine(kind, images, size=value), make_machine(kind, images)
    candidates = [v for v in machine.scale.candidates if scale != "size" or v <= 11]
    candidates = [v for v in candidates if scale != "width" or v <= 2]
    starts = Starts(images.image_shape)
    scales = fit_scales(network, machine, starts, SEEDS, candidates=candidates, steps=5)
    assert scales.scale == scale
    for row in scales.mean_table():  # where the answers are the same, another value may win
        assert row[scales.candidates.index(value)] >= max(row) - 1e-9
    assert scales.at(0.6) == value


def test_a_machine_without_a_scale_is_not_calibrated() -> None:
    images = random_images()
    with pytest.raises(InputError, match="the wiener machine has no scale"):
        fit_scales(make_machine("ideal", images), make_machine("wiener", images),
                   Starts(images.image_shape), [0])  # fmt: skip


def test_calibration_needs_seeds_and_sizes() -> None:
    machine = make_machine("local", random_images())
    for seeds, sizes in (((), (3,)), ((0,), ())):
        with pytest.raises(InputError, match="calibration needs seeds and values to try"):
            fit_scales(machine, machine, Starts((1, 8, 8)), seeds, candidates=sizes)


def test_scales_say_in_a_line_what_they_are(tmp_path: Path) -> None:
    fitted = Scales("boundary", "cosine", (0,), (3, 9), (1.0, 0.5, 0.05), (9, 5, 3), (), ())
    assert repr(fitted) == "sizes of boundary: 9 at t = 1 to 3 at t = 0.05"
    wide = replace(fitted, machine="boundary_soft", scale="width", values=(2.4, 1.2, 0.5))
    assert repr(wide) == "widths of boundary_soft: 2.4 at t = 1 to 0.5 at t = 0.05"
    (tmp_path / "released.json").write_text("[3, 5, 7, 9]")
    released = Scales.load(str(tmp_path / "released.json"))
    assert repr(released) == f"sizes of {tmp_path}/released.json: 9 at t = 1 to 3 at t = 0.25"


def _scales(table: list[list[list[float]]], values: tuple[int, ...], criterion: str) -> Scales:
    seeds = len(table[0][0]) if table else 0
    return Scales(
        machine="boundary",
        criterion=criterion,
        seeds=tuple(range(seeds)),
        candidates=(3, 5, 7, 9),
        t=tuple(1 - i / len(values) for i in range(len(values))),
        values=values,
        by_seed=(),
        table=tuple(tuple(map(tuple, line)) for line in table),
    )


def test_sizes_that_the_seeds_cannot_tell_apart_are_a_band() -> None:
    chosen = [1.0, 1.2, 0.9, 1.1]
    worse, alike = [2.0, 2.2, 1.9, 2.1], [1.1, 1.1, 1.0, 1.0]
    hardly_worse = [value * 1.005 for value in chosen]  # on every seed, by nothing that matters
    scales = _scales(
        [[worse, chosen, alike, worse], [worse, worse, chosen, hardly_worse]], (5, 7), "l2"
    )
    assert scales.band == ((5, 7), (7, 9))
    assert scales.at_edge == (False, False)


def test_a_band_does_not_leap_over_a_worse_size_and_cosines_are_better_when_larger() -> None:
    good, bad = [0.9, 0.91, 0.92], [0.5, 0.51, 0.52]
    scales = _scales([[good, bad, good, bad], [bad, bad, bad, good]], (7, 9), "cosine")
    assert scales.band == ((7, 7), (9, 9))
    assert scales.at_edge == (False, True)


def test_one_seed_tells_no_band_but_a_difference_that_is_none() -> None:
    scales = _scales([[[1.0], [1.001], [1.2], [1.0]]], (3,), "l2")
    assert scales.band == ((3, 5),)


def test_bands_stand_in_the_file_for_readers(tmp_path: Path) -> None:
    scales = _scales([[[1.0, 1.1], [1.5, 1.6], [2.0, 2.1], [2.0, 2.1]]], (3,), "l2")
    scales.save(tmp_path / "scales.json")
    content = json.loads((tmp_path / "scales.json").read_text())
    assert (content["band"], content["at_edge"]) == ([[3, 3]], [False])
    assert Scales.load(tmp_path / "scales.json") == scales
    released = tmp_path / "released.json"
    released.write_text("[3, 5, 9]")
    assert Scales.load(released).band == ((9, 9), (5, 5), (3, 3))
