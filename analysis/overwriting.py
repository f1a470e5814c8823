"""Finished analyses are not replaced without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from els.analysis import earlier
from els.analysis.along import ALONG
from els.analysis.options import Protocol
from els.analysis.results import AGREEMENT, FILES, Provenance
from els.errors import InputError
from els.files import as_record, sha256_of
from els.models.formats.loaded import Declared
from els.reading import member, read_table

_HOLDS = {AGREEMENT: "the analysis of one network", ALONG: "that of the snapshots of a training"}


def check_earlier(
    folder: Path, provenance: Provenance, *, force: bool, name: str = AGREEMENT
) -> bool:
    """Refuse to replace a finished analysis by one that is made otherwise.

    Args:
        folder: where results go.
        provenance: what they would be made from.
        force: replace whatever is there.
        name: the file that is there when an analysis is finished.

    Returns:
        whether a finished analysis of other settings is to be replaced.

    Raises:
        InputError: when a finished analysis there was made from something else; the message says
            from what. Also, `force` or not, when it is of a training and this of one network, or
            the other way round: they have no parts in common.
    """
    for other in {AGREEMENT, ALONG} - {name}:
        if (folder / other).exists():
            raise InputError(
                f"'{folder}' holds {_HOLDS[other]}, of which nothing is replaced; give another "
                "--name"
            )
    if not (folder / name).exists():
        return False
    differences = list(_differences(folder / name, provenance))
    if differences and not force:
        raise InputError(
            f"'{folder}' holds a finished analysis that was made otherwise: "
            f"{'; '.join(differences)}. Add --name NAME to keep both, or --force to replace it"
        )
    return bool(differences)


def _differences(path: Path, now: Provenance) -> Iterator[str]:
    """What differs, as "seeds 40, now 8"."""
    try:
        summary = read_table(member(path.parent, path.name))
        if _of_another_folder(path.parent, summary):
            return
        summary = summary.get("provenance", summary)
        if earlier.is_earlier(summary):
            yield "by an earlier version"
            return
        then = as_record(Provenance, summary)
    except (OSError, ValueError):
        return  # damaged: nothing is lost when it is replaced
    for field in fields(Protocol):
        before, after = (getattr(one.protocol, field.name) for one in (then, now))
        if before != after:
            yield f"{field.name} {_text(before)}, now {_text(after)}"
    if then.checkpoint.sha256 != now.checkpoint.sha256:
        yield "of other weights (another checkpoint, or it was trained on since)"
    twins = [{one.sha256 for one in source.twins.values()} for source in (then, now)]
    if twins[0] != twins[1]:
        yield f"with other twins ({len(twins[0])}, now {len(twins[1])})"
    yield from _read_otherwise(then.declared, now.declared)
    if then.data.fingerprint != now.data.fingerprint:
        yield "with other training images"
    versions = [one.versions.get("results") for one in (then, now)]
    if versions[0] != versions[1]:
        yield f"by version {versions[0]} of what is computed, now {versions[1]}"


def _of_another_folder(folder: Path, summary: Mapping[str, object]) -> bool:
    """Whether none of the files that an agreement.json was written with is here, but others are.

    Files that are missing, or of which a part is damaged, say nothing of the kind.
    """
    digests = summary.get("files")
    if not isinstance(digests, Mapping):
        return False
    here = [name for name in digests if FILES.fullmatch(name) and (folder / name).exists()]
    try:
        same = [sha256_of(member(folder, name)) == digests[name] for name in here]
    except (OSError, ValueError):
        return False
    return bool(same) and not any(same)


def _read_otherwise(then: Declared | None, now: Declared | None) -> Iterator[str]:
    """What differs in how the same file is understood; earlier versions did not note it."""
    if then is None or now is None:
        return
    for name in ("weights", "prediction", "schedule", "image_range"):
        before, after = getattr(then, name), getattr(now, name)
        if before != after:
            yield f"{name} {_text(before)}, now {_text(after)}"


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
