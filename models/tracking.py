"""Where runs are logged: Weights & Biases online or offline, TensorBoard, CSV, or nowhere."""

from __future__ import annotations

import csv
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any, Literal, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener, getproxies

import wandb
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from els.console import console
from els.errors import InputError, reason
from els.files import replacing
from els.reading import member, read_text

LoggerName = Literal["wandb", "csv", "none"]
TrainingLogger = Literal["wandb", "tensorboard", "csv", "none"]
_OUT_OF_REACH = re.compile(
    "(?i)timed out|connection|unreachable|name resolution|no such host|dial tcp|giving up after"
    "|deadline exceeded"
)
_MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")
_SECONDS = 20.0  # after which W&B counts as out of reach
_SILENCE = 10.0  # seconds without an answer, after which the end of a run waits no longer
_RUN_ID = "wandb-id.txt"  # in a run's folder
Result = TypeVar("Result")


def wandb_mode() -> str:
    """$WANDB_MODE if set; else "online" where a key is stored, else "offline".

    Raises:
        InputError: when $WANDB_MODE is no mode, or "online" without a key; or the key is none.
    """
    # Its reports of its own errors would wait for an answer when this process ends.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    mode = os.environ.get("WANDB_MODE")
    if mode and mode not in _MODES:
        raise InputError(f"WANDB_MODE is '{mode}'; it must be online, offline or disabled")
    if mode and mode != "online":
        return mode
    try:
        logged_in = wandb.login(prompt=False, verify=False)
    except wandb.errors.Error as error:
        raise InputError(
            f"W&B cannot be used with the key that is set ({reason(error)}); run `wandb login`, or "
            "set WANDB_MODE=offline"
        ) from error
    if mode and not logged_in:
        raise InputError(
            "WANDB_MODE is online, but there is no key; run `wandb login` or set WANDB_MODE=offline"
        )
    return "online" if logged_in else "offline"


def wandb_settings(run: str, folder: Path, project: str, job_type: str) -> dict[str, Any]:
    """Arguments of `wandb.init` shared by training and analysis, which are one group.

    Artifacts are staged in the run's folder too, so that a run leaves nothing anywhere else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb-data"))
    return {
        "project": project,
        "name": f"{run}-{job_type}",
        "group": run,
        "job_type": job_type,
        "mode": wandb_mode(),
        "dir": str(folder),
        # `print_run_link` tells what matters.
        "settings": wandb.Settings(quiet=True, silent=True, init_timeout=_SECONDS),
    }


def offline_instead(settings: dict[str, Any], error: wandb.errors.Error) -> dict[str, Any] | None:
    """The settings of a run that begins offline, where W&B could not be reached; said in a line.

    Args:
        settings: of the run that could not begin, see `wandb_settings`.
        error: why.

    Returns:
        None where W&B was reached and refuses the run, or it was to be offline.
    """
    if settings["mode"] != "online" or not _OUT_OF_REACH.search(str(error)):
        return None
    console.print(f"W&B cannot be reached ({reason(error, length=80)}): this run is logged offline")
    _let_go()  # else its process tries on, and the run's id is in use
    return {**settings, "mode": "offline"}


def _let_go(run: wandb.sdk.wandb_run.Run | None = None) -> None:
    """End a run and W&B's process, and wait for neither, now or when this process ends."""
    wandb.termsetup(wandb.Settings(show_errors=False), None)  # what fails now has been told
    if run is not None:
        _begin(run.finish)
        sleep(1)  # until it is on the disk
    # Until nothing new can join it; then it ends by itself.
    wait([_begin(wandb.teardown)], timeout=5)


def _begin(work: Callable[[], Result]) -> Future[Result]:
    """Do something in a thread that no exit waits for."""
    result: Future[Result] = Future()

    def do() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    Thread(target=do, daemon=True).start()
    return result


