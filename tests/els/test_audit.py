"""An audit finds the error that estimated paths have, and says when it does not hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from els.audit import Audit, audit_paths
from els.engines import subsample
from els.engines.native_engine import available
from els.images import ImageSet, load_images
from els.machines import make_machine
from els.machines.local import PatchMachine
from els.sampling import Paths, Starts, sample_paths
from els.work import Work

pytestmark = pytest.mark.skipif(available() is not None, reason="needs the native engine")
SEEDS = (3, 4, 5)


@pytest.fixture(scope="module")
def garments() -> ImageSet:
    return load_images("garments", limit=1500)


@pytest.fixture(scope="module")
def machine(garments: ImageSet) -> PatchMachine:
    found = make_machine("boundary", garments, size=5, tolerance=0.02)
    assert isinstance(found, PatchMachine)
    return found


@pytest.fixture(scope="module")
def sampled(machine: PatchMachine) -> tuple[Paths, Starts]:
    starts = Starts.of(machine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subsample, "_LEAST_PATCHES", 1)
        patch.setattr(subsample, "_PAIR", 1e9)
        patch.setattr(subsample, "_ALONE", 1e3)
        return sample_paths(machine, starts, SEEDS, steps=4), starts


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimate even where all patches would cost less, as they do of so few images."""
    monkeypatch.setattr(subsample, "_LEAST_PATCHES", 1)
    monkeypatch.setattr(subsample, "_PAIR", 1e9)
    monkeypatch.setattr(subsample, "_ALONE", 1e3)


def test_the_error_found_is_that_of_the_answers(
    machine: PatchMachine, sampled: tuple[Paths, Starts]
) -> None:
    paths, starts = sampled
    assert (paths.seen < 1).all()
    audit = audit_paths(machine, paths, starts, SEEDS)
    assert audit.holds
    assert 0 < audit.found <= audit.tolerance == 0.02
    assert sorted(audit.t, reverse=True) == list(audit.t) == [1.0, 0.75, 0.5, 0.25]
    assert audit.pixels == 7 * 28
    # The last one is of a path's last step, whose x is known: band and seed as the audit has them.
    exact = make_machine("boundary", machine.images, size=5)(paths.last[:1], paths.t[-1])
    off = (paths.x0_hats[-1, 0] - exact[0])[:, 21:28].square().mean().sqrt()
    assert audit.error[-1] == pytest.approx(float(off), rel=1e-3)
    assert "784 pixels" in str(audit)


def test_an_error_above_the_tolerance_does_not_hold(
    machine: PatchMachine, sampled: tuple[Paths, Starts], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, starts = sampled
    estimate = PatchMachine.estimate

    def worse(self: PatchMachine, *args: torch.Tensor) -> subsample.Estimate:
        found = estimate(self, *args)
        return replace(found, mean=found.mean + 0.05)

    monkeypatch.setattr(PatchMachine, "estimate", worse)
    audit = audit_paths(machine, paths, starts, SEEDS)
    assert not audit.holds
    assert audit.found == pytest.approx(0.05, rel=0.1)
    assert sum(audit.beyond) / len(audit.beyond) > 0.5


def test_what_was_looked_at_is_kept(
    machine: PatchMachine, sampled: tuple[Paths, Starts], tmp_path: object
) -> None:
    paths, starts = sampled
    first, again = Work(str(tmp_path)), Work(str(tmp_path))
    audit = audit_paths(machine, paths, starts, SEEDS, work=first)
    assert audit_paths(machine, paths, starts, SEEDS, work=again) == audit
    assert sum(first.computed.values()) == 4
    assert not again.computed


def test_an_audit_is_told_in_a_line() -> None:
    audit = Audit(0.01, (1.0, 0.5), (0.006, 0.008), (0.007, 0.009), (0.0, 0.02), 256)
    assert str(audit) == (
        "an error of 0.0071 at 512 pixels that were computed exactly too (tolerance 0.01, expected "
        "0.0081; 1.0% beyond two standard errors)"
    )
    nothing_left = Audit(0.01, (), (), (), (), 256, refused=(1.0, 0.5))
    assert str(nothing_left) == "an error above 0.01; exact in the end at t = 1, 0.5"
    assert nothing_left.found == 0
