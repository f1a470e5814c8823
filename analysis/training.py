"""An analysis of all snapshots of a training: loaded, shared over processes, computed, reported."""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import replace
from pathlib import Path

import torch

from els.analysis.again import name_of, print_page
from els.analysis.along import ALONG, Along
from els.analysis.following import follow
from els.analysis.launch import alone, launch, work_in
from els.analysis.options import STEPS, Compute, Output, Protocol, Source
from els.analysis.overwriting import check_earlier
from els.analysis.plan import plan_along
from els.analysis.report.tables import along_table
from els.analysis.report.words import along_headline
from els.analysis.report.write import write_along
from els.analysis.results import FileId
from els.analysis.study import Study, load_network, load_study
from els.analysis.tracking.log import log_along
from els.console import console, key_values, plural, progress
from els.errors import InputError
from els.files import sha256_of
from els.models.denoiser import NetworkDenoiser
from els.models.snapshots import SNAPSHOTS, snapshots_in
from els.reading import within
from els.work import Work

# What an analysis of one network has and one of its snapshots has not, and how it is left out.
UNMEASURED: dict[str, int | list[int] | list[str]] = {
    "twin": [],
    "same_x": 0,
    "information": 0,
    "network_steps": [STEPS],
}


def run_along(source: Source, protocol: Protocol, compute: Compute, output: Output) -> Along | None:
    """Analyse every snapshot in a folder, and report them as curves; None of a dry run.

    Raises:
        InputError: when the snapshots are not of one training, or more is asked for than is
            measured along it.
    """
    _check_measured(source, protocol)
    paths = snapshots_in(source.checkpoint)
    last = replace(source, checkpoint=str(paths[max(paths)]))
    output = replace(output, name=output.name or SNAPSHOTS)
    folder = within(output.folder(last), output.analysis(last))
    study = load_study(last, protocol, compute, run=name_of(folder))
    digests = {step: sha256_of(path) for step, path in paths.items()}
    study = _of_all(study, source, digests)
    with alone(folder, compute):
        return _run_study(study, folder, last, paths, digests, compute, output)


def _check_measured(source: Source, protocol: Protocol) -> None:
    """Refuse what an analysis of one network measures, and one of its snapshots does not."""
    # Both sides take the same steps, which may be said twice.
    steps = protocol.network_steps != [protocol.steps] and protocol.network_steps
    asked = {
        "twin": source.twin,
        "same_x": protocol.same_x,
        "information": protocol.information,
        "network_steps": steps,
    }
    for name, value in asked.items():
        if value and value != UNMEASURED[name]:
            raise InputError(
                f"{name} is {value}, which is not measured along the snapshots of a training; "
                f"leave it out, or analyse one of them: '{source.checkpoint}/step-...'"
            )


def _run_study(
    study: Study,
    folder: Path,
    last: Source,
    paths: dict[int, Path],
    digests: dict[int, str],
    compute: Compute,
    output: Output,
) -> Along | None:
    replaces = check_earlier(folder, study.provenance, force=compute.force, name=ALONG)
    console.print(key_values(_summary(study, len(paths), folder)))
    processes = launch(compute, torch.device(study.starts.device))
    study = study.to(processes.device)
    first = not processes.rank
    if first:
        console.print(plan_along(study, len(paths), processes=processes.world))
    if compute.dry_run:
        return None
    networks = _networks(study, last, paths)
    anew = compute.force and not replaces
    work = work_in(folder, compute, processes, progress, anew=anew)
    along = follow(study, networks, digests, work)
    if first:
        _report(along, work, folder, output)
    work.prune()
    return along


def _of_all(study: Study, source: Source, digests: dict[int, str]) -> Study:
    """The study of the last snapshot, made from all of them."""
    together = hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()
    checkpoint = FileId(source.checkpoint, together)
    return replace(study, provenance=replace(study.provenance, checkpoint=checkpoint))


def _networks(study: Study, source: Source, paths: dict[int, Path]) -> dict[int, NetworkDenoiser]:
    """Every snapshot by its step; the last is the study's own.

    Raises:
        InputError: when one of them is another network, or was trained on other images.
    """
    found = {}
    for step, path in paths.items():
        one = study.network
        if step != max(paths):
            one = load_network(path, source, study.protocol, torch.device(study.starts.device))
        found[step] = one
        if _known_by(one) != _known_by(study.network):
            raise InputError(
                f"'{path}' is not of the training that '{paths[max(paths)]}' is of: its network or "
                "its images are others; give a folder with the snapshots of one training"
            )
    return found


def _known_by(network: NetworkDenoiser) -> tuple[object, ...]:
    """What all networks of one training have in common."""
    return network.facts, network.image_shape, network.data


def _summary(study: Study, count: int, folder: Path) -> dict[str, str]:
    protocol, facts = study.protocol, study.provenance.network
    fitted = "to each snapshot, and to the last" if protocol.refit else "to the last snapshot"
    return {
        "network": f"{facts.name}, {facts.padding} padding, {plural(count, 'snapshot')}",
        "snapshots": study.provenance.checkpoint.path,
        "images": study.images.description,
        "machines": ", ".join(machine.kind for machine in study.machines),
        "scales": f"fitted {fitted}",
        "seeds": f"{protocol.calibration_seeds} to calibrate on, {len(protocol.evaluation)} to "
        "compare",
        "steps": f"{protocol.steps}",
        "engine": f"{study.engine} on {study.starts.device}",
        "results": str(folder),
    }


def _report(along: Along, work: Work, folder: Path, output: Output) -> None:
    """Write what was found, log it, and print it; the main sentence and the page come last."""
    if not work.computed:
        console.print("This analysis was finished before; --force computes it again.")
    along.save(folder)
    files = write_along(along, folder, output.formats)
    log_along(along, files, folder, output)
    console.print(along_table(along))
    console.print(textwrap.fill(along_headline(along), console.width))
    print_page(files.page, len(files.paths) - 1)
