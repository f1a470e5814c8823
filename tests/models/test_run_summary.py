from types import SimpleNamespace

import pytest

from els.models.blocks import Trained
from els.models.run_summary import position


def trainer(batches: int, epochs: int | None, accumulated: int = 1) -> SimpleNamespace:
    return SimpleNamespace(
        num_training_batches=batches, max_epochs=epochs, accumulate_grad_batches=accumulated
    )


@pytest.mark.parametrize(
    ("trained", "trainer", "text"),
    [
        (Trained(0, 0), trainer(44, 12), "step 0, epoch 0 of 12"),
        (Trained(44, 1), trainer(44, 12), "step 44, epoch 1 of 12"),  # an epoch that is over
        (Trained(45, 1), trainer(44, 12), "step 45, epoch 2 of 12"),  # and one that has begun
        (Trained(1200, 27), trainer(44, 1000), "step 1,200, epoch 28 of 1,000"),
        (Trained(23, 1), trainer(44, 12, accumulated=2), "step 23, epoch 2 of 12"),
        (Trained(22, 1), trainer(44, 12, accumulated=2), "step 22, epoch 1 of 12"),
        (Trained(7, 0), trainer(44, None), "step 7, epoch 1"),
        (Trained(7, 0), trainer(44, -1), "step 7, epoch 1"),
    ],
)
def test_a_position_counts_the_epoch_that_has_begun(
    trained: Trained, trainer: SimpleNamespace, text: str
) -> None:
    assert position(trainer, trained) == text
