"""The results of one analysis, as they are kept in a folder and shown in every form."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from els.agreement import (
    MachineSummary,
    Mean,
    Pair,
    agreement,
    compare_pairs,
    locality_score,
    summarise,
    summarise_machines,
    summarise_mean,
)
from els.analysis import earlier
from els.analysis.answers import Denoising, SameX
from els.analysis.attribution import NETWORK, Attribution
from els.analysis.options import Protocol
from els.analysis.self_check import SelfCheck
from els.audit import Audit
from els.calibration import Scales
from els.ceiling import Ceiling, Pairs, ceiling_by_seed, network_pairs, summarise_ceiling
from els.errors import InputError, reason
from els.files import as_plain, as_record, replacing, sha256_of, write_json
from els.images import DataSpec
from els.information import Information
from els.intervals import ByTime
from els.machines import MACHINES
from els.models.blocks import NetworkFacts, Trained
from els.models.formats.loaded import Declared
from els.probes import Probes
from els.reading import member, read_arrays, read_table
from els.stacking import Weights

AGREEMENT, SAMPLES, ATTRIBUTION = "agreement.json", "samples.npz", "origins.npz"
INFORMATION = "information_"  # of a machine, whose kind follows
NETWORK_FILE, WEIGHTS_FILE, DATA_SCALES = "network.json", "weights.json", "data_scales.json"
# Stages in which answers were estimated and some of them checked.
SAMPLING, CALIBRATION, ON_IMAGES = "audits", "calibration_audits", "held_out_audits"
NAMED_SEEDS = ("best", "median", "worst")
# Those of an analysis that are read back, beside agreement.json.
FILES = re.compile(
    r"(data_)?scales(_\w+)?\.json|weights\.json|network\.json|samples\.npz|origins\.npz|"
    r"information_\w+\.npz"
)
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class FileId:
    """A file, by where it was and what was in it.

    Attributes:
        path: as it was given.
        sha256: digest of its content; of a folder, of the names and digests of its files.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class TrainingConfig:
    """The configuration that a network was trained with.

    Attributes:
        path: where it was.
        text: its content.
    """

    path: str
    text: str


@dataclass(frozen=True)
class Provenance:
    """What results were made from.

    Attributes:
        run: the name of the run.
        checkpoint: the network's weights.
        network: what is known of the network.
        data: the training images, with their fingerprint.
        images: how many they are.
        protocol: what was measured, with `machines` and `sizes` as they were in the end.
        training: the training's configuration, where it lay beside the checkpoint.
        versions: of the libraries and of this project.
        trained: for how long the network was trained, and how well, where its checkpoint says.
        self_check: how well it denoises as it was read; None where that was not checked.
        twins: networks of other seeds by the names of their runs, in the order of the command.
        declared: how its file was understood in the end; None in results of earlier versions.
    """

    run: str
    checkpoint: FileId
    network: NetworkFacts
    data: DataSpec
    images: int
    protocol: Protocol
    training: TrainingConfig | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    trained: Trained | None = None
    self_check: SelfCheck | None = None
    twins: Mapping[str, FileId] = field(default_factory=dict)
    declared: Declared | None = None

    def record(self) -> dict[str, Any]:
        """As plain data; the network's description stands there for readers."""
        found = TypeAdapter(Provenance).dump_python(self, mode="json")
        found["network"]["description"] = self.network.description
        return found


@dataclass(frozen=True)
class AgreementAt:
    """How well machines predict the network, at a number of steps of each side.

    Attributes:
        network_steps: DDIM steps of the network.
        machine_steps: DDIM steps of the machines.
        machines: the summary of each machine.
        pairs: every two machines on the same seeds, in the order of the machines.
        ceiling: what networks of other seeds reach, where there are any.
    """

    network_steps: int
    machine_steps: int
    machines: Mapping[str, MachineSummary]
    pairs: tuple[Pair, ...]
    ceiling: Ceiling | None = None

    def record(self) -> dict[str, Any]:
        """As agreement.json holds it."""
        return {
            "steps": {"network": self.network_steps, "machine": self.machine_steps},
            "machines": {kind: _machine_record(one) for kind, one in self.machines.items()},
            "pairs": [asdict(pair) for pair in self.pairs],
            **({} if self.ceiling is None else {"ceiling": _ceiling_record(self.ceiling)}),
        }


