"""What Weights & Biases is told of an analysis: its progress while it runs, then its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb

from els.analysis.report.write import ReportFiles
from els.analysis.results import Results
from els.analysis.tracking import content
from els.analysis.tracking.record import LoggedRun
from els.calibration import Scales
from els.models.tracking import Patience, forgiving
from els.work import Advance, Progress

Run = wandb.sdk.wandb_run.Run
Row = dict[str, Any]
EVERY = 5.0  # seconds between two points of the curve of progress


class Tracker:
    """What an analysis reports to as it goes; this one keeps it to itself."""

    def progress(self, shown: Progress) -> Progress:
        """Progress that is shown as `shown` does, and told here too."""
        return shown

    def stage(self, name: str) -> None:
        """A stage begins whose progress is not told."""

    def fitted(self, scales: Scales) -> None:
        """The scales of a machine have been fitted to the network."""

    def finished(self, results: Results, files: ReportFiles) -> None:
        """Everything has been computed, and its report is written."""


class LiveRun(Tracker):
    """Of an analysis that is logged as it goes; what W&B fails to take is left out.

    Attributes:
        patience: waits for the W&B run, which somebody else begins and ends.
        run: that run.
        record: what is known of it.
        report: what was found and its files, when everything has been logged but these files.
    """

    def __init__(self, patience: Patience, record: LoggedRun, folder: Path) -> None:
        self.patience = patience
        self.run = run = patience.run
        self.record = record
        self.report: tuple[Results, ReportFiles] | None = None
        self._scales: list[str] = []  # the machines whose scales have been logged
        self._silent = False
        for name, axis in content.CURVES.items():
            run.define_metric(name, step_metric=axis, summary="none")
        record.save(folder)

    def progress(self, shown: Progress) -> Progress:
        """Also a curve of the share of the stage that is done, and the stage in the summary."""

        @contextmanager
        def told(name: str, total: int) -> Iterator[Advance]:
            self.stage(name)
            stage = _Stage(self._log, total)
            with shown(name, total) as advance:

                def both(count: float) -> None:
                    advance(count)
                    stage.advance(count)

                yield both

        return told

    def stage(self, name: str) -> None:
        """The name of the stage stands in the summary."""
        with forgiving():
            self.run.summary[content.STAGE] = name

    def fitted(self, scales: Scales) -> None:
        """Log the scales; after an interruption again, since what was last logged may be lost."""
        for row in content.scale_rows(scales):
            self._log(row)
        self._scales.append(scales.machine)

    def finished(self, results: Results, files: ReportFiles) -> None:
        """Log what was found: what is no curve in the summary alone."""
        with forgiving():
            for row in content.rows_by_t(results, without=self._scales):
                self.run.log(row)
            self.patience.wait_for(lambda: self.run.log(content.panels(results, files)))
            self.run.summary.update(content.numbers(results))
            self.run.notes = content.notes(results)
            self.report = results, files

    def _log(self, row: Row) -> None:
        """Log a row of a curve, unless one could not be logged before."""
        if not self._silent:
            self._silent = True
            with forgiving("the curves"):
                self.run.log(row)
                self._silent = False


class _Stage:
    """One stage of an analysis: how much of it is done, and how long the rest will take."""

    def __init__(self, log: Callable[[Row], None], total: int) -> None:
        self.log = log
        self.total = total
        self.done = 0.0
        self.begun = time.monotonic()
        if total:  # else all of it was kept from before
            self._log()

    def advance(self, count: float) -> None:
        """So many more are done."""
        self.done += count
        if self.done >= self.total or time.monotonic() - self.logged >= EVERY:
            self._log()

    def _log(self) -> None:
        self.logged = time.monotonic()
        share = min(1.0, self.done / self.total)
        row = {content.SHARE: share}
        if self.done:
            row[content.LEFT] = (self.logged - self.begun) * (1 / share - 1) / 60
        self.log(row)
