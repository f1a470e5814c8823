"""Follow a training: fit and sample the machines for every snapshot of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from els.agreement import agreement, agreement_by_t
from els.analysis.along import LAST, OWN, Along, Moment
from els.analysis.pipeline import fit_machines, sample_machine, sample_network
from els.analysis.study import Study
from els.denoising import image_errors
from els.errors import InputError
from els.images import ImageSet
from els.models.denoiser import NetworkDenoiser
from els.novelty import Novelty, nearest_images
from els.sampling import Paths
from els.work import Work


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
    count = study.protocol.denoising or study.protocol.real_images
    images = {"held_out": study.unseen_of(count), "training": study.seen_of(count)}
    trained = study.network.trained
    val_loss = None if trained is None else trained.val_loss
    try:
        found = {name: _agreement(side.paths, drawn.samples) for name, side in sides.items()}
    except InputError as error:
        raise InputError(
            f"the snapshot of step {step:,} cannot be compared, move it to another folder: {error}"
        ) from error
    nearest = _nearest(study, drawn.samples, step, work)
    return Moment(
        step=step,
        sha256=digest,
        val_loss=val_loss if val_loss is not None and math.isfinite(val_loss) else None,
        agreement=found,
        by_t={
            kind: tuple(_medians(agreement_by_t(paths.x0_hats, drawn.x0_hats)))
            for kind, paths in main.paths.items()
        },
        scales=main.scales,
        errors={
            name: tuple(map(tuple, _errors(study, name, some, work).tolist()))
            for name, some in images.items()
            if some is not None
        },
        memorised=() if nearest is None else tuple(nearest.memorised.double().tolist()),
        ratios={} if nearest is None else _ratios(nearest),
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
    return values.nanquantile(0.5, dim=1).tolist()


def _errors(study: Study, name: str, images: ImageSet, work: Work) -> Tensor:
    """See `Moment.errors`."""
    return image_errors(
        study.network,
        images,
        steps=study.protocol.steps,
        conditional=study.conditional,
        device=study.starts.device,
        name=f"denoising {name.replace('_', '-')} images",
        work=work,
    ).T


def _nearest(study: Study, samples: Tensor, step: int, work: Work) -> Novelty | None:
    """The training images nearest to samples; None where attribution is left out."""
    if not study.protocol.mosaic:
        return None
    return nearest_images(
        samples, study.images, name=f"step {step:,}", device=study.starts.device, work=work
    )


def _ratios(nearest: Novelty) -> dict[str, tuple[float, ...]]:
    """See `Moment.ratios`."""
    found = {"in_place": nearest.ratio_in_place, "shifted": nearest.ratio}
    return {name: tuple(one.double().tolist()) for name, one in found.items()}
