"""The results of one analysis, as they are kept in a folder and shown in every form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from els.agreement import METRICS, agreement, beats, summarise
from els.analysis.attribution import Attribution
from els.calibration import Scales
from els.errors import InputError
from els.files import replacing, write_json
from els.probes import Probes
from els.stacking import Weights

IDEAL = "ideal"
_ATTRIBUTION = "origins.npz"
_Saved = TypeVar("_Saved", Probes, Weights, Scales, Attribution)


@dataclass(frozen=True)
class Results:
    """Samples of a network and of the machines from the same noise, and how well they agree.

    Attributes:
        seeds: the n agreement seeds.
        labels: class indices (n,) or None.
        noise: where sampling started (n c h w).
        network: the network's samples by its number of steps, each (n c h w); the first is the one
            that per-step agreement was measured with.
        machines: each machine's samples (n c h w) by kind; the one that fits the network first.
        by_t: for each machine, pearson_r between its x0_hat and the network's, each on its own
            path (steps n), t = 1 first.
        t: the times of those steps.
        scales: the fitted scale of each machine that has one.
        context: data, network, checkpoint and settings, as plain data for the record.
        probes: what the network was measured to look at; None in folders from before.
        weights: those of the mixture, where it is among the machines.
        data_scales: the first machine's scale as held-out images alone suggest it; None where that
            was not asked for.
        attribution: where the samples come from; None where that was not asked for, and in folders
            from before.
    """

    seeds: tuple[int, ...]
    labels: Tensor | None
    noise: Tensor
    network: Mapping[int, Tensor]
    machines: Mapping[str, Tensor]
    by_t: Mapping[str, Tensor]
    t: tuple[float, ...]
    scales: Mapping[str, Scales]
    context: Mapping[str, Any] = field(default_factory=dict)
    probes: Probes | None = None
    weights: Weights | None = None
    data_scales: Scales | None = None
    attribution: Attribution | None = None

    @property
    def primary(self) -> str:
        """The machine that is meant to predict this network."""
        return next(iter(self.machines))

    @property
    def network_steps(self) -> int:
        """The number of steps of the network's main samples."""
        return next(iter(self.network))

    def by_seed(self, network_steps: int | None = None) -> dict[str, dict[str, Tensor]]:
        """The three metrics (n,) of each machine, against the network at a number of steps."""
        target = self.network[network_steps or self.network_steps]
        return {kind: agreement(x, target) for kind, x in self.machines.items()}

    def order(self) -> list[int]:
        """Positions of the seeds: the best, the median and the worst predicted, then the rest."""
        score = self.by_seed()[self.primary]["pearson_r"]
        ranked = score.argsort(descending=True, stable=True).tolist()
        first = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
        return list(dict.fromkeys([*first, *ranked]))

    def summary(self) -> dict[str, Any]:
        """The content of agreement.json: medians, intervals and what they were measured on."""
        return self._summary

    @cached_property
    def _summary(self) -> dict[str, Any]:  # every form of the report asks for the bootstrap
        first, *others = (self._summary_at(steps) for steps in self.network)
        summary = {**self.context, "seeds": len(self.seeds), **first, "other_steps": others}
        if self.attribution is not None:
            summary["novelty"] = {
                side: {name: asdict(summarise(value)) for name, value in values.items()}
                for side, values in self.attribution.by_seed().items()
            }
        return summary

    def _summary_at(self, network_steps: int) -> dict[str, Any]:
        metrics = self.by_seed(network_steps)
        machines = {}
        for kind, values in metrics.items():
            machines[kind] = {name: asdict(summarise(values[name])) for name in METRICS}
            if IDEAL in metrics and kind != IDEAL:
                machines[kind]["beats_ideal"] = beats(values, metrics[IDEAL])
        return {"steps": {"network": network_steps, "machine": len(self.t)}, "machines": machines}

    def save(self, folder: Path) -> list[Path]:
        """Write scales, samples and agreement to a folder; returns the paths.

        agreement.json is taken away first and written last, so that while it is there all the
        files belong together.
        """
        (folder / "agreement.json").unlink(missing_ok=True)
        paths = []
        for kind, scales in self.scales.items():
            paths.append(scales_path(folder, kind, list(self.scales)))
            scales.save(paths[-1])
        for left in set(folder.glob("scales*.json")) - set(paths):  # of other machines, before
            left.unlink()
        for name, part in (
            ("network.json", self.probes), ("weights.json", self.weights),
            ("data_scales.json", self.data_scales), (_ATTRIBUTION, self.attribution),
        ):  # fmt: skip
            (folder / name).unlink(missing_ok=True)
            if part is not None:
                paths.append(folder / name)
                part.save(paths[-1])
        arrays = {"seeds": np.array(self.seeds), "t": np.array(self.t), "noise": self.noise.numpy()}
        if self.labels is not None:
            arrays["labels"] = self.labels.numpy()
        for prefix, values in (("network", self.network), ("machine", self.machines),
                               ("by_t", self.by_t)):  # fmt: skip
            arrays |= {f"{prefix}/{name}": value.numpy() for name, value in values.items()}
        paths.append(folder / "samples.npz")
        with replacing(paths[-1]) as partial:
            np.savez_compressed(partial, **arrays)
        paths.append(folder / "agreement.json")
        write_json(paths[-1], self.summary())
        return paths

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read what `save` wrote.

        Raises:
            InputError: when a file is missing or damaged.
        """
        try:
            summary = json.loads((folder / "agreement.json").read_text())
            with np.load(folder / "samples.npz", allow_pickle=False) as file:
                arrays = {name: file[name] for name in file}
            parts = {
                "probes": _load(Probes, folder / "network.json"),
                "weights": _load(Weights, folder / "weights.json"),
                "data_scales": _load(Scales, folder / "data_scales.json"),
                "attribution": _load(Attribution, folder / _ATTRIBUTION),
            }
        except (OSError, ValueError, TypeError, KeyError, BadZipFile) as error:
            raise InputError(
                f"'{folder}' holds no complete analysis ({error}); run analyze.py again"
            ) from error

        def group(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(f"{prefix}/"): torch.from_numpy(value)
                for name, value in arrays.items()
                if name.startswith(f"{prefix}/")
            }

        found = [Scales.load(path) for path in folder.glob("scales*.json")]
        scales = {one.machine: one for one in found}
        measured = ("seeds", "steps", "machines", "other_steps", "novelty")
        return cls(
            seeds=tuple(arrays["seeds"].tolist()),
            labels=torch.from_numpy(arrays["labels"]) if "labels" in arrays else None,
            noise=torch.from_numpy(arrays["noise"]),
            network={int(steps): x for steps, x in group("network").items()},
            machines=group("machine"),
            by_t=group("by_t"),
            t=tuple(arrays["t"].tolist()),
            scales={kind: scales[kind] for kind in group("machine") if kind in scales},
            context={name: value for name, value in summary.items() if name not in measured},
            **parts,
        )


def scales_path(folder: Path, kind: str, kinds: Sequence[str]) -> Path:
    """Where the scales of one of the kinds are kept: those of the first are scales.json."""
    return folder / ("scales.json" if kind == kinds[0] else f"scales_{kind}.json")


def _load(kind: type[_Saved], path: Path) -> _Saved | None:
    return kind.load(path) if path.exists() else None
