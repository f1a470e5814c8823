"""Fit a machine's scale to a denoiser: the patch size at which it answers like the denoiser.

The denoiser is another machine here, so that it is known what should be found: the `boundary`
machine of size 7 stands in for a network. Any `denoiser(x, t, label) -> x0_hat` will do, such as
`els.load_denoiser("runs/digits_resnet/checkpoints/last.ckpt")`.

    python -m examples.fit_scales --seeds 4
"""

from __future__ import annotations

import argparse

import els


def main() -> None:
    """Fit, and print the scale and its criterion at every t."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--true_size", type=int, default=7, help="the denoiser's own patch size")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--limit", type=int, help="number of training images; default: all")
    options = parser.parse_args()

    images = els.load_images("digits", limit=options.limit)
    network = els.make_machine("boundary", images, size=options.true_size)
    machine = els.make_machine("boundary", images)  # no size: it is what is fitted
    starts, seeds = els.Starts.of(network), range(options.seeds)
    scales = els.fit_scales(network, machine, starts, seeds, steps=options.steps)

    for t, size, cosines in zip(scales.t, scales.values, scales.mean_table(), strict=True):
        print(f"t = {t:.2f}   {scales.scale} {size}   cosine of the eps_hats {max(cosines):.6f}")
    print("ready to sample:", machine.fitted(scales))  # its size follows t from here on


if __name__ == "__main__":
    main()
