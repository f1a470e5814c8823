"""The whole analysis: calibrate, sample, compare, and find out where samples come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from els.agreement import IDEAL, agreement_by_t, metrics_by_t
from els.analysis.answers import CEILING, TRAINING, UNSEEN, WIENER, Denoising, SameX
from els.analysis.attribution import (
    COPIES,
    HELD_OUT,
    NETWORK,
    Attribution,
    Tracing,
    shown_images,
)
from els.analysis.results import Results
from els.analysis.study import Study
from els.audit import Audit, audit_paths
from els.calibration import Scales, fit_scales, fit_scales_to_data
from els.ceiling import ceiling_by_t, mean_metrics
from els.console import console
from els.denoiser import Denoiser
from els.denoising import image_errors
from els.images import to_float, to_uint8
from els.information import Information, measure_information
from els.machines import Machine
from els.machines.local import PatchMachine
from els.models.denoiser import NetworkDenoiser
from els.mosaic import Mosaic, Tracer, trace_images, trace_points
from els.novelty import Novelty, nearest_images
from els.probes import probe
from els.same_x import PLACES, Owner, agreement_on_path, answers_on_images
from els.sampling import Paths, sample_paths
from els.stacking import Weights, fit_weights
from els.work import Work


def analyse(
    study: Study, work: Work, *, fitted: Callable[[Scales], None] = lambda scales: None
) -> Results:
    """Calibrate, sample, compare: every line is a function of els that can be called alone.

    Args:
        study: what is analysed.
        work: how it is computed, and where results are kept.
        fitted: called with each machine's scales as soon as they are known.
    """
    network, protocol, starts = study.network, study.protocol, study.starts
    steps = protocol.steps
    scales, weights = fit_machines(study, work, fitted=fitted)
    data_scales = _fit_to_data(study, work)
    machines = study.fitted(scales, weights)
    tracer = _tracer(study, machines)
    drawn = {n: sample_network(study, n, work) for n in protocol.all_network_steps}
    twins = _sample_twins(study, work)
    sampled = {one.kind: sample_machine(study, one, tracer, work) for one in machines}
    predicted = {kind: paths for kind, (paths, _) in sampled.items()}
    noise, labels = starts(protocol.evaluation)
    results = Results(
        provenance=study.provenance,
        seeds=tuple(protocol.evaluation),
        labels=None if labels is None else labels.cpu(),
        noise=noise.cpu(),
        network={n: drawn[n].samples for n in protocol.network_steps},
        machines={kind: paths.samples for kind, paths in predicted.items()},
        by_t={
            kind: agreement_by_t(paths.x0_hats, drawn[steps].x0_hats)
            for kind, paths in predicted.items()
        },
        t=drawn[steps].t,
        scales=scales,
        probes=probe(network, starts, protocol.calibration, steps=steps, work=work),
        weights=weights,
        data_scales=data_scales,
        seen=_seen(predicted),
        audits={kind: audit for kind, (_, audit) in sampled.items() if audit is not None},
        twins={
            name: {n: paths[n].samples for n in protocol.network_steps}
            for name, paths in twins.items()
        },
        ceiling_by_t=_ceiling_by_t(drawn[steps], {name: one[steps] for name, one in twins.items()}),
        denoising=_denoise(study, machines, work),
        same_x=_ask_at_same_x(
            study,
            drawn[steps],
            [(_calibrated(study, one), predicted[one.kind]) for one in machines],
            [(study.twins[name], paths[steps]) for name, paths in twins.items()],
            work,
        ),
        information=_information(study, work),
    )
    if not protocol.mosaic:
        return results
    paths = {NETWORK: drawn[steps], **predicted}
    return replace(results, attribution=_attribute(study, paths, results, tracer, work))


def fit_machines(
    study: Study, work: Work, *, fitted: Callable[[Scales], None] = lambda scales: None
) -> tuple[dict[str, Scales], Weights | None]:
    """The scales of every machine that has one, and the weights of the mixture."""
    scales = {}
    for one in study.machines:
        if one.scale:
            scales[one.kind] = _fit(study, one, work)
            fitted(scales[one.kind])
    return scales, _fit_mixture(study, work)


def _fit(study: Study, machine: Machine, work: Work) -> Scales:
    protocol = study.protocol
    return fit_scales(
        study.network,
        _calibrated(study, machine),
        study.starts,
        protocol.calibration,
        steps=protocol.steps,
        candidates=study.candidates(machine),
        criterion=protocol.criterion,
        work=work,
    )


def _calibrated(study: Study, machine: Machine) -> Machine:
    """The machine that calibration asks: one that estimates where that is the faster way."""
    tolerance = float(study.protocol.tolerance)
    return machine.estimating(tolerance) if study.estimates(machine) else machine


def _fit_to_data(study: Study, work: Work) -> Scales | None:
    """The primary machine's scale as held-out images alone suggest it, without the network."""
    machine = study.primary
    if study.held_out is None or machine.scale is None:
        return None
    return fit_scales_to_data(
        _calibrated(study, machine),
        study.held_out.take(torch.arange(min(study.protocol.held_out, len(study.held_out)))),
        steps=study.protocol.steps,
        candidates=study.candidates(machine),
        conditional=study.conditional,
        device=study.starts.device,
        work=work,
    )


