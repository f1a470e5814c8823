import io
import json
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import random_images, shared
from PIL import Image

from els.errors import InputError
from els.images import DataSpec, ImageSet, load_images, source, to_float, to_uint8
from els.images.garments import FILE
from els.images.garments.make import make


def write_images(
    folder: Path, count: int, size: tuple[int, int] = (9, 7), mode: str = "RGB"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(folder)))
    for i in range(count):
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")


def test_digits_need_nothing_and_are_divided() -> None:
    parts = {split: load_images("digits", split=split) for split in ("train", "val", "test")}
    assert parts["train"].pixels.dtype == torch.uint8
    assert parts["train"].image_shape == (1, 16, 16)
    assert parts["train"].classes == tuple("0123456789")
    assert [len(part) for part in parts.values()] == [1437, 180, 180]
    together = torch.cat([part.pixels for part in parts.values()]).flatten(1)
    whole = load_images("digits").pixels.flatten(1)
    assert len(torch.unique(together, dim=0)) > 1790  # a few digits are drawn twice
    assert len(whole) == 1437
    assert len(load_images("digits", split="all")) == 1797


def test_garments_come_with_the_package_and_are_those_of_fashion_mnist() -> None:
    parts = {split: load_images("garments", split=split) for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [2000, 250, 250]
    assert parts["train"].image_shape == (1, 28, 28)
    assert len(parts["train"].classes) == 10
    assert FILE.stat().st_size < 1_000_000
    assert all((FILE.parent / name).is_file() for name in ("LICENSE", "SOURCE.md", "make.py"))
    everything = load_images("garments", split="all")
    root = shared("data")
    source = load_images("fashion_mnist", root=root, size=28, limit=2500, seed=0)
    assert torch.equal(everything.pixels, source.pixels)
    assert torch.equal(everything.labels, source.labels)


def test_the_file_of_garments_is_made_again_byte_by_byte() -> None:
    assert make(shared("data")) == FILE.read_bytes()


def test_limit_is_a_seeded_subset_in_the_same_order() -> None:
    everything, some = load_images("digits"), load_images("digits", limit=50, seed=3)
    assert len(some) == 50
    again, other = load_images("digits", limit=50, seed=3), load_images("digits", limit=50, seed=4)
    assert some.fingerprint() == again.fingerprint() != other.fingerprint()
    assert load_images("digits", limit=10**6).fingerprint() == everything.fingerprint()


def test_floats_and_bytes_are_inverse() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    x = to_float(pixels)
    assert float(x.min()) == -1
    assert float(x.max()) == 1
    assert torch.equal(to_uint8(x), pixels)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize(("name", "class_count"), [("mnist", 10), ("fashion_mnist", 10)])
def test_torchvision_sets(name: str, class_count: int) -> None:
    root = shared("data")
    train = load_images(name, root=root, limit=20)
    val, test = (load_images(name, root=root, split=split) for split in ("val", "test"))
    assert train.image_shape == (1, 32, 32)
    assert len(train.classes) == class_count
    assert len(val) == len(test) == 5000
    assert load_images(name, root=root, limit=3, channels=3, size=16).image_shape == (3, 16, 16)


def test_mnist_is_resized_as_in_the_golden_files() -> None:
    golden = np.load(shared("golden", "machines_mnist.npz"))["images"]
    train = load_images("mnist", root=shared("data")).pixels.flatten(1).float()
    distance = torch.cdist(torch.from_numpy(golden).flatten(1).float(), train).amin(dim=1)
    assert float(distance.max()) < 32  # one grey level a pixel: only rounding differs


def test_the_edm_zip_layout() -> None:
    images = load_images("zip", root=shared("data", "cifar10-jpeg-test.zip"), limit=40)
    assert images.image_shape == (3, 32, 32)
    assert images.labels.shape == (40,)
    assert len(images.classes) == 10


def test_a_plain_folder_of_photos_is_cropped_and_resized() -> None:
    images = load_images("folder", root=shared("data", "celeba-sample"), size=24)
    assert images.image_shape == (3, 24, 24)
    assert images.labels is None
    assert len(images) == 26
    assert float(images.pixels.float().std()) > 30  # photos, not blanks


def test_class_folders_give_labels(tmp_path: Path) -> None:
    for name, count in (("cats", 8), ("dogs", 12)):
        write_images(tmp_path / name, count)
    images = load_images("folder", root=tmp_path, size=8)
    assert images.classes == ("cats", "dogs")
    assert set(images.labels.tolist()) == {0, 1}


def test_grey_files_give_one_channel(tmp_path: Path) -> None:
    write_images(tmp_path, 10, mode="L")
    assert load_images("folder", root=tmp_path).image_shape == (1, 32, 32)


def test_a_set_larger_than_memory_is_mapped_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 20)
    in_memory = load_images("folder", root=tmp_path / "images")
    monkeypatch.setenv("ELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(source, "_free_memory", lambda: 0)
    mapped = load_images("folder", root=tmp_path / "images")
    assert mapped.fingerprint() == in_memory.fingerprint()
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns
    assert load_images("folder", root=tmp_path / "images").fingerprint() == mapped.fingerprint()
    assert file.stat().st_mtime_ns == written


def test_a_decoding_that_fails_leaves_no_half_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 20)
    (tmp_path / "images" / "010.png").write_bytes(b"not an image")
    monkeypatch.setenv("ELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(source, "_free_memory", lambda: 0)
    with pytest.raises(InputError, match=r"010\.png' cannot be read"):
        load_images("folder", root=tmp_path / "images")
    assert not list((tmp_path / "cache").iterdir())


def test_missing_and_damaged_data_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"put its files under .*MNIST/raw.*--data.download true"):
        load_images("mnist", root=tmp_path)
    with pytest.raises(InputError, match="unknown data set 'imagenet'; known are garments, digits"):
        load_images("imagenet")
    with pytest.raises(InputError, match="there is no folder"):
        load_images("folder", root=tmp_path / "none")
    with pytest.raises(InputError, match="holds no image"):
        load_images("folder", root=tmp_path)
    with pytest.raises(InputError, match="there is no file"):
        load_images("zip", root=tmp_path / "none.zip")
    (tmp_path / "bad.zip").write_bytes(b"PK not really")
    with pytest.raises(InputError, match="not a readable zip"):
        load_images("zip", root=tmp_path / "bad.zip")
    write_images(tmp_path / "two", 2)
    with pytest.raises(InputError, match="too few"):
        load_images("folder", root=tmp_path / "two")
    for options in ({"split": "dev"}, {"channels": 2}, {"limit": 0}, {"size": 2}):
        with pytest.raises(InputError):
            load_images("digits", **options)


