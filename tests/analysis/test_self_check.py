"""Whether a network was understood: networks that are right, wrong, undeclared and untrained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from entry import refusal
from studies import small_results, small_study, write_checkpoint
from torch import Tensor

from els.adapters import from_edm, from_eps, from_v
from els.analysis.commands import main
from els.analysis.report.page import write_page
from els.analysis.results import Results
from els.analysis.self_check import TIMES, SelfCheck, self_check
from els.analysis.tracking.config import config
from els.denoising import denoising_errors
from els.errors import InputError
from els.images import load_images, to_float
from els.machines import make_machine
from els.models.adapted import AdaptedNetwork
from els.models.blocks import Network
from els.models.denoiser import NetworkDenoiser
from els.models.formats.loaded import Declared
from els.models.readings import Reading, reread
from els.models.steps import StepNetwork, alphas_cumprod
from els.schedule import COSINE

IMAGES = load_images("digits", size=8)
TRAINED = make_machine("local", IMAGES, size=5)  # stands for a network that was trained on them
LEVELS = alphas_cumprod("cosine")[:900]


def answer(y: Tensor, step: Tensor, prediction: str = "v") -> Tensor:
    """What the network predicts, over cosine noise."""
    level = LEVELS[step.round().long()]
    a, b = (one[:, None, None, None].to(y) for one in (level.sqrt(), (1 - level).sqrt()))
    x0 = TRAINED(y, COSINE.time(level.sqrt()).clamp(max=1))
    return {"v": a * (y - a * x0) / b - b * x0, "eps": (y - a * x0) / b}[prediction]


def as_eps(y: Tensor, step: Tensor) -> Tensor:
    return answer(y, step, "eps")


class Bare(StepNetwork):
    """A network of steps, read as somebody says."""

    def __init__(self, prediction: str, schedule: str) -> None:
        levels = LEVELS if schedule == "cosine" else alphas_cumprod(schedule, len(LEVELS))
        super().__init__(1, None, "none", alphas_cumprod=levels, prediction=prediction)

    def answer(self, x: Tensor, steps: Tensor, label: Tensor | None) -> Tensor:
        return answer(x, steps)

    @property
    def receptive_field(self) -> None:
        return None


def denoiser(net: Network, **declared: Any) -> NetworkDenoiser:
    told = {"format": "test", "prediction": "eps", "schedule": "linear", **declared}
    return NetworkDenoiser(
        net, schedule=COSINE, image_shape=(1, 8, 8), data=None, declared=Declared(**told)
    )


def adapted(make: Any, function: Any, **options: Any) -> NetworkDenoiser:
    return denoiser(AdaptedNetwork(make(function, image_shape=(1, 8, 8), **options)))


def load(reading: Reading) -> NetworkDenoiser:
    assert reading.schedule is not None
    return denoiser(Bare(reading.prediction, reading.schedule), prediction=reading.prediction,
                    schedule=reading.schedule)  # fmt: skip


def checked(network: NetworkDenoiser, mode: Any = "error") -> SelfCheck:
    found = self_check(network, IMAGES, mode, load)[1]
    assert found is not None
    return found


def test_a_network_that_is_right_says_one_calm_line() -> None:
    for network in (
        adapted(from_v, answer, alpha_bar=LEVELS),
        adapted(from_eps, as_eps, alpha_bar=LEVELS),
    ):
        found = checked(network)
        assert found.worse < 3
        assert not found.readings
        assert not found.proposal
        assert found.line.startswith("denoises 64 images with an error of 0.0")
        assert len(found.line) < 100


def test_a_wrong_declaration_stops_with_the_right_one() -> None:
    network = adapted(from_eps, answer, alpha_bar=LEVELS)
    with pytest.raises(InputError, match=r"; v does clearly better .*--self_check warn"):
        checked(network)
    found = checked(network, "warn")
    assert found.proposal == "v"
    assert len(found.readings) == 24
    assert self_check(network, IMAGES, "off", load) == (network, None)


def test_a_wrong_range_is_told() -> None:
    def function(y: Tensor, sigma: Tensor) -> Tensor:
        t = COSINE.time((1 / (1 + 4 * sigma.double() ** 2)).sqrt()).clamp(1e-3, 1)
        return (TRAINED((2 * y - 1) * COSINE.alpha(t)[:, None, None, None].to(y), t) + 1) / 2

    assert not checked(adapted(from_edm, function, image_range=(0, 1))).proposal
    found = checked(adapted(from_edm, function), "warn")
    assert found.proposal == "x0 of images in [0, 1]"


def test_where_nothing_was_declared_the_best_reading_is_taken() -> None:
    bare = denoiser(Bare("eps", "linear"), assumed=("prediction", "schedule"))
    network, found = self_check(bare, IMAGES, "error", load)
    assert found is not None
    assert found.taken == "v over cosine noise"
    assert network.declared.prediction == "v"
    assert found.line.startswith("read as v over cosine noise, which nothing declares; denoises")
    assert found.error == pytest.approx(checked(network).error)


def test_what_was_said_stays_as_it_was_said() -> None:
    said = denoiser(Bare("eps", "cosine"), schedule="cosine", assumed=("prediction",))
    assert checked(said).taken == "v over cosine noise"
    wrong = denoiser(Bare("v", "linear"), prediction="v", assumed=("schedule",))
    assert checked(wrong).taken == "v over cosine noise"


def test_a_range_that_nobody_declared_is_taken_and_can_be_asked_for() -> None:
    """A network of steps over images in [0, 1]."""

    class Unit(Bare):
        def answer(self, x: Tensor, steps: Tensor, label: Tensor | None) -> Tensor:
            level = LEVELS[steps.round().long()]
            a, b = (one[:, None, None, None].to(x) for one in (level.sqrt(), (1 - level).sqrt()))
            # Of y = a x_0 + b n with x_0 in [0, 1], the image of ours with the same noise.
            t = COSINE.time((level / (level + 4 * (1 - level))).sqrt()).clamp(1e-3, 1)
            alpha = COSINE.alpha(t)[:, None, None, None].to(x)
            x0 = (TRAINED((2 * x / a - 1) * alpha, t) + 1) / 2
            return (x - a * x0) / b

    declared = denoiser(Unit("eps", "cosine"), schedule="cosine", assumed=("image_range",))

    def load(reading: Reading) -> NetworkDenoiser:
        assert reading.range_name == "unit"
        net = reread(Unit("eps", "cosine"), (1, 8, 8), prediction=None, image_range=(0.0, 1.0))
        assert "images in [0, 1]" in net.facts.description
        return denoiser(net, schedule="cosine", image_range=(0.0, 1.0))

    network, found = self_check(declared, IMAGES, "error", load)
    assert found is not None
    assert found.taken == "eps over cosine noise of images in [0, 1]"
    assert found.worse < 3
    assert network.declared.words == "eps over cosine noise of images in [0, 1]"
    assert Reading("v", "linear", (0.0, 1.0)).flags == (
        "--prediction v --schedule linear --image_range unit"
    )


def test_clipped_networks_are_compared_with_clipped_readings() -> None:
    network = adapted(from_eps, answer, alpha_bar=LEVELS).clipped()
    found = checked(network, "warn")
    assert found.readings["eps"] == pytest.approx(
        denoising_errors(network, to_float(few(network)), TIMES)
    )


def few(network: NetworkDenoiser) -> Tensor:
    """The first images that the other readings denoise."""
    order = torch.randperm(len(IMAGES), generator=torch.Generator().manual_seed(0))
    return IMAGES.take(order[:16]).pixels


def test_a_network_that_was_never_trained_is_left_as_it_is(tmp_path: Path) -> None:
    study = small_study(write_checkpoint(tmp_path / "x.ckpt"))
    found = study.provenance.self_check
    assert found is not None
    assert found.worse >= 3
    assert not found.proposal
    assert "no other reading does clearly better" in found.line


def test_clipping_is_proposed_to_a_network_that_leaves_the_range() -> None:
    wild = adapted(from_eps, lambda y, step: 0.5 * y, alpha_bar=LEVELS)
    found = checked(wild)
    assert found.clip
    assert "--clip clamps it" in found.line
    assert not checked(wild.clipped()).clip


def test_a_network_that_answers_nan_is_refused() -> None:
    with pytest.raises(InputError, match="NaN or infinite numbers"):
        checked(adapted(from_eps, lambda y, step: y / 0, alpha_bar=LEVELS))


def test_it_is_part_of_the_record_the_page_and_wandb(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "x.ckpt")
    results = small_results(path)
    results.save(tmp_path)
    loaded = Results.load(tmp_path)
    found = results.provenance.self_check
    assert loaded.provenance.self_check == found
    assert json.loads((tmp_path / "agreement.json").read_text())["self_check"]["images"] == 40
    (tmp_path / "report.html").unlink(missing_ok=True)
    page = write_page(results, tmp_path / "report.html")
    text = (page if isinstance(page, Path) else tmp_path / "report.html").read_text()
    assert "self-check" in text
    assert config(small_study(path))["self_check"]["error"] == list(found.error)
    assert replace(results.provenance, self_check=None).record()["self_check"] is None


def test_the_command_says_it_and_stops_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = write_checkpoint(tmp_path / "x.ckpt")
    quick = ["--dry_run", "--logger", "none", "--device", "cpu", "--out", str(tmp_path / "out")]
    main([str(path), *quick])
    assert "self-check: denoises worse" in capsys.readouterr().out
    main([str(path), *quick, "--self_check", "off"])
    assert "self-check" not in capsys.readouterr().out
    assert "self_check" in refusal(main, [path, *quick, "--self_check", "maybe"], capsys)
