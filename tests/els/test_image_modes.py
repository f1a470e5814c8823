"""Files of every mode that Pillow writes come out as what they show, or are refused by name."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from els.errors import InputError
from els.images import ImageSet, load_images

RAMP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)  # what all of them show
COLOUR = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=-1)
COUNT = 5


def load(folder: Path, **options: object) -> ImageSet:
    return load_images("folder", root=str(folder), split="all", size=8, **options)


def written(folder: Path, image: Image.Image, suffix: str = "png", **options: object) -> Path:
    """A folder with copies of a picture."""
    for i in range(COUNT):
        image.save(folder / f"{i}.{suffix}", **options)
    return folder


def shows(images: ImageSet, expected: np.ndarray, within: int = 1) -> None:
    """Hold images (n c h w) to what they should show (h w) or (h w c)."""
    assert len(images) == COUNT
    got = images.pixels[0].permute(1, 2, 0).numpy().astype(int)
    want = np.broadcast_to(expected[..., None] if expected.ndim == 2 else expected, got.shape)
    assert np.abs(got - want).max() <= within


SIXTEEN = RAMP.astype(np.uint16) * 257
GREY_FILES: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "8-bit PNG": (lambda: Image.fromarray(RAMP), "png"),
    "16-bit PNG": (lambda: Image.fromarray(SIXTEEN), "png"),
    "16-bit TIFF": (lambda: Image.fromarray(SIXTEEN), "tif"),
    "16-bit TIFF, big-endian": (
        lambda: Image.frombytes("I;16B", (8, 8), SIXTEEN.astype(">u2").tobytes()),
        "tif",
    ),
    "32-bit TIFF of 8-bit values": (lambda: Image.fromarray(RAMP.astype(np.int32)), "tif"),
    "32-bit TIFF of 16-bit values": (lambda: Image.fromarray(SIXTEEN.astype(np.int32)), "tif"),
    "float TIFF in [0, 1]": (lambda: Image.fromarray(RAMP.astype(np.float32) / 255), "tif"),
    "float TIFF in [0, 255]": (lambda: Image.fromarray(RAMP.astype(np.float32)), "tif"),
    "float TIFF in [0, 65535]": (lambda: Image.fromarray(SIXTEEN.astype(np.float32)), "tif"),
    "opaque grey and alpha": (lambda: Image.fromarray(RAMP).convert("LA"), "png"),
}
COLOUR_FILES: dict[str, tuple[str, str, int]] = {
    # mode, suffix, by how many values of 255 it may differ
    "RGB": ("RGB", "png", 0),
    "opaque RGBA": ("RGBA", "png", 0),
    "CMYK": ("CMYK", "tif", 1),
    "YCbCr": ("YCbCr", "tif", 3),
    "LAB": ("LAB", "tif", 8),
    "WebP": ("RGB", "webp", 0),
    "BMP": ("RGB", "bmp", 0),
}


@pytest.mark.parametrize("name", GREY_FILES)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_grey_of_any_depth_is_the_same_picture(
    tmp_path: Path, name: str, channels: int | None
) -> None:
    make, suffix = GREY_FILES[name]
    images = load(written(tmp_path, make(), suffix), channels=channels)
    assert images.image_shape == (channels or 1, 8, 8)
    shows(images, RAMP)
    assert float(images.pixels.float().mean()) == pytest.approx(RAMP.mean(), abs=1)


@pytest.mark.parametrize("name", COLOUR_FILES)
def test_colour_of_any_space_is_the_same_picture(tmp_path: Path, name: str) -> None:
    mode, suffix, within = COLOUR_FILES[name]
    calm = (COLOUR // 2 + 64).astype(np.uint8)  # within the reach of every space
    image = Image.fromarray(calm)
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    options = {"lossless": True} if suffix == "webp" else {}
    folder = written(tmp_path, image.convert(mode) if mode != "LAB" else image, suffix, **options)
    assert Image.open(folder / f"0.{suffix}").mode == mode
    shows(load(folder), calm, within)
    shows(load(folder, channels=1), np.asarray(Image.fromarray(calm).convert("L")), within)


def png(pixels: np.ndarray, kind: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads and cannot write; pixels (h w c)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", [0, 2, 4, 6], ids=["grey", "colour", "grey alpha", "colour alpha"])
def test_16_bits_a_channel_are_scaled_in_every_kind_of_png(tmp_path: Path, kind: int) -> None:
    pixels = (COLOUR if kind in (2, 6) else RAMP[..., None]).astype(np.uint16) * 257
    if kind > 2:
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 65535)], axis=-1)
    for i in range(COUNT):
        (tmp_path / f"{i}.png").write_bytes(png(pixels, kind))
    shows(load(tmp_path), COLOUR if kind in (2, 6) else RAMP)


def test_black_and_white_and_palettes(tmp_path: Path) -> None:
    for name in ("bits", "palette"):
        (tmp_path / name).mkdir()
    halves = (RAMP > 127).astype(np.uint8) * 255
    shows(load(written(tmp_path / "bits", Image.fromarray(halves > 0))), halves, 0)
    palette = Image.fromarray(COLOUR // 128 * 255).convert("P", palette=Image.Palette.WEB)
    shows(load(written(tmp_path / "palette", palette)), COLOUR // 128 * 255, 0)


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    clear = np.zeros((8, 8), np.uint8)
    clear[:4] = 255
    lower_white = np.where(clear > 0, RAMP, 255)
    grey, colour = Image.fromarray(RAMP), Image.fromarray(np.stack([RAMP] * 3, axis=-1))
    for image in (grey, colour):
        image.putalpha(Image.fromarray(clear))
    indexed = Image.fromarray(RAMP // 2).convert("P")
    indexed.putpalette([v for i in range(128) for v in (2 * i,) * 3])
    cases = {
        "LA": (grey, {}),
        "RGBA": (colour, {}),
        "P": (indexed, {"transparency": 0}),
        "L": (Image.fromarray(RAMP), {"transparency": 0}),
        "I;16": (Image.fromarray(SIXTEEN), {"transparency": 0}),
    }
    for mode, (image, options) in cases.items():
        folder = tmp_path / mode.replace(";", "")
        folder.mkdir()
        written(folder, image, **options)
        assert Image.open(folder / "0.png").mode == mode
        want = lower_white if mode in ("LA", "RGBA") else np.where(RAMP == 0, 255, RAMP)
        shows(load(folder), want, 2)
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    (tmp_path / "half").mkdir()
    shows(load(written(tmp_path / "half", half)), np.full((8, 8), 127))


def test_photos_are_turned_as_the_camera_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn to the right
    wide = Image.new("RGB", (32, 32))
    wide.paste("white", (0, 0, 16, 32))  # the left half
    written(tmp_path, wide, "jpg", exif=exif, quality=95)
    rows = load(tmp_path).pixels[0, 0].float().mean(dim=1)
    assert (rows[:4] > 200).all()  # is the upper half
    assert (rows[4:] < 50).all()


def test_a_damaged_note_of_the_camera_is_no_reason_to_refuse(tmp_path: Path) -> None:
    written(
        tmp_path,
        Image.fromarray(COLOUR),
        "jpg",
        exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        quality=95,
    )
    shows(load(tmp_path), COLOUR, 60)


def test_the_first_frame_is_taken_and_that_is_said(tmp_path: Path) -> None:
    first, second = Image.fromarray(RAMP), Image.new("L", (8, 8))
    for suffix in ("gif", "tif", "png"):
        (tmp_path / suffix).mkdir()
        folder = written(tmp_path / suffix, first, suffix, save_all=True, append_images=[second])
        images = load(folder, channels=1)
        shows(images, RAMP, 2)
        assert images.description.endswith(f"the first frame of {COUNT} files with several")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_white_is_decided_on_the_whole_set(tmp_path: Path, dtype: type) -> None:
    # A dark picture stays dark beside a bright one, in whatever split either is.
    for i in range(12):
        values = np.full((8, 8), 0.5 if i else 200).astype(dtype)
        Image.fromarray(values).save(tmp_path / f"{i:02d}.tif")
    for split in ("train", "val", "test"):
        images = load_images("folder", root=tmp_path, split=split, size=8)
        assert set(images.pixels.unique().tolist()) <= {0, 200}


@pytest.mark.parametrize(
    ("value", "told"),
    [(-1.0, "from -1 to 0"), (np.nan, "nan"), (np.inf, "inf"), (70000.0, "to 70000")],
)
def test_values_of_no_picture_are_refused_by_file(tmp_path: Path, value: float, told: str) -> None:
    written(tmp_path, Image.new("F", (8, 8)), "tif")
    values = np.zeros((8, 8), np.float32)
    values[3, 3] = value
    Image.fromarray(values).save(tmp_path / "bad.tif")
    with pytest.raises(InputError, match=rf"bad\.tif' \(mode F\) has values .*{told}.*scale them"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["cut short", "empty", "text", "bits flipped"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "webp", "bmp"])
def test_damaged_files_are_refused_by_name(tmp_path: Path, suffix: str, damage: str) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    written(tmp_path, Image.fromarray(noise), suffix)
    whole = (tmp_path / f"0.{suffix}").read_bytes()
    half = len(whole) // 2
    broken = {
        "cut short": whole[:half],
        "empty": b"",
        "text": b"<html>not found</html>" * 40,
        "bits flipped": bytes(b ^ 0xFF for b in whole[:64]) + whole[64:],
    }
    (tmp_path / f"bad.{suffix}").write_bytes(broken[damage])
    with warnings.catch_warnings(), pytest.raises(InputError, match=rf"bad\.{suffix}' cannot be"):
        warnings.simplefilter("ignore")
        load(tmp_path)


def test_hidden_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    for i in range(10):
        Image.fromarray(RAMP).save(tmp_path / f"{i}.png")
    plain = load_images("folder", root=tmp_path)
    (tmp_path / "._0.png").write_bytes(b"\0\5\x16\7 a resource fork")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "Thumbs.db").write_bytes(b"\0")
    for folder in ("__MACOSX", ".thumbnails", "more.png"):
        (tmp_path / folder).mkdir()
    (tmp_path / "__MACOSX" / "0.png").write_bytes(b"\0")
    (tmp_path / ".thumbnails" / "0.png").write_bytes(b"\0")
    images = load_images("folder", root=tmp_path)
    assert images.fingerprint() == plain.fingerprint()
    assert images.description == (f"folder '{tmp_path}', 8 images, 2 held out, 5 files passed over")
    assert images.labels is None


def test_zips_are_read_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(10):
            buffer = io.BytesIO()
            Image.fromarray(SIXTEEN).save(buffer, "PNG")
            archive.writestr(f"in/{i}.png", buffer.getvalue())
        archive.writestr("__MACOSX/in/._0.png", b"\0")
        archive.writestr("in/.DS_Store", b"\0")
        archive.mkdir("in/more.png")
        archive.writestr("dataset.json", '{"labels": null}')
    images = load_images("zip", root=str(path), size=8)
    assert images.description == f"zip '{path}', 8 images, 2 held out, 2 files passed over"
    assert torch.equal(images.pixels[0, 0], torch.from_numpy(RAMP))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("in/bad.png", b"\0")
    with pytest.raises(InputError, match=r"in/bad\.png' cannot be read"):
        load_images("zip", root=path, split="all", size=8)
