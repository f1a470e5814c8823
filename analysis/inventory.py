"""All runs in a folder as one table: how they were trained, and how well they are predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from els.analysis.report.tables import HEAD_RULE, write_csv
from els.analysis.results import AGREEMENT, TrainingConfig
from els.analysis.tracking.config import training_options
from els.console import console, plural
from els.errors import InputError
from els.models.checkpoints import load_denoiser
from els.models.denoiser import NetworkDenoiser
from els.reading import has, member, read_table, read_text

_CONFIG = "config.yaml"
# What the table shows; the CSV has everything.
_SHOWN = ("run", "data", "network", "parameters", "steps", "val/loss", "machine", "r")
_TRAINING = ("data", "model", "trainer", "ema", "seed_everything")


def list_runs(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Print a row for each analysis, and for each run that has none; returns the rows.

    Raises:
        InputError: when the folder holds no run.
    """
    folder = Path(options["folder"])
    rows = [row for run in run_folders(folder) for row in run_rows(run)]
    if not rows:
        raise InputError(
            f"'{folder}' holds no runs; train one: python train.py fit --config garments_resnet"
        )
    console.print(_table(rows))
    if options["csv"] is not None:
        write_csv(Path(options["csv"]), rows)
        console.print(f"{plural(len(rows), 'row')} in {options['csv']}")
    return rows


def run_folders(folder: Path) -> list[Path]:
    """The folders in it that hold a training run or an analysis, in order."""
    if not folder.is_dir():
        raise InputError(f"there is no folder '{folder}'; give the one that your runs are in")
    return sorted(run for run in folder.iterdir() if has(run, _CONFIG) or _analyses(run))


def run_rows(run: Path) -> list[dict[str, Any]]:
    """A row for each finished analysis of a run; one without agreement where there is none."""
    trained = {"run": run.name, **_network(run), **_options(run)}
    return [{**trained, **_agreement(folder)} for folder in _analyses(run)] or [trained]


def _analyses(run: Path) -> list[Path]:
    return sorted(path.parent for path in run.glob(f"analysis*/{AGREEMENT}") if has(run, path))


def _network(run: Path) -> dict[str, Any]:
    """What the last checkpoint says."""
    try:
        network = load_denoiser(run)
    except InputError as error:
        return {"note": str(error)}
    return _facts(network)


def _facts(network: NetworkDenoiser) -> dict[str, Any]:
    facts, trained = network.facts, network.trained
    row: dict[str, Any] = {
        "data": "" if network.data is None else network.data.name,
        "network": f"{facts.name}, {facts.padding}",
        "parameters": facts.parameters,
        "receptive_field": facts.receptive_field,
        "classes": facts.num_classes,
    }
    if trained is not None:
        row |= {"steps": trained.steps, "epochs": trained.epochs, "val/loss": trained.val_loss}
    return row


def _options(run: Path) -> dict[str, Any]:
    """The options of the training, by their flags."""
    try:
        path = member(run, _CONFIG)
        config = training_options(TrainingConfig(str(path), read_text(path)))
    except (OSError, ValueError):
        return {}
    return dict(_flat("", {name: config[name] for name in _TRAINING if name in config}))


def _flat(start: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{start}.{name}" if start else str(name), inner)
    else:
        yield start, value


def _agreement(folder: Path) -> dict[str, Any]:
    """The first machine's agreement, and that of the others."""
    try:
        summary = read_table(member(folder, AGREEMENT))
        machines = summary["machines"]
        first = next(iter(machines))
        row = {"analysis": folder.name, "machine": first, "seeds": summary["seeds"]}
        row |= {
            "network_steps": summary["steps"]["network"],
            "r": machines[first]["pearson_r"]["median"],
        }
        for kind, metrics in machines.items():
            for name in ("pearson_r", "R2"):
                low, high = metrics[name]["ci95"]
                key = f"{kind}/{name}"
                row |= {key: metrics[name]["median"], f"{key}_low": low, f"{key}_high": high}
        return row
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        return {"analysis": folder.name, "note": f"cannot be read: {error!r}"}


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=HEAD_RULE)
    numbers = ("parameters", "steps", "val/loss", "r")
    for name in _SHOWN:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row, name) for name in _SHOWN))
    return table


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if name == "run" and row.get("analysis", "analysis") != "analysis":
        return f"{value} ({row['analysis'].removeprefix('analysis-')})"
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
