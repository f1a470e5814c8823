"""Networks of the diffusers library: a folder of a pipeline, or of a bare UNet2DModel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from els.errors import InputError, shown
from els.models.diffusers import DiffusersNetwork
from els.models.formats.loaded import (
    WAY_IN,
    Asked,
    Declared,
    Loaded,
    Prediction,
    ScheduleName,
    Which,
    choose,
    explained,
    note_of,
)
from els.models.networks import listed
from els.reading import member, read_table, walk

# What networks predict, as diffusers calls it, and as this project does.
PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_SCHEDULES: dict[str, ScheduleName] = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "cosine",
}
# Where training scripts save the averaged and the last weights.
_WEIGHTS: dict[Which, str] = {"ema": "unet_ema", "online": "unet"}
_MOST_STEPS = 100_000
_INDEX, _SETTINGS = "model_index.json", "scheduler_config.json"
# Pipelines that sample pixels with such a network, and schedulers that preserve the variance.
_PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
_SCHEDULERS = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
)  # fmt: skip


def is_pipeline(folder: Path) -> bool:
    """Whether a folder looks like one that diffusers, or one of its training scripts, saved."""
    return is_whole(folder) or newest(folder) is not None


def is_whole(folder: Path) -> bool:
    """Whether a folder is that of a pipeline or of a model."""
    return any((folder / name).is_file() for name in (_INDEX, "config.json"))


def newest(folder: Path) -> Path | None:
    """The newest state that a training script left in a folder, `checkpoint-N`; or itself."""
    states = [folder, *folder.glob("checkpoint-*")]
    found = [one for one in states if any((one / name).is_dir() for name in _WEIGHTS.values())]
    return max(found, key=_number, default=None)


def _number(folder: Path) -> int:
    number = folder.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def claims(content: object) -> bool:
    """Whether this is a folder that looks like one that diffusers saved."""
    return isinstance(content, Path) and is_pipeline(content)


def load(content: Path, asked: Asked) -> Loaded:
    """The network in a folder.

    Args:
        content: the folder of a pipeline (`model_index.json`, `unet`, `scheduler`), of a
            `UNet2DModel` (`config.json` and safetensors), or of a training script (`checkpoint-N`
            with `unet` and `unet_ema`, or a folder of those, of which the newest is taken).
        asked: which weights, where there are two; for a model without a scheduler what it predicts
            and its schedule (default: eps, and linear over 1,000 steps).

    Raises:
        InputError: when diffusers is not installed, a file is missing, or the pipeline, network or
            scheduler is of another kind.
    """
    parts = _parts(content, asked)
    config = _json(parts.unet / "config.json")
    for _ in walk(parts.unet):  # refuses links that lead out of it
        pass
    _check_network(config, parts.unet)
    settings = _settings(parts.scheduler, asked)
    net, alphas_cumprod = _built(content, parts.unet, config, settings)
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    prediction = PREDICTIONS[settings.get("prediction_type", "epsilon")]
    network = DiffusersNetwork(net, alphas_cumprod=alphas_cumprod, prediction=prediction)
    assumed, notes = _assumed(parts, asked)
    return Loaded(
        net=network,
        image_shape=(network.channels, height, width),
        declared=Declared(
            "folder of diffusers",
            prediction,
            _schedule_name(settings),
            weights=parts.which,
            assumed=assumed,
        ),
        notes=(*([parts.note] if parts.note else []), *notes),
    )


def _built(
    folder: Path, unet: Path, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Any, Tensor]:
    """The model with its weights, and alpha^2 (n,) of its steps."""
    try:
        from diffusers import DDPMScheduler, UNet2DModel
        from diffusers.utils import logging
    except ImportError as error:
        raise InputError(
            f"'{folder}' needs the diffusers library: pip install diffusers"
        ) from error
    verbosity = logging.get_verbosity()
    try:
        logging.set_verbosity_error()  # what the average adds to a configuration is as it should be
        # Wrong configurations and damaged weights can raise any exception.
        with explained(f"'{folder}' cannot be loaded by diffusers"):
            _check_room(config, unet, lambda: UNet2DModel.from_config(config))
            net, found = UNet2DModel.from_pretrained(
                unet,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
            alphas_cumprod = DDPMScheduler.from_config(settings).alphas_cumprod
    finally:
        logging.set_verbosity(verbosity)
    # diffusers would go on with random numbers in their place.
    kinds = {"missing": found["missing_keys"], "left over": found["unexpected_keys"]}
    if said := [f"{what}: {listed(sorted(names))}" for what, names in kinds.items() if names]:
        raise InputError(f"the weights in '{folder}' do not fit its network; {'; '.join(said)}")
    for name, value in net.named_parameters():
        if not value.isfinite().all():
            raise InputError(f"'{folder}' holds NaN or infinite weights, first in {shown(name)}")
    return net.float(), alphas_cumprod


def _check_room(config: Mapping[str, Any], unet: Path, plan: Callable[[], nn.Module]) -> None:
    """Refuse a configuration of a larger network than there are weights for, before it is built.

    Args:
        config: of the model.
        unet: the folder of its weights.
        plan: builds it; this takes no memory here.
    """
    from safetensors import safe_open

    shapes = []
    for path in unet.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            shapes += [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    levels, layers = config.get("block_out_channels", ()), config.get("layers_per_block", 1)
    if len(levels) * layers > len(shapes):
        raise InputError(
            f"'{unet}' has {len(shapes)} weights, too few for {shown(layers)} layers of each of "
            f"{len(levels)} blocks"
        )
    with torch.device("meta"):
        wanted = sum(value.numel() for value in plan().parameters())
    stored = sum(map(math.prod, shapes))
    if wanted > stored:
        raise InputError(
            f"'{unet}' holds {stored:,} numbers, and the network of its config.json has {wanted:,}"
        )


@dataclass(frozen=True)
class _Parts:
    """Where the network lies, its scheduler if it has one, and which weights it has."""

    unet: Path
    scheduler: Path | None = None
    which: Which | None = None
    note: str = ""


def _parts(folder: Path, asked: Asked) -> _Parts:
    if (folder / _INDEX).is_file():
        return _of_pipeline(folder, asked)
    if (folder / "config.json").is_file():
        named = {name: which for which, name in _WEIGHTS.items()}
        which = named.get(folder.name) if folder.parent.name.startswith("checkpoint-") else None
        _check_weights(asked, which)
        return _Parts(folder, _scheduler_near(folder), which)
    state = newest(folder)
    if state is None:
        raise InputError(f"'{folder}' holds no network of diffusers")
    there = {which: (state / name).is_dir() for which, name in _WEIGHTS.items()}
    chosen = choose(there["ema"], there["online"], asked.weights)
    unet = state / _WEIGHTS[chosen]
    note = note_of(chosen, f"from '{state.name}/{unet.name}'", others=all(there.values()))
    return _Parts(unet, _scheduler_near(unet), chosen, note)


def _of_pipeline(folder: Path, asked: Asked) -> _Parts:
    """A pipeline; in older ones the files of all parts lie in the folder itself."""
    kind = _json(folder / _INDEX).get("_class_name")
    if kind not in _PIPELINES:
        raise InputError(
            f"'{folder}' is a {shown(kind)}; of diffusers' pipelines, "
            f"{', '.join(_PIPELINES)} can be read. {WAY_IN}"
        )
    _check_weights(asked, None)
    unet, scheduler = (
        folder / part if (folder / part).is_dir() or not (folder / file).is_file() else folder
        for part, file in (("unet", "config.json"), ("scheduler", _SETTINGS))
    )
    return _Parts(unet, scheduler)


def _scheduler_near(unet: Path) -> Path | None:
    """The scheduler of the pipeline that a network is in, or was trained for."""
    whole = unet.resolve().parent
    pipelines = (one for one in (whole, whole.parent) if (one / _INDEX).is_file())
    pipeline = next(pipelines, None)
    return None if pipeline is None else pipeline / "scheduler"


def _check_weights(asked: Asked, which: Which | None) -> None:
    if asked.weights not in (None, which):
        raise InputError(
            f"--weights {asked.weights} was given, but this folder has one network, "
            f"of {which or 'unknown'} weights; leave --weights out"
        )


def _settings(scheduler: Path | None, asked: Asked) -> dict[str, Any]:
    """What is known of the steps, as schedulers of diffusers are configured."""
    if scheduler is not None:
        settings = _json(scheduler / _SETTINGS)
        _check_scheduler(settings, scheduler)
        return settings
    theirs = {ours: name for name, ours in PREDICTIONS.items()}
    schedules = {ours: name for name, ours in _SCHEDULES.items()}
    return {
        "prediction_type": theirs[asked.prediction or "eps"],
        "beta_schedule": schedules[asked.schedule or "linear"],
    }


def _schedule_name(settings: Mapping[str, Any]) -> str:
    """The schedule by its name here, with what is not as usual."""
    if settings.get("trained_betas") is not None:
        return "betas of its own"
    name = str(settings.get("beta_schedule", "linear"))
    usual = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    odd = [
        f"{key} {settings[key]}"
        for key, value in usual.items()
        if settings.get(key, value) != value
    ]
    return ", ".join([_SCHEDULES.get(name, name), *odd])


def _assumed(parts: _Parts, asked: Asked) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a model without a scheduler does not say and nobody does, and the line that says so."""
    if parts.scheduler is not None:
        return (), ()
    told = {"prediction": asked.prediction, "schedule": asked.schedule}
    usual = {"prediction": "eps as what it predicts", "schedule": "linear noise"}
    assumed = tuple(name for name, value in told.items() if value is None)
    if not assumed:
        return ("image_range",), ()
    words = " and ".join(usual[name] for name in assumed)
    flags = ", ".join(f"--{name}" for name in assumed)
    return (*assumed, "image_range"), (
        f"no scheduler lies beside the network; assumed: {words} ({flags})",
    )


