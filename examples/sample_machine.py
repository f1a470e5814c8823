"""Draw samples from a closed-form machine: what it says a network will draw from the same noise.

Run it in the clone, or anywhere after `pip install .`:

    python -m examples.sample_machine --kind boundary --size 5 --out samples.png
"""

from __future__ import annotations

import argparse

from einops import rearrange
from PIL import Image

import els
from els.images import to_uint8
from els.sampling import ddim_steps


def main() -> None:
    """Sample, print the path, and save the samples side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="boundary", help="boundary, local, ideal, ...")
    parser.add_argument("--size", type=int, default=5, help="the patch size")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--limit", type=int, help="number of training images; default: all")
    parser.add_argument("--out", default="samples.png")
    options = parser.parse_args()

    images = els.load_images("digits", limit=options.limit)
    size = None if options.kind == "ideal" else options.size  # ideal has no patches
    machine = els.make_machine(options.kind, images, size=size)
    x = els.seeded_noise(range(options.seeds), images.image_shape)  # (n c h w)
    for step in ddim_steps(machine, x, steps=options.steps):
        x = step.x_next
        print(f"t = {step.t:.2f}   x0_hat has a standard deviation of {step.x0_hat.std():.2f}")

    grid = rearrange(to_uint8(x), "n c h w -> h (n w) c")
    Image.fromarray(grid.squeeze(-1).numpy()).save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
