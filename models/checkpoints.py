"""Checkpoints of every kind to denoisers; they are data, and nothing in them is ever executed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from els.errors import InputError, shown
from els.models import sources, user_code
from els.models.blocks import PADDINGS, Trained
from els.models.denoiser import NetworkDenoiser
from els.models.formats import (
    containers,
    diffusers,
    edm,
    exported,
    lucidrains,
    own,
    paper,
    pickled,
)
from els.models.formats.loaded import (
    RANGES,
    WAY_IN,
    Asked,
    Loaded,
    Prediction,
    RangeName,
    ScheduleName,
    Which,
    explained,
)
from els.models.formats.own import METADATA_KEY, describe
from els.models.networks import MisfitError
from els.models.readings import reread
from els.reading import member
from els.schedule import CosineSchedule

__all__ = [
    "METADATA_KEY",
    "READABLE",
    "describe",
    "find_checkpoint",
    "load_denoiser",
    "read_training",
]


class Reader(Protocol):
    """One file of `els.models.formats`."""

    def claims(self, content: Any) -> bool:
        """Whether this is what the reader is for."""

    def load(self, content: Any, asked: Asked) -> Loaded:
        """The network in it."""


# The registry of readers: the first that claims a file has it. What a folder, a file, and the
# weights or the module in a file are read by.
FOLDERS: tuple[Reader, ...] = (exported, diffusers)
FILES: tuple[Reader, ...] = (own, edm)
WEIGHTS: tuple[Reader, ...] = (lucidrains, paper)

READABLE = (
    "a checkpoint of train.py or its run's folder, wandb:entity/project/name:alias, a pickle of "
    "EDM, a network that the paper's code saved whole or as a state dict (also in a container of "
    "training), a file of lucidrains' Trainer, a folder of train.py export, of a pipeline "
    "or UNet2DModel of diffusers (or the .safetensors in it), hf:owner/name for one of the hub, "
    "zoo:name for one that comes with the project, or "
    "python:my_net.py:load for a function of your own"
)
_PREFERRED = ("last.ckpt", "best.ckpt")
_LARGEST = 16_384  # pixels of a side


def find_checkpoint(source: str | Path) -> Path:
    """The file, or the folder of diffusers, that `source` stands for; artifacts are downloaded.

    Args:
        source: a file; a run's folder, such as runs/digits_resnet; a folder of diffusers, of one of
            its training scripts or of train.py export, or the `.safetensors` in it; a folder with a
            `last.ckpt`, a `best.ckpt` or a single `.ckpt` file;
            "wandb:entity/project/name:alias" for such a folder; "hf:owner/name" for a folder of
            diffusers; or "zoo:name" for one that comes with the project.

    Raises:
        InputError: when there is no checkpoint there, or it could not be downloaded.
    """
    path = sources.fetch(str(source))
    if not _exists(path):
        raise InputError(f"there is no checkpoint '{str(path)[:200]}'; it may be {READABLE}")
    if path.suffix == ".safetensors":
        return _folder_of(path)
    if path.is_file():
        return path
    if diffusers.is_pipeline(path):
        return path if diffusers.is_whole(path) else diffusers.newest(path) or path
    if not path.is_dir():
        raise InputError(f"'{path}' is neither a file nor a folder; it may be {READABLE}")
    return _checkpoint_in(path)


def _checkpoint_in(run: Path) -> Path:
    """The checkpoint in a run's folder, or in that of its checkpoints."""
    path = run
    if (path / "checkpoints").is_dir():
        path = path / "checkpoints"
    files = sorted(file for file in path.glob("*.ckpt") if file.exists())
    named = [path / name for name in _PREFERRED if path / name in files]
    if named or len(files) == 1:
        return member(run, (named or files)[0])
    found = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
    if files:
        raise InputError(f"the folder '{path}' holds several checkpoints; name one of: {found}")
    raise InputError(f"the folder '{path}' holds no checkpoint, but {found}. Give {READABLE}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # of a name that is too long, or none
        return False


def _folder_of(weights: Path) -> Path:
    """The folder of weights in safetensors, whose network config.json beside them describes."""
    if not (weights.parent / exported.CONFIG).is_file():
        raise InputError(
            f"'{weights}' holds weights alone, and no {exported.CONFIG} lies beside it, which says "
            f"what network they are of. {WAY_IN}"
        )
    return weights.parent


def load_denoiser(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    data_root: str | Path | None = None,
    padding: str | None = None,
    image_size: int | None = None,
    weights: Which | None = None,
    prediction: Prediction | None = None,
    schedule: ScheduleName | None = None,
    image_range: RangeName | None = None,
) -> NetworkDenoiser:
    """Bring a trained network back, in evaluation mode.

    Args:
        source: what `find_checkpoint` takes, or "python:my_net.py:load", which runs that code.
        device: where the network is put.
        data_root: where the training images are now, if they have moved.
        padding: "zeros" or "circular", for a state dict, which does not say; default: zeros.
        image_size: height and width in pixels, for a network of the paper; default: what its file
            says, or 32.
        weights: "ema" or "online", where a file has averaged weights and others; default: averaged.
        prediction: "eps", "v" or "x0", for a network of steps whose file does not say.
        schedule: "linear", "scaled_linear" or "cosine", likewise.
        image_range: "signed" (-1 is black, 1 white; default) or "unit" (0 and 1), of the images
            that a network of others was trained on.

    Returns:
        the denoiser; its `data` is None where the checkpoint does not know its training images, and
        its `declared` and `notes` say how the file was understood.

    Raises:
        InputError: when the file is missing, damaged, of an unknown kind, or its weights are not
            finite numbers; or when an option contradicts what it says.
    """
    if padding is not None and padding not in PADDINGS:
        raise InputError(f"padding is '{padding}'; it must be one of {', '.join(PADDINGS)}")
    asked = Asked(padding, image_size, weights, prediction, schedule, image_range)
    path, loaded = _load(source, asked)
    _check_shape(path, loaded)
    loaded = _as_asked(path, loaded, asked)
    net, data = loaded.net, loaded.data
    _check_told(path, "padding", padding, net.padding)
    _check_told(path, "prediction", prediction, loaded.declared.prediction)
    _check_told(path, "schedule", schedule, loaded.declared.schedule)
    if image_size is not None:
        _check_told(path, "image_size", (image_size, image_size), loaded.image_shape[1:])
    if data is not None and data_root is not None:
        data = replace(data, root=str(data_root))
    net.requires_grad_(False).eval().to(device)
    return NetworkDenoiser(
        net,
        schedule=CosineSchedule(),
        image_shape=loaded.image_shape,
        data=data,
        trained=loaded.trained,
        declared=loaded.declared,
        notes=loaded.notes,
    )


def _load(source: str | Path, asked: Asked) -> tuple[Path, Loaded]:
    """Where the network was found, and the network."""
    if user_code.is_code(str(source)):
        return Path(source), user_code.load(str(source), asked)
    path = find_checkpoint(source)
    return path, _load_folder(path, asked) if path.is_dir() else _load_file(path, asked)


def _check_told(path: Path, what: str, told: object, known: object) -> None:
    if told not in (None, known):
        raise InputError(f"{what} {told} was given, but '{path}' says {known}; leave {what} out")


def _as_asked(path: Path, loaded: Loaded, asked: Asked) -> Loaded:
    """The network as the user says that it is to be read, where its file does not say it."""
    told = loaded.declared
    if asked.image_range is not None and loaded.data is not None:
        _check_told(path, "image_range", asked.image_range, "signed")  # as all training here is
    prediction = asked.prediction if "prediction" in told.assumed else None
    image_range = told.image_range if asked.image_range is None else RANGES[asked.image_range]
    assumed = tuple(one for one in told.assumed if getattr(asked, one) is None)
    known = replace(told, image_range=image_range, assumed=assumed)
    if prediction in (None, told.prediction) and image_range == told.image_range:
        return replace(loaded, declared=known)
    net = reread(loaded.net, loaded.image_shape, prediction=prediction, image_range=image_range)
    known = replace(known, prediction=prediction or told.prediction)
    return replace(loaded, net=net, declared=known)


def _check_shape(path: Path, loaded: Loaded) -> None:
    """Refuse images that the network cannot be of, whatever its file says."""
    channels, *sides = shape = loaded.image_shape
    if channels != loaded.net.channels or not all(1 <= side <= _LARGEST for side in sides):
        raise InputError(
            f"'{path}' says that its images are of {' x '.join(map(str, shape))}; its network "
            f"takes {loaded.net.channels} channels, height and width in pixels up to {_LARGEST}"
        )
    cell = loaded.net.cell
    if any(side % cell for side in sides):
        raise InputError(
            f"'{path}' is said to be of images of {' x '.join(map(str, sides))} pixels; its "
            f"network needs height and width in multiples of {cell}"
        )


def _load_folder(path: Path, asked: Asked) -> Loaded:
    with explained(f"'{path}' cannot be read"):
        reader = next(reader for reader in FOLDERS if reader.claims(path))
        return reader.load(path, asked)


def _load_file(path: Path, asked: Asked) -> Loaded:
    """What the first reader that claims a file makes of it.

    Raises:
        InputError: when none does, with what the keys look like and the way in for the others.
    """
    content, reader = _read(path), None
    try:
        with explained("it is damaged"):
            reader = _first(FILES, content)
            if reader is not None:
                return reader.load(content, asked)
            inside = containers.unpack(content, asked.weights)
            reader = _first(WEIGHTS, inside)
            if reader is None:
                raise InputError("no reader knows it")
            return reader.load(inside, asked)
    except InputError as error:
        if reader not in (None, WEIGHTS[-1]):  # the last takes what is of nobody else
            raise InputError(f"'{path}' cannot be read: {error}") from error
        stranger = containers.family(content)
        like = f". Its keys look like those of {stranger}" if stranger else ""
        # Where weights do not fit, a few are named already.
        holds = "" if isinstance(error, MisfitError) else f"; it holds: {containers.held(content)}"
        raise InputError(
            f"'{path}' cannot be read: {error}{like}. {WAY_IN}. It may be {READABLE}{holds}"
        ) from error


def _first(readers: tuple[Reader, ...], content: Any) -> Reader | None:
    return next((reader for reader in readers if reader.claims(content)), None)


def read_training(path: Path) -> tuple[dict[str, Any], Trained | None]:
    """What training goes on from: the network's name and arguments, and what it has learned.

    Raises:
        InputError: when the file is damaged, or no checkpoint of training.
    """
    content = _read(path)
    if not (own.claims(content) and "optimizer_states" in content):
        raise InputError(f"'{path}' is no checkpoint of train.py, which training could go on from")
    try:
        network, trained = own.training(content)
    except InputError as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error
    return {"name": network.name, **network.config}, trained


def _read(path: Path) -> Any:
    """What a file holds: plain data and tensors, and records of what else there is."""
    try:
        content = pickled.read(path)
    except pickled.NotPickledError as error:
        raise InputError(f"{error}. It may be {READABLE}") from error
    if isinstance(content, pickled.Module) and not _is_known(content):
        raise InputError(
            f"'{path}' is not loaded: it holds a whole {shown(content.kind)}, which is no part of "
            f"the networks known here; nothing in it was run{pickled.ANEW}"
        )
    return content


def _is_known(module: pickled.Module) -> bool:
    """Whether a whole module is of a kind that some reader knows."""
    return module.kind.startswith((pickled.PERSISTENT, "models."))
