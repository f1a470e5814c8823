"""Files of lucidrains' denoising-diffusion-pytorch: what its Trainer saves as model-N.pt.

They hold a GaussianDiffusion around a Unet, with an average of it (`ema`). The noise of its steps
stands in buffers, and so does, by way of the weight of its loss, what it predicts. The size of the
images stands nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from els.errors import InputError
from els.models.formats.containers import Weights
from els.models.formats.loaded import WAY_IN, Asked, Declared, Loaded, explained
from els.models.lucidrains import SCHEDULES, Level, LucidrainsNetwork, Unet, lucidrains_betas
from els.models.networks import fill, listed, numbered
from els.models.steps import alphas_cumprod

_FORMAT = "file of denoising-diffusion-pytorch"
_INSIDE = "model."
_HALF = (torch.float16, torch.bfloat16)
_SMALLEST = 2.0**-24  # that float16 knows
_GROUPS = 8  # of the norms before version 2.0, when nothing else was asked for: no file says it
_MARKS = ("init_conv.weight", "time_mlp.1.weight", "final_conv.weight", "mid_block1.mlp.1.weight")
# Other buffers of GaussianDiffusion, which follow from the first.
_BUFFERS = re.compile(
    r"betas|(sqrt_|log_)?(one_minus_)?alphas_cumprod(_prev)?|sqrt_recipm?1?_alphas_cumprod|"
    r"posterior_\w+|(p2_)?loss_weight"
)


@dataclass(frozen=True)
class _Parts:
    """A state dict of GaussianDiffusion, or of a Unet alone."""

    unet: dict[str, Tensor]
    buffers: dict[str, Tensor]


def claims(content: object) -> bool:
    """Whether these are weights of a Unet of denoising-diffusion-pytorch."""
    return isinstance(content, Weights) and all(
        name in _parts(content.table).unet for name in _MARKS
    )


def load(content: Weights, asked: Asked) -> Loaded:
    """The network in the weights of a GaussianDiffusion, or of its Unet alone.

    Args:
        content: the weights.
        asked: the size of the images, and for what the file does not say the prediction and the
            schedule.

    Raises:
        InputError: when something is missing that stands nowhere, or it is another Unet.
    """
    parts = _parts(content.table)
    assumed: tuple[str, ...] = ("image_range",)
    levels = _levels(parts.buffers)
    prediction = None if levels is None else _objective(parts.buffers, levels)
    if prediction is None:
        prediction, assumed = asked.prediction, ("prediction", *assumed)
    schedule = f"{len(parts.buffers.get('betas', ()))} steps of its file"
    if levels is None:
        schedule, assumed = asked.schedule or "", ("schedule", *assumed)
        levels = alphas_cumprod(schedule or "linear")
    missing = {
        "--image_size": asked.image_size,
        "--prediction": prediction,
        "--schedule": schedule,
    }
    if lacking := [name for name, value in missing.items() if not value]:
        raise InputError(
            f"a {_FORMAT} does not say everything that is needed; give {' and '.join(lacking)}"
        )
    assert asked.image_size is not None
    assert prediction is not None
    net = LucidrainsNetwork(_unet(parts.unet), alphas_cumprod=levels, prediction=prediction)
    size = asked.image_size
    return Loaded(
        net=net,
        image_shape=(net.channels, size, size),
        declared=Declared(_FORMAT, prediction, schedule, weights=content.which, assumed=assumed),
        notes=(content.note,) if content.note else (),
    )


def _parts(table: Mapping[str, Tensor]) -> _Parts:
    if "init_conv.weight" in table:
        return _Parts(dict(table), {})
    buffers = {name: value for name, value in table.items() if _BUFFERS.fullmatch(name)}
    unet = {
        name.removeprefix(_INSIDE): value for name, value in table.items() if name not in buffers
    }
    return _Parts(unet, buffers)


def _levels(buffers: Mapping[str, Tensor]) -> Tensor | None:
    """alpha^2 (n,) of the steps; None where the file does not say it.

    Sums of numbers in half precision are off by per cents, so that those of which they are the
    rounding are looked for among the package's own.

    Raises:
        InputError: when they are in half precision and none of these.
    """
    betas = buffers.get("betas")
    if betas is None:
        return None
    if betas.dtype not in _HALF:
        return (1 - betas.double()).cumprod(0)
    near = torch.finfo(betas.dtype).eps
    for known in map(lucidrains_betas, SCHEDULES, repeat(len(betas))):
        if torch.allclose(betas.double(), known, rtol=near, atol=_SMALLEST):
            return (1 - known).cumprod(0)
    raise InputError(
        f"its noise is in half precision ({betas.dtype}), which is too coarse, and none of the "
        f"package's schedules ({', '.join(SCHEDULES)}) with their usual numbers. {WAY_IN}"
    )


def _objective(buffers: Mapping[str, Tensor], level: Tensor) -> str | None:
    """What the network predicts, as the weight of its loss tells; None where it does not.

    The weight is min(snr, gamma) / snr for eps, min(snr, gamma) for x0 and min(snr, gamma) /
    (snr + 1) for v, where gamma is infinite unless "min-SNR" was asked for.

    Args:
        buffers: of the file.
        level: alpha^2 of the steps (n,).
    """
    if "loss_weight" not in buffers:
        return None
    kept = buffers["loss_weight"]
    if kept.shape != level.shape:
        return None
    near = 4 * torch.finfo(kept.dtype).eps if kept.dtype in _HALF else 1e-3
    small = _SMALLEST if kept.dtype in _HALF else 1e-9
    finite = kept.isfinite()  # half precision ends at 65,504
    snr, weight = (level / (1 - level))[finite], kept.double()[finite]
    for prediction, by in (("eps", snr), ("v", snr + 1), ("x0", torch.ones_like(snr))):
        least = weight * by
        expected = snr.clamp(max=least.max())
        if ((least - expected).abs() <= small * by + near * expected).all():
            return prediction
    return None


def _unet(weights: Mapping[str, Tensor]) -> Unet:
    """The Unet whose arguments the shapes of its weights tell."""
    odd = [name for name in weights if ".fn." in name]
    if odd:
        raise InputError(
            f"its Unet is of an older version of denoising-diffusion-pytorch, whose "
            f"layers are others ({listed(odd)}). {WAY_IN}"
        )
    with explained("its weights are not those of a Unet here", f". {WAY_IN}"):
        inputs, outputs = weights["init_conv.weight"].shape[1], len(weights["final_conv.weight"])
        with torch.device("meta"):
            unet = Unet(
                inputs=inputs,
                outputs=outputs,
                first=len(weights["init_conv.weight"]),
                time=tuple(weights["time_mlp.1.weight"].shape),
                levels=[_level(weights, i) for i in range(numbered(weights, "downs"))],
                drawn=weights.get("time_mlp.0.weights"),
                middle=_level(weights, None),
                groups=_GROUPS if "final_res_block.block1.norm.weight" in weights else 0,
            )
    fill(unet, weights)
    return unet


def _level(weights: Mapping[str, Tensor], index: int | None) -> Level:
    """A level, or the middle, whose attention is always full."""
    part = "mid_attn" if index is None else f"downs.{index}.2"
    memory, heads = weights[f"{part}.mem_kv"].shape, weights[f"{part}.mem_kv"].shape[1]
    head = len(weights[f"{part}.to_qkv.weight"]) // (3 * heads)
    full = f"{part}.to_out.weight" in weights
    width = weights[f"{part}.norm.g"].shape[1]
    if index is None:
        outputs = width
    else:
        down = f"downs.{index}.3"
        name = f"{down}.weight" if f"{down}.weight" in weights else f"{down}.1.weight"
        outputs = len(weights[name])
    return Level(width, outputs, heads, head, memory[2 if full else 3], full)