def test_a_download_that_fails_says_where_the_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    def no_network(*args: object, **options: object) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(torchvision.datasets, "MNIST", no_network)
    monkeypatch.setattr(torchvision.datasets, "CelebA", no_network)
    for name, where in (("mnist", "MNIST/raw"), ("celeba", "celeba")):
        with pytest.raises(InputError, match=f"failed; put its files under .*{where}.*resolution"):
            load_images(name, root=tmp_path, download=True)


def test_a_truncated_idx_file_is_explained(tmp_path: Path) -> None:
    source = shared("data", "MNIST", "raw")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in source.iterdir():
        (raw / file.name).write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read"):
        load_images("mnist", root=tmp_path)


def test_a_zip_with_a_missing_label_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(name, buffer.getvalue())
        archive.writestr("dataset.json", json.dumps({"labels": [["a.png", 0]]}))
    with pytest.raises(InputError, match=r"no label for 1 images, the first of them 'b\.png'"):
        load_images("zip", root=tmp_path / "a.zip")


def test_a_spec_brings_back_the_same_images_and_notices_others() -> None:
    spec = DataSpec("digits", limit=30, fingerprint=load_images("digits", limit=30).fingerprint())
    spec.verify(spec.load())
    with pytest.raises(InputError, match="not the ones the network was trained on"):
        spec.verify(load_images("digits", limit=30, seed=1))


def test_classes_are_picked_by_label() -> None:
    images = random_images(7, classes=3)
    assert len(images.of_class(0)) == 3
    with pytest.raises(InputError, match=r"the labels are \[0, 1, 2\]"):
        images.of_class(3)
    with pytest.raises(InputError, match="have no labels"):
        ImageSet(images.pixels).of_class(0)


def test_images_say_what_they_are_and_never_their_pixels() -> None:
    digits = load_images("digits")
    assert digits.description == "digits, 1,437 images, 360 held out"
    assert repr(digits) == "ImageSet(digits, 1,437 images, 360 held out, 1 x 16 x 16, 10 classes)"
    assert load_images("digits", split="val").description == "digits (val), 180 images"
    assert load_images("digits", split="all").description == "digits (all), 1,797 images"
    some = load_images("digits", limit=50)
    assert some.description == "digits, 50 of 1,437 images, 360 held out"
    assert digits.of_class(3).description.startswith("digits, 1")
    assert repr(random_images(1)) == "ImageSet(1 image, 1 x 8 x 8)"


def test_pixels_and_labels_of_another_kind_are_no_images() -> None:
    pixels = random_images(4).pixels
    for wrong in (pixels.float(), pixels.long(), pixels.numpy(), "digits"):
        with pytest.raises(InputError, match=r"they must be a tensor of uint8 \(n c h w\)"):
            ImageSet(wrong)
    with pytest.raises(InputError, match=r"pixels have shape \(1, 8, 8\); it must be"):
        ImageSet(pixels[0])
    with pytest.raises(InputError, match=r"labels have shape \(3,\) for 4 images"):
        ImageSet(pixels, torch.arange(3))
