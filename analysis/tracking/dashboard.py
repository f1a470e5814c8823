"""A workspace of W&B for training and analysis: `python analyze.py dashboard --project P`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import wandb

from els.agreement import METRICS
from els.console import Parser
from els.errors import InputError, reason
from els.files import write_json
from els.machines import MACHINES
from els.models.tracking import wandb_mode

STEP, TIME = "trainer/global_step", "analysis/t"
# Kinds of machines, patch sizes and optimisers differ from run to run, so that these are patterns.
_LEARNING_RATE = "^lr-"
_BY_NOISE = "^val/loss_t"
_SCALES = "^analysis/scale(_on_images)?/"
_PEARSON_BY_T = "^analysis/pearson_r/"
_BY_SIZE = "^analysis/(cosine|l2)/(boundary|equivariant)/k"
_EQUIVARIANCE = "^analysis/equivariance_error"
_LOOKS = "^analysis/erf"
_CONSISTENCY = "^analysis/consistency/"
_EFFECTIVE = "^analysis/effective_size/"
_REAL_AND_DRAWN = ("network", "held-out images", "training images")


def main(args: Sequence[str]) -> None:
    """Save a workspace for training and analysis to W&B or, without a login, write it to a file.

    Raises:
        InputError: when wandb-workspaces is missing, or W&B does not take it.
    """
    parser = Parser(prog="analyze.py dashboard", description=main.__doc__.splitlines()[0])
    parser.add_argument("--project", type=str, default="els", help="the W&B project")
    parser.add_argument("--entity", type=str | None, help="user or team; your default unless told")
    parser.add_argument(
        "--out", type=str | None,
        help="write it to this file, logged in or not; runs/dashboard.json unless told",
    )  # fmt: skip
    options = parser.parse_args(list(args))
    if options.out is None and wandb_mode() == "online":
        print(f"W&B workspace: {save(options.project, options.entity)}")
        return
    path = Path(options.out or "runs/dashboard.json")
    write_json(path, specification(workspace(options.project, options.entity or "")))
    print(f"{path}: the workspace, not saved to W&B; to save it, wandb login and leave out --out")


def save(project: str, entity: str | None) -> str:
    """Save the workspace as a new view; returns its URL.

    Raises:
        InputError: when wandb-workspaces is missing, or W&B does not take it.
    """
    try:
        return workspace(project, entity or wandb.Api().default_entity).save().url
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
        "entity": view.entity, "project": view.project, "name": view.name, "spec": json.loads(spec)
    }  # fmt: skip


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
            pinned_columns=["run:displayName", "summary:val/loss", "summary:agreement/pearson_r"],
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


def agreement_panels(wr: ModuleType) -> list[object]:
    """How well the machine that fits predicts each network."""
    return [
        *(wr.ScalarChart(title=name, metric=f"agreement/{name}") for name in METRICS),
        *(
            wr.BarPlot(title=f"{name} of every machine", metrics=[f"{k}/{name}" for k in MACHINES])
            for name in ("pearson_r", "R2")
        ),
        wr.BarPlot(title="Share of seeds closer than ideal", metrics=["agreement/beats_ideal"]),
        *(
            wr.MediaBrowser(title=f"The {name} seed", media_keys=[f"images/{name}"])
            for name in ("best", "median", "worst")
        ),
    ]


def analysis_panels(wr: ModuleType) -> list[object]:
    """What was fitted and measured at each t."""
    return [
        _lines(wr, "Fitted scale", TIME, _SCALES),
        _lines(wr, "Agreement of the x0_hats (pearson_r)", TIME, _PEARSON_BY_T),
        _lines(wr, "Criterion of the calibration by patch size", TIME, _BY_SIZE),
        wr.MediaBrowser(title="The same as a heat map", media_keys=["figures/criterion"]),
        _lines(wr, "Effective receptive field (pixels)", TIME, _LOOKS),
        _lines(wr, "Equivariance error", TIME, _EQUIVARIANCE),
    ]


def attribution_panels(wr: ModuleType) -> list[object]:
    """Where samples come from: mosaics, novelty, and how winning patches fit together."""
    return [
        *(
            wr.MediaBrowser(title=f"Mosaics of the {name} seed", media_keys=[f"mosaics/{name}"])
            for name in ("best", "median", "worst")
        ),
        *(
            wr.BarPlot(title=title, metrics=[f"novelty/{side}/{name}" for side in _REAL_AND_DRAWN])
            for name, title in (("distance", "Distance to the nearest training image"),
                                ("memorised", "Share of memorised pixels"),
                                ("images", "Training images that a sample draws on"),
                                ("largest_piece", "Largest piece of one training image"))
        ),
        _lines(wr, "Local consistency", TIME, _CONSISTENCY),
        _lines(wr, "Patches that count", TIME, _EFFECTIVE, log_y=True),
        wr.MediaBrowser(title="Novelty", media_keys=["figures/novelty"]),
    ]  # fmt: skip


def report_panels(wr: ModuleType) -> list[object]:
    """The table with a row for each seed, and the page."""
    return [
        wr.WeavePanelSummaryTable(table_name="seeds"),
        wr.MediaBrowser(title="Report", media_keys=["report"]),
    ]


# The panels of each section, and how many columns and rows of them are shown at once.
SECTIONS: dict[str, tuple[Callable[[ModuleType], list[object]], int, int]] = {
    "Training": (training_panels, 3, 3),
    "Agreement": (agreement_panels, 3, 3),
    "Analysis against t": (analysis_panels, 3, 2),
    "Where samples come from": (attribution_panels, 3, 3),
    "Seeds and report": (report_panels, 1, 2),
}


def _lines(wr: ModuleType, title: str, x: str, pattern: str, *, log_y: bool = False) -> object:
    """Curves of every metric whose name fits a pattern."""
    return wr.LinePlot(title=title, x=x, metric_regex=pattern, log_y=log_y or None)


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
