"""Which run of Weights & Biases an analysis is, kept in its folder: one run through all resumes."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import wandb

from els.files import write_record
from els.reading import read_record

RECORD = ".wandb.json"


@dataclass(frozen=True)
class LoggedRun:
    """The W&B run of what a folder holds.

    Attributes:
        id: of the run.
        digest: of what is logged, see `digest_of`.
        where: where the run is to be seen: its URL or, offline, its folder.
        finished: whether everything has been logged.
    """

    id: str
    digest: str
    where: str = ""
    finished: bool = False

    def save(self, folder: Path) -> None:
        """Keep it in the folder of what is logged."""
        write_record(folder / RECORD, self)


def digest_of(*parts: object) -> str:
    """Digest of plain data that tells what is logged, and where, from anything else."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def run_of(folder: Path, digest: str, *, anew: bool = False) -> LoggedRun:
    """The run that goes on, or that was finished, with what has this digest; else a new one.

    Args:
        folder: of what is logged.
        digest: see `digest_of`.
        anew: take a new run in any case. A run that was deleted on W&B cannot be gone on with.
    """
    given = os.environ.get(wandb.env.RUN_ID)  # a sweep gives its runs their ids
    earlier = None if anew else _read(folder)
    if earlier is not None and earlier.digest == digest and given in (None, earlier.id):
        return earlier
    return LoggedRun(given or new_id(), digest)


def new_id() -> str:
    """An id for a run."""
    return secrets.token_hex(4)


def _read(folder: Path) -> LoggedRun | None:
    """What was kept; None where there is nothing, or nothing whole."""
    try:
        return read_record(LoggedRun, folder / RECORD)
    except (OSError, ValueError):
        return None
