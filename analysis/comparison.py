"""Several networks against the same machines, as data: names, and one row a network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from els.agreement import METRICS, Pair, compare_pairs
from els.analysis.results import Results

# Of the protocol, what a comparison should not mix without a word.
_TOLD = (
    *("seeds", "calibration_seeds", "steps", "network_steps", "label", "criterion"),
    *("symmetries", "tolerance", "protocol", "clip"),
)


@dataclass(frozen=True)
class Comparison:
    """The results of several analyses.

    Attributes:
        results: one for each network.
    """

    results: tuple[Results, ...]

    @property
    def names(self) -> list[str]:
        """The networks' runs, numbered where two have the same name."""
        names = [one.provenance.run for one in self.results]
        return [
            name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)
        ]

    @cached_property
    def by_name(self) -> dict[str, Results]:
        """The results of each network."""
        return dict(zip(self.names, self.results, strict=True))

    @property
    def kinds(self) -> list[str]:
        """Every machine of any of them, in the order of their first appearance."""
        return list(dict.fromkeys(kind for one in self.results for kind in one.machines))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that all analyses have, in order; none where their noise has other shapes."""
        shapes = {one.noise.shape[1:] for one in self.results}
        common = set.intersection(*(set(one.seeds) for one in self.results))
        return tuple(sorted(common)) if len(shapes) == 1 else ()

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Every two networks: how well their first machines predict them, seed by seed."""
        if not self.seeds:
            return ()
        scores = {}
        for name, one in self.by_name.items():
            places = [one.seeds.index(seed) for seed in self.seeds]
            scores[name] = {"pearson_r": one.by_seed[one.primary]["pearson_r"][places]}
        return compare_pairs(scores)

    @property
    def differences(self) -> list[str]:
        """What the analyses were not made alike in, a sentence each."""
        told = []
        for option in _TOLD:
            found = {
                name: getattr(one.provenance.protocol, option) for name, one in self.by_name.items()
            }
            if any(value != found[self.names[0]] for value in found.values()):
                values = ", ".join(f"{name} {value}" for name, value in found.items())
                told.append(f"the analyses differ in {option}: {values}")
        return told

    def rows(self) -> list[dict[str, Any]]:
        """One row a network: what it is, and every metric of every machine with its interval."""
        rows = []
        for name, one in self.by_name.items():
            main = one.agreement[0]
            source, trained = one.provenance, one.provenance.trained
            row: dict[str, Any] = {
                "network": name,
                "data": source.data.name,
                "padding": source.network.padding,
                "parameters": source.network.parameters,
                "training_steps": trained and trained.steps,
                "val/loss": trained and trained.val_loss,
                "seeds": len(one.seeds),
                "network_steps": main.network_steps,
                "machine_steps": main.machine_steps,
            }
            for kind in self.kinds:
                for metric in METRICS:
                    key = f"{kind}/{metric}"
                    row |= dict.fromkeys((key, f"{key}_low", f"{key}_high"))
                    if kind in main.machines:
                        row |= main.machines[kind].metrics[metric].columns(key)
            rows.append(row)
        return rows
