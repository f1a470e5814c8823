"""Networks of the Hugging Face hub: configurations and safetensors, downloaded once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from els.errors import InputError, reason, shown
from els.files import replacing

PREFIX = "hf:"
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
# What is downloaded: of the folder itself, and of a pipeline's parts.
_WANTED = re.compile(
    r"model_index\.json|(unet/)?config\.json|(scheduler/)?scheduler_config\.json|"
    r"(unet/)?(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
)
# Errors of several libraries of connections, and of huggingface_hub.
_UNREACHABLE = {
    "TransportError", "ConnectionError", "Timeout", "TimeoutError", "LocalEntryNotFoundError",
}  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def repository_name(source: str) -> str:
    """The repository's own name, without its owner and revision.

    Raises:
        InputError: when it is not `hf:owner/name` or `hf:owner/name@revision`.
    """
    return _parse(source)[0].split("/")[1]


def download(source: str) -> Path:
    """The folder of a repository such as "hf:google/ddpm-cifar10-32", downloaded if need be.

    It is kept in the cache of huggingface_hub ($HF_HOME). The hub is asked first, as a branch may
    move; what is kept is taken where the hub cannot be reached. $HF_ENDPOINT names another hub.

    Raises:
        InputError: when the name is of another form, huggingface_hub is not installed, the hub
            cannot be reached and nothing is kept, or the repository has no weights in safetensors.
    """
    repository, revision = _parse(source)
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"'{source}' needs huggingface_hub, which comes with diffusers: pip install diffusers"
        ) from error
    hub = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        info = hub.model_info(repository, revision=revision, timeout=10)
        names = _wanted(source, [file.rfilename for file in info.siblings or []])
        # All of one commit, should the branch move on in between.
        for name in names:
            path = hub.hf_hub_download(repository, name, revision=info.sha)
        folder = Path(path).parents[name.count("/")]
        _remember(folder, revision)
        return folder
    except InputError:
        raise
    except Exception as error:  # of many libraries, and of others with every version
        why = reason(error)
        if not _is_unreachable(error):
            raise InputError(f"'{source}' could not be downloaded ({why})") from error
        try:
            return Path(hub.snapshot_download(repository, revision=revision, local_files_only=True))
        except Exception:
            raise InputError(
                f"'{source}' could not be downloaded ({why}), and was not before; the path of a "
                "folder on this machine works without the hub"
            ) from error


def _is_unreachable(error: Exception) -> bool:
    """Whether nobody answered, or a server that cannot; an answer such as "not found" is one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _UNREACHABLE) if status is None else status >= 500


def _remember(folder: Path, revision: str) -> None:
    """Note in the cache of which commit a branch is, as downloads by its name do."""
    if folder.name != revision:
        with replacing(folder.parents[1] / "refs" / revision) as partial:
            partial.write_text(folder.name, encoding="utf-8")


def _parse(source: str) -> tuple[str, str]:
    """Owner and name, and the revision."""
    match = _NAME.fullmatch(source.removeprefix(PREFIX))
    if match is None or {".", ".."} & {*match[1].split("/"), *(match[2] or "").split("/")}:
        raise InputError(
            f"'{source}' does not name a repository; write {PREFIX}owner/name, or "
            f"{PREFIX}owner/name@revision with a branch, a tag or a commit"
        )
    return match[1], match[2] or "main"


def _wanted(source: str, names: Sequence[str]) -> list[str]:
    """The files to download.

    Raises:
        InputError: when there is no network of diffusers among them, or none in safetensors.
    """
    wanted = [name for name in names if _WANTED.fullmatch(name)]
    if any(name.endswith(".safetensors") for name in wanted) and any(
        name.endswith(".json") for name in wanted
    ):
        return wanted
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles and not any(name.endswith(".safetensors") for name in wanted):
        raise InputError(
            f"'{source}' has pickled weights alone, such as {shown(pickles[0])}, which are not "
            "downloaded: a pickle is a program. Ask its owner for safetensors, or convert it where "
            "you trust it and give the folder"
        )
    found = ", ".join(map(shown, names[:5])) or "nothing"
    raise InputError(f"'{source}' has no network of diffusers in safetensors, but {found}")
