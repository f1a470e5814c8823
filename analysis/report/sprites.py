"""Many small images as one, the way the page carries them."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

_MOST_WEBP = 16383  # pixels along a side


def sheet(images: Tensor) -> dict[str, Any]:
    """A grid of images as a data URL, without loss.

    Args:
        images: uint8 (rows columns c h w), with 1 or 3 channels.

    Returns:
        the sheet's `url`, and `width` and `height` of one of its images.
    """
    pixels = rearrange(images, "rows columns c h w -> (rows h) (columns w) c").numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    kind = "webp" if max(picture.size) <= _MOST_WEBP else "png"
    buffer = BytesIO()
    options = {"lossless": True, "quality": 80} if kind == "webp" else {"optimize": True}
    picture.save(buffer, format=kind, **options)
    url = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"url": url, "width": images.shape[-1], "height": images.shape[-2]}


def coloured(values: Tensor) -> Tensor:
    """Values (... h w) in [0, 1] in the colours of cividis, uint8 (... 3 h w)."""
    colours = matplotlib.colormaps["cividis"](values.double().numpy(), bytes=True)[..., :3]
    return torch.from_numpy(np.ascontiguousarray(rearrange(colours, "... h w c -> ... c h w")))


def in_colour(images: Tensor) -> Tensor:
    """Images (... c h w) with 1 or 3 channels as (... 3 h w)."""
    return images.expand(*images.shape[:-3], 3, *images.shape[-2:])
