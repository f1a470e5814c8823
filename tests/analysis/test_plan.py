"""What an analysis will take is told before it begins, and `auto` tolerances follow from counts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
from studies import small_study, write_checkpoint

from els.analysis import plan as planning
from els.analysis import study as studying
from els.analysis.plan import COVARIANCES, MOMENTS, plan, plan_along
from els.console import console
from els.errors import InputError
from els.machines import gaussian


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("plan") / "tiny.ckpt")


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query takes a second."""
    monkeypatch.setattr(planning, "_time", lambda work: work() is None or 1.0)


@pytest.mark.usefixtures("second")
def test_stages_are_the_queries_that_are_to_come(checkpoint: Path) -> None:
    study = small_study(checkpoint, held_out=2, yardsticks=3, machines=["boundary", "ideal"])
    found = plan(study)
    seeds, calibration, steps, images = 3, 2, 3, 40 / 32
    expected = {
        "calibrate": calibration * steps * (1 / 8 + images),
        "calibrate on held-out images": 2 * steps * images,
        "sample the network": seeds * steps / 8,
        "sample the machines": 2 * seeds * steps * images,
        "probe the network": calibration * steps * 20 / 8,
        "trace mosaics": (seeds + 2 * 3) * 1.15 * images,
        # Of the network, two machines, and held-out and training images.
        "find the nearest images": (3 * seeds + 2 * 3) / 8,
    }
    assert found.seconds == pytest.approx(expected)
    assert found.total == pytest.approx(sum(found.seconds.values()))
    assert plan(study, processes=2).total == pytest.approx(found.total / 2)


@pytest.mark.usefixtures("second")
def test_what_is_left_out_is_not_planned(checkpoint: Path) -> None:
    study = small_study(checkpoint, machines=["ideal"], mosaic=False)
    stages = ["sample the network", "sample the machines", "probe the network"]
    assert list(plan(study).seconds) == stages


@pytest.mark.usefixtures("second")
def test_answers_apart_from_paths_are_planned(checkpoint: Path, tmp_path: Path) -> None:
    twin = write_checkpoint(tmp_path / "twin.ckpt", seed=1)
    study = small_study(checkpoint, source={"twin": [str(twin)]}, machines=["boundary", "ideal"],
                        mosaic=False, denoising=5, same_x=2)  # fmt: skip
    found = plan(study).seconds
    seeds, steps, network, machines = 3, 3, 1 / 8, 2 * 40 / 32
    assert found["sample networks of other seeds"] == pytest.approx(seeds * steps * network)
    assert found["errors of denoising"] == pytest.approx(2 * 5 * steps * (network + machines + 1))
    # The machines and the twin once; the network on the path of each of them, on images once.
    asked = machines + network
    both = 2 * steps * (asked + 3 * network) + 2 * steps * (asked + network)
    assert found["ask at the same x"] == pytest.approx(both)


@pytest.mark.usefixtures("second")
def test_along_training_every_snapshot_is_denoised_and_compared_with_images(
    checkpoint: Path,
) -> None:
    study = small_study(checkpoint, held_out=2, yardsticks=3, machines=["boundary"])
    found = plan_along(study, 5, processes=2).seconds
    seeds, steps = 3, 3
    assert found["find the nearest images"] == pytest.approx(5 * seeds / 8 / 2)
    assert found["errors of denoising"] == pytest.approx(5 * 2 * 3 * steps / 8 / 2)
    bare = plan_along(small_study(checkpoint, mosaic=False, machines=["boundary"]), 5).seconds
    assert {"find the nearest images", "errors of denoising"}.isdisjoint(bare)


@pytest.mark.usefixtures("second")
def test_a_class_is_a_part_of_the_images(tmp_path: Path) -> None:
    conditional = small_study(write_checkpoint(tmp_path / "c.ckpt", classes=10), mosaic=False)
    assert plan(conditional).seconds["sample the machines"] > 0


@pytest.mark.usefixtures("second")
def test_every_machine_can_be_timed(checkpoint: Path) -> None:
    study = small_study(checkpoint, machines="all", mosaic=False)
    assert plan(study).seconds["fit the mixture"] > 0


def test_a_plan_is_printed_with_its_sum(checkpoint: Path) -> None:
    planned = plan(small_study(checkpoint))
    with console.capture() as captured:
        console.print(planned)
    lines = captured.get().splitlines()
    assert lines[0].startswith("calibrate ")
    assert lines[-1].startswith("in all ")
    assert lines[-1].endswith("GB of memory")


