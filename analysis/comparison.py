"""Several networks against the same machines, as data: names, and one row a network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from els.agreement import METRICS
from els.analysis.results import Results


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

    def rows(self) -> list[dict[str, Any]]:
        """One row a network: seeds, steps, and every metric of every machine with its interval."""
        rows = []
        for name, one in self.by_name.items():
            main = one.agreement[0]
            row: dict[str, Any] = {
                "network": name,
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
