"""What the compiled engines refuse before they read memory that PyTorch does not guard."""

from __future__ import annotations

import torch
from torch import Tensor

from els.errors import InputError


def check_inputs(x: Tensor, pixels: Tensor, *, engine: str, most_channels: int) -> None:
    """Refuse what would be read past its end, or spread.

    Args:
        x: queries (b c h w).
        pixels: training images (n c h w).
        engine: the engine's name, for the message.
        most_channels: the largest number of channels that it takes.

    Raises:
        InputError: for images that are not uint8 or of another shape than the queries, too many
            channels, or queries that are not finite.
    """
    if pixels.dtype != torch.uint8 or pixels.shape[1:] != x.shape[1:]:
        raise InputError(
            f"the training images are {pixels.dtype} of shape {tuple(pixels.shape[1:])}; "
            f"expected uint8 of the queries' shape {tuple(x.shape[1:])}"
        )
    if not 1 <= x.shape[1] <= most_channels:
        raise InputError(
            f"the images have {x.shape[1]} channels; the {engine} engine takes 1 to "
            f"{most_channels}, the torch engine any number"
        )
    if not x.isfinite().all():
        raise InputError("the images to denoise hold NaN or infinite pixels; expected finite ones")
