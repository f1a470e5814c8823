"""The campaign of faults: kills, damage, full disks, hostile bytes, several processes, load.

`make faults` runs all of it, in at most 20 minutes on two cores, and prints a table: what was
tried, what survived, and what fell short. `--sample` runs a little of each, and times nothing, as
it runs beside other tests. A run survives a fault when the same command, given again, finishes with
the numbers of a run that nothing disturbed, or says in one line what is wrong. Choices are seeded:
the same seed tries the same.

Runs are forked from this process, which has imported everything: a start takes no time.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from bad_inputs import PICTURES, finished
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from studies import write_checkpoint

from benchmarks.contention import beside
from els.analysis.commands import main as analyze
from els.analysis.report import write as _imported_now  # noqa: F401  # not by each of the runs
from els.analysis.results import Results
from els.configurations import check_readable
from els.console import exit_cleanly
from els.engines import native_engine
from els.errors import InputError
from els.images import load_images
from els.machines import make_machine
from els.models import callbacks
from els.models import training as _imported_too  # noqa: F401
from els.models.checkpoints import METADATA_KEY, load_denoiser
from els.models.cli import main as train
from els.models.formats.exported import write as write_exported

ROOT = Path(__file__).resolve().parents[2]
TRAINING = [
    "fit",
    "--config",
    "digits_resnet",
    "--model.net.init_args.width",
    "16",
    "--model.net.init_args.depth",
    "1",
    "--data.size",
    "8",
    "--data.limit",
    "64",
    "--data.val_limit",
    "16",
    "--data.batch_size",
    "32",
    "--trainer.max_epochs",
    "4",
    "--trainer.check_val_every_n_epoch",
    "2",
    "--trainer.accelerator",
    "cpu",
    "--samples.count",
    "2",
    "--samples.steps",
    "2",
    "--samples.every_n_epochs",
    "2",
    "--run.logger",
    "csv",
    "--run.name",
    "run",
]
ANALYSIS = [
    "--seeds",
    "5",
    "--calibration_seeds",
    "2",
    "--steps",
    "3",
    "--network_steps",
    "3",
    "--sizes",
    "3,5",
    "--machines",
    "boundary,ideal",
    "--batch",
    "2",
    "--device",
    "cpu",
    "--logger",
    "none",
    "--self_check",
    "off",
]
NUMBERS = ("*.json", "*.npz", "*.csv")
GIGABYTE = 1 << 30
PARTS = ("fuzz", "training", "analysis", "load")


@dataclass
class Row:
    """What became of one kind of fault.

    Attributes:
        name: the fault.
        tried: how often.
        survived: how often all was well in the end.
        short: what fell short, a line each.
        note: a measured number, where that is the point.
    """

    name: str
    tried: int = 0
    survived: int = 0
    short: list[str] = field(default_factory=list)
    note: str = ""

    def count(self, what: str, problem: str | None) -> None:
        """One more was tried."""
        self.tried += 1
        if problem is None:
            self.survived += 1
        else:
            self.short.append(f"{what}: {problem}")


@dataclass(frozen=True)
class Ended:
    """How a forked run ended: its exit code (negative: the signal), and what it said."""

    code: int
    said: str

    @property
    def line(self) -> str | None:
        """The one line of an error; None where it said another thing, or more."""
        lines = [line for line in self.said.splitlines() if line.startswith("error: ")]
        return lines[0] if len(lines) == 1 and self.code == 2 and not self.crashed else None

    @property
    def crashed(self) -> bool:
        return "Traceback (most recent call last)" in self.said

    @property
    def last_words(self) -> str:
        return f"exit {self.code}, {' '.join(self.said.split())[-160:]}"


Hook = Callable[[int], None]
_SILENCE = 5  # seconds that what a process has said may take to come after its end


def forked(
    run: Callable[[], object],
    *,
    folder: Path | None = None,
    hook: Hook | None = None,
    kill_after: float | None = None,
    most_bytes: int | None = None,
    limit: float = 120,
) -> Ended:
    """Run something in a fork of this process.

    Args:
        run: what is run.
        folder: whose writes the hook is told of.
        hook: called with n before the n-th opening for writing, renaming or removal in the folder.
        kill_after: seconds after which it is killed.
        most_bytes: of a file, as on a full disk.
        limit: seconds after which it counts as hanging.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()  # to a file no more could be said than to any other
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(reading)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.close(writing)
            code = _inside(run, folder, hook, most_bytes)
        finally:
            os._exit(code)  # whatever happened: what follows is the parent's to do
    os.close(writing)
    said: list[bytes] = []

    def listen() -> None:
        with open(reading, "rb") as stream:
            said.extend(iter(partial(stream.read1, 1 << 16), b""))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    code = _wait(pid, limit if kill_after is None else kill_after)
    listener.join(_SILENCE)
    return Ended(code, b"".join(said).decode(errors="replace"))


