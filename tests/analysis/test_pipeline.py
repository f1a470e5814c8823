"""The numbers of an analysis are what its parts give, called one by one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stages import assert_alike
from studies import small_results, small_study, write_checkpoint

from els.agreement import agreement, locality_score
from els.analysis import pipeline
from els.analysis.pipeline import analyse
from els.analysis.report.tables import audits_text, locality_cells, seed_rows
from els.analysis.results import Results
from els.analysis.tracking.content import numbers
from els.audit import Audit
from els.denoising import image_errors
from els.engines.subsample import Estimate
from els.errors import InputError
from els.machines import make_machine
from els.machines.local import PatchMachine
from els.models.checkpoints import load_denoiser
from els.models.denoiser import NetworkDenoiser
from els.probes import effective_receptive_field, equivariance_error, shares_held
from els.sampling import Starts, ddim, ddim_steps, seeded_noise
from els.schedule import LinearSteps
from els.work import Work


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("pipeline") / "tiny.ckpt")


@pytest.fixture(scope="module")
def results(checkpoint: Path) -> Results:
    return small_results(checkpoint, network_steps=[3, 4], held_out=4)


def test_samples_start_from_the_noise_of_seeds_that_nothing_was_fitted_on(
    results: Results, checkpoint: Path
) -> None:
    network = load_denoiser(checkpoint)
    assert results.seeds == (2, 3, 4)
    noise = seeded_noise(results.seeds, network.image_shape)
    assert torch.equal(results.noise, noise)
    for steps in (3, 4):  # convolutions round differently, and at t = 1 by a factor of 80
        again = ddim(network, noise, steps=steps)
        torch.testing.assert_close(results.network[steps], again, atol=1e-3, rtol=1e-3)
    scales = results.scales["boundary"]
    assert scales.seeds == (0, 1)
    machine = make_machine("boundary", network.data.load(), size=scales)
    again = ddim(machine, noise, steps=3)
    torch.testing.assert_close(results.machines["boundary"], again, atol=1e-3, rtol=1e-3)
    assert results.data_scales.machine == "boundary"
    assert results.weights is None


def test_the_network_is_probed_at_the_x_of_calibration(results: Results, checkpoint: Path) -> None:
    probes, network = results.probes, load_denoiser(checkpoint)
    assert (probes.seeds, probes.t, probes.skipped) == ((0, 1), results.t, "")
    steps = list(ddim_steps(network, seeded_noise([0, 1], network.image_shape), steps=3))
    t = torch.full((2,), steps[1].t)
    shares = shares_held(effective_receptive_field(network, steps[1].x, t))
    torch.testing.assert_close(torch.tensor(probes.shares[1]).double(), shares, atol=1e-4, rtol=0)
    error = equivariance_error(network, steps[1].x, t)
    found = torch.tensor(probes.equivariance[1]).double()
    torch.testing.assert_close(found, error, atol=1e-4, rtol=0)


def test_a_network_without_a_gradient_is_probed_for_equivariance_alone(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NetworkDenoiser, "__call__", torch.no_grad()(NetworkDenoiser.__call__))
    probes = small_results(checkpoint, machines=["ideal"], mosaic=False).probes
    assert probes.shares == ()
    assert "no gradient" in probes.skipped
    assert len(probes.equivariance) == 3


def test_information_is_that_of_every_patch_machine_on_the_network_s_path(
    checkpoint: Path,
) -> None:
    kinds = ["boundary", "local", "ideal"]
    results = small_results(checkpoint, machines=kinds, mosaic=False, information=1)
    assert list(results.information) == ["boundary", "local"]
    network = load_denoiser(checkpoint)
    machine, found = make_machine("local", network.data.load()), results.information["local"]
    assert (found.seeds, found.t) == ((0,), results.t)
    assert found.candidates == results.scales["local"].candidates
    x, _ = Starts.of(network)([0])
    for i, step in enumerate(ddim_steps(network, x, steps=3)):
        for k, size in enumerate(found.candidates):
            want = machine.posterior(step.x, step.t, size=size)
            torch.testing.assert_close(
                found.entropy[i, k], want.entropy[:, 0], rtol=1e-3, atol=1e-3
            )
    record = results.summary["information"]["local"]
    assert record["k_cal"] == list(results.scales["local"].values)
    assert record["k_mem"] == found.k_mem


def test_protocol_locality_samples_and_scores_as_it_says(checkpoint: Path) -> None:
    kinds = ["wiener", "local", "ideal"]
    asked = {"steps": 10, "network_steps": [10], "protocol": "locality"}
    results = small_results(checkpoint, machines=kinds, mosaic=False, **asked)
    schedule = LinearSteps()
    assert results.t == tuple(schedule.timesteps(10)[:-1].tolist())
    assert results.scales["local"].t == results.t
    network = load_denoiser(checkpoint)
    drawn = ddim(network, results.noise, steps=10, schedule=schedule)
    torch.testing.assert_close(results.network[10], drawn, rtol=0, atol=1e-4)
    assert results.network[10].abs().max() == 1  # this network leaves the range
    machine = make_machine("wiener", network.data.load())
    predicted = ddim(machine, results.noise, steps=10, schedule=schedule)
    torch.testing.assert_close(results.machines["wiener"], predicted, rtol=0, atol=1e-4)
    scores = {kind: locality_score(x, drawn).mean() for kind, x in results.machines.items()}
    for kind in kinds:
        found = results.summary["locality"][kind]["mean"]
        assert found == pytest.approx(float(scores[kind]), abs=1e-3)
        assert numbers(results)[f"locality/{kind}"] == found
    assert f"{kinds[0]}/locality_score" in seed_rows(results)[0]
    assert locality_cells(results)[1][0] == "wiener"


def test_by_default_no_other_protocol_is_scored(results: Results) -> None:
    assert results.locality == {}
    assert "locality" not in results.summary


def test_mosaics_are_of_what_the_samples_were_made_of(results: Results, checkpoint: Path) -> None:
    network, tracing = load_denoiser(checkpoint), results.attribution.tracing
    images = network.data.load()
    mosaic = tracing.mosaics["boundary"]
    assert mosaic.t == results.t
    assert tracing.mosaics["network"].t == results.t[-1:]
    assert torch.equal(tracing.training.pixels, images.pixels[tracing.training.indices])
    machine, x = make_machine("boundary", images, size=results.scales["boundary"]), results.noise
    for i, step in enumerate(ddim_steps(machine, x, steps=3)):
        t = torch.full((len(x),), step.t, dtype=torch.float64)
        best = machine.posterior(step.x, t).best
        assert (best == mosaic.best[i]).float().mean() > 0.99  # but for equal patches
        image, row, column = mosaic.best[i].unbind(dim=1)
        assert torch.equal(images.pixels[image, :, row, column][:, None, ..., 0], mosaic.pixels[i])
        clipped = ((step.x0_hat.clamp(-1, 1) + 1) * 127.5).round()
        assert (clipped - results.attribution.paths["boundary"][i].float()).abs().max() <= 1
        assert mosaic.sides[i] == results.scales["boundary"].at(step.t)
    last = list(ddim_steps(network, results.noise, steps=3))[-1]
    best = machine.posterior(last.x, torch.full((len(x),), last.t, dtype=torch.float64)).best
    assert (best == tracing.mosaics["network"].best[0]).float().mean() > 0.99


def test_real_images_are_yardsticks(results: Results) -> None:
    novelty = results.attribution.novelty
    drawn = ["network", *results.machines]
    assert list(novelty) == [*drawn, "held-out images", "training images"]
    assert list(results.attribution.drawn) == drawn
    assert results.attribution.copies["training images"]["in_place"].share == 1
    assert results.attribution.copies["ideal"]["shifted"].count == len(results.seeds)
    assert novelty["training images"].distance.tolist() == [0, 0, 0, 0]
    assert novelty["held-out images"].distance.min() > 0
    assert list(results.attribution.tracing.yardsticks) == ["held-out images", "training images"]


@pytest.mark.parametrize(
    ("protocol", "machine", "steps"),
    [({"mosaic": False}, None, 0), ({"tolerance": 0.05}, "boundary", 1),
     ({"machines": ["ideal", "wiener"]}, "", 0), ({"machines": ["wiener", "local"]}, "local", 3),
     ({"machines": ["boundary_soft", "ideal"], "network_steps": [4]}, "boundary_soft", 3)],
)  # fmt: skip
def test_mosaics_are_made_where_they_can_be(
    checkpoint: Path, protocol: dict, machine: str | None, steps: int
) -> None:
    results = small_results(checkpoint, **protocol)
    if machine is None:
        assert results.attribution is None
        return
    attribution = results.attribution
    traced = [machine] if machine else []
    memoriser = ["ideal"] if "ideal" in results.machines else []  # is shown beside the others
    sides = list(dict.fromkeys(["network", results.primary, *traced, *memoriser]))
    assert list(attribution.paths) == sides
    assert list(attribution.novelty) == ["network", *results.machines]
    assert (attribution.tracing is None) == (machine == "")
    if machine:
        assert attribution.tracing.machine == machine
        lengths = {side: len(mosaic.t) for side, mosaic in attribution.tracing.mosaics.items()}
        assert lengths == {"network": 1, machine: steps}


def test_a_tolerance_says_how_much_was_seen_and_stays_close(
    results: Results, checkpoint: Path
) -> None:
    estimated = small_results(checkpoint, tolerance=0.05)
    assert list(estimated.seen) == ["boundary", "local"] or not estimated.seen
    assert all(0 < float(share) <= 1 for seen in estimated.seen.values() for share in seen)
    assert (estimated.machines["boundary"] - results.machines["boundary"]).abs().mean() < 0.1
    assert estimated.scales == results.scales
    assert not results.seen


def test_what_an_audit_refuses_is_sampled_again_and_in_the_end_exactly(
    results: Results, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As if 2 % of the patches had been seen, with errors that an audit finds too large twice."""
    tried, allowed = [], [0.3, 0.2]
    estimate = PatchMachine.estimate

    def a_part(self: PatchMachine, *args: torch.Tensor) -> Estimate:
        found = estimate(self, *args)
        return Estimate(found.mean, found.standard_error + 0.1, found.seen * 0.02)

    def audit(machine: PatchMachine, *args: object, **options: object) -> Audit:
        tried.append(machine.tolerance)
        return Audit(machine.tolerance, (0.5,), (allowed[len(tried) - 1],), (0.1,), (0.9,), 12)

    monkeypatch.setattr(PatchMachine, "estimate", a_part)
    monkeypatch.setattr(pipeline, "audit_paths", audit)
    again = small_results(checkpoint, tolerance=0.06, machines=["boundary"])
    assert tried == pytest.approx([0.06, 0.02])
    assert not again.audits
    assert not again.seen
    expected = results.machines["boundary"]
    torch.testing.assert_close(again.machines["boundary"], expected, atol=1e-4, rtol=1e-4)
    tried.clear()
    allowed[1] = 0.05
    held = small_results(checkpoint, tolerance=0.06, machines=["boundary"])
    assert held.audits["boundary"].tolerance == 0.06
    assert held.audits["boundary"].holds
    assert list(held.seen) == ["boundary"]
    held.save(tmp_path)
    assert Results.load(tmp_path).audits == held.audits
    assert "an error of 0.0500 at 12 pixels" in audits_text(held)
    assert numbers(held)["audit/boundary/error"] == pytest.approx(0.05)