class Patience:
    """Waits for W&B for as long as it answers, and then lets go: all is kept in the run's folder.

    Attributes:
        run: the run that is waited for.
        lost: whether it is waited for no longer.
    """

    def __init__(self, run: wandb.sdk.wandb_run.Run) -> None:
        self.run = run
        self.lost = False
        self._silent_since: float | None = None

    def wait_for(self, work: Callable[[], Result]) -> Result | None:
        """What some work gives that may need W&B's answer; None at once when that is lost.

        Raises:
            ConnectionError: when W&B does not answer any more.
        """
        if self.lost:
            return None
        if self.run.settings.mode not in ("online", "shared"):
            return work()
        result = _begin(work)
        try:
            while not wait([result], timeout=1).done:
                self._check()
        except BaseException:  # Ctrl-C, too
            self.lost = True
            _let_go(self.run)
            raise
        return result.result()

    def _check(self) -> None:
        if _answers(self.run.settings):
            self._silent_since = None
            return
        now = monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since >= _SILENCE:
            raise ConnectionError(
                f"no answer for {_SILENCE:.0f} s; what is logged is kept, and uploaded by "
                f"wandb sync {_shortest(self.run.settings.sync_dir)}"
            )


def _answers(settings: wandb.Settings) -> bool:
    """Whether W&B's server answers at all, whatever it says."""
    own = {"http": settings.http_proxy, "https": settings.https_proxy}
    proxies = getproxies() | {name: proxy for name, proxy in own.items() if proxy}
    try:
        build_opener(ProxyHandler(proxies)).open(settings.base_url, timeout=3).close()
    except HTTPError as error:
        return error.code < 500
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, HTTPException):
        return False
    return True


@contextmanager
def forgiving(what: str = "") -> Iterator[None]:
    """Say in a line that W&B failed, and go on: results are worth more than their log."""
    try:
        yield
    except Exception as error:  # of W&B, of its process, or of what lies between
        told = reason(error, named=True, length=400)
        console.print(f"W&B does not get {what or 'all of this'} ({told})")


class PatientLogger(WandbLogger):
    """Lightning's logger, which begins offline where W&B cannot be reached, and ends in any case.

    What it cannot log at the end of a run is said in a line.
    """

    _patience: Patience | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """See `WandbLogger.experiment`."""
        try:
            return super().experiment
        except wandb.errors.CommError as error:
            settings = offline_instead(self._wandb_init, error)
            if settings is None:
                raise InputError(
                    f"W&B refuses the run ({reason(error)}); WANDB_MODE=offline logs it here, to "
                    "be uploaded later, and --run.logger none does without"
                ) from error
            self._wandb_init.update(settings)
            return super().experiment

    @property
    def patience(self) -> Patience:
        """What waits for the run, which has begun."""
        if self._patience is None:
            self._patience = Patience(self.experiment)
        return self._patience

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """See `WandbLogger.finalize`: log the checkpoints."""
        if self._experiment is not None:
            with forgiving("the checkpoints"):
                self.patience.wait_for(lambda: super(PatientLogger, self).finalize(status))

    def finish(self, *, failed: bool = False) -> None:
        """End the run, if it has begun; left to itself it ends with a coloured notice."""
        if self._experiment is not None and wandb.run is not None:
            with forgiving("the end of this run"):
                self.patience.wait_for(lambda: self.experiment.finish(exit_code=int(failed)))


def name_in_sweep(name: str) -> str:
    """A run's name, to which in a sweep the run's id is added: all are started with one name."""
    if os.environ.get("WANDB_SWEEP_ID") and (run_id := os.environ.get("WANDB_RUN_ID")):
        return f"{name}-{run_id}"
    return name


def checkpoint_name(run: str) -> str:
    """The artifact of a training run's checkpoints, in the characters that W&B allows."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", run) + "-checkpoint"


class OneCSV(CSVLogger):
    """Lightning's CSV files, where a run that goes on continues the file that is there."""

    def __init__(self, folder: Path, *, goes_on: bool) -> None:
        super().__init__(folder, name="csv", version="")
        self._goes_on = goes_on

    @property
    def log_dir(self) -> str:
        """The folder of the files."""
        return self.root_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """See `CSVLogger.experiment`."""
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir, goes_on=self._goes_on)
        return self._experiment