def _inside(
    run: Callable[[], object], folder: Path | None, hook: Hook | None, most_bytes: int | None
) -> int:
    code = 0
    try:
        if hook is not None and folder is not None:
            sys.addaudithook(_watching(str(folder), hook))
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
        with exit_cleanly():
            run()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _watching(folder: str, hook: Hook) -> Callable[[str, tuple], None]:
    count = 0

    def watch(event: str, args: tuple) -> None:
        nonlocal count
        if event == "open":
            writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            writes = event in ("os.rename", "os.remove")
        if writes and str(args[0]).startswith(folder):
            count += 1
            hook(count)

    return watch


def _wait(pid: int, limit: float) -> int:
    """The exit code; of what is still there after the limit, -9."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(n: int) -> Hook:
    """A hook that kills this process before its n-th write."""

    def hook(count: int) -> None:
        if count == n:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def full_at(n: int) -> Hook:
    """A hook by which the disk is full from the n-th write on."""

    def hook(count: int) -> None:
        if count >= n:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file of the run")

    return hook


def counted(run: Callable[[], object], folder: Path) -> tuple[Ended, int, float]:
    """How an undisturbed run ends, how often it writes, and how many seconds it takes."""
    told = folder.parent / f"{folder.name}.count"
    # The file is no part of the folder; that of the count is opened once.
    stream = os.open(told, os.O_RDWR | os.O_CREAT)
    start = time.monotonic()
    ended = forked(run, folder=folder, hook=lambda n: os.pwrite(stream, f"{n:9d}".encode(), 0))
    seconds = time.monotonic() - start
    number = int(told.read_text() or 0)
    os.close(stream)
    return ended, number, seconds


# --- what is run, and what is compared ----------------------------------------------------------


def train_in(folder: Path) -> None:
    """Train, or go on where a checkpoint was kept; one is kept after every epoch."""
    callbacks.LastCheckpoint.__init__.__defaults__ = (None, 0.0, None)  # type: ignore[misc]
    goes_on = (folder / "run/checkpoints/last.ckpt").is_file()
    train([*TRAINING, "--run.dir", str(folder), *(["--ckpt_path", "last"] if goes_on else [])])


def analyze_in(folder: Path, checkpoint: Path) -> None:
    analyze([str(checkpoint), *ANALYSIS, "--out", str(folder / "run")])


def trained_numbers(folder: Path) -> dict[str, bytes]:
    """Weights, averages and optimizer state, as bytes."""
    content = torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)
    found = {"steps": str(content["global_step"]).encode()}
    parts = {name: content.get(name, {}) for name in ("state_dict", "current_model_state")}
    parts["optimizer"] = {
        f"{i}.{key}": value
        for i, state in content["optimizer_states"][0]["state"].items()
        for key, value in state.items()
    }
    for part, tensors in parts.items():
        for name, value in tensors.items():
            found[f"{part}.{name}"] = torch.as_tensor(value).contiguous().numpy().tobytes()
    return found


def analysed_numbers(folder: Path) -> dict[str, bytes]:
    """Every number that an analysis writes: JSON and CSV as they are, arrays as bytes."""
    found: dict[str, bytes] = {}
    for pattern in NUMBERS:
        for path in sorted((folder / "run/analysis").glob(pattern)):
            if path.suffix != ".npz":
                found[path.name] = path.read_bytes()
                continue
            with np.load(path) as arrays:
                found |= {f"{path.name}/{name}": arrays[name].tobytes() for name in arrays}
    return found


@dataclass(frozen=True)
class Subject:
    """What is disturbed: training, or an analysis."""

    name: str
    run: Callable[[Path], None]
    numbers: Callable[[Path], dict[str, bytes]]

    def problem(self, folder: Path, expected: dict[str, bytes], *, tries: int = 1) -> str | None:
        """What is wrong after the same command was given again; None when all is well."""
        for _ in range(tries):
            ended = forked(partial(self.run, folder))
            if ended.code:
                return f"the same command does not finish ({ended.last_words})"
        found = self.numbers(folder)
        if found != expected:
            keys = found.keys() | expected.keys()
            names = sorted(k for k in keys if found.get(k) != expected.get(k))
            return f"other numbers: {', '.join(names[:3])}"
        left = [str(path.relative_to(folder)) for path in folder.rglob("*.partial*")]
        return f"left behind: {', '.join(left[:3])}" if left else None


class Campaign:
    """All kinds of faults, within a budget of seconds.

    Args:
        work: a folder that is the campaign's own.
        number: of the seed.
        scale: 1 for the whole campaign; less tries less of each.
        seconds: when to stop; what is then left is not tried.
        only: "fuzz", "training", "analysis" or "load"; "" for all of them.
        quiet: whether nothing else runs here, so that times tell something.
    """

    def __init__(
        self,
        work: Path,
        number: int,
        scale: float,
        seconds: float,
        only: str = "",
        *,
        quiet: bool = True,
    ) -> None:
        self.work, self.scale, self.only, self.quiet = work, scale, only, quiet
        self.random = random.Random(number)
        self.number = number
        self.end = time.monotonic() + seconds
        self.rows: list[Row] = []
        self.checkpoint = write_checkpoint(work / "network/last.ckpt")
        self.training = Subject("training", train_in, trained_numbers)
        analysis = partial(analyze_in, checkpoint=self.checkpoint)
        self.analysis = Subject("analysis", analysis, analysed_numbers)
        self._made = 0

    def times(self, most: int) -> int:
        return max(1, round(most * self.scale))

    def folder(self) -> Path:
        self._made += 1
        folder = self.work / f"{self._made:04d}"
        folder.mkdir()
        return folder

    def row(self, name: str) -> Row:
        self.rows.append(Row(name))
        left = self.end - time.monotonic()
        print(f"{left:6.0f} s left: {name} ...", file=sys.stderr, flush=True)
        return self.rows[-1]

    def tries(self, some: Iterable, share: float) -> Iterator:
        """As many as there is time for: a share of what is left of it."""
        end = time.monotonic() + share * max(0.0, self.end - time.monotonic())
        for one in some:
            if time.monotonic() > end:
                return
            yield one

    def run(self) -> None:
        """Everything, in order, or the one part that is wanted."""
        if self.only in ("", "fuzz"):
            self.fuzz()
        for subject, share in ((self.training, 0.16), (self.analysis, 0.45)):
            if self.only in ("", subject.name):
                self.disturb(subject, share if not self.only else 0.6)
        if self.only in ("", "load"):
            self.processes()
            if self.quiet:
                self.load()

    def disturb(self, subject: Subject, share: float) -> None:
        """Kill, fill and damage training or an analysis."""
        base = self.folder()
        ended, writes, seconds = counted(partial(subject.run, base), base)
        if ended.code:
            raise RuntimeError(f"{subject.name} fails undisturbed: {ended.said[-2000:]}")
        expected = subject.numbers(base)
        self.kill_at_moments(subject, expected, seconds, share / 2)
        self.kill_at_writes(subject, expected, writes, share / 2)
        self.fill_disk(subject, expected, writes, share / 2)
        if subject is self.analysis:
            self.damage_analysis(base, expected)
            self.two_at_once(expected)
        else:
            self.damage_training(base)

    def kill_at_moments(
        self, subject: Subject, expected: dict[str, bytes], seconds: float, share: float
    ) -> None:
        row = self.row(f"{subject.name}: kill -9 at random moments, resumed")
        moments = [self.random.uniform(0.02, 1) * seconds for _ in range(self.times(25))]
        for moment in self.tries(moments, share):
            folder = self.folder()
            forked(partial(subject.run, folder), kill_after=moment)
            row.count(f"after {moment:.2f} s", self._checked(subject, folder, expected))

    def kill_at_writes(
        self, subject: Subject, expected: dict[str, bytes], writes: int, share: float
    ) -> None:
        row = self.row(f"{subject.name}: kill -9 before the n-th write or rename, resumed")
        chosen = self._chosen(writes, self.times(25))
        for n in self.tries(chosen, share):
            folder = self.folder()
            forked(partial(subject.run, folder), folder=folder, hook=kill_at(n))
            row.count(f"n = {n} of {writes}", self._checked(subject, folder, expected))

    def fill_disk(
        self, subject: Subject, expected: dict[str, bytes], writes: int, share: float
    ) -> None:
        row = self.row(f"{subject.name}: disk full from the n-th write on, or within a file")
        chosen: list[int] = self._chosen(writes, self.times(16))
        sizes = [-self.random.choice((500, 3000, 20_000)) for _ in range(self.times(4))]
        for n in self.tries([*chosen, *sizes], share):
            folder = self.folder()
            told = {"most_bytes": -n} if n < 0 else {"folder": folder, "hook": full_at(n)}
            ended = forked(partial(subject.run, folder), **told)  # type: ignore[arg-type]
            problem = self._checked(subject, folder, expected)
            if ended.code and ended.line is None:
                problem = f"no single line: {ended.last_words}"
            row.count(f"n = {n} of {writes}" if n > 0 else f"{-n} bytes a file", problem)

    def _chosen(self, writes: int, most: int) -> list[int]:
        every = range(1, writes + 1)
        return sorted(self.random.sample(every, min(most, len(every))))

    def _checked(self, subject: Subject, folder: Path, expected: dict[str, bytes]) -> str | None:
        problem = subject.problem(folder, expected)
        shutil.rmtree(folder, ignore_errors=True)
        return problem

    def damage_analysis(self, base: Path, expected: dict[str, bytes]) -> None:
        """Every file of a finished analysis truncated, emptied, another's, and computed again."""
        row = self.row("analysis: each file truncated, emptied or another's, run again")
        other = self.folder()
        forked(
            lambda: analyze(
                [
                    str(write_checkpoint(self.work / "other/last.ckpt", seed=1)),
                    *ANALYSIS,
                    "--out",
                    str(other / "run"),
                ]
            )
        )
        whole = base / "run/analysis"
        names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
        parts = [name for name in names if name.parts[0] == ".work"]
        kept = [name for name in names if name.parts[0] != ".work" and name.suffix != ".png"]
        names = [*kept, *self.random.sample(parts, min(len(parts), 4))]
        foreign = sorted((other / "run/analysis/.work").glob("*.pt"))
        jobs = [(name, how) for name in names for how in ("truncated", "emptied", "another's")]
        self.random.shuffle(jobs)
        for name, how in self.tries(jobs[: self.times(len(jobs))], 0.35):
            folder = self.folder()
            shutil.copytree(base / "run", folder / "run")
            path = folder / "run/analysis" / name
            twin = other / "run/analysis" / name
            harm(path, how, twin if twin.is_file() else foreign[0] if foreign else None)
            row.count(f"{name} {how}", self._checked(self.analysis, folder, expected))

    def damage_training(self, base: Path) -> None:
        """A damaged checkpoint is one line, and a damaged anything else is no obstacle."""
        row = self.row("training: each file truncated or emptied, gone on with")
        run = base / "run"
        names = [path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()]
        jobs = [(name, how) for name in names for how in ("truncated", "emptied")]
        jobs.sort(key=lambda job: job[0].name != "last.ckpt")
        for name, how in self.tries(jobs[: self.times(len(jobs))], 0.1):
            folder = self.folder()
            shutil.copytree(run, folder / "run")
            harm(folder / "run" / name, how, None)
            ended = forked(partial(train_in, folder))
            if name.name == "last.ckpt":
                problem = None if ended.line else f"no single line: {ended.last_words}"
            else:
                problem = f"does not go on: {ended.last_words}" if ended.code else None
            row.count(f"{name} {how}", problem)
            shutil.rmtree(folder)

    def two_at_once(self, expected: dict[str, bytes]) -> None:
        """Two analyses of one folder at the same time: both finish, or one says so."""
        row = self.row("analysis: two processes in one folder")
        for _ in self.tries(range(self.times(5)), 0.15):
            folder = self.folder()
            pause = self.random.uniform(0, 1)
            with tempfile.TemporaryFile() as output:
                pid = os.fork()
                if not pid:
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                    os._exit(_inside(partial(self.analysis.run, folder), None, None, None))
                time.sleep(pause)
                second = forked(partial(self.analysis.run, folder))
                code = _wait(pid, 120)
                output.seek(0)
                first = Ended(code, output.read().decode(errors="replace"))
            problems = [one.last_words for one in (first, second) if one.code and not one.line]
            found = self.analysis.numbers(folder)
            if not problems and found != expected:
                problems = ["other numbers"]
            row.count(f"{pause:.2f} s apart", problems[0] if problems else None)
            shutil.rmtree(folder)

    def fuzz(self) -> None:
        """Bytes of every format changed by hypothesis: an answer or an InputError, in bounds."""
        analysis = self.folder() / "run"
        finished("fuzzed", lambda folder: None)(analysis)
        whole = analysis / "done/analysis"
        for name, path, read in readers(self.work / "fuzz", self.checkpoint, whole):
            row = self.row(f"fuzz: {name}")
            report = self.work / "fuzz/report"
            report.write_text("0\n")
            examples = self.times(120)
            seconds = 4 + 30 * self.scale
            run = partial(fuzz_reader, path, read, examples, self.number, report, seconds)
            ended = forked(run, limit=seconds + 30)
            tried, *problems = report.read_text().splitlines()
            if ended.code:
                problems.append(ended.last_words)
            row.tried, row.short = int(tried), problems[:3]
            row.survived = row.tried - len(problems)

    def processes(self) -> None:
        """1, 2 and 3 processes give the same samples."""
        row = self.row("analysis: 1, 2 and 3 processes give the same samples")
        found = {}
        for count in self.tries((1, 2, 3) if self.scale >= 1 else (1, 2), 0.8):
            out = self.folder() / "run"
            words = [str(self.checkpoint), *ANALYSIS, "--out", str(out), "--devices", str(count)]
            done = subprocess.run(
                [sys.executable, "analyze.py", *words],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            if done.returncode:
                row.count(f"{count} processes", f"exit {done.returncode}: {done.stderr[-160:]}")
                continue
            with np.load(out / "analysis/samples.npz") as arrays:
                found[count] = {name: arrays[name].copy() for name in arrays}
            first = next(iter(found.values()))
            far = max(float(np.abs(first[name] - found[count][name]).max()) for name in first)
            row.count(f"{count} processes", None if far < 1e-4 else f"differ by {far:.1e}")
            row.note = f"largest difference {far:.1e}"

    def load(self) -> None:
        """How much slower the engine is beside busy loops."""
        row = self.row("engine beside 0, 2 and 8 busy loops: at most 1.5, 2.5 and 6 times as long")
        images = torch.randint(0, 256, (500, 1, 16, 16), dtype=torch.uint8)
        machine = make_machine("boundary", images_of(images), size=5, engine="native")
        x = torch.randn(4, 1, 16, 16)
        machine(x, 0.5)
        alone = best_of(lambda: machine(x, 0.5))
        told = []
        for loops, most in {0: 1.5, 2: 2.5, 8: 6.0}.items():
            with beside(loops):
                seconds = best_of(lambda: machine(x, 0.5))
            slower = f"x {seconds / alone:.1f}"
            told.append(f"{loops} loops: {slower}")
            row.count(f"{loops} loops", None if seconds <= most * alone else slower)
        row.note = ", ".join(told)


def harm(path: Path, how: str, other: Path | None) -> None:
    """Truncate a file, empty it, or put another in its place."""
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    elif other is not None:
        path.write_bytes(other.read_bytes())


def images_of(pixels: torch.Tensor) -> object:
    from els.images import ImageSet

    return ImageSet(pixels)


def best_of(run: Callable[[], object], times: int = 5) -> float:
    """The shortest of several times, in seconds."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


# --- hostile bytes ------------------------------------------------------------------------------


def readers(
    folder: Path, checkpoint: Path, analysis: Path
) -> list[tuple[str, Path, Callable[[Path], object]]]:
    """The formats that are read: a name, a whole file, and what reads it."""
    folder.mkdir()
    pictures = folder / "pictures"
    pictures.mkdir()
    for name, data in PICTURES:
        (pictures / name).write_bytes(data)
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        labels = [[name, i % 2] for i, (name, _) in enumerate(PICTURES)]
        archive.writestr("dataset.json", repr({"labels": labels}).replace("'", '"'))
        for name, data in PICTURES:
            archive.writestr(name, data)
    (folder / "c.yaml").write_text(yaml.safe_dump({"seeds": 7, "sizes": [3, 5], "machines": "all"}))
    exported = folder / "exported"
    exported.mkdir()
    meta = torch.load(checkpoint, weights_only=True)[METADATA_KEY]
    write_exported(exported, load_denoiser(checkpoint).net, meta)
    results = {
        f"results, {name}": (analysis / name, lambda path: Results.load(path.parent))
        for name in ("agreement.json", "scales.json", "samples.npz", "origins.npz")
    }
    found: dict[str, tuple[Path, Callable[[Path], object]]] = {
        "checkpoint (pickle)": (checkpoint, load_denoiser),
        "safetensors": (exported / "model.safetensors", lambda path: load_denoiser(path.parent)),
        "exported config.json": (exported / "config.json", lambda path: load_denoiser(path.parent)),
        **results,
        "zip of images": (folder / "z.zip", lambda path: load_images("zip", root=path, size=8)),
        "PNG": (pictures / "0.png", lambda path: load_images("folder", root=path.parent, size=8)),
        "YAML": (folder / "c.yaml", check_readable),
    }
    return [(name, *pair) for name, pair in found.items()]


def fuzz_reader(
    path: Path,
    read: Callable[[Path], object],
    examples: int,
    number: int,
    report: Path,
    seconds: float,
) -> None:
    """Change the file in many ways; count the tries and what fell short in the report."""
    whole = path.read_bytes()
    memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (memory + 4 * GIGABYTE,) * 2)
    signal.signal(signal.SIGALRM, _too_slow)
    problems: list[str] = []
    tried, end = 0, time.monotonic() + seconds
    edits = st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8), st.integers(0, 8)),
        min_size=1,
        max_size=4,
    )

    @seed(number)
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(edits, st.one_of(st.none(), st.floats(0, 1)))
    def change(edits: Sequence[tuple[float, bytes, int]], cut: float | None) -> None:
        nonlocal tried
        if time.monotonic() > end:
            return
        data = bytearray(whole)
        for place, put, gone in edits:
            at = int(place * len(data))
            data[at : at + gone] = put
        path.write_bytes(data if cut is None else data[: int(cut * len(data))])
        tried += 1
        signal.alarm(10)
        try:
            read(path)
        except InputError as error:
            if "\n" in str(error) or len(str(error)) > 3000:
                problems.append(f"a long message: {str(error)[:80]!r}")
        except Exception as error:
            problems.append(f"{type(error).__name__}: {str(error)[:80]}")
        finally:
            signal.alarm(0)

    try:
        change()
    finally:
        path.write_bytes(whole)
        report.write_text("\n".join([str(tried), *dict.fromkeys(problems)]) + "\n")


def _too_slow(signum: int, frame: object) -> None:
    raise TimeoutError("longer than 10 s")


# --- the table ----------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| fault | tried | survived | what fell short |", "|---|---|---|---|"]
    for row in rows:
        short = "; ".join(" ".join(one.split())[:150].replace("|", "/") for one in row.short[:3])
        more = f" and {len(row.short) - 3} more" if len(row.short) > 3 else ""
        lines.append(f"| {row.name} | {row.tried} | {row.survived} | {short}{more}{row.note} |")
    return "\n".join(lines)


def main() -> int:
    """Run the campaign; the exit code is 1 where anything fell short."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="a little of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["", *PARTS], default="", help="one part")
    parser.add_argument("--minutes", type=float, default=20)
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["WANDB_MODE"] = "disabled"
    torch.set_num_threads(1)  # a fork does not take threads along
    if native_engine.missing() is None:
        native_engine.library()
    work = Path(tempfile.mkdtemp(prefix="els-faults-"))
    start = time.monotonic()
    try:
        campaign = Campaign(
            work,
            options.seed,
            0.05 if options.sample else 1.0,
            60 * options.minutes - 30,
            options.only,
            quiet=not options.sample,
        )
        campaign.run()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    rows = campaign.rows
    print(table(rows))
    tried, survived = (sum(getattr(row, name) for row in rows) for name in ("tried", "survived"))
    print(
        f"\n{survived} of {tried} survived, seed {options.seed}, "
        f"{(time.monotonic() - start) / 60:.0f} minutes"
    )
    return int(survived < tried)


if __name__ == "__main__":
    sys.exit(main())
