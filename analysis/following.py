"""Follow a training: fit and sample the machines for every snapshot of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from els.agreement import agreement, agreement_by_t
from els.analysis.along import LAST, OWN, Along, Moment
from els.analysis.pipeline import fit_machines, sample_machine, sample_network
from els.analysis.study import Study
from els.criterion import data_points
from els.denoiser import at_time, identity_of
from els.errors import InputError
from els.images import ImageSet, to_float
from els.models.denoiser import NetworkDenoiser
from els.novelty import nearest_images
from els.sampling import Paths
from els.work import Advance, Tensors, Work


def follow(
    study: Study, networks: Mapping[int, NetworkDenoiser], digests: Mapping[int, str], work: Work
) -> Along:
    """Agreement of the study's machines with every snapshot.

    What the machines draw with the scales of the last snapshot is drawn once, whatever the number
    of snapshots; and so is, where results are kept, what they draw with the same scales elsewhere.

    Args:
        study: that of the last snapshot.
        networks: the snapshots by their training steps.
        digests: of their files.
        work: how it is computed, and where results are kept.
    """
    at_last = _Drawn(study, work)
    moments = []
    for step in sorted(networks):
        one = replace(study, network=networks[step])
        own = None
        if study.protocol.refit:
            own = at_last if networks[step] is study.network else _Drawn(one, work)
        moments.append(_moment(one, step, digests[step], at_last, own, work))
    return Along(
        provenance=study.provenance,
        seeds=tuple(study.protocol.evaluation),
        t=tuple(study.network.schedule.timesteps(study.protocol.steps)[:-1].tolist()),
        moments=tuple(moments),
    )


class _Drawn:
    """What the machines draw when they are fitted to the network of a study."""

    def __init__(self, study: Study, work: Work) -> None:
        scales, weights = fit_machines(study, work)
        self.scales = {kind: tuple(map(float, one.values)) for kind, one in scales.items()}
        self.paths: dict[str, Paths] = {
            one.kind: sample_machine(study, one, None, work)[0]
            for one in study.fitted(scales, weights)
        }


def _moment(
    study: Study, step: int, digest: str, last: _Drawn, own: _Drawn | None, work: Work
) -> Moment:
    drawn = sample_network(study, study.protocol.steps, work)
    sides = {LAST: last} if own is None else {OWN: own, LAST: last}
    main = next(iter(sides.values()))
    images = {"held_out": study.held_out, "training": study.training_sample}
    trained = study.network.trained
    try:
        found = {name: _agreement(side.paths, drawn.samples) for name, side in sides.items()}
    except InputError as error:
        raise InputError(
            f"the snapshot of step {step:,} cannot be compared, move it to another folder: {error}"
        ) from error
    return Moment(
        step=step,
        sha256=digest,
        val_loss=None if trained is None else trained.val_loss,
        agreement=found,
        by_t={
            kind: tuple(_medians(agreement_by_t(paths.x0_hats, drawn.x0_hats)))
            for kind, paths in main.paths.items()
        },
        scales=main.scales,
        errors={
            name: tuple(map(tuple, _errors(study, name, some, work).tolist()))
            for name, some in images.items()
            if some is not None and study.held_out is not None
        },
        memorised=tuple(_memorised(study, drawn.samples, step, work)),
    )


def _agreement(
    machines: Mapping[str, Paths], network: Tensor
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Each metric by seed, of every machine."""
    return {
        kind: {
            metric: tuple(values.tolist())
            for metric, values in agreement(paths.samples, network).items()
        }
        for kind, paths in machines.items()
    }


def _medians(values: Tensor) -> list[float]:
    return values.quantile(0.5, dim=1).tolist()


def _errors(study: Study, name: str, images: ImageSet, work: Work) -> Tensor:
    """Mean squared error of the network's x0_hat for each image and t (n T)."""
    network, steps = study.network, study.protocol.steps
    t = network.schedule.timesteps(steps)[:-1].tolist()

    def compute(some: list[int], advance: Advance) -> Tensors:
        part = images.take(torch.tensor(some))
        clean = to_float(part.pixels).to(study.starts.device)
        label = part.labels if study.conditional else None
        label = None if label is None else label.to(clean.device)
        rows = []
        for point in data_points(clean, seeds=some, t=t, schedule=network.schedule):
            x0_hat = network(point.x, at_time(point.x, point.t), label)
            rows.append((x0_hat - clean).double().square().mean(dim=(1, 2, 3)))
            advance(len(some))
        return {"errors": torch.stack(rows, dim=1)}

    depends = ["errors of x0_hat", identity_of(network), images.fingerprint(), steps,
               study.conditional]  # fmt: skip
    about = f"denoising {name.replace('_', '-')} images"
    return work.map(about, range(len(images)), compute, depends=depends, steps=steps)["errors"]


def _memorised(study: Study, samples: Tensor, step: int, work: Work) -> list[float]:
    """See `Moment.memorised`; none where attribution is left out."""
    if not study.protocol.mosaic:
        return []
    found = nearest_images(
        samples, study.images, name=f"step {step:,}", device=study.starts.device, work=work
    )
    return found.memorised.double().tolist()