def _fit_mixture(study: Study, work: Work) -> Weights | None:
    protocol = study.protocol
    if study.mixture is None:
        return None
    return fit_weights(
        study.network,
        study.mixture,
        study.starts,
        protocol.calibration,
        steps=protocol.steps,
        work=work,
    )


def _tracer(study: Study, machines: Sequence[Machine]) -> Tracer | None:
    """The machine whose patches mosaics are made of: the first that has any."""
    if not study.protocol.mosaic:
        return None
    patches = (one for one in machines if isinstance(one, PatchMachine))
    machine = next(patches, None)
    return None if machine is None else Tracer(machine)


def sample_network(study: Study, steps: int, work: Work, twin: str | None = None) -> Paths:
    """The paths of the network, or of a twin, from the evaluation seeds."""
    return sample_paths(
        study.network if twin is None else study.twins[twin],
        study.starts,
        study.protocol.evaluation,
        steps=steps,
        name=f"sampling {twin or 'network'}, {steps} steps",
        work=work,
    )


def _sample_twins(study: Study, work: Work) -> dict[str, dict[int, Paths]]:
    """The paths of networks of other seeds, by name and number of steps."""
    steps = study.protocol.all_network_steps
    return {name: {n: sample_network(study, n, work, name) for n in steps} for name in study.twins}


def _ceiling_by_t(network: Paths, twins: Mapping[str, Paths]) -> dict[str, Tensor]:
    if not twins:
        return {}
    return ceiling_by_t(network.x0_hats, {name: paths.x0_hats for name, paths in twins.items()})


def _denoise(study: Study, machines: Sequence[Machine], work: Work) -> Denoising | None:
    """Errors of x0_hat on held-out and on training images."""
    count = study.protocol.denoising
    sides: dict[str, Denoiser] = {NETWORK: study.network}
    sides |= {one.kind: _calibrated(study, one) for one in machines}
    sides |= {WIENER: study.wiener} if count else {}
    errors = {
        split: {
            side: image_errors(
                denoiser,
                images,
                steps=study.protocol.steps,
                conditional=study.conditional,
                device=study.starts.device,
                name=f"denoising {named} images with {side}",
                work=work,
            )
            for side, denoiser in sides.items()
        }
        for split, named, images in (
            (UNSEEN, "held-out", study.unseen_of(count)),
            (TRAINING, "training", study.seen_of(count)),
        )
        if images is not None
    }
    t = study.network.schedule.timesteps(study.protocol.steps)[:-1].tolist()
    return Denoising(tuple(t), errors) if errors else None


def _ask_at_same_x(
    study: Study,
    network: Paths,
    machines: Sequence[tuple[Machine, Paths]],
    twins: Sequence[tuple[NetworkDenoiser, Paths]],
    work: Work,
) -> SameX | None:
    """Network and machines, and networks of other seeds, at the same x.

    Args:
        study: what is analysed.
        network: the network's paths.
        machines: at their fitted scales, each with its paths.
        twins: networks of other seeds, each with its paths.
        work: how it is computed.
    """
    if not study.protocol.same_x:
        return None
    metrics: dict[str, dict[str, dict[str, Tensor]]] = {place: {} for place in PLACES}
    answers = _answers_on_images(study, study.network, "network", work)
    for one, paths in machines:
        found = _at_same_x(study, one, network, paths, answers, work)
        for place, values in found.items():
            metrics[place][one.kind] = values
    reached = [_at_same_x(study, twin, network, own, answers, work) for twin, own in twins]
    for place in reached[0] if reached else ():
        metrics[place][CEILING] = mean_metrics([found[place] for found in reached])
    return SameX(network.t, {place: found for place, found in metrics.items() if found})


def _answers_on_images(study: Study, asked: Denoiser, kind: str, work: Work) -> Tensor | None:
    """X0_hats at held-out images under noise (steps n c h w); None where there are no images."""
    images = study.unseen_of(study.protocol.same_x)
    if images is None:
        return None
    return answers_on_images(
        asked,
        images,
        steps=study.protocol.steps,
        conditional=study.conditional,
        device=study.starts.device,
        name=f"{kind} on held-out images",
        work=work,
    )


def _at_same_x(
    study: Study,
    other: Machine | NetworkDenoiser,
    network: Paths,
    own: Paths,
    answers: Tensor | None,
    work: Work,
) -> dict[str, dict[str, Tensor]]:
    """The metrics of a machine, or of another network, at each place.

    Args:
        study: what is analysed.
        other: the machine, or the other network.
        network: the network's paths.
        own: those of the other.
        answers: the network's on held-out images (steps n c h w), where there are any.
        work: how it is computed.
    """
    seeds = study.protocol.evaluation[: study.protocol.same_x]
    kind = other.kind if isinstance(other, Machine) else "another network"

    def on_path(paths: Paths, asked: Denoiser, of: Owner) -> dict[str, Tensor]:
        name = f"{kind} and network on the {of}'s path"
        first = paths.first(len(seeds))
        return agreement_on_path(first, asked, study.starts, seeds, of=of, name=name, work=work)

    found = {
        "network": on_path(network, other, "network"),
        "machine": on_path(own, study.network, "machine"),
    }
    theirs = _answers_on_images(study, other, kind, work)
    if answers is not None and theirs is not None:
        found["images"] = metrics_by_t(theirs, answers)
    return found