class _Rows(ExperimentWriter):
    """Writes rows after those that are there, without those that are made anew."""

    def __init__(self, log_dir: str, *, goes_on: bool) -> None:
        self._continues = goes_on and (Path(log_dir) / self.NAME_METRICS_FILE).is_file()
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        if not self._continues:
            super()._check_log_dir_exists()

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """See `ExperimentWriter.log_metrics`."""
        if self._continues and step is not None:
            self._continues = False
            self._drop_from(step)
        super().log_metrics(metrics_dict, step)

    def _drop_from(self, step: int) -> None:
        """Drop the rows of steps that were made after the checkpoint that goes on."""
        path = Path(self.metrics_file_path)
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if int(row["step"]) < step]
            self.metrics_keys = list(reader.fieldnames or ())
        with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)


def training_logger(
    name: TrainingLogger, run: str, folder: Path, project: str, *, goes_on: bool = False
) -> Logger | bool:
    """The Lightning logger of a training run; False for none.

    Args:
        name: which.
        run: the run's name.
        folder: its folder.
        project: the W&B project.
        goes_on: the run was begun before, and what is logged continues what was.

    Raises:
        InputError: when TensorBoard is asked for and missing, or W&B cannot be used as asked.
    """
    if name == "csv":
        return OneCSV(folder, goes_on=goes_on)
    if name == "none":
        return False
    if name == "tensorboard":
        try:
            return TensorBoardLogger(folder, name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise InputError(
                "--run.logger tensorboard needs TensorBoard; pip install tensorboard"
            ) from error
    settings = wandb_settings(run, folder, project, "train")
    logger = PatientLogger(
        **settings,
        save_dir=settings["dir"],
        log_model=True,
        checkpoint_name=checkpoint_name(run),
        id=_run_id(folder) if goes_on else None,
    )
    logger._wandb_init.pop("anonymous", None)  # at which wandb warns, even of None
    return logger


def _run_id(folder: Path) -> str | None:
    """The id of the W&B run that a run is logged as, if it was."""
    try:
        return read_text(member(folder, _RUN_ID)).strip()
    except (OSError, InputError):
        return None


def remember_run(logger: Logger, folder: Path) -> None:
    """Keep the id of a W&B run in the run's folder, for when it goes on."""
    if isinstance(logger, WandbLogger):
        with replacing(folder / _RUN_ID) as partial:
            partial.write_text(f"{logger.experiment.id}\n", encoding="utf-8")


def finish(logger: Logger, summary: Mapping[str, float]) -> None:
    """Complete what is logged of a training run that is over or stopped, and say where it is."""
    if isinstance(logger, PatientLogger) and wandb.run is not None:  # it has begun
        if not logger.patience.lost:
            logger.experiment.summary.update(dict(summary))
            print_run_link(logger.experiment, console.print)
        logger.finish()


def abandon(logger: Logger) -> None:
    """End what is logged of a training run that failed."""
    if isinstance(logger, PatientLogger):
        logger.finish(failed=True)


def print_run_link(run: wandb.sdk.wandb_run.Run, print_line: Callable[[str], None]) -> None:
    """Tell where a finished or running W&B run can be seen."""
    if run.settings.mode == "online":
        print_line(f"W&B run: {run.url}")
    elif run.settings.mode == "offline":
        folder = _shortest(run.settings.sync_dir)
        parts = list(Path(folder).parent.glob(f"offline-run-*-{run.id}"))
        print_line("W&B run (offline); look at it and upload it with")
        print_line(f"  wandb leet {folder}")
        if len(parts) > 1:  # of a run that went on: W&B joins them
            folder = str(Path(folder).with_name(f"offline-run-*-{run.id}"))
        print_line(f"  wandb sync {folder}")


def _shortest(folder: str) -> str:
    return min(folder, os.path.relpath(folder), key=len)


def where_logged(logger: Logger | None) -> str:
    """Where a training run that has begun is logged, in a few words."""
    if isinstance(logger, WandbLogger):
        run = logger.experiment
        if run.settings.mode == "disabled":
            return "nowhere: W&B is disabled (WANDB_MODE)"
        return f"W&B project {run.project}, {run.settings.mode}"
    if logger is None:
        return "nowhere"
    kind = "CSV" if isinstance(logger, CSVLogger) else "TensorBoard"
    return f"{kind}, {str(logger.log_dir).rstrip(os.sep)}"