@dataclass(frozen=True)
class Results:
    """Samples of a network and of the machines from the same noise, and how well they agree.

    Attributes:
        provenance: what they were made from.
        seeds: the n evaluation seeds.
        labels: class indices (n,) or None.
        noise: where sampling started (n c h w).
        network: the network's samples by its number of steps, each (n c h w); the first is the one
            that per-step agreement was measured with.
        machines: each machine's samples (n c h w) by kind; the one that fits the network first.
        by_t: for each machine, pearson_r between its x0_hat and the network's, each on its own
            path (steps n), t = 1 first.
        t: the times of those steps.
        scales: the fitted scale of each machine that has one.
        probes: what the network was measured to look at; None in folders of earlier versions.
        weights: those of the mixture, where it is among the machines.
        data_scales: the first machine's scale as held-out images alone suggest it, if fitted.
        attribution: where the samples come from, if that was found out.
        seen: for machines that estimate, the share of the training patches that their answers took
            at each step (steps,).
        audits: for the same, how far some of their answers were off.
        twins: the samples of networks of other seeds by name and number of steps (n c h w).
        ceiling_by_t: how well their x0_hats predict the network's, each on its own path: each of
            `METRICS` (steps n), the mean over the twins; empty without any.
        denoising: errors of the network's and the machines' x0_hats on real images, if measured.
        same_x: agreement of machines with the network at the same x, if measured.
        information: of patch machines, over how many patches they average, where it was measured.
    """

    provenance: Provenance
    seeds: tuple[int, ...]
    labels: Tensor | None
    noise: Tensor
    network: Mapping[int, Tensor]
    machines: Mapping[str, Tensor]
    by_t: Mapping[str, Tensor]
    t: tuple[float, ...]
    scales: Mapping[str, Scales]
    probes: Probes | None = None
    weights: Weights | None = None
    data_scales: Scales | None = None
    attribution: Attribution | None = None
    seen: Mapping[str, Tensor] = field(default_factory=dict)
    audits: Mapping[str, Audit] = field(default_factory=dict)
    twins: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict)
    ceiling_by_t: Mapping[str, Tensor] = field(default_factory=dict)
    denoising: Denoising | None = None
    same_x: SameX | None = None
    information: Mapping[str, Information] = field(default_factory=dict)

    def __repr__(self) -> str:
        found = (
            f"{kind} {one.metrics['pearson_r'].median:.2f}"
            for kind, one in self.agreement[0].machines.items()
        )
        seeds = f"{len(self.seeds)} seeds"
        return f"Results({self.provenance.run}, {seeds}, pearson_r: {', '.join(found)})"

    @property
    def primary(self) -> str:
        """The machine that is meant to predict this network."""
        return next(iter(self.machines))

    @property
    def network_steps(self) -> int:
        """The number of steps of the network's main samples."""
        return next(iter(self.network))

    @cached_property
    def by_seed(self) -> dict[str, dict[str, Tensor]]:
        """The three metrics (n,) of each machine, against the network's main samples."""
        return self._by_seed_at(self.network_steps)

    @cached_property
    def ceiling_by_seed(self) -> dict[str, Tensor]:
        """The three metrics (n,) of networks of other seeds, their mean; empty without any."""
        if not self.twins:
            return {}
        return ceiling_by_seed(self._network_pairs(self.network_steps), NETWORK)

    @cached_property
    def locality_scores(self) -> dict[str, Tensor]:
        """`locality_score` (n,) of each machine; empty but for protocol locality."""
        if self.provenance.protocol.protocol != "locality":
            return {}
        target = self.network[self.network_steps]
        return {kind: locality_score(x, target) for kind, x in self.machines.items()}

    @property
    def locality(self) -> dict[str, Mean]:
        """Their means, by which that protocol's tables go."""
        return {kind: summarise_mean(scores) for kind, scores in self.locality_scores.items()}

    @cached_property
    def twins_by_seed(self) -> dict[str, dict[str, Tensor]]:
        """The three metrics (n,) of each network of another seed, as of the machines."""
        target, steps = self.network[self.network_steps], self.network_steps
        return {name: agreement(drawn[steps], target) for name, drawn in self.twins.items()}

    @property
    def audits_by_stage(self) -> dict[str, dict[str, Audit]]:
        """Of sampling, of calibration and of calibration on held-out images, those that were made.

        By the name of the stage in agreement.json, and by machine.
        """
        on_images = {} if self.data_scales is None else {self.primary: self.data_scales}
        found = {
            SAMPLING: dict(self.audits),
            CALIBRATION: _audits_of(self.scales),
            ON_IMAGES: _audits_of(on_images),
        }
        return {stage: audits for stage, audits in found.items() if audits}

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Positions of the seeds: the best, the median and the worst predicted, then the rest."""
        score = self.by_seed[self.primary]["pearson_r"]
        defined = int((~score.isnan()).sum())  # the others come last
        ranked = score.nan_to_num(-math.inf).argsort(descending=True, stable=True).tolist()
        first = [ranked[0], ranked[defined // 2], ranked[defined - 1]]
        return tuple(dict.fromkeys([*first, *ranked]))

    @property
    def named_seeds(self) -> dict[str, int]:
        """The positions of the best, the median and the worst predicted seed.

        Of fewer than three seeds, as many of them as there are.
        """
        return dict(zip(NAMED_SEEDS, self.order, strict=False))

    @cached_property
    def agreement(self) -> tuple[AgreementAt, ...]:
        """Medians and intervals at each of the network's numbers of steps, the main one first."""
        return tuple(self._agreement_at(steps) for steps in self.network)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every two machines on the same seeds, at the network's main number of steps."""
        return self.agreement[0].pairs

    def pair(self, other: str) -> Pair | None:
        """The first machine against another; None where that is none of the machines."""
        found = (one for one in self.pairs if (one.machine, one.other) == (self.primary, other))
        return next(found, None)

    @cached_property
    def mixture_pairs(self) -> tuple[Pair, ...]:
        """The mixture against every single machine by R2, the hardest to beat first."""
        if self.weights is None or self.weights.machine not in self.by_seed:
            return ()
        mixture, scores = self.weights.machine, self.by_seed
        medians = {
            kind: one.metrics["R2"].median for kind, one in self.agreement[0].machines.items()
        }
        others = sorted(scores.keys() - {mixture}, key=lambda kind: (-medians[kind], kind))
        return tuple(
            compare_pairs({mixture: scores[mixture], kind: scores[kind]}, "R2")[0]
            for kind in others
        )

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of agreement.json: medians, intervals and what they were measured on."""
        first, *others = (one.record() for one in self.agreement)
        found = {**self.provenance.record(), "seeds": len(self.seeds), **first}
        found["other_steps"] = others
        if self.denoising is not None:
            found["denoising"] = denoising_record(self.denoising)
        if self.same_x is not None:
            found["same_x"] = same_x_record(self.same_x)
        if self.locality_scores:
            found["locality"] = {kind: asdict(mean) for kind, mean in self.locality.items()}
        if self.mixture_pairs:
            found["mixture_R2"] = [asdict(pair) for pair in self.mixture_pairs]
        for name, audits in self.audits_by_stage.items():
            found[name] = {kind: as_plain(audit) for kind, audit in audits.items()}
        if self.attribution is not None:
            found["novelty"] = {
                side: {name: asdict(summarise(value)) for name, value in values.items()}
                for side, values in self.attribution.by_seed.items()
            }
            found["copies"] = {
                side: {name: asdict(share) for name, share in shares.items()}
                for side, shares in self.attribution.copies.items()
            }
        if self.information:
            found["information"] = {
                kind: _information_record(one, self.scales.get(kind))
                for kind, one in self.information.items()
            }
        return found

    def fitted(self, folder: Path) -> dict[Path, Scales | Weights]:
        """What was fitted, by the files that hold it."""
        found: dict[Path, Scales | Weights] = {
            scales_path(folder, kind, list(self.scales)): one for kind, one in self.scales.items()
        }
        if self.data_scales is not None:
            found[folder / DATA_SCALES] = self.data_scales
        if self.weights is not None:
            found[folder / WEIGHTS_FILE] = self.weights
        return found

    def measured(self, folder: Path) -> list[Path]:
        """The files that hold everything else."""
        names = [AGREEMENT, SAMPLES]
        names += [NETWORK_FILE] * (self.probes is not None)
        names += [ATTRIBUTION] * (self.attribution is not None)
        return [*(folder / name for name in names), *self._information_files(folder)]

    def _information_files(self, folder: Path) -> dict[Path, Information]:
        return {folder / f"{INFORMATION}{kind}.npz": one for kind, one in self.information.items()}

    def save(self, folder: str | Path, *, findings: Mapping[str, str] | None = None) -> list[Path]:
        """Write everything to a folder; returns the paths.

        agreement.json is taken away first and written last, with a digest of each of the others,
        so that while it is there all the files belong together.

        Args:
            folder: that of the analysis.
            findings: sentences that agreement.json opens with, for readers; they follow from the
                rest (`els.analysis.report.findings`) and are not read again.
        """
        folder = Path(folder)
        (folder / AGREEMENT).unlink(missing_ok=True)
        paths = [*self.fitted(folder), *self.measured(folder)]
        earlier_ones = [*folder.glob("*scales*.json"), *folder.glob(WEIGHTS_FILE)]
        earlier_ones += folder.glob(f"{INFORMATION}*.npz")
        for left in {*earlier_ones, folder / NETWORK_FILE, folder / ATTRIBUTION} - set(paths):
            left.unlink(missing_ok=True)
        for path, part in self.fitted(folder).items():
            part.save(path)
        if self.probes is not None:
            self.probes.save(folder / NETWORK_FILE)
        if self.attribution is not None:
            self.attribution.save(folder / ATTRIBUTION)
        for path, information in self._information_files(folder).items():
            information.save(path)
        with replacing(folder / SAMPLES) as partial:
            np.savez_compressed(partial, **self._arrays())
        digests = {path.name: sha256_of(path) for path in paths if path.name != AGREEMENT}
        told = {} if findings is None else {"findings": dict(findings)}
        write_json(folder / AGREEMENT, {**told, **self.summary, "files": digests})
        return paths

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Read what `save` wrote, by this version or an earlier one.

        Args:
            folder: that of the analysis, such as runs/digits_resnet/analysis.

        Raises:
            InputError: when there is no such folder, or a file is missing, damaged, of another
                analysis or a link that leads out of it.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(
                f"there is no folder '{folder}'; give that of an analysis, such as "
                "runs/digits_resnet/analysis"
            )
        try:
            return cls._load(folder)
        except Exception as error:  # files that somebody else wrote can be anything
            why = f"it has no {error}" if isinstance(error, KeyError) else reason(error, length=400)
            raise InputError(
                f"'{folder}' holds no complete analysis ({why}); run analyze.py again"
            ) from error

    @classmethod
    def _load(cls, folder: Path) -> Results:
        summary = read_table(member(folder, AGREEMENT))
        files = _checked_files(folder, summary)
        arrays = {
            earlier.name(name): torch.from_numpy(one)
            for name, one in read_arrays(files[SAMPLES]).items()
        }
        if earlier.is_earlier(summary):
            provenance = as_record(Provenance, earlier.record(summary, folder))
            network = earlier.described(provenance.network, summary)
            provenance = replace(provenance, network=network)
        else:
            provenance = as_record(Provenance, summary)
        machines = _group(arrays, "machine")
        tables = [path for name, path in files.items() if name.startswith("scales")]
        fitted = {one.machine: one for one in map(Scales.load, tables)}
        scales = {kind: fitted[kind] for kind in machines if kind in fitted}
        t = tuple(arrays["t"].tolist())
        found = cls(
            provenance=provenance,
            seeds=tuple(arrays["seeds"].tolist()),
            labels=arrays.get("labels"),
            noise=arrays["noise"],
            network={int(steps): x for steps, x in _group(arrays, "network").items()},
            machines=machines,
            by_t=_group(arrays, "by_t"),
            t=t,
            scales=scales,
            probes=_read(Probes.load, files.get(NETWORK_FILE)),
            weights=_read(earlier.load_weights, files.get(WEIGHTS_FILE)),
            data_scales=_read(Scales.load, files.get(DATA_SCALES)),
            attribution=_read(lambda path: Attribution.load(path, scales), files.get(ATTRIBUTION)),
            seen=_group(arrays, "seen"),
            twins=_twins(arrays),
            ceiling_by_t=_group(arrays, "ceiling"),
            denoising=Denoising.of(_group(arrays, "denoising"), t),
            same_x=SameX.of(_group(arrays, "same_x"), t),
            audits={kind: as_record(Audit, one) for kind, one in summary.get("audits", {}).items()},
            information={
                kind: Information.load(files[f"{INFORMATION}{kind}.npz"])
                for kind in summary.get("information", {})
            },
        )
        found._check()
        return found

    def _check(self) -> None:
        """Make sure that the parts are of known machines and fit together.

        Raises:
            ValueError: when they do not.
        """
        told = {*self.machines, *self.seen, *self.audits, *self.information}
        if strange := told - set(MACHINES):
            raise ValueError(
                f"'{min(strange)[:40]}' is no machine; known are {', '.join(MACHINES)}"
            )
        n, shape, steps = len(self.seeds), self.noise.shape, len(self.t)
        if not (n and steps and len(shape) == 4 and self.network and self.machines):
            raise ValueError("it has no seeds, no steps, no samples of a network or of a machine")
        if self.labels is not None and self.labels.shape != (n,):
            raise ValueError(f"it has labels of shape {tuple(self.labels.shape)}, of {n} seeds")
        groups: list[tuple[Mapping[Any, Tensor], tuple[int, ...]]] = [
            ({"noise": self.noise}, (n, *shape[1:])),
            (self.network, shape),
            (self.machines, shape),
            (self.by_t, (steps, n)),
            (self.seen, (steps,)),
            (self.ceiling_by_t, (steps, n)),
            *((drawn, shape) for drawn in self.twins.values()),
        ]
        for group, form in groups:
            for name, values in group.items():
                if tuple(values.shape) != tuple(form) or not values.is_floating_point():
                    raise ValueError(f"{name} is of shape {tuple(values.shape)}, not {tuple(form)}")
        samples = (self.noise, *self.network.values(), *self.machines.values())
        if not all(values.isfinite().all() for values in samples):
            raise ValueError("it has samples that are NaN or infinite")

    def _agreement_at(self, network_steps: int) -> AgreementAt:
        by_seed = self._by_seed_at(network_steps)
        pairs = self._network_pairs(network_steps)
        reached = ceiling_by_seed(pairs, NETWORK) if pairs else None
        return AgreementAt(
            network_steps,
            len(self.t),
            summarise_machines(by_seed, reached),
            compare_pairs(by_seed),
            summarise_ceiling(pairs, NETWORK) if pairs else None,
        )

    def _network_pairs(self, network_steps: int) -> Pairs:
        """The network and those of other seeds, every two of them."""
        twins = {name: drawn[network_steps] for name, drawn in self.twins.items()}
        return network_pairs({NETWORK: self.network[network_steps], **twins}) if twins else {}

    def _by_seed_at(self, network_steps: int) -> dict[str, dict[str, Tensor]]:
        target = self.network[network_steps]
        return {kind: agreement(x, target) for kind, x in self.machines.items()}

    def _arrays(self) -> dict[str, Any]:
        """The content of samples.npz."""
        arrays: dict[str, Any] = {
            "seeds": np.array(self.seeds),
            "t": np.array(self.t),
            "noise": self.noise.numpy(),
        }
        if self.labels is not None:
            arrays["labels"] = self.labels.numpy()
        arrays |= {f"network/{steps}": x.numpy() for steps, x in self.network.items()}
        groups: dict[str, Mapping[str, Tensor]] = {
            "machine": self.machines,
            "by_t": self.by_t,
            "seen": self.seen,
            "ceiling": self.ceiling_by_t,
            "denoising": {} if self.denoising is None else self.denoising.arrays(),
            "same_x": {} if self.same_x is None else self.same_x.arrays(),
            **{
                f"twin/{name}": {str(steps): x for steps, x in drawn.items()}
                for name, drawn in self.twins.items()
            },
        }
        for prefix, values in groups.items():
            arrays |= {f"{prefix}/{kind}": value.numpy() for kind, value in values.items()}
        return arrays


def _audits_of(scales: Mapping[str, Scales]) -> dict[str, Audit]:
    return {kind: one.audit for kind, one in scales.items() if one.audit is not None}


def scales_path(folder: Path, kind: str, kinds: Sequence[str]) -> Path:
    """Where the scales of one of the kinds are kept: those of the first are scales.json."""
    return folder / ("scales.json" if kind == kinds[0] else f"scales_{kind}.json")


def _machine_record(summary: MachineSummary) -> dict[str, Any]:
    """As agreement.json holds it."""
    found: dict[str, Any] = {name: asdict(value) for name, value in summary.metrics.items()}
    if summary.beats_ideal is not None:
        found["beats_ideal"] = summary.beats_ideal
    if summary.undefined:
        found["undefined"] = summary.undefined
    if summary.of_ceiling:
        found["of_ceiling"] = {name: asdict(one) for name, one in summary.of_ceiling.items()}
    return found


def _ceiling_record(ceiling: Ceiling) -> dict[str, Any]:
    found: dict[str, Any] = {name: asdict(value) for name, value in ceiling.metrics.items()}
    found["bounds"] = {
        name: None if math.isnan(bound) else bound for name, bound in ceiling.bounds.items()
    }
    found["pairs"] = [
        {
            "network": pair.network,
            "other": pair.other,
            **{name: asdict(value) for name, value in pair.metrics.items()},
        }
        for pair in ceiling.pairs
    ]
    return found


def denoising_record(denoising: Denoising) -> dict[str, Any]:
    """As agreement.json holds it."""
    return {
        "t": list(denoising.t),
        "images": {split: denoising.images(split) for split in denoising.errors},
        "mse": {split: _by_t(found) for split, found in denoising.mean.items()},
        "over_wiener": {split: _by_t(found) for split, found in denoising.over_wiener.items()},
        "gap": _by_t(denoising.gap),
        "relative_gap": _by_t(denoising.relative_gap),
    }


def same_x_record(same_x: SameX) -> dict[str, Any]:
    """As agreement.json holds it."""
    return {
        "t": list(same_x.t),
        "count": {place: same_x.count(place) for place in same_x.metrics},
        "places": {
            place: {kind: _by_t(found) for kind, found in of_place.items()}
            for place, of_place in same_x.median.items()
        },
    }


def _by_t(by_name: Mapping[str, ByTime]) -> dict[str, Any]:
    return {name: one.record() for name, one in by_name.items()}


def _twins(arrays: Mapping[str, Tensor]) -> dict[str, dict[int, Tensor]]:
    """The samples of networks of other seeds, by name and number of steps."""
    found: dict[str, dict[int, Tensor]] = {}
    for key, x in _group(arrays, "twin").items():
        name, _, steps = key.rpartition("/")
        found.setdefault(name, {})[int(steps)] = x
    return found


def _information_record(one: Information, scales: Scales | None) -> dict[str, Any]:
    """As agreement.json holds it: a list for each t, with a number for each candidate scale."""
    found: dict[str, Any] = {
        "seeds": len(one.seeds),
        "t": one.t,
        "scale": one.scale,
        "candidates": one.candidates,
        "effective_patches": one.effective_patches.tolist(),
        "largest_weight": one.largest_weight.tolist(),
        "predicted_entropy": one.predicted.tolist(),
        "k_mem": one.k_mem,
        "k_collapse": one.k_collapse,
    }
    return found if scales is None else {**found, "k_cal": [scales.at(t) for t in one.t]}


def _group(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {
        name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)
    }


def _checked_files(folder: Path, summary: Mapping[str, Any]) -> dict[str, Path]:
    """The files that belong to an agreement.json, by their names; earlier versions list none.

    Raises:
        OSError, ValueError: when one is missing, not the one that was written with it, or a link
            that leads out of the folder.
    """
    digests = summary.get("files")
    if digests is not None and not isinstance(digests, Mapping):
        raise ValueError("agreement.json does not name its files")
    if digests is None:
        names = sorted(path.name for path in folder.iterdir() if FILES.fullmatch(path.name))
        return {name: member(folder, name) for name in names}
    found = {name: member(folder, name) for name in digests if FILES.fullmatch(name)}
    for name, path in found.items():
        if sha256_of(path) != digests[name]:
            raise ValueError(f"{name} is damaged, or that of another analysis")
    return found


def _read(load: Callable[[Path], _Part], path: Path | None) -> _Part | None:
    return None if path is None else load(path)
