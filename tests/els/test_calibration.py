from pathlib import Path

import pytest
import torch
from conftest import random_images
from torch import Tensor

from els.calibration import Scales, fit_scales
from els.denoiser import eps_from_x0
from els.errors import InputError
from els.images import load_images
from els.machines import make_machine
from els.sampling import ddim_steps, seeded_noise
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
        network, make_machine(kind, images), seeded_noise(SEEDS, images.image_shape),
        seeds=SEEDS, candidates=(3, 5, 7, 9), steps=8, criterion=criterion, batch=2,
    )  # fmt: skip
    assert scales.sizes == tuple(ChangingSize().at(t) for t in scales.t)
    assert scales.t == (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)
    assert scales.at(0.625) == 7
    assert scales.at(0.5) == 3


def test_the_table_holds_the_cosines_of_the_eps_hats_and_ignores_the_batch() -> None:
    images, schedule = random_images(5), CosineSchedule()
    machine, noise = make_machine("local", images), seeded_noise(SEEDS, images.image_shape)

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return torch.tanh(x)

    scales = fit_scales(network, machine, noise, seeds=SEEDS, candidates=(1, 5), steps=3, batch=2)
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
        sizes=(5, 3), by_seed=((5, 5), (3, 5)), table=(((0.1, 0.2), (0.3, 0.4)),) * 2,
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


def test_calibration_needs_seeds_and_sizes() -> None:
    machine = make_machine("local", random_images())
    for noise, sizes in ((torch.zeros(0, 1, 8, 8), (3,)), (torch.zeros(1, 1, 8, 8), ())):
        with pytest.raises(InputError, match="calibration needs seeds and values to try"):
            fit_scales(machine, machine, noise, seeds=(), candidates=sizes)
