"""Networks of the diffusers library: a folder of a pipeline, or of a bare UNet2DModel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from els.errors import InputError, reason
from els.models.blocks import NetworkFacts
from els.models.formats.loaded import Asked, Declared, Loaded
from els.models.steps import StepNetwork
from els.schedule import CosineSchedule

# What networks predict, as diffusers calls it, and as this project does.
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
# Pipelines that sample pixels with such a network, and schedulers that preserve the variance.
_PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
_SCHEDULERS = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
)  # fmt: skip


def is_pipeline(folder: Path) -> bool:
    """Whether a folder looks like one that diffusers saved."""
    return any((folder / name).is_file() for name in ("model_index.json", "config.json"))


def claims(content: object) -> bool:
    """Whether this is a folder that looks like one that diffusers saved."""
    return isinstance(content, Path) and is_pipeline(content)


def load(content: Path, asked: Asked) -> Loaded:
    """See `load_pipeline`."""
    net, image_shape = load_pipeline(content)
    return Loaded(net, image_shape, Declared("folder of diffusers", net.prediction, "linear"))


def load_pipeline(folder: Path) -> tuple[DiffusersNetwork, tuple[int, int, int]]:
    """The network in a folder, and its image shape (c, h, w).

    Args:
        folder: of a pipeline (`model_index.json`, `unet`, `scheduler`) or of a `UNet2DModel`
            (`config.json` and safetensors); the schedule of the latter is diffusers' default,
            linear over 1,000 steps, unless it lies beside its scheduler in a pipeline.

    Raises:
        InputError: when diffusers is not installed, a file is missing, or the pipeline, network or
            scheduler is of another kind.
    """
    unet, scheduler = _parts(folder)
    config = _json(unet / "config.json")
    _check_network(config, unet)
    settings = {} if scheduler is None else _json(scheduler / "scheduler_config.json")
    _check_scheduler(settings, scheduler)
    try:
        from diffusers import DDPMScheduler, UNet2DModel
    except ImportError as error:
        raise InputError(
            f"'{folder}' needs the diffusers library: pip install diffusers"
        ) from error
    try:
        net = UNet2DModel.from_pretrained(unet, use_safetensors=True, local_files_only=True,
                                          low_cpu_mem_usage=False)  # fmt: skip
        alphas_cumprod = DDPMScheduler.from_config(settings).alphas_cumprod
    # Wrong configurations and damaged weights can raise any exception.
    except Exception as error:
        why = reason(error, named=True, length=200)
        raise InputError(f"'{folder}' cannot be loaded by diffusers: {why}") from error
    for name, value in net.named_parameters():
        if not value.isfinite().all():
            raise InputError(f"'{folder}' holds NaN or infinite weights, first in '{name}'")
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    network = DiffusersNetwork(
        net, alphas_cumprod=alphas_cumprod,
        prediction=PREDICTIONS[settings.get("prediction_type", "epsilon")],
    )  # fmt: skip
    return network, (network.channels, height, width)


class DiffusersNetwork(StepNetwork):
    """A UNet2DModel as net(x, t, label) -> eps_hat at our continuous t.

    Args:
        unet: the model.
        alphas_cumprod: alpha^2 of its steps (n,), falling.
        prediction: what it predicts, see `StepNetwork`.
        schedule: what our t means.
    """

    unet: Any

    def __init__(
        self,
        unet: Any,
        *,
        alphas_cumprod: Tensor,
        prediction: str = "eps",
        schedule: CosineSchedule | None = None,
    ) -> None:
        super().__init__(
            unet.config.in_channels,
            unet.config.num_class_embeds,
            "group",
            alphas_cumprod=alphas_cumprod,
            prediction=prediction,
            schedule=schedule,
            whole_steps=unet.config.time_embedding_type == "learned",
        )
        self.unet = unet

    def answer(self, x: Tensor, steps: Tensor, label: Tensor | None) -> Tensor:
        """See `StepNetwork.answer`."""
        # A network that predicts its variance too has it in the channels after the image's.
        return self.unet(x, steps, class_labels=label).sample[:, : self.channels]

    @property
    def facts(self) -> NetworkFacts:
        """See `Network.facts`."""
        return replace(
            super().facts, name="UNet2DModel of diffusers",
            details=f"{self.prediction} over {len(self.times)} steps",
        )  # fmt: skip

    @property
    def receptive_field(self) -> None:
        """See `Network.receptive_field`: group norms and attention see the whole image."""
        return None


def _parts(folder: Path) -> tuple[Path, Path | None]:
    """The folders of the network and of its scheduler, if it has one."""
    if not (folder / "model_index.json").is_file():
        whole = folder.resolve().parent
        beside = folder.name == "unet" and (whole / "model_index.json").is_file()
        return folder, whole / "scheduler" if beside else None
    kind = _json(folder / "model_index.json").get("_class_name")
    if kind not in _PIPELINES:
        raise InputError(f"'{folder}' is a '{kind}'; of diffusers' pipelines, "
                         f"{', '.join(_PIPELINES)} can be read")  # fmt: skip
    return folder / "unet", folder / "scheduler"


def _check_network(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse what is not a UNet2DModel over pixels with weights in safetensors."""
    if config.get("_class_name") != "UNet2DModel":
        raise InputError(f"'{folder}' holds a '{config.get('_class_name')}', not a UNet2DModel")
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise InputError(f"'{folder}' has no weights in safetensors (pickled .bin files are not "
                         f"loaded); it holds: {found}")  # fmt: skip
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if outputs not in (inputs, 2 * inputs):
        raise InputError(f"the network in '{folder}' maps {inputs} channels to {outputs}; it must "
                         "answer with as many, or twice as many with its variance")  # fmt: skip
    time = config.get("time_embedding_type", "positional")
    if time not in ("positional", "learned"):
        raise InputError(f"the network in '{folder}' embeds the time by '{time}'; it must be "
                         "positional or learned, over the steps of a scheduler")  # fmt: skip
    if config.get("class_embed_type") is not None:
        raise InputError(f"the network in '{folder}' embeds classes by "
                         f"'{config['class_embed_type']}'; only a table of num_class_embeds "
                         "classes is known here")  # fmt: skip
    size = config.get("sample_size")
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list) or [type(side) for side in sides] != [int, int]:
        raise InputError(f"the network in '{folder}' has sample_size {size}; write the height and "
                         "width of its images in pixels into config.json")  # fmt: skip


def _check_scheduler(settings: Mapping[str, Any], folder: Path | None) -> None:
    """Refuse schedulers with another relation between image and noise."""
    kind = settings.get("_class_name", _SCHEDULERS[0])
    if kind not in _SCHEDULERS or settings.get("use_flow_sigmas"):
        raise InputError(f"'{folder}' holds a '{kind}'; schedulers that preserve the variance can "
                         f"be read: {', '.join(_SCHEDULERS)}")  # fmt: skip
    prediction = settings.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise InputError(f"'{folder}' predicts '{prediction}'; it must be one of "
                         f"{', '.join(PREDICTIONS)}")  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"there is no file '{path}', which every folder of diffusers has")
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise InputError(f"'{path}' is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds a {type(content).__name__}, not a table of settings")
    return content
