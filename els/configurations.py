"""The configurations that come with the package, by name, such as `network/unet_32_zeros`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from els.errors import InputError

_NOT_OURS = {"sweep"}  # of `wandb sweep`, which no parser of this project reads


def configuration_names(folder: str = "") -> list[str]:
    """The names in a folder of the configurations, in order."""
    root = _root() / folder
    return sorted({file.stem for file in root.glob("*.yaml")} - _NOT_OURS)


def find_configuration(name: str, folder: str = "") -> Path:
    """The file that a name stands for.

    Args:
        name: the path of a file; else a name in `folder`, or one such as "network/unet_32_zeros",
            with or without ".yaml".
        folder: where such names are looked up first; "" is where whole trainings are.

    Raises:
        InputError: when there is none; the message lists the names in `folder`.
    """
    given = Path(name)
    if given.exists() and not given.is_dir():
        return given
    root, relative = _root(), name.removesuffix(".yaml")
    for file in (root / folder / f"{relative}.yaml", root / f"{relative}.yaml"):
        if file.is_file():
            return file
    raise InputError(
        f"there is no configuration '{name}'; give the path of a YAML file, or one of "
        f"{', '.join(configuration_names(folder))}"
    )


def _root() -> Path:
    """The folder of the configurations: in a clone or where the package is installed."""
    return Path(next(iter(import_module("els.configs").__path__)))
