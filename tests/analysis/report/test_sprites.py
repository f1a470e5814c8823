import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from els.analysis.report import sprites
from els.analysis.report.sprites import coloured, in_colour, sheet


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("most", [16383, 4], ids=["webp", "png"])
def test_a_sheet_holds_every_image_without_loss(
    channels: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprites, "_MOST_WEBP", most)
    images = torch.randint(256, (2, 3, channels, 4, 5), dtype=torch.uint8)
    made = sheet(images)
    assert (made["height"], made["width"]) == (4, 5)
    kind = "webp" if most > 4 else "png"
    assert made["url"].startswith(f"data:image/{kind};base64,")
    data = base64.b64decode(made["url"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert pixels.shape == (8, 15, 3)
    expected = images[1, 2].expand(3, 4, 5).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels[4:, 10:], expected)


def test_values_have_colours_and_grey_images_three_channels() -> None:
    colours = coloured(torch.tensor([[0.0, 1.0]]))
    assert (colours.shape, colours.dtype) == ((3, 1, 2), torch.uint8)
    assert colours[..., 0].sum() < colours[..., 1].sum()
    assert in_colour(torch.zeros(2, 1, 4, 4)).shape == (2, 3, 4, 4)
