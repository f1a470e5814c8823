"""A workspace of W&B for training and analysis: `python analyze.py dashboard --project P`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import wandb

from els.agreement import METRICS
from els.analysis.answers import CEILING, UNSEEN
from els.analysis.attribution import COPIES, HELD_OUT, NETWORK, NOVELTY
from els.analysis.report import tables
from els.analysis.results import NAMED_SEEDS
from els.analysis.tracking import content
from els.errors import InputError, reason
from els.files import write_json
from els.machines import MACHINES
from els.models.tracking import wandb_mode

STEP, RUNTIME = "trainer/global_step", "_runtime"
# Optimisers and levels of noise differ from run to run, so that these are patterns.
_LEARNING_RATE, _BY_NOISE = "^lr-", "^val/loss_t"
# What the agreement may depend on, by its name in an analysis's config.
_EXPLAINING = {
    "network.width": "the network's width",
    "train.steps": "its training steps",
    "train.val_loss": "its loss on held-out images",
}
# The machines that are made for a padding, whose criterion says most.
_AROUND = "boundary|equivariant"


def write_dashboard(project: str, entity: str | None = None, out: str | None = None) -> None:
    """Save a workspace for training and analysis to W&B or, without a login, write it to a file.

    Args:
        project: the W&B project.
        entity: user or team; default: your own.
        out: a file to write it to, logged in or not.

    Raises:
        InputError: when wandb-workspaces is missing, or W&B does not take it.
    """
    if out is None and wandb_mode() == "online":
        print(f"W&B workspace: {save(project, entity)}")
        return
    path = Path(out or "runs/dashboard.json")
    write_json(path, specification(workspace(project, entity or "")))
    print(f"{path}: the workspace, not saved to W&B; to save it, wandb login and leave out --out")
    print("Offline, the page of an analysis is its dashboard: runs/<name>/analysis/report.html")


def save(project: str, entity: str | None) -> str:
    """Save the workspace as a new view; returns its URL.

    Raises:
        InputError: when wandb-workspaces is missing, or W&B does not take it.
    """
    try:
        name = entity or wandb.Api().default_entity or ""
        url: str = workspace(project, name).save().url
        return url
    except InputError:
        raise
    except Exception as error:  # of the network, of W&B, or of its answer
        raise InputError(
            f"W&B did not take the workspace ({reason(error)}); --out FILE writes it to a file"
        ) from error


def specification(view: Any) -> dict[str, Any]:
    """A workspace as W&B's API takes it, as plain data."""
    spec = view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    return {
        "entity": view.entity,
        "project": view.project,
        "name": view.name,
        "spec": json.loads(spec),
    }


def workspace(project: str, entity: str) -> Any:
    """The view, a `wandb_workspaces.workspaces.Workspace`.

    Raises:
        InputError: when wandb-workspaces is missing.
    """
    ws, wr, expr = _library()
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Training and analysis",
        sections=[
            ws.Section(
                name=name,
                panels=panels(wr),
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=columns, rows=rows),
            )
            for name, (panels, columns, rows) in SECTIONS.items()
        ],
        runset_settings=ws.RunsetSettings(
            filters="Metric('JobType') in ['train', 'analysis']",
            groupby=[expr.Metric("Group")],
            pinned_columns=[
                "run:displayName",
                f"summary:{content.LOSS}",
                f"summary:{content.AGREEMENT}/{content.PEARSON_R}",
            ],
        ),
    )


def training_panels(wr: ModuleType) -> list[object]:
    """Losses, samples, and how training goes."""
    return [
        wr.LinePlot(title="Training loss", x=STEP, y=["train/loss"], log_y=True),
        wr.LinePlot(title="Loss on held-out images", x=STEP, y=["val/loss"], log_y=True),
        _lines(wr, "The same by noise level", STEP, _BY_NOISE, log_y=True),
        wr.MediaBrowser(title="Samples", media_keys=["samples"]),
        _lines(wr, "Learning rate", STEP, _LEARNING_RATE),
        wr.LinePlot(title="Norm of the gradient", x=STEP, y=["train/grad_norm"], log_y=True),
        wr.LinePlot(title="Images per second", x=STEP, y=["train/images_per_second"]),
    ]


def progress_panels(wr: ModuleType) -> list[object]:
    """How far analyses that are running have come."""
    return [
        wr.LinePlot(title="Share of the stage that is done", x=RUNTIME, y=[content.SHARE]),
        wr.LinePlot(title="Minutes left of the stage", x=RUNTIME, y=[content.LEFT]),
    ]


def agreement_panels(wr: ModuleType) -> list[object]:
    """How well the machine that fits predicts each network."""
    first = content.AGREEMENT
    return [
        *(wr.ScalarChart(title=name, metric=f"{first}/{name}") for name in METRICS),
        wr.BarPlot(
            title="pearson_r of every machine",
            metrics=[content.agreement_key(kind) for kind in MACHINES],
        ),
        wr.BarPlot(
            title="Ceiling (another seed), and the share of it that the machine has",
            metrics=[content.CEILING, content.OF_CEILING],
        ),
        wr.BarPlot(
            title="Share of seeds closer than ideal", metrics=[f"{first}/{content.BEATS_IDEAL}"]
        ),
        *(
            wr.ScatterPlot(
                title=f"{content.PEARSON_R} against {title}",
                x=wr.Config(option),
                y=wr.SummaryMetric(f"{first}/{content.PEARSON_R}"),
            )
            for option, title in _EXPLAINING.items()
        ),
        *(
            wr.MediaBrowser(title=f"The {name} seed", media_keys=[f"{content.IMAGES}/{name}"])
            for name in NAMED_SEEDS
        ),
        *(wr.WeavePanelSummaryTable(table_name=name) for name in (content.MACHINES, content.PAIRS)),
    ]