def test_the_error_of_calibration_is_told(results: Results, tmp_path: Path) -> None:
    audit = Audit(0.01, (0.5,), (0.004,), (0.005,), (0.0,), 12, refused=(0.25,))
    of_one = replace(results.scales["boundary"], audit=audit)
    told = replace(results, scales={**results.scales, "boundary": of_one}, data_scales=of_one)
    assert not results.audits_by_stage
    stages = {"calibration_audits": {"boundary": audit}, "held_out_audits": {"boundary": audit}}
    assert told.audits_by_stage == stages
    assert told.summary["calibration_audits"]["boundary"]["refused"] == [0.25]
    text = audits_text(told)
    assert "To fit its scales boundary was compared with a part of the training patches" in text
    assert "held-out" in text
    assert numbers(told)["audit/boundary/calibration_error"] == pytest.approx(0.004)
    told.save(tmp_path)
    assert Results.load(tmp_path).audits_by_stage == stages


def test_a_conditional_network_is_analysed_with_labels(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "c.ckpt", classes=10)
    assert small_results(checkpoint, mosaic=False).labels.shape == (3,)
    fixed = small_results(checkpoint, label=7, machines=["ideal"])
    assert fixed.labels.tolist() == [7, 7, 7]
    machine = make_machine("ideal", load_denoiser(checkpoint).data.load().of_class(7))
    expected = ddim(machine, fixed.noise, steps=3)
    torch.testing.assert_close(fixed.machines["ideal"], expected, atol=1e-4, rtol=1e-4)


