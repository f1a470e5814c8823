"""Small trained networks that come with the project: `zoo:garments_resnet`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import urllib.request
from contextlib import suppress
from functools import cache
from http.client import HTTPException
from pathlib import Path

from els.errors import InputError, reason
from els.files import cache_folder, replacing_folder, sha256_of
from els.reading import read_record

PREFIX = "zoo:"
ADDRESS = "ELS_ZOO"
_DISTRIBUTION, _LABEL = "els-machines", "Zoo"  # whose metadata may name an address
INDEX = Path(__file__).resolve().with_name("zoo.json")
_TIMEOUT = 30  # seconds without an answer

Index = dict[str, dict[str, str]]  # of each network, the SHA-256 of its files


def zoo_name(source: str) -> str:
    """The network's own name.

    Raises:
        InputError: when the zoo has no network of that name.
    """
    name = source.removeprefix(PREFIX)
    if name not in index():
        raise InputError(f"the zoo has no network '{name[:80]}'; there are {', '.join(index())}")
    return name


@cache
def index() -> Index:
    """The networks, and the SHA-256 of each of their files."""
    return read_record(Index, INDEX)


def download(source: str) -> Path:
    """The folder of a network such as "zoo:garments_resnet".

    It lies in a clone of the project. An installed package downloads it once, from the address in
    $ELS_ZOO or the one that the package's metadata names, and keeps it under $ELS_CACHE (else
    ~/.cache/els). Either way the files are those that the index has the digests of.

    Raises:
        InputError: when there is no such network, its files were changed, or they cannot be had.
    """
    name = zoo_name(source)
    digests = index()[name]
    version = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:12]
    kept = cache_folder() / "zoo" / f"{name}-{version}"
    for folder in (INDEX.parent.parent / "zoo" / name, kept):
        if folder.is_dir():
            _check(source, folder, digests)
            return folder
    _download(source, name, digests, kept)
    return kept


def _check(source: str, folder: Path, digests: dict[str, str]) -> None:
    """Refuse files that are not those of the index."""
    for file, digest in digests.items():
        if not (folder / file).is_file() or sha256_of(folder / file) != digest:
            raise InputError(
                f"'{folder / file}' of '{source}' is missing or was changed; restore it, or give "
                "the folder itself to load it as it is"
            )


def _download(source: str, name: str, digests: dict[str, str], folder: Path) -> None:
    """All files of a network into `folder`, or nothing."""
    address = _address(source)
    try:
        with replacing_folder(folder) as partial:
            for file, digest in digests.items():
                url = f"{address}/{name}/{file}"
                with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
                    content = answer.read()
                if hashlib.sha256(content).hexdigest() != digest:
                    raise InputError(
                        f"'{url}' is not the file of this version's '{source}'; install the "
                        "version of the project that it belongs to"
                    )
                (partial / file).write_bytes(content)
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"'{source}' could not be downloaded from {address} ({reason(error)}), and was not "
            "before; in a clone of the project it is found without a network"
        ) from error


def _address(source: str) -> str:
    """Where the zoo can be downloaded from."""
    named = os.environ.get(ADDRESS, "")
    if not named:
        with suppress(importlib.metadata.PackageNotFoundError):
            urls = importlib.metadata.metadata(_DISTRIBUTION).get_all("Project-URL") or []
            named = dict(url.split(", ", 1) for url in urls).get(_LABEL, "")
    if not named:
        raise InputError(
            f"'{source}' does not come with an installed package, whose metadata names no address "
            f"of the zoo; set {ADDRESS} to one, or use a clone of the project"
        )
    return named.rstrip("/")
