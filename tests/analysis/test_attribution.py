import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_images
from made_results import T, made_attribution, made_mosaic, made_scales

from els.analysis.attribution import COPIES, HELD_OUT, NETWORK, Attribution, shown_images


@pytest.fixture
def attribution() -> Attribution:
    return made_attribution(("boundary", "ideal"), seeds=3)


def assert_same(one: object, two: object) -> None:
    """Two dataclasses of tensors hold the same."""
    for name, value in vars(one).items():
        other = getattr(two, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other), name
        elif isinstance(value, dict):
            assert list(value) == list(other)
            for key in value:
                if isinstance(value[key], torch.Tensor):
                    assert torch.equal(value[key], other[key])
                else:
                    assert_same(value[key], other[key])
        elif hasattr(value, "__dataclass_fields__"):
            assert_same(value, other)
        else:
            assert value == other, name


@pytest.mark.parametrize("kinds", [("boundary", "ideal"), ("ideal",)])
def test_what_is_saved_is_loaded(kinds: tuple[str, ...], tmp_path: Path) -> None:
    made = made_attribution(kinds, seeds=3)
    made.save(tmp_path / "origins.npz")
    assert_same(made, Attribution.load(tmp_path / "origins.npz", {}))
    assert [path.name for path in tmp_path.iterdir()] == ["origins.npz"]


def test_labels_and_classes_are_kept(attribution: Attribution, tmp_path: Path) -> None:
    training = replace(
        attribution.tracing.training, labels=torch.arange(20), classes=("cat", "naïve")
    )
    tracing = replace(attribution.tracing, training=training)
    replace(attribution, tracing=tracing).save(tmp_path / "origins.npz")
    loaded = Attribution.load(tmp_path / "origins.npz", {}).tracing.training
    assert loaded.classes == ("cat", "naïve")
    assert torch.equal(loaded.labels, torch.arange(20))


def test_a_machine_is_traced_where_every_step_has_a_mosaic(attribution: Attribution) -> None:
    assert attribution.traced is attribution.tracing.mosaics["boundary"]
    last = {"boundary": made_mosaic(T[-1:], seeds=3)}
    tracing = replace(attribution.tracing, mosaics={**attribution.tracing.mosaics, **last})
    assert replace(attribution, tracing=tracing).traced is None
    assert replace(attribution, tracing=None).traced is None


def test_every_side_is_measured(attribution: Attribution) -> None:
    found = attribution.by_seed
    assert list(found) == [NETWORK, "boundary", HELD_OUT, COPIES]
    novelty = ["distance", "distance_in_place", "matching", "memorised"]
    novelty += ["second", "second_in_place", "ratio", "ratio_in_place"]
    mosaic = ["images", "effective_images", "decided", "largest_piece"]
    for side, values in found.items():
        assert list(values) == novelty + mosaic
        assert torch.equal(values["memorised"], attribution.novelty[side].memorised)
    drawn = attribution.tracing.mosaics["boundary"].images_drawn_on()
    assert torch.equal(found["boundary"]["images"], drawn.double())
    assert list(replace(attribution, tracing=None).by_seed[NETWORK]) == novelty


def test_copies_are_counted_for_every_side(attribution: Attribution) -> None:
    near = torch.tensor([0.1, 0.2, 0.5])
    novelty = replace(
        attribution.novelty[NETWORK], in_place=near, distance=near / 2,
        second=torch.ones(3), second_in_place=torch.ones(3),
    )  # fmt: skip
    found = replace(attribution, novelty={**attribution.novelty, NETWORK: novelty})
    assert list(found.copies) == [NETWORK, "boundary", HELD_OUT, COPIES]
    assert found.copies[NETWORK]["in_place"].share == pytest.approx(2 / 3)
    assert found.copies[NETWORK]["shifted"].share == 1
    assert found.drawn == (NETWORK, "boundary")


def test_of_earlier_files_no_second_nearest_images_are_known(
    attribution: Attribution, tmp_path: Path
) -> None:
    attribution.save(tmp_path / "origins.npz")
    with np.load(tmp_path / "origins.npz") as file:
        kept = {
            name: file[name]
            for name in file
            if not re.fullmatch(r"novelty/.*/second(_in_place)?", name)
        }
    np.savez_compressed(tmp_path / "origins.npz", **kept)
    found = Attribution.load(tmp_path / "origins.npz", {})
    assert found.copies == {}
    assert "ratio" not in found.by_seed[NETWORK]
    assert torch.equal(found.novelty[NETWORK].distance, attribution.novelty[NETWORK].distance)


def test_the_sides_of_windows_that_were_not_kept_are_those_of_the_scale(
    attribution: Attribution, tmp_path: Path
) -> None:
    path = tmp_path / "origins.npz"
    attribution.save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if not name.endswith("/sides")}
    np.savez_compressed(path, **arrays, subject=np.array("boundary"))
    for scales, sides in (
        (made_scales("boundary"), (7, 5, 5, 3)),
        (replace(made_scales("boundary"), scale="width", values=(2.0, 1.0, 0.6, 0.5)),
         (9, 5, 5, 3)),
    ):  # fmt: skip
        loaded = Attribution.load(path, {"boundary": scales}).tracing
        assert loaded.mosaics["boundary"].sides == sides
        assert loaded.yardsticks[COPIES].sides == sides[-1:]


def test_the_images_that_won_most_are_shown_as_far_as_they_fit() -> None:
    images, mosaic = random_images(20), made_mosaic(T, seeds=3)
    first = mosaic.best[-1][1, 0].unique().tolist()
    few = shown_images(images, [mosaic], [1, 0, 2], budget=3 * 64)
    assert len(few.indices) == 3
    assert set(few.indices.tolist()) <= set(first)
    assert torch.equal(few.pixels, images.pixels[few.indices])
    every = shown_images(images, [mosaic], [1, 0, 2])
    assert every.indices.tolist() == sorted(every.indices.tolist())
    assert set(first) <= set(every.indices.tolist())