def _check_network(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse what is not a UNet2DModel over pixels with weights in safetensors."""
    if config.get("_class_name") != "UNet2DModel":
        kind = shown(config.get("_class_name"))
        raise InputError(f"'{folder}' holds a {kind}, not a UNet2DModel")
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise InputError(f"'{folder}' has no weights in safetensors (pickled .bin files are not "
                         f"loaded); it holds: {found}")  # fmt: skip
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if outputs not in (inputs, 2 * inputs):
        raise InputError(
            f"the network in '{folder}' maps {shown(inputs)} channels to {shown(outputs)}; it must "
            "answer with as many, or twice as many with its variance"
        )
    time = config.get("time_embedding_type", "positional")
    if time not in ("positional", "learned"):
        raise InputError(f"the network in '{folder}' embeds the time by {shown(time)}; it must be "
                         "positional or learned, over the steps of a scheduler")  # fmt: skip
    if config.get("class_embed_type") is not None:
        raise InputError(f"the network in '{folder}' embeds classes by "
                         f"{shown(config['class_embed_type'])}; only a table of num_class_embeds "
                         "classes is known here")  # fmt: skip
    size = config.get("sample_size")
    sides = [size, size] if isinstance(size, int) else size
    sides = sides if isinstance(sides, list) else []
    if [type(side) for side in sides] != [int, int] or min(sides) < 1:
        raise InputError(
            f"the network in '{folder}' has sample_size {shown(size)}; write the height and width "
            "of its images in pixels into config.json"
        )


def _check_scheduler(settings: Mapping[str, Any], folder: Path) -> None:
    """Refuse schedulers with another relation between image and noise."""
    kind = settings.get("_class_name", _SCHEDULERS[0])
    if kind not in _SCHEDULERS or settings.get("use_flow_sigmas"):
        raise InputError(
            f"'{folder}' holds a {shown(kind)}; schedulers that preserve the variance can be read: "
            f"{', '.join(_SCHEDULERS)}"
        )
    prediction = settings.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise InputError(f"'{folder}' predicts {shown(prediction)}; it must be one of "
                         f"{', '.join(PREDICTIONS)}")  # fmt: skip
    betas, steps = settings.get("trained_betas"), settings.get("num_train_timesteps", 1000)
    count = steps if betas is None else len(betas)
    if type(count) is not int or not 2 <= count <= _MOST_STEPS:
        raise InputError(f"'{folder}' has {shown(count)} steps; it must be 2 to {_MOST_STEPS:,}")


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_table(member(path.parent, path.name), infinite=True)
    except FileNotFoundError as error:
        raise InputError(
            f"there is no file '{path}', which every folder of diffusers has"
        ) from error
