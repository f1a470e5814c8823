"""The networks of the paper's released code: its whole modules, and state dicts alone.

Their architecture is read off the shapes of the weights. What shapes do not show, the padding,
stands in a whole module but not in a state dict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from els.errors import InputError
from els.models.blocks import PADDINGS, Network
from els.models.formats.containers import Weights
from els.models.formats.loaded import WAY_IN, Asked, Declared, Loaded, shown
from els.models.formats.pickled import Module, Reference
from els.models.networks import restore_network

IMAGE_SIZE = 32  # of all the paper's networks; a convolutional network's weights do not say
_SCHEDULE = "cosine_noise_schedule"
# The paper's name for a part, and ours. What is not listed has the same name.
_RENAMED = (
    ("embedding.class_embeddings", "embedding.classes"),
    # ResNet
    ("up_projection", "first"),
    ("embs", "projections"),
    ("convs", "hidden"),
    ("down_projection", "last"),
    # UNet
    ("feature_blocks", "down"),
    ("bottleneck", "middle"),
    ("output_blocks", "up"),
    ("upsamples", "upsample"),
    ("last_emb", "projection"),
    ("output_conv", "last"),
)
_IN_BLOCK = (("emb", "projection"), ("model", "layers"))
_BLOCK = re.compile(r"((?:down|up)\.\d+|middle)\.(\w+)\.(.*)")


# Classes that the paper's modules are made of.
_CLASSES = re.compile(
    r"models\.(DDIM|MinimalResNet|MinimalUNet|EmbeddingModule|UBlock)|torch\.nn\.modules\."
    r"(activation\.ReLU|container\.ModuleList|container\.Sequential|conv\.Conv2d|"
    r"conv\.ConvTranspose2d|linear\.Linear|normalization\.GroupNorm|pooling\.MaxPool2d|"
    r"sparse\.Embedding)"
)


def claims(content: object) -> bool:
    """Whether these are weights, or a whole module: nobody else reads any."""
    return isinstance(content, Weights | Module)


def load(content: Weights | Module, asked: Asked) -> Loaded:
    """A network of the paper's code: its whole module, or a state dict under its names or ours.

    Args:
        content: the module or the weights.
        asked: the padding of a state dict (default: zeros) and the size of the images (default:
            what the module says, or 32 pixels).

    Raises:
        InputError: when it is another network.
    """
    if isinstance(content, Module):
        net, size = network_from_module(content)
        declared = Declared("module of the paper's code", "eps", "cosine")
    else:
        net = network_from_weights(content.table, padding=asked.padding or "zeros")
        size = IMAGE_SIZE
        assumed = ("prediction", "schedule", "image_range")
        declared = Declared("state dict", "eps", "cosine", weights=content.which, assumed=assumed)
    size = asked.image_size or size
    note = content.note if isinstance(content, Weights) else ""
    return Loaded(net, (net.channels, size, size), declared, notes=(note,) if note else ())


def our_name(name: str) -> str:
    """The name in this project's networks of a weight of the paper's; our own names stay."""
    for theirs, ours in _RENAMED:
        if name.startswith(f"{theirs}."):
            name = ours + name.removeprefix(theirs)
            break
    if match := _BLOCK.fullmatch(name):
        block, part, rest = match.groups()
        name = f"{block}.{dict(_IN_BLOCK).get(part, part)}.{rest}"
    return name


def network_from_module(module: Module) -> tuple[Network, int]:
    """The network in a whole module of the paper's code, and the image size that it names.

    Raises:
        InputError: when its noise schedule or its layers are not those of this project's networks.
    """
    size, backbone = IMAGE_SIZE, module
    for _, part in module.walk():
        if not _CLASSES.fullmatch(part.kind):
            raise InputError(
                f"it names '{part.kind[:80]}', which is no part of the paper's "
                f"networks; nothing in it was run. {WAY_IN}"
            )
    if module.kind == "models.DDIM":
        schedule = module.attributes.get("noise_schedule")
        if not isinstance(schedule, Reference) or schedule.name.split(".")[-1] != _SCHEDULE:
            name = schedule.name if isinstance(schedule, Reference) else shown(schedule)
            raise InputError(f"its noise schedule is '{name}'; only '{_SCHEDULE}' can be read")
        size = module.attributes.get("default_imsize", IMAGE_SIZE)
        backbone = module.children.get("backbone", module)
    if backbone.kind not in ("models.MinimalResNet", "models.MinimalUNet"):
        raise InputError(f"it holds a '{backbone.kind}', not a models.MinimalResNet or "
                         "models.MinimalUNet")  # fmt: skip
    if type(size) is not int or size < 1:
        raise InputError(f"its image size is {shown(size)}, not a number of pixels")
    return network_from_weights(backbone.state_dict(), padding=_padding(backbone)), size


def network_from_weights(weights: Mapping[str, Tensor], *, padding: str = "zeros") -> Network:
    """The network that a state dict belongs to, under the paper's names or ours.

    Args:
        weights: the state dict.
        padding: "zeros" or "circular", which weights do not show.

    Raises:
        InputError: when these are not the weights of a `ResNet` or a `UNet`.
    """
    if "bottleneck.model.1.weight" in weights:
        raise InputError("it is a MinimalUNet with norms, which are not those of the UNet here")
    ours = {our_name(name): value for name, value in weights.items()}
    try:
        if "first.weight" in ours:
            return restore_network("ResNet", _resnet(ours) | {"padding": padding}, ours)
        if "middle.layers.0.weight" in ours:
            return restore_network("UNet", _unet(ours) | {"padding": padding}, ours)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"its weights are not those of a ResNet or a UNet: {error}") from error
    raise InputError("it does not hold the weights of a ResNet or a UNet")


def _padding(module: Module) -> str:
    """How the convolutions of a module pad, all of them alike."""
    convs = [m.attributes for _, m in module.walk() if m.kind == "torch.nn.modules.conv.Conv2d"]
    modes = sorted({str(conv.get("padding_mode")) for conv in convs})
    if len(modes) != 1 or modes[0] not in PADDINGS:
        raise InputError(f"its convolutions pad with {' and '.join(modes) or 'nothing'}; a network "
                         f"here pads with {' or '.join(PADDINGS)}")  # fmt: skip
    for conv in convs:
        odd = {name: conv.get(name) for name, usual in (("stride", (1, 1)), ("dilation", (1, 1)))
               if conv.get(name) != usual}  # fmt: skip
        if odd or conv.get("padding") not in ("same", tuple(k // 2 for k in conv["kernel_size"])):
            raise InputError(f"a convolution does not keep the image's size: {odd or conv}"[:200])
    norms = [m for _, m in module.walk() if m.kind == "torch.nn.modules.normalization.GroupNorm"]
    for norm in norms:
        if (norm.attributes.get("num_groups"), norm.attributes.get("eps")) != (8, 1e-5):
            raise InputError("its group norms are not over 8 groups with eps 1e-5, as those here")
    return modes[0]


def _classes(weights: Mapping[str, Tensor]) -> int | None:
    table = weights.get("embedding.classes.weight")
    return None if table is None else len(table)


def _count(weights: Mapping[str, Tensor], part: str) -> int:
    """How many numbered layers a part has."""
    return len({name.split(".")[1] for name in weights if name.startswith(f"{part}.")})


def _resnet(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """The arguments of `ResNet`, without the padding."""
    if "last.weight" not in weights:
        raise InputError("its last layer has a norm of its own, which the ResNet here has not")
    depth = _count(weights, "hidden")
    if _count(weights, "projections") != depth + 1:
        raise InputError(f"it projects the time {_count(weights, 'projections')} times for {depth} "
                         f"hidden layers; the ResNet here does so {depth + 1} times")  # fmt: skip
    width, channels, kernel, _ = weights["first.weight"].shape
    return {
        "channels": channels, "num_classes": _classes(weights), "width": width, "depth": depth,
        "kernel": kernel, "last_kernel": weights["last.weight"].shape[-1],
        "norm": "group" if "hidden.0.1.weight" in weights else "none",
    }  # fmt: skip


def _unet(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """The arguments of `UNet`, without the padding."""
    inner, _, kernel, _ = weights["middle.layers.0.weight"].shape
    outer = [len(weights[f"down.{i}.layers.0.weight"]) for i in range(_count(weights, "down"))]
    channels, _, _, last_kernel = weights["last.weight"].shape
    return {
        "channels": channels, "num_classes": _classes(weights), "widths": [*outer, inner],
        "embedding": weights["projection.1.weight"].shape[1], "kernel": kernel,
        "last_kernel": last_kernel,
        "norm": "group" if "middle.layers.1.weight" in weights else "none",
    }  # fmt: skip