def test_auto_is_exact_until_patience_ends(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small_study(checkpoint).protocol.tolerance == 0
    # Few images are never sampled, however long they take.
    monkeypatch.setattr(studying, "_PATIENCE", 0)
    assert small_study(checkpoint).protocol.tolerance == 0
    monkeypatch.setattr("els.machines.local.can_sample", lambda query, engine: True)
    study = small_study(checkpoint)
    assert study.protocol.tolerance == 0.01
    assert study.provenance.protocol.tolerance == 0.01
    assert small_study(checkpoint, tolerance=0.0).protocol.tolerance == 0
    assert "sort patches" in plan(study).seconds
    monkeypatch.setattr(studying, "_PATIENCE", 1e6)
    assert small_study(checkpoint).protocol.tolerance == 0


@pytest.mark.parametrize("tolerance", [-0.5, float("nan"), float("inf")])
def test_a_tolerance_without_meaning_is_refused(checkpoint: Path, tolerance: float) -> None:
    study = small_study(checkpoint)
    with pytest.raises(InputError, match="give auto, or an error of at least 0"):
        replace(study.protocol, tolerance=tolerance)


# --- linear algebra, whose multiplications are counted --------------------------------------------

PRODUCT = 512**3  # multiplications of the product that is timed


@pytest.mark.usefixtures("second")
def test_moments_of_the_images_are_planned_once_for_each_process(checkpoint: Path) -> None:
    """Of 40 images of 64 pixels: two passes of 40 x 64 x 40, and eigenvectors as six products."""
    bare = plan(small_study(checkpoint, machines=["boundary"], mosaic=False))
    assert MOMENTS not in bare.seconds
    study = small_study(checkpoint, machines=["wiener"], mosaic=False)
    moments = 2 * 40 * 64 * 40 + 6 * 40**3
    for processes in (1, 2):
        found = plan(study, processes=processes)
        assert found.seconds[MOMENTS] == pytest.approx(moments / PRODUCT)
    assert found.gigabytes - bare.gigabytes == pytest.approx(8 * (2 * 64 * 40 + 4 * 40**2) / 1e9)
    local = plan(small_study(checkpoint, machines=["pca_local"], mosaic=False)).seconds
    reach = 2 * 3 * 64**2 * 40  # on two kinds of paths, at three times
    assert local[MOMENTS] == pytest.approx((moments + reach) / PRODUCT)
    for options in ({"machines": ["boundary"], "denoising": 2}, {"machines": ["mixture"]}):
        assert MOMENTS in plan(small_study(checkpoint, mosaic=False, **options)).seconds
    assert plan_along(study, 5).seconds[MOMENTS] == pytest.approx(moments / PRODUCT)


@pytest.mark.usefixtures("second")
def test_moments_are_not_found_to_plan_them(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(checkpoint, machines=["wiener", "pca_local"], mosaic=False, denoising=2)
    seen = []
    monkeypatch.setattr(planning, "_SOME_IMAGES", 10)
    found = gaussian.gaussian_of
    monkeypatch.setattr(gaussian, "_kept", OrderedDict())
    monkeypatch.setattr(gaussian, "gaussian_of", lambda x: seen.append(len(x)) or found(x))
    seconds = plan(study).seconds
    assert seen == [10]
    seeds, steps, sides = 3, 3, 4  # the filter has 40 directions in place of 10; so many images
    assert seconds["sample the machines"] == pytest.approx(seeds * steps * 2 * sides)


@pytest.mark.usefixtures("second")
def test_covariances_of_patches_are_planned(checkpoint: Path) -> None:
    """Of 40 images of 8 x 8: patches of all places for boundary, nine sets of 40 for local."""
    bare = plan(small_study(checkpoint, machines=["boundary", "local"], mosaic=False))
    assert COVARIANCES not in bare.seconds
    study = small_study(checkpoint, machines=["boundary", "local"], mosaic=False, information=1)
    expected = 0
    for size in (3, 5):
        cells = size**2
        expected += 40 * (9 - size) ** 2 * cells**2 + 3 * cells**3
        expected += 9 * (40 * cells**2 + 3 * cells**3)
    found = plan(study)
    assert found.seconds[COVARIANCES] == pytest.approx(expected / PRODUCT)
    assert plan(study, processes=2).seconds[COVARIANCES] == pytest.approx(expected / PRODUCT / 2)
    most = 3 * 40 * 16 * 25 + 2 * 25**2
    assert found.gigabytes - bare.gigabytes == pytest.approx(8 * most / 1e9)