def analysis_panels(wr: ModuleType) -> list[object]:
    """What was fitted and measured at each t: the noise is at the right, where t is 1."""
    criterion = "The same as a heat map"
    return [
        _by_time(wr, "Fitted scale", f"({tables.SCALE}|{tables.SCALE_ON_IMAGES})/"),
        _by_time(wr, "Agreement of the x0_hats (pearson_r)", f"{tables.PEARSON_R}/"),
        _by_time(wr, "Criterion of the calibration by patch size", f"(cosine|l2)/({_AROUND})/k"),
        wr.MediaBrowser(title=criterion, media_keys=[f"{content.FIGURES}/criterion"]),
        _by_time(wr, "Effective receptive field (pixels)", tables.RECEPTIVE_FIELD),
        _by_time(wr, "Equivariance error", tables.EQUIVARIANCE),
        _by_time(wr, "Networks of other seeds (ceiling)", f"{CEILING}/"),
        _by_time(wr, "Agreement at the same x", f"{tables.SAME_X}/.*/{tables.PEARSON_R}/"),
        _by_time(wr, "Error on unseen images", f"{tables.MSE}/{UNSEEN}/", log_y=True),
        _by_time(wr, "The same / Wiener filter", f"{tables.OVER_WIENER}/{UNSEEN}/", log_y=True),
        _by_time(wr, "Error on unseen less on training images", f"{tables.GAP}/"),
    ]


def attribution_panels(wr: ModuleType) -> list[object]:
    """Where samples come from: mosaics, novelty, and how winning patches fit together."""
    sides = (NETWORK, HELD_OUT, COPIES)
    return [
        *(
            wr.MediaBrowser(
                title=f"Mosaics of the {name} seed", media_keys=[f"{content.MOSAICS}/{name}"]
            )
            for name in NAMED_SEEDS
        ),
        *(
            wr.BarPlot(
                title=title[0].upper() + title[1:],
                metrics=[content.novelty_key(side, name) for side in sides],
            )
            for name, title in NOVELTY.items()
        ),
        _by_time(wr, "Local consistency", f"{tables.CONSISTENCY}/"),
        _by_time(wr, "Patches that count", f"{tables.EFFECTIVE_SIZE}/", log_y=True),
        wr.BarPlot(
            title="Share of copies",
            metrics=[content.copied_key(side) for side in (NETWORK, *MACHINES)],
        ),
        wr.MediaBrowser(title="Copies", media_keys=[f"{content.FIGURES}/copies"]),
        wr.MediaBrowser(title="Novelty", media_keys=[f"{content.FIGURES}/novelty"]),
    ]


def information_panels(wr: ModuleType) -> list[object]:
    """Over how many patches machines average, where `--information` measured it."""
    return [
        _by_time(wr, "Effective patches by scale", f"{tables.EFFECTIVE_PATCHES}/", log_y=True),
        _by_time(wr, "Largest weight by scale", f"{tables.LARGEST_WEIGHT}/"),
        _by_time(wr, "k_mem, and the fitted scale", f"({tables.K_MEM}|{tables.SCALE})/"),
        *(
            wr.MediaBrowser(title=title, media_keys=[f"{content.FIGURES}/{name}"])
            for name, title in (
                ("information", "Effective patches"),
                ("memorisation", "Fitted scale and memorisation"),
            )
        ),
    ]


def report_panels(wr: ModuleType) -> list[object]:
    """The table with a row for each seed, and the page."""
    return [
        wr.WeavePanelSummaryTable(table_name=content.SEEDS),
        wr.MediaBrowser(title="Report", media_keys=[content.REPORT]),
    ]


# The panels of each section, and how many columns and rows of them are shown at once.
SECTIONS: dict[str, tuple[Callable[[ModuleType], list[object]], int, int]] = {
    "Training": (training_panels, 3, 3),
    "Analysis in progress": (progress_panels, 2, 1),
    "Agreement": (agreement_panels, 3, 4),
    "Analysis against t (1 is noise, 0 the image)": (analysis_panels, 3, 4),
    "Where samples come from": (attribution_panels, 3, 3),
    "Information and memorisation": (information_panels, 3, 2),
    "Seeds and report": (report_panels, 1, 2),
}


def _lines(wr: ModuleType, title: str, x: str, pattern: str, *, log_y: bool = False) -> object:
    """Curves of every metric whose name fits a pattern."""
    return wr.LinePlot(title=title, x=x, metric_regex=pattern, log_y=log_y or None)


def _by_time(wr: ModuleType, title: str, columns: str, *, log_y: bool = False) -> object:
    """Curves against t of the columns whose names begin like a pattern."""
    pattern = f"^{re.escape(content.BY_TIME)}/{columns}"
    return _lines(wr, title, content.TIME, pattern, log_y=log_y)


def _library() -> list[ModuleType]:
    try:
        return [
            import_module(f"wandb_workspaces.{name}")
            for name in ("workspaces", "reports.v2", "expr")
        ]
    except ImportError as error:
        raise InputError(
            "a dashboard needs the package wandb-workspaces:  pip install wandb-workspaces"
        ) from error
