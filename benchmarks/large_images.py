"""Processor time and memory that machines take on a folder of images, each in its own process.

    python -m benchmarks.large_images path/to/images --size 64 --limit 2000
    python -m benchmarks.large_images path/to/photos --crops 2000 --keep crops

Few photos can stand for many images: `--crops` cuts squares at random places, in random sizes and
mirrored half of the time, and `--keep` leaves them in a folder. Prints a table in Markdown and
writes benchmarks/results/large_images.json.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from els.files import write_json
from els.images import ImageSet, load_images, to_float
from els.machines import MACHINES, Machine, make_machine
from els.machines.mixture import Mixture
from els.sampling import seeded_noise
from els.schedule import COSINE

FIRST, OTHERS = 0.5, (0.2, 0.8)
SMALLEST = 0.5  # side of a crop, as a share of the largest that fits


@dataclass(frozen=True)
class Cost:
    """What a machine takes for one image, in seconds of processor time.

    A machine whose first answer took long is asked no more: then `again` is `first`.

    Attributes:
        first: seconds of the first answer, with all that is found once for the images.
        again: seconds of an answer, on average over two other times.
        values: how many values of its scale were tried at once; 0 without a scale.
        calibration: seconds of an answer at all of them at once.
        gigabytes: the most that the process held.
    """

    first: float
    again: float
    values: int
    calibration: float
    gigabytes: float


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="images, at any depth")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--limit", type=int, default=2000, help="images at most")
    parser.add_argument("--crops", type=int, help="cut so many images from those of the folder")
    parser.add_argument("--keep", type=Path, help="a folder for the crops")
    parser.add_argument(
        "--patience",
        type=float,
        default=60,
        help="seconds of an answer after which no other is asked",
    )
    parser.add_argument("--machines", nargs="+", default=list(MACHINES), choices=list(MACHINES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/large_images.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder
        if options.crops:
            folder = options.keep or Path(temporary)
            cut(options.folder, folder, options.crops, options.size)
        costs = measure(folder, options)
    write_json(options.out, {kind: vars(cost) for kind, cost in costs.items()})
    print(f"\nwritten to {options.out}")


def cut(photos: Path, folder: Path, count: int, size: int) -> None:
    """Write `count` squares of random sizes from random places of photos, some of them mirrored."""
    suffixes = Image.registered_extensions()
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in suffixes)
    if not files:
        sys.exit(f"'{photos}' holds no image")
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)
    for i in range(count):
        image = ImageOps.exif_transpose(Image.open(files[i % len(files)])).convert("RGB")
        side = chance.uniform(SMALLEST, 1) * min(image.size)
        left, top = (chance.uniform(0, length - side) for length in image.size)
        box = (left, top, left + side, top + side)
        crop = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
        if chance.random() < 0.5:
            crop = ImageOps.mirror(crop)
        crop.save(folder / f"{i:06}.png")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Cost]:
    """The cost of each machine, one after the other."""
    images = load_images("folder", root=folder, split="all", size=options.size, limit=options.limit)
    print(images, f"torch {torch.__version__}, {torch.get_num_threads()} threads", sep="; ")
    print("\n| machine | first answer | an answer | calibration | memory |\n|---|---|---|---|---|")
    found = {}
    for kind in options.machines:
        context = get_context("spawn")
        with ProcessPoolExecutor(1, context) as fresh:
            found[kind] = fresh.submit(cost, kind, images, options.patience).result()
        print(row(kind, found[kind]), flush=True)
    return found


def row(kind: str, found: Cost) -> str:
    """A line of the table."""
    several = f"{found.calibration:.1f} s, {found.values} values" if found.values else ""
    cells = (f"{found.first:.1f} s", f"{found.again:.2f} s", several, f"{found.gigabytes:.1f} GB")
    return f"| `{kind}` | {' | '.join(cells)} |"


def cost(kind: str, images: ImageSet, patience: float) -> Cost:
    """Answers to a noised image, timed; in a process that has done nothing else."""
    machine = make_machine(kind, images)
    values = candidates(machine)
    middle = values[len(values) // 2 : len(values) // 2 + 1] or None
    ask = asking(machine)
    first = again = seconds(lambda: ask(FIRST, middle))
    if first < patience:
        again = sum(seconds(lambda t=t: ask(t, middle)) for t in OTHERS) / len(OTHERS)
    values = values if first < patience else []
    several = seconds(lambda: ask(FIRST, values)) if values else 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Cost(first, again, len(values), several, peak / 1e9)


def candidates(machine: Machine) -> list[float]:
    """What calibration tries of a machine's scale."""
    return machine.allowed(machine.scale.candidates) if machine.scale else []


def asking(machine: Machine) -> Callable[[float, list[float] | None], Tensor]:
    """How the machine is asked at a time, at values of its scale; a mixture: for all its parts."""
    image = to_float(machine.images.pixels[:1])
    noise = seeded_noise([0], machine.image_shape)

    def ask(t: float, values: list[float] | None) -> Tensor:
        x = (COSINE.alpha(t) * image + COSINE.sigma(t) * noise).float()
        if isinstance(machine, Mixture):
            return machine.components(x, t)
        return machine.at_values(x, t, values)

    return ask


def seconds(work: Callable[[], object]) -> float:
    """Of processor time, of all threads, that a call takes: the same beside other work."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