def sample_machine(
    study: Study, machine: Machine, tracer: Tracer | None, work: Work
) -> tuple[Paths, Audit | None]:
    """A machine's paths, and an audit where it estimated."""
    tolerance = float(study.protocol.tolerance)
    if tolerance and isinstance(machine, PatchMachine):
        found = _estimate(study, machine, tolerance, work)
        if found is not None:
            return found
    # An exact machine that mosaics are made of traces its own answers.
    own = tracer is not None and tracer.machine is machine and not tolerance
    return _walk(study, machine, tracer if own else None, work), None


def _estimate(
    study: Study, machine: PatchMachine, tolerance: float, work: Work
) -> tuple[Paths, Audit | None] | None:
    """Paths to a tolerance that an audit confirms, to a third of it where it does not at first.

    None where it does not then either; without an audit where all patches were the better way.
    """
    for tried in (tolerance, tolerance / 3):
        estimating = machine.estimating(tried)
        paths = _walk(study, estimating, None, work)
        if (paths.seen == 1).all():
            return paths, None
        audit = audit_paths(estimating, paths, study.starts, study.protocol.evaluation, work=work)
        audit = replace(audit, tolerance=tolerance)
        if audit.holds:
            return paths, audit
        console.print(f"{machine.kind} is sampled again: the check found {audit}")
    return None


def _walk(study: Study, machine: Machine, tracer: Tracer | None, work: Work) -> Paths:
    protocol = study.protocol
    return sample_paths(
        machine,
        study.starts,
        protocol.evaluation,
        steps=protocol.steps,
        name=f"sampling {machine.kind}, {protocol.steps} steps",
        tracer=tracer,
        work=work,
    )


def _seen(predicted: Mapping[str, Paths]) -> dict[str, Tensor]:
    """For machines that estimate: the share of the patches that they took at each step."""
    return {
        kind: paths.seen.double().mean(dim=1)
        for kind, paths in predicted.items()
        if (paths.seen < 1).any()
    }


def _attribute(
    study: Study, paths: Mapping[str, Paths], results: Results, tracer: Tracer | None, work: Work
) -> Attribution:
    """Where the network's and the machines' samples of equally many steps come from.

    All of them are compared with the training images; the paths of a few are shown.
    """
    mosaics = {} if tracer is None else _mosaics(study, paths, results.labels, tracer, work)
    # The memoriser's path is shown beside the others.
    sides = list(dict.fromkeys([NETWORK, study.primary.kind, *mosaics, *({IDEAL} & set(paths))]))
    real = {HELD_OUT: study.held_out, COPIES: study.training_sample}
    images = {name: found for name, found in real.items() if found is not None}
    samples = {side: one.samples for side, one in paths.items()}
    samples |= {name: to_float(found.pixels) for name, found in images.items()}
    tracing = None
    if tracer is not None:
        tracing = Tracing(
            machine=tracer.machine.kind,
            mosaics=mosaics,
            yardsticks={
                name: trace_images(
                    found,
                    tracer,
                    t=results.t[-1],
                    name=name,
                    conditional=study.conditional,
                    device=study.starts.device,
                    work=work,
                )
                for name, found in images.items()
            },
            training=shown_images(study.images, mosaics.values(), results.order),
        )
    return Attribution(
        novelty={name: _novelty(study, name, x, work) for name, x in samples.items()},
        paths={side: to_uint8(paths[side].x0_hats) for side in sides},
        tracing=tracing,
    )


def _information(study: Study, work: Work) -> dict[str, Information]:
    """Of every patch machine, on the paths that its scales are fitted on."""
    protocol = study.protocol
    if not protocol.information:
        return {}
    return {
        one.kind: measure_information(
            study.network,
            one,
            study.starts,
            protocol.calibration[: protocol.information],
            steps=protocol.steps,
            candidates=study.candidates(one),
            work=work,
        )
        for one in study.machines
        if isinstance(one, PatchMachine)
    }


def _mosaics(
    study: Study, paths: Mapping[str, Paths], labels: Tensor | None, tracer: Tracer, work: Work
) -> dict[str, Mosaic]:
    """The mosaics of the network at its last step, and of the tracer's machine at every step."""
    found = {}
    for side in (NETWORK, tracer.machine.kind):
        path = paths[side]
        if path.traces:
            found[side] = Mosaic.of(path.t, path.traces)
        else:
            found[side] = trace_points(
                path.last,
                labels,
                tracer,
                t=path.t[-1],
                name=side,
                device=study.starts.device,
                work=work,
            )
    return found


def _novelty(study: Study, name: str, samples: Tensor, work: Work) -> Novelty:
    device = study.starts.device
    return nearest_images(samples, study.images, name=name, device=device, work=work)
