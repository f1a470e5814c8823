"""Numbers that cannot be: a right answer, or one line that names the network, t and the way out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_inputs import GOOD
from conftest import random_images
from entry import refusal
from made_results import made_results
from PIL import Image
from studies import small_results, write_checkpoint

from els.agreement import agreement, agreement_by_t, beats, compare_pairs, summarise
from els.analysis.commands import main as analyze
from els.analysis.report.findings import findings
from els.analysis.report.page import write_page
from els.analysis.report.tables import agreement_cells
from els.analysis.results import Results
from els.errors import InputError
from els.images import ImageSet, load_images, to_float
from els.machines import MACHINES, make_machine
from els.models.checkpoints import load_denoiser
from els.sampling import sample

TIMES = (1.0, 0.5, 1e-3, 1e-9)
# What each set of images that is odd in a way is: how many, channels, height, width.
SHAPES = {
    "one image": (1, 1, 8, 8),
    "one pixel": (4, 1, 1, 1),
    "not square": (4, 1, 6, 9),
    "one row": (4, 1, 1, 8),
    "two channels": (4, 2, 8, 8),
}


def answers(kind: str, images: ImageSet, t: float) -> torch.Tensor | None:
    """What a machine says of two noisy images; None where it refuses in a line."""
    x = torch.randn(2, *images.image_shape, generator=torch.Generator().manual_seed(1))
    try:
        scale = make_machine(kind, images).scale
        value = None
        if scale is not None:
            machine = make_machine(kind, images)
            value = next(iter(machine.allowed(scale.candidates)), None)
            if value is None:
                return None
        return make_machine(kind, images, size=value)(x, t)
    except InputError:
        return None


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_machines_answer_odd_images_with_numbers(kind: str, shape: tuple[int, ...]) -> None:
    images = random_images(*shape)
    for t in TIMES:
        found = answers(kind, images, t)
        assert found is None or found.isfinite().all()


@pytest.mark.parametrize("kind", ["ideal", "local", "boundary", "equivariant", "nearest", "wiener"])
def test_two_equal_images_are_as_one(kind: str) -> None:
    one = random_images(1)
    two = ImageSet(one.pixels.repeat(2, 1, 1, 1))
    for t in TIMES:
        found, expected = (answers(kind, images, t) for images in (two, one))
        if expected is not None and found is not None:
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", MACHINES)
def test_of_constant_images_machines_say_the_constant(kind: str) -> None:
    images = ImageSet(torch.full((4, 1, 8, 8), 200, dtype=torch.uint8))
    for t in TIMES:
        found = answers(kind, images, t)
        if found is not None:
            expected = to_float(images.pixels[:1]).expand_as(found)
            torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", ["boundary", "equivariant", "boundary_soft", "equivariant_soft"])
def test_without_noise_the_compiled_engine_answers_as_the_exact_one(kind: str) -> None:
    images, x = random_images(), torch.randn(2, 1, 8, 8)
    size = 1.0 if kind.endswith("soft") else 5
    for t in (1e-8, 1e-9, 1e-12, 1e-15):
        found, exact = (
            make_machine(kind, images, size=size, engine=engine)(one, t)
            for engine, one in (("auto", x), ("torch", x.double()))
        )
        torch.testing.assert_close(found, exact.float(), atol=1e-5, rtol=0)


def test_of_one_image_the_ideal_machine_says_that_image() -> None:
    images = random_images(1)
    for t in TIMES:
        found = answers("ideal", images, t)
        torch.testing.assert_close(found, to_float(images.pixels).expand_as(found))


@pytest.mark.parametrize("t", [0.0, -1.0, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("kind", ["ideal", "boundary"])
def test_times_beyond_the_ends_are_refused(kind: str, t: float) -> None:
    machine = make_machine(kind, random_images(), size=None if kind == "ideal" else 3)
    with pytest.raises(InputError, match="times are above 0"):
        machine(torch.randn(1, 1, 8, 8), t)


def test_a_scale_larger_than_the_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"patch size 99 is too large .* the largest is 15"):
        make_machine("boundary", random_images(), size=99)
    machine = make_machine("boundary", random_images(), size=15)
    assert machine(torch.randn(1, 1, 8, 8), 0.5).isfinite().all()


def scaled(path: Path, factor: float) -> Path:
    """The small network with its weights multiplied."""
    write_checkpoint(path)
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    content["state_dict"] = {name: value * factor for name, value in state.items()}
    torch.save(content, path)
    return path


def test_a_network_that_overflows_is_named_with_its_t(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = scaled(tmp_path / GOOD, 1e30)
    line = refusal(analyze, [path, "--self_check", "off", "--logger", "none"], capsys)
    assert "the network (ResNet) answers with NaN or infinite numbers at t = 0.5" in line
    assert "earlier checkpoint" in line
    with pytest.raises(InputError, match=r"numbers at t = 0\.5"):
        load_denoiser(path)(torch.randn(1, 1, 8, 8), 0.5)
    assert not list(tmp_path.rglob("agreement.json"))


def test_a_network_of_zeros_is_analysed(tmp_path: Path) -> None:
    found = small_results(scaled(tmp_path / "zero.ckpt", 0.0), source={"self_check": "off"})
    metrics = found.agreement[0].machines["boundary"].metrics
    assert all(math.isfinite(one.median) for one in metrics.values())


def test_a_constant_image_is_counted_and_not_averaged() -> None:
    network = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    machine = network + 0.1
    machine[1] = 0.5
    found = agreement(machine, network)
    assert all(values.isnan().tolist() == [False, True, False, False] for values in found.values())
    assert summarise(found["pearson_r"]).median == pytest.approx(1)
    other = {"pearson_r": torch.zeros(4)}
    assert beats(found, other) == 1
    (pair,) = compare_pairs({"machine": found, "other": other})
    assert (pair.seeds, pair.wins) == (3, 1)
    by_t = agreement_by_t(machine[None], network[None])
    assert by_t.isnan().tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("whose", ["machine", "network"])
def test_images_that_are_all_constant_are_one_line(whose: str) -> None:
    images = {"machine": torch.randn(2, 1, 4, 4), "network": torch.randn(2, 1, 4, 4)}
    images[whose] = torch.ones(2, 1, 4, 4)
    with pytest.raises(InputError, match=f"the {whose}'s images have the same value everywhere"):
        agreement(**images)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_images_that_are_no_numbers_have_no_agreement(value: float) -> None:
    images = torch.randn(2, 1, 4, 4)
    broken = images.clone()
    broken[0, 0, 0, 0] = value
    with pytest.raises(InputError, match="images of the network are NaN or infinite"):
        agreement(images, broken)


def test_undefined_seeds_are_shown_everywhere_and_left_out(tmp_path: Path) -> None:
    results = made_results(["boundary", "ideal"])
    network = results.network[20].clone()
    network[2] = 0.25
    results = replace(results, network={20: network})
    summary = results.agreement[0].machines["boundary"]
    assert summary.undefined == 1
    kept = [i for i in range(6) if i != 2]
    expected = summarise(results.by_seed["boundary"]["pearson_r"][kept])
    assert summary.metrics["pearson_r"] == expected
    assert results.order[-1] == 2 or results.order[2] != 2
    assert 2 not in results.named_seeds.values()
    told = findings(results)["agreement"]
    assert "without 1 seed on which an image is constant" in told
    assert agreement_cells(results.agreement[0])[1][0] == "boundary (1 seed undefined)"
    results.save(tmp_path)
    written = json.loads((tmp_path / "agreement.json").read_text())["machines"]["boundary"]
    assert written["undefined"] == 1
    assert Results.load(tmp_path).agreement == results.agreement
    write_page(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    data = page.partition('id="data"')[2].partition(">")[2].partition("</script>")[0]
    json.loads(data, parse_constant=pytest.fail)  # NaN is no JSON, and no browser reads it
    assert "null" in data


def folder_of_images(folder: Path, pixels: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{i}.png")
    return folder


def test_few_equal_and_constant_images_are_loaded(tmp_path: Path) -> None:
    flat = np.full((8, 8), 7, np.uint8)
    folder = folder_of_images(tmp_path / "few", [flat] * 3)
    images = load_images("folder", root=folder, size=8)
    assert len(images) == 1
    assert (images.pixels == 7).all()
    machine = make_machine("ideal", images)
    with pytest.raises(InputError, match="the same value everywhere"):
        agreement(sample(machine, range(2), steps=2), torch.ones(2, 1, 8, 8))


@pytest.mark.parametrize(
    "protocol",
    [{"seeds": 2, "calibration_seeds": 1}, {"seeds": 5, "calibration_seeds": 1}],
    ids=["one seed", "one calibration seed"],
)
def test_one_seed_is_enough(tmp_path: Path, protocol: dict[str, int]) -> None:
    found = small_results(write_checkpoint(tmp_path / "tiny.ckpt"), **protocol)
    summary = found.agreement[0].machines["boundary"].metrics["pearson_r"]
    assert summary.ci95[0] <= summary.median <= summary.ci95[1]
    assert not any(pair.distinguishable for pair in found.pairs)


def test_a_class_of_one_image_is_that_image() -> None:
    images = random_images(5, classes=2)
    images = replace(images, labels=torch.tensor([0, 0, 0, 0, 1]))
    found = make_machine("ideal", images)(torch.randn(2, 1, 8, 8), 0.5, label=1)
    torch.testing.assert_close(found, to_float(images.pixels[4:]).expand_as(found))
    with pytest.raises(InputError, match="no image has label 3"):
        make_machine("ideal", images)(torch.randn(2, 1, 8, 8), 0.5, label=3)
