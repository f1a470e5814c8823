"""Checkpoints kept by Weights & Biases, downloaded once."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
from pathlib import Path

import wandb

from els.errors import InputError, reason
from els.files import cache_folder

PREFIX = "wandb:"
PROJECT = "els"  # where runs are logged when nothing else is said
_NAME = re.compile(r"(?:([^/:]+)/([^/:]+)/)?([^/:]+)(?::([^/:]+))?")
_VERSION = re.compile(r"v\d+")


def is_artifact(source: str) -> bool:
    """Whether this names an artifact, not a path."""
    return source.startswith(PREFIX)


def artifact_name(source: str) -> str:
    """The artifact's own name, without entity, project and version.

    Raises:
        InputError: when it is not `wandb:entity/project/name:alias`.
    """
    return _parse(source)[2]


def full_name(source: str) -> str:
    """The name as "entity/project/name:alias", where entity and project may have been left out.

    Then they are $WANDB_ENTITY, else who is logged in, and $WANDB_PROJECT, else "els".

    Raises:
        InputError: when the name is of another form, or nobody is logged in whose it could be.
    """
    entity, project, name, alias = _parse(source)
    if not entity:
        entity = os.environ.get(wandb.env.ENTITY) or _own_entity(source)
        project = os.environ.get(wandb.env.PROJECT) or PROJECT
    return f"{entity}/{project}/{name}:{alias}"


def _own_entity(source: str) -> str:
    """The team or user of who is logged in."""
    try:
        _check_login()
        entity: str | None = wandb.Api().default_entity
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise InputError(
            f"whose artifact '{source}' is cannot be asked of W&B ({reason(error)}); write "
            f"{PREFIX}entity/project/name:alias"
        ) from error
    if not entity:
        raise InputError(f"'{source}' has no owner; write {PREFIX}entity/project/name:alias")
    return entity


def download(source: str) -> Path:
    """The folder of an artifact such as "wandb:entity/project/name:alias", downloaded if need be.

    Without entity and project it is one's own in the project "els"; see `full_name`.

    It is kept under $ELS_CACHE (else ~/.cache/els) by its version. A version (`:v3`) that is there
    already is found without asking W&B; an alias such as `latest`, which may move, is looked up,
    and its files are downloaded only when that version is not there.

    Raises:
        InputError: when the name is not of that form, or W&B cannot be reached or has no such
            artifact.
    """
    whole = full_name(source)
    entity, project, name, alias = _parse(whole)
    kept = cache_folder() / "artifacts" / entity / project / name
    if _VERSION.fullmatch(alias) and (kept / alias).is_dir():
        return kept / alias
    try:
        _check_login()
        artifact = wandb.Api().artifact(whole)
        folder = kept / artifact.version
        if not folder.is_dir():
            _download(artifact, folder)
    except (wandb.errors.Error, ValueError, OSError) as error:
        have = ", ".join(sorted(path.name for path in kept.glob("v*")))
        instead = f"; downloaded before, and found offline by their version: {have}" if have else ""
        raise InputError(
            f"the artifact '{whole}' could not be downloaded from W&B "
            f"({reason(error)}); the path of a checkpoint on this machine works without it{instead}"
        ) from error
    return folder


def _check_login() -> None:
    """Without a key, `wandb.Api` would ask for one on a terminal."""
    if not wandb.login(prompt=False, verify=False):
        raise wandb.errors.UsageError("not logged in; run `wandb login`")


def version_of(file: Path, collection: str) -> wandb.Artifact:
    """The version of "entity/project/name" that holds exactly this file.

    Raises:
        InputError: when no version does. Other errors are those of W&B.
    """
    with open(file, "rb") as content:
        digest = base64.b64encode(hashlib.file_digest(content, "md5").digest()).decode()
    for version in wandb.Api().artifacts("model", collection):
        if any(entry.digest == digest for entry in version.manifest.entries.values()):
            return version
    raise InputError(f"no version of '{collection}' is '{file}'")


def _download(artifact: wandb.Artifact, folder: Path) -> None:
    """All files of an artifact into `folder`, or nothing."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        artifact.download(root=str(partial))
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster, with the same files
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _parse(source: str) -> tuple[str, str, str, str]:
    """Entity and project, empty where they were left out, name and alias."""
    match = _NAME.fullmatch(source.removeprefix(PREFIX))
    if match is None or {".", ".."} & set(match.groups()):
        raise InputError(
            f"'{source}' does not name an artifact; write {PREFIX}entity/project/name:alias, with "
            f"an alias such as v0, latest or best, or {PREFIX}name:alias for your own"
        )
    entity, project, name, alias = match.groups()
    return entity or "", project or "", name, alias or "latest"