def test_ideal_alone_needs_no_scales(checkpoint: Path) -> None:
    results = small_results(checkpoint, machines=["ideal"])
    assert (results.primary, dict(results.scales), results.data_scales) == ("ideal", {}, None)


def test_the_mixtures_weights_are_fitted(checkpoint: Path) -> None:
    results = small_results(checkpoint, machines=["boundary", "mixture"], mosaic=False)
    for row in results.weights.weights:
        assert sum(row) == pytest.approx(1)
    machine = make_machine("mixture", load_denoiser(checkpoint).data.load(), size=results.weights)
    expected = ddim(machine, results.noise, steps=3)
    torch.testing.assert_close(results.machines["mixture"], expected, atol=1e-3, rtol=1e-3)


def test_batches_change_nothing(results: Results, checkpoint: Path) -> None:
    study = small_study(checkpoint, network_steps=[3, 4], held_out=4)
    other = analyse(study, Work(batch=2))
    assert other.scales["boundary"].values == results.scales["boundary"].values
    for kind, samples in results.machines.items():
        torch.testing.assert_close(other.machines[kind], samples, atol=1e-3, rtol=1e-3)


# --- answers apart from paths ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """With networks of two other seeds, errors on real images, and answers at the same x."""
    folder = tmp_path_factory.mktemp("twins")
    twins = [
        write_checkpoint(folder / f"twin_{seed}" / "checkpoints" / "last.ckpt", seed=seed)
        for seed in (1, 2)
    ]
    study = small_study(checkpoint, source={"twin": list(map(str, twins))}, network_steps=[4, 3],
                        machines=["boundary", "ideal"], denoising=4, same_x=2)  # fmt: skip
    return analyse(study, Work())


