"""The configurations that come with the package, by name, such as `network/unet_32_zeros`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from els.errors import InputError, reason
from els.reading import as_options

_NOT_OURS = {"sweep"}  # of `wandb sweep`, which no parser of this project reads

_MOST_BYTES = 1_000_000


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


def check_readable(path: Path) -> None:
    """Refuse a file that is no YAML of a size that a person would write.

    Raises:
        InputError: when it is too long, no UTF-8, no YAML of keys and values, or its aliases stand
            for far more than is written.
    """
    with open(path, "rb") as file:
        written = file.read(_MOST_BYTES + 1)
    if len(written) > _MOST_BYTES:
        raise InputError(
            f"'{path}' is longer than {_MOST_BYTES:,} bytes; a configuration is a short YAML file"
        )
    try:
        text = written.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not UTF-8 ({reason(error)}); save it as UTF-8") from error
    as_options(text, path)


def _root() -> Path:
    """The folder of the configurations: in a clone or where the package is installed."""
    return Path(next(iter(import_module("els.configs").__path__)))
