"""Every stage of an analysis, on a machine as its own network: see `stages.StageTester`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_images
from stages import StageTester

from els.calibration import fit_scales, fit_scales_to_data
from els.denoising import image_errors
from els.images import to_float
from els.information import measure_information
from els.machines import make_machine
from els.mosaic import Tracer, trace_images, trace_points
from els.novelty import nearest_images
from els.probes import probe
from els.same_x import agreement_on_path, answers_on_images
from els.sampling import Starts, sample_paths
from els.stacking import fit_weights
from els.work import Work

IMAGES = random_images(9, 1, 8, 8, classes=2)
HELD_OUT = random_images(5, 1, 8, 8, classes=2, seed=1)
STARTS = Starts(IMAGES.image_shape)
OTHER_STARTS = Starts(IMAGES.image_shape, num_classes=2)
FIXED_LABEL = Starts(IMAGES.image_shape, num_classes=2, label=1)
NETWORK = make_machine("local", IMAGES, size=5, engine="torch")
SEEDS = range(5)


def machine(kind: str = "boundary", **options: Any) -> Any:
    return make_machine(kind, IMAGES, **options)


def stage_scales(work: Work, **changes: Any) -> object:
    options = {"machine": machine(), "starts": STARTS, "seeds": SEEDS, "steps": 3,
               "candidates": (3, 5)} | changes  # fmt: skip
    return fit_scales(NETWORK, options.pop("machine"), options.pop("starts"), options.pop("seeds"),
                      **options, work=work)  # fmt: skip


def stage_data(work: Work, **changes: Any) -> object:
    options = {"machine": machine(), "held_out": HELD_OUT, "steps": 3, "candidates": (3, 5)}
    options |= changes
    return fit_scales_to_data(options.pop("machine"), options.pop("held_out"), **options, work=work)


def stage_weights(work: Work, **changes: Any) -> object:
    options = {"mixture": machine("mixture"), "starts": STARTS, "seeds": SEEDS, "steps": 3}
    options |= changes
    return fit_weights(NETWORK, options.pop("mixture"), options.pop("starts"), options.pop("seeds"),
                       **options, work=work)  # fmt: skip


def stage_paths(work: Work, **changes: Any) -> object:
    options = {"denoiser": machine(size=3), "starts": STARTS, "seeds": SEEDS, "steps": 3} | changes
    denoiser = options.pop("denoiser")
    tracer = Tracer(denoiser) if options.pop("traced", False) else None
    return sample_paths(denoiser, options.pop("starts"), options.pop("seeds"), **options,
                        tracer=tracer, work=work)  # fmt: skip


def stage_probes(work: Work, **changes: Any) -> object:
    options = {"starts": STARTS, "seeds": SEEDS, "steps": 3} | changes
    return probe(NETWORK, options.pop("starts"), options.pop("seeds"), **options, work=work)


def stage_novelty(work: Work, **changes: Any) -> object:
    samples = changes.pop("samples", to_float(HELD_OUT.pixels))
    return nearest_images(samples, IMAGES, **changes, work=work)


def stage_points(work: Work, **changes: Any) -> object:
    options = {"x": to_float(HELD_OUT.pixels), "label": None, "machine": machine(size=3),
               "t": 0.3, "name": "points"} | changes  # fmt: skip
    return trace_points(options.pop("x"), options.pop("label"), Tracer(options.pop("machine")),
                        **options, work=work)  # fmt: skip


def stage_images(work: Work, **changes: Any) -> object:
    options = {"images": HELD_OUT, "machine": machine(size=3), "t": 0.3, "name": "images"} | changes
    return trace_images(options.pop("images"), Tracer(options.pop("machine")), **options, work=work)


def stage_information(work: Work, **changes: Any) -> object:
    options = {"machine": machine(), "starts": STARTS, "seeds": SEEDS, "steps": 3,
               "candidates": (3, 5)} | changes  # fmt: skip
    asked = (options.pop(name) for name in ("machine", "starts", "seeds"))
    return measure_information(NETWORK, *asked, **options, work=work)


def stage_errors(work: Work, **changes: Any) -> object:
    options = {"denoiser": machine(size=3), "images": HELD_OUT, "steps": 3} | changes
    return image_errors(options.pop("denoiser"), options.pop("images"), **options, work=work)


PATHS = sample_paths(NETWORK, STARTS, SEEDS, steps=3)
OTHER_PATHS = sample_paths(machine("wiener"), STARTS, SEEDS, steps=3)


def stage_same_path(work: Work, **changes: Any) -> object:
    options = {"paths": PATHS, "asked": machine(size=3), "starts": STARTS, "of": "network"}
    options |= changes
    return agreement_on_path(options.pop("paths"), options.pop("asked"), options.pop("starts"),
                             SEEDS, **options, work=work)  # fmt: skip


def stage_same_images(work: Work, **changes: Any) -> object:
    options = {"denoiser": machine(size=3), "images": HELD_OUT, "steps": 3} | changes
    return answers_on_images(options.pop("denoiser"), options.pop("images"), **options, work=work)


OF_MACHINES = {"kind": machine("local"), "window": machine(window="gaussian"),
               "symmetries": machine(symmetries=["flip"]), "temperature": machine(temperature=2.0),
               "shift": machine(shift=1)}  # fmt: skip
FASTER = machine(engine="torch", chunk=2)

STAGES = {
    "scales": StageTester(
        stage_scales,
        changes={"seeds": range(1, 7), "starts": OTHER_STARTS, "steps": 4, "candidates": (3, 7),
                 "criterion": "l2"},
        harmless={"seeds": range(5), "machine": FASTER},
    ),
    "data": StageTester(
        stage_data,
        changes={"held_out": HELD_OUT.take(torch.arange(4)), "steps": 4, "candidates": (3, 7),
                 "conditional": True},
        harmless={"machine": FASTER},
    ),
    "weights": StageTester(
        stage_weights,
        changes={"mixture": machine("mixture", around="equivariant"), "starts": OTHER_STARTS,
                 "seeds": range(4), "steps": 4},
        harmless={"mixture": machine("mixture", engine="torch")},
    ),
    "paths": StageTester(
        stage_paths,
        changes={"denoiser": machine(size=5), "starts": OTHER_STARTS, "seeds": range(6),
                 "steps": 4, "traced": True},
        harmless={"denoiser": machine(size=3, engine="torch"), "name": "another"},
    ),
    "probes": StageTester(
        stage_probes, changes={"starts": OTHER_STARTS, "seeds": range(4), "steps": 4}
    ),
    "novelty": StageTester(
        stage_novelty, changes={"samples": to_float(HELD_OUT.pixels[:3]) / 2},
    ),
    "points": StageTester(
        stage_points,
        changes={"x": to_float(HELD_OUT.pixels[:3]) / 2, "label": torch.arange(5) % 2,
                 "machine": machine(size=5), "t": 0.4},
        harmless={"machine": machine(size=3, engine="torch")},
    ),
    "information": StageTester(
        stage_information,
        changes={"machine": machine("local"), "starts": OTHER_STARTS, "seeds": range(1, 7),
                 "steps": 4, "candidates": (3, 7)},
        harmless={"machine": machine(engine="torch", tolerance=0.1), "candidates": (5, 3)},
    ),
    "images": StageTester(
        stage_images,
        changes={"images": IMAGES, "machine": machine(size=5), "t": 0.4, "conditional": True},
    ),
    "errors": StageTester(
        stage_errors,
        changes={"denoiser": machine(size=5), "images": IMAGES, "steps": 4, "conditional": True},
        harmless={"denoiser": machine(size=3, engine="torch"), "name": "another",
                  "images": HELD_OUT.take(torch.arange(5))},
    ),
    "the same x on a path": StageTester(
        stage_same_path,
        changes={"paths": OTHER_PATHS, "asked": machine(size=5), "starts": OTHER_STARTS,
                 "of": "machine"},
        harmless={"asked": machine(size=3, engine="torch"), "name": "another"},
    ),
    "the same x on images": StageTester(
        stage_same_images,
        changes={"denoiser": machine(size=5), "images": IMAGES, "steps": 4, "conditional": True},
        harmless={"denoiser": machine(size=3, engine="torch")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_keeps_its_promises(name: str, tmp_path: Path) -> None:
    STAGES[name].check(tmp_path)


@pytest.mark.parametrize("option", OF_MACHINES)
@pytest.mark.parametrize("name", ["scales", "data"])
def test_a_machine_with_another_option_is_calibrated_anew(
    name: str, option: str, tmp_path: Path
) -> None:
    stage = STAGES[name].stage
    stage(Work(tmp_path))
    work = Work(tmp_path)
    changed = OF_MACHINES[option]
    candidates = (0.8, 1.5) if option == "window" else (3, 5)
    stage(work, machine=changed, candidates=candidates)
    assert work.computed


def test_another_label_is_another_start(tmp_path: Path) -> None:
    stage_paths(Work(tmp_path), starts=OTHER_STARTS)
    work = Work(tmp_path)
    stage_paths(work, starts=FIXED_LABEL)
    assert work.computed
