"""Following a training, with machines as the networks: what agrees and what is drawn once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from studies import small_study, write_checkpoint
from torch import Tensor

from els.analysis.along import LAST, OWN, Along
from els.analysis.following import follow
from els.analysis.study import Study
from els.errors import InputError
from els.images import to_float
from els.machines import Machine, make_machine
from els.models.blocks import Trained
from els.schedule import COSINE, CosineSchedule
from els.work import Work


@dataclass(frozen=True)
class Known:
    """A machine that stands in for a network."""

    machine: Any
    identity: object
    trained: Trained | None = None
    num_classes: int | None = None
    schedule: CosineSchedule = COSINE

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.machine(x, t, label)


def known(machine: Machine) -> Known:
    return Known(machine, ["network", machine.identity])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    path = write_checkpoint(tmp_path_factory.mktemp("following") / "tiny.ckpt")
    return small_study(path, machines=["local", "ideal"], denoising=2)


def followed(study: Study, networks: Mapping[int, Known], work: Work, **protocol: Any) -> Along:
    study = replace(study, network=networks[max(networks)])
    study = replace(study, protocol=replace(study.protocol, **protocol))
    digests = {step: f"{step:064d}" for step in networks}
    return follow(study, networks, digests, work)


@pytest.fixture(scope="module")
def networks(study: Study) -> dict[int, Known]:
    """A network that is `local`, of 3 pixels early and of 5 in the end, and once the memoriser."""
    images = study.images
    return {
        1: known(make_machine("local", images, size=3)),
        10: known(make_machine("ideal", images)),
        100: known(make_machine("local", images, size=5)),
    }


def test_a_machine_agrees_where_the_network_is_that_machine(
    study: Study, networks: dict[int, Known]
) -> None:
    along = followed(study, networks, Work())
    assert along.steps == (1, 10, 100)
    local = [along.values(i, "local", "R2", scales=OWN) for i in range(3)]
    ideal = [along.values(i, "ideal", "R2", scales=OWN) for i in range(3)]
    one = torch.ones(3, dtype=torch.float64)
    for i, found in ((0, local), (2, local), (1, ideal)):
        assert torch.allclose(found[i], one, atol=1e-4)
    assert (local[1] < 0.999).all()
    assert [set(moment.scales["local"]) for moment in along.moments] == [{3.0}, {5.0}, {5.0}]
    # With the scales of the last, the first is of another size.
    last = [along.values(i, "local", "R2", scales=LAST) for i in range(3)]
    assert torch.allclose(last[2], one, atol=1e-4)
    assert (last[0] < 0.999).all()
    for i in range(3):
        assert torch.equal(along.values(i, "ideal", "R2", scales=LAST), ideal[i])
    assert along.moments[0].by_t["local"] == pytest.approx((1.0,) * 3, abs=1e-4)


def test_what_the_machines_draw_is_drawn_once(
    study: Study, networks: dict[int, Known], tmp_path: Path
) -> None:
    work = Work(tmp_path)
    first = followed(study, networks, work)
    seeds = len(study.protocol.evaluation)
    assert work.computed["sampling ideal, 3 steps"] == seeds
    assert work.computed["sampling local, 3 steps"] == 2 * seeds  # at size 3 and at size 5
    assert work.computed["sampling network, 3 steps"] == 3 * seeds
    again = Work(tmp_path)
    assert followed(study, networks, again) == first
    assert not again.computed


def test_without_refit_a_snapshot_costs_its_network_alone(
    study: Study, networks: dict[int, Known], tmp_path: Path
) -> None:
    work = Work(tmp_path)
    along = followed(study, networks, work, refit=False)
    assert not along.refitted
    assert work.computed["calibrating local"] == study.protocol.calibration_seeds
    assert work.computed["sampling local, 3 steps"] == len(study.protocol.evaluation)
    whole = followed(study, networks, Work())
    assert along.values(0, "local", "R2").equal(whole.values(0, "local", "R2", scales=LAST))
    assert along.best("local") == 2


def test_a_snapshot_more_computes_that_one_alone(
    study: Study, networks: dict[int, Known], tmp_path: Path
) -> None:
    without = {step: one for step, one in networks.items() if step != 10}
    followed(study, without, Work(tmp_path))
    work = Work(tmp_path)
    followed(study, networks, work)
    assert work.computed["calibrating local"] == study.protocol.calibration_seeds
    assert work.computed["sampling ideal, 3 steps"] == 0
    assert work.computed["sampling network, 3 steps"] == len(study.protocol.evaluation)


def test_errors_are_those_of_a_network_that_always_answers_the_same(study: Study) -> None:
    same = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    told = Trained(steps=7, epochs=1, val_loss=0.5)
    fixed = Known(lambda x, t, label: same.expand_as(x), ["same"], told)
    end = known(make_machine("ideal", study.images))
    along = followed(study, {7: fixed, 8: end}, Work(), mosaic=False)
    moment = along.moments[0]
    for name, images in (("held_out", study.unseen_of(2)), ("training", study.seen_of(2))):
        wrong = (to_float(images.pixels) - same).double().square().mean(dim=(1, 2, 3))
        found = torch.tensor(moment.errors[name], dtype=torch.float64)
        assert torch.allclose(found, wrong[:, None].expand(-1, 3), rtol=1e-5)
    assert moment.val_loss == 0.5
    assert moment.memorised == ()
    assert moment.ratios == {}


def test_one_constant_image_is_left_out_and_the_rest_is_kept(study: Study, tmp_path: Path) -> None:
    """And a diverged loss, and a t at which no x0_hat varies."""
    ideal = make_machine("ideal", study.images)

    def dark(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        answer = ideal(x, t, label)
        answer[0 if float(t.flatten()[0]) < 0.9 else slice(None)] = 0.5
        return answer

    told = Trained(steps=7, epochs=1, val_loss=float("nan"))
    along = followed(study, {7: Known(dark, ["dark"], told), 8: known(ideal)}, Work())
    along.save(tmp_path)
    first, second = Along.load(tmp_path).moments
    assert first.val_loss is None
    for kind in along.kinds:
        assert torch.tensor(first.agreement[LAST][kind]["R2"]).isnan().tolist() == [True, 0, 0]
        assert torch.tensor(second.agreement[LAST][kind]["R2"]).isfinite().all()
        assert torch.tensor(first.by_t[kind]).isnan().tolist() == [True, False, False]
    assert along.undefined("ideal") == 1


def test_copies_are_told_in_place(study: Study) -> None:
    """What the memoriser draws is a training image; what a constant field draws is none."""
    same = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    fixed = Known(lambda x, t, label: same.expand_as(x), ["field"])
    along = followed(study, {7: fixed, 8: known(make_machine("ideal", study.images))}, Work())
    found = [moment.copied["in_place"] for moment in along.moments]
    assert [(one.share, one.count) for one in found] == [(0, 3), (1, 3)]
    assert [set(one.copied) for one in along.moments] == [{"in_place", "shifted"}] * 2


def test_a_snapshot_that_draws_nothing_is_named(study: Study) -> None:
    nothing = Known(lambda x, t, label: 0 * x, ["nothing"])
    end = known(make_machine("ideal", study.images))
    with pytest.raises(InputError, match=r"of step 7 .* same value everywhere"):
        followed(study, {7: nothing, 8: end}, Work())
