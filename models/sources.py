"""Checkpoints that are no paths, by what their names begin with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from els.models import artifacts, hub, user_code, zoo

_FETCH: dict[str, Callable[[str], Path]] = {
    artifacts.PREFIX: artifacts.download,
    hub.PREFIX: hub.download,
    zoo.PREFIX: zoo.download,
}
_NAME: dict[str, Callable[[str], str]] = {
    artifacts.PREFIX: artifacts.artifact_name,
    hub.PREFIX: hub.repository_name,
    zoo.PREFIX: zoo.zoo_name,
    user_code.PREFIX: user_code.code_name,
}


def fetch(source: str) -> Path:
    """The path that a source stands for; what lies elsewhere is downloaded, once.

    Raises:
        InputError: when that cannot be done, or the source is not of the form of its kind.
    """
    prefix = _prefix(source)
    return Path(source) if prefix not in _FETCH else _FETCH[prefix](source)


def name_of(source: str) -> str | None:
    """What a source that is no path is called, for a run's folder; None for a path.

    Raises:
        InputError: when the source is not of the form of its kind.
    """
    prefix = _prefix(source)
    return None if prefix not in _NAME else _NAME[prefix](source)


def _prefix(source: str) -> str:
    name, colon, _ = source.partition(":")
    return name + colon