def test_twins_are_sampled_from_the_same_noise_at_every_number_of_steps(
    whole: Results, tmp_path: Path
) -> None:
    assert list(whole.twins) == list(whole.provenance.twins) == ["twin_1", "twin_2"]
    for seed in (1, 2):
        network = load_denoiser(write_checkpoint(tmp_path / "again.ckpt", seed=seed))
        for steps in (4, 3):
            expected = ddim(network, whole.noise, steps=steps)
            found = whole.twins[f"twin_{seed}"][steps]
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    main, other = whole.agreement
    pairs = [(pair.network, pair.other) for pair in main.ceiling.pairs]
    assert pairs == [("network", "twin_1"), ("network", "twin_2"), ("twin_1", "twin_2")]
    twins = [agreement(drawn[4], whole.network[4]) for drawn in whole.twins.values()]
    by_seed = (twins[0]["pearson_r"] + twins[1]["pearson_r"]) / 2
    assert main.ceiling.metrics["pearson_r"].median == pytest.approx(float(by_seed.median()))
    assert other.ceiling.metrics != main.ceiling.metrics
    assert whole.ceiling_by_t["R2"].shape == (3, 3)


def test_errors_are_those_of_the_fitted_machines_on_both_sets(
    whole: Results, checkpoint: Path
) -> None:
    network = load_denoiser(checkpoint)
    images = network.data.load()
    errors = whole.denoising.errors
    assert list(errors) == ["held_out", "training"]
    assert list(errors["training"]) == ["network", "boundary", "ideal", "wiener"]
    unseen = replace(network.data, limit=None).load("val")
    order = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(0))
    some = unseen.take(order[:4])
    machine = make_machine("boundary", images, size=whole.scales["boundary"])
    for side, denoiser in (("network", network), ("boundary", machine)):
        expected = image_errors(denoiser, some, steps=3)
        torch.testing.assert_close(errors["held_out"][side], expected, atol=1e-4, rtol=1e-3)
    record = whole.summary["denoising"]
    assert record["images"] == {"held_out": 4, "training": 4}
    ideal = record["mse"]["held_out"]["ideal"]["value"]
    assert record["gap"]["ideal"]["value"][-1] > 0.5 * ideal[-1]  # it knows the training images


def test_the_same_x_is_on_both_paths_and_on_images(whole: Results, checkpoint: Path) -> None:
    metrics = whole.same_x.metrics
    assert list(metrics) == ["network", "machine", "images"]
    for place in metrics.values():
        assert list(place) == ["boundary", "ideal", "ceiling"]
        assert place["boundary"]["R2"].shape == (3, 2)
    network = load_denoiser(checkpoint)
    machine = make_machine("boundary", network.data.load(), size=whole.scales["boundary"])
    for place, walker in (("network", network), ("machine", machine)):
        for i, step in enumerate(ddim_steps(walker, whole.noise[:2], steps=3)):
            t = torch.full((2,), step.t, dtype=torch.float64)
            expected = agreement(machine(step.x, t), network(step.x, t))["pearson_r"]
            found = metrics[place]["boundary"]["pearson_r"][i]
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    # At t = 1 all paths are at the noise.
    first = [metrics[place]["ideal"]["R2"][0] for place in ("network", "machine")]
    torch.testing.assert_close(*first, atol=1e-3, rtol=1e-3)


