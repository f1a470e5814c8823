from types import SimpleNamespace

import pytest
import torch
from conftest import random_images

from els.errors import InputError
from els.images import ImageSet
from els.models.datamodule import Batch, Images


def images(*, labels: bool = True, world: int = 1, rank: int = 0, **options: object) -> Images:
    """17 images of random pixels in place of those that are loaded."""
    made = Images(**{"batch_size": 4, **options})
    made._load = lambda split: random_images(17, classes=3 if labels else 0)
    loop = SimpleNamespace(batch_idx=-1)  # as at the beginning of an epoch
    made.trainer = SimpleNamespace(world_size=world, global_rank=rank, fit_loop=loop)
    return made


def indices(batches: list[Batch]) -> list[int]:
    return [i for batch in batches for i in batch[2].tolist()]


def test_a_batch_holds_pixels_labels_and_indices() -> None:
    data = images(conditional=True)
    pixels, labels, index = next(iter(data.train_dataloader()))
    whole: ImageSet = data.images
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, whole.pixels[index])
    assert torch.equal(labels, whole.labels[index])
    assert next(iter(images().train_dataloader()))[1] is None
    assert (data.num_channels, data.num_classes, images().num_classes) == (1, 3, None)


def test_training_batches_are_whole_and_their_order_is_the_seeds() -> None:
    first, again, other = (list(images(seed=seed).train_dataloader()) for seed in (1, 1, 2))
    assert [len(batch[0]) for batch in first] == [4] * 4
    assert indices(first) == indices(again) != indices(other)
    (small,) = images(batch_size=100).train_dataloader()  # all images, when a batch holds them
    assert len(small[0]) == 17


@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_that_goes_on_has_the_batches_that_were_left(world: int) -> None:
    for rank in range(world):
        data = images(world=world, rank=rank)
        loader = data.train_dataloader()
        whole = list(loader)
        data.trainer.fit_loop.batch_idx = 0  # it was stopped after the first
        rest = list(loader)
        assert indices(rest) == indices(whole[1:])
        assert len(loader) == len(whole)


@pytest.mark.parametrize("stage", ["val_dataloader", "test_dataloader"])
def test_processes_share_held_out_images_without_repeating_any(stage: str) -> None:
    shares = [indices(list(getattr(images(world=2, rank=r), stage)())) for r in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(17))


def test_images_without_labels_cannot_be_conditioned_on() -> None:
    with pytest.raises(InputError, match=r"data.conditional is true, but the images of .* have no"):
        assert images(labels=False, conditional=True).num_classes


def test_the_same_images_can_be_loaded_again() -> None:
    data = Images(limit=20, root="unused")
    data.spec.verify(data.spec.load())
    with pytest.raises(InputError, match="fingerprints differ"):
        data.spec.verify(data.spec.load("val"))
