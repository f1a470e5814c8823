"""Compare the samples of two denoisers from the same noise, seed by seed.

Two machines stand for them here; with `--checkpoint` the second is a trained network, and the
machines are made from the images that it was trained on.

    python -m examples.compare_samples --machine boundary --size 5 --other ideal
    python -m examples.compare_samples --checkpoint runs/digits_resnet/checkpoints/last.ckpt
"""

from __future__ import annotations

import argparse

import els
from els.agreement import agreement, summarise
from els.images import load_images
from els.machines import make_machine
from els.sampling import Starts, sample_paths


def main() -> None:
    """Sample both, and print how well the first predicts the second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", default="boundary")
    parser.add_argument("--size", type=int, default=5, help="the machine's patch size")
    parser.add_argument("--other", default="ideal", help="another machine, without a scale")
    parser.add_argument("--checkpoint", help="a trained network in the other's place")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--limit", type=int, help="number of training images; default: all")
    options = parser.parse_args()

    if options.checkpoint:
        other = els.load_denoiser(options.checkpoint)
        images, num_classes = other.data.load(), other.num_classes
    else:
        images, num_classes = load_images("digits", limit=options.limit), None
        other = make_machine(options.other, images)
    machine = make_machine(options.machine, images, size=options.size)

    starts, seeds = Starts(images.image_shape, num_classes), range(options.seeds)
    predicted = sample_paths(machine, starts, seeds, steps=options.steps)
    drawn = sample_paths(other, starts, seeds, steps=options.steps)
    for metric, values in agreement(predicted.samples, drawn.samples).items():
        found = summarise(values)  # values: one for each seed
        low, high = found.ci95
        print(f"{metric:10} {found.median:.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