def test_all_of_it_is_kept(whole: Results, tmp_path: Path) -> None:
    whole.save(tmp_path)
    again = Results.load(tmp_path)
    assert again.summary == whole.summary
    assert_alike(again.denoising, whole.denoising, 0)
    assert_alike(again.same_x, whole.same_x, 0)
    assert_alike(again.ceiling_by_t, whole.ceiling_by_t, 0)


def test_more_seeds_ask_only_at_the_new_ones(checkpoint: Path, tmp_path: Path) -> None:
    options = {"machines": ["boundary"], "mosaic": False}
    for same_x, expected in ((1, 1), (2, 1), (2, 0)):
        work = Work(tmp_path)
        small_results(checkpoint, work=work, same_x=same_x, **options)
        for place in ("the network's path", "the machine's path", "held-out images"):
            asked = "boundary" if place == "held-out images" else "boundary and network"
            assert work.computed[f"{asked} on {place}"] == expected


def test_on_images_the_network_is_asked_once_for_all(checkpoint: Path, tmp_path: Path) -> None:
    """However many machines and networks of other seeds are compared with it."""
    twin = write_checkpoint(tmp_path / "twin.ckpt", seed=1)
    work = Work()
    study = small_study(checkpoint, source={"twin": [str(twin)]}, mosaic=False, same_x=2,
                        machines=["boundary", "local", "ideal"])  # fmt: skip
    found = analyse(study, work).same_x.metrics["images"]
    assert list(found) == ["boundary", "local", "ideal", "ceiling"]
    asked = ("network", "boundary", "local", "ideal", "another network")
    assert [work.computed[f"{one} on held-out images"] for one in asked] == [2] * 5


def test_a_twin_that_is_called_like_a_machine_replaces_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Runs have any names; those that stand for something else in the tables get a number."""
    names = ("boundary", "network", "other", "more/other")
    twins = [
        str(write_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt", seed=seed))
        for seed, name in enumerate(names, start=1)
    ]
    options = {"machines": ["boundary", "ideal"], "mosaic": False, "same_x": 2}
    alone = small_results(checkpoint, **options)
    found = analyse(small_study(checkpoint, source={"twin": twins}, **options), Work())
    assert list(found.twins) == ["boundary (2)", "network (2)", "other", "other (2)"]
    assert len(found.agreement[0].ceiling.pairs) == 10
    for place, of_place in alone.same_x.metrics.items():
        for kind in options["machines"]:
            assert_alike(found.same_x.metrics[place][kind], of_place[kind], 1e-3)
    found.save(tmp_path)
    assert list(Results.load(tmp_path).twins) == list(found.twins)


def test_clamped_sides_are_asked_and_compared_alike(checkpoint: Path) -> None:
    """Answers are clamped themselves: a path follows from them, and both sides are."""
    results = small_results(checkpoint, machines=["wiener", "local"], mosaic=False, clip=True,
                            denoising=3, same_x=2)  # fmt: skip
    network = load_denoiser(checkpoint).clipped()
    machine = make_machine("wiener", network.data.load(), clip=True)
    assert load_denoiser(checkpoint)(results.noise, 1.0).abs().max() > 1  # it leaves the range
    for place, walker in (("network", network), ("machine", machine)):
        for i, step in enumerate(ddim_steps(walker, results.noise[:2], steps=3)):
            assert step.x0_hat.abs().max() <= 1
            expected = agreement(machine(step.x, step.t), network(step.x, step.t))
            for name, values in expected.items():
                found = results.same_x.metrics[place]["wiener"][name][i]
                torch.testing.assert_close(found, values, atol=1e-3, rtol=1e-3)
    training = network.data.load()
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    for side, denoiser in (("network", network), ("wiener", machine)):
        expected = image_errors(denoiser, training.take(order[:3]), steps=3)
        found = results.denoising.errors["training"][side]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_errors_are_divided_by_the_same_filter_whatever_else_is_asked_for(checkpoint: Path) -> None:
    options = {"mosaic": False, "clip": True, "denoising": 3}
    found = [
        small_results(checkpoint, machines=kinds, **options).denoising.errors["training"]["wiener"]
        for kinds in (["ideal"], ["ideal", "wiener"])
    ]
    assert torch.equal(*found)


def test_a_network_is_no_twin_of_itself(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has the weights of another of these networks"):
        small_study(checkpoint, source={"twin": [str(checkpoint)]})
    larger = write_checkpoint(tmp_path / "larger.ckpt", size=12)
    with pytest.raises(InputError, match="the image_shape of the twin"):
        small_study(checkpoint, source={"twin": [str(larger)]})
