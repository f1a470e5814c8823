"""Quick runs of the real entry points, and what they leave in an offline W&B run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from els.console import exit_cleanly

TINY = [
    "--config", "configs/digits_resnet.yaml",
    "--model.net.init_args.width", "16",
    "--model.net.init_args.depth", "2",
    "--data.limit", "96",
    "--data.val_limit", "24",
    "--data.batch_size", "32",
    "--trainer.max_epochs", "3",
    "--trainer.check_val_every_n_epoch", "1",
    "--trainer.log_every_n_steps", "1",
    "--trainer.accelerator", "cpu",
    "--samples.count", "4",
    "--samples.steps", "2",
    "--samples.every_n_epochs", "1",
]  # fmt: skip


def run(
    *args: object, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, such as `run("train.py", "fit", ...)`."""
    return subprocess.run(
        [sys.executable, *map(str, args)],
        env=own_environment() | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def own_environment() -> dict[str, str]:
    """The environment of a process that shares no W&B service with this one."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}


def on_terminal(*args: object) -> str:
    """What Python says in a process whose output is a terminal; fails where it fails."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    env = {k: v for k, v in own_environment().items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, *map(str, args)], cwd=ROOT, stdin=slave, stdout=slave, stderr=slave,
        env=env | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(master, 65536):
            said += part
    os.close(master)
    assert process.wait(timeout=240) == 0, said.decode()
    return said.decode()


def refusal(main: Callable, args: Sequence[object], capsys: pytest.CaptureFixture) -> str:
    """The one line with which an entry point refuses `args`; fails if it accepts them."""
    with pytest.raises(SystemExit) as stop, exit_cleanly():
        main([str(arg) for arg in args])
    assert stop.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    return line


def fit(folder: Path, *args: str, base: Sequence[str] = TINY) -> subprocess.CompletedProcess[str]:
    """Train a tiny run below `folder`; fails with the output where that fails."""
    done = run("train.py", "fit", *base, "--run.dir", str(folder), *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def wandb_records(folder: Path, job_type: str) -> dict[str, list[dict[str, Any]]]:
    """The records of the first offline run of that job type below `folder`, by their type."""
    return wandb_runs(folder, job_type)[0]


def wandb_runs(folder: Path, job_type: str) -> list[dict[str, list[dict[str, Any]]]]:
    """The records of each offline run of that job type below `folder`, the earliest first."""
    found = []
    for run_folder in sorted((folder / "wandb").glob("offline-run-*")):
        listing = subprocess.run(
            [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", run_folder],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        records = defaultdict(list)
        for line in listing.stdout.splitlines():
            record = json.loads(line)
            records[record["type"]].append(record[record["type"]])
        # W&B writes every 15 seconds, and a run that was killed before that is empty.
        if records["run"] and records["run"][0]["job_type"] == job_type:
            found.append(records)
    assert found, f"no {job_type} run below {folder}"
    # Folders are named by the second, in which several runs may begin.
    return sorted(found, key=lambda records: _began(records["run"][0]))


def _began(run: dict[str, Any]) -> str:
    return str(run.get("start_time", ""))


def wandb_summary(records: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What a run's summary is in the end."""
    summary: dict[str, Any] = {}
    for record in records["summary"]:
        summary |= record["update"]
    return summary
