"""Speed, measured side by side in one run: `make bench`.

Machines differ and are shared, so every claim is a ratio within one run. Prints tables, writes
benchmarks/results/bench.json, and never fails for being slow.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from contention import contention
from einops import rearrange
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from els.agreement import agreement
from els.analysis.options import Compute, Protocol, Source
from els.analysis.pipeline import analyse
from els.analysis.plan import plan
from els.analysis.study import load_study
from els.engines import native_engine
from els.engines.dictionary import axis_groups
from els.engines.dispatch import posteriors
from els.engines.query import PatchQuery
from els.files import write_json
from els.images import ImageSet, load_images, to_float
from els.machines import make_machine
from els.models.resnet import ResNet
from els.mosaic import trace
from els.novelty import nearest_images
from els.sampling import ddim, seeded_noise
from els.schedule import CosineSchedule
from els.work import Work

SIZES = (3, 7, 11, 15)
ALL_SIZES = tuple(range(3, 18, 2))
SCHEDULE = CosineSchedule()
ROOT = Path(__file__).resolve().parents[1]
SHARED_ZIP = ROOT.parent / "shared" / "data" / "cifar10-jpeg-train.zip"
# The scales that the paper's authors released for their CIFAR-10 ResNet, at t = 1/20, 2/20, ..., 1.
PAPER_SCALES = (3, 3, 3, 3, 5, 5, 5, 7, 7, 7, 7, 9, 9, 11, 11, 13, 15, 17, 17, 17)
Result = TypeVar("Result")
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Run every section and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED_ZIP, help="a zip of CIFAR-10 images")
    parser.add_argument("--most", type=int, default=50_000, help="images in the largest run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench.json"))
    parser.add_argument(
        "--checkpoint",
        help="of `analysis`, trained on these images; default: "
        "a network that is trained for a minute",
    )
    parser.add_argument("--only", nargs="+", help="sections to run; all when left out")
    options = parser.parse_args()
    reason = native_engine.available()
    images = load(options.data)
    sections: dict[str, Callable[[], object]] = {
        "engines": lambda: engines(images, reason is None),
        "details": lambda: details(images, reason is None),
        "growth": lambda: growth(images, options.most),
        "ceiling": lambda: ceiling(reason is None),
        "tolerance": lambda: tolerance(images, options.most),
        "sample": lambda: sample(images.take(torch.arange(min(options.most, len(images))))),
        "mosaic": lambda: mosaic(images),
        "training": lambda: training(images),
        "analysis": lambda: analysis(options.data, options.checkpoint),
        "contention": contention,
    }
    if unknown := set(options.only or ()) - set(sections):
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(sections)}")
    console.print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch "
                  f"{torch.__version__}, {torch.get_num_threads()} threads; native engine: "
                  f"{reason or 'yes'}")  # fmt: skip
    results = {name: run() for name, run in sections.items() if name in (options.only or sections)}
    if reason is None and {"engines", "ceiling"} <= set(results):
        best = results["engines"]["native"]["pairs_per_second"]["geometric_mean"]
        share = best / results["ceiling"]["pairs_per_second"]
        results["ceiling"]["share"] = share
        console.print(f"The native engine gets {share:.0%} of the ceiling.")
    write_json(options.out, results)
    console.print(f"written to {options.out}")


def load(path: Path) -> ImageSet:
    """CIFAR-10 where it is at hand, else random images of the same shape."""
    if path.exists():
        return load_images("zip", root=path, split="all")
    console.print(f"'{path}' is not here: random images stand in, which are as fast")
    generator = torch.Generator().manual_seed(0)
    return ImageSet(torch.randint(0, 256, (50_000, 3, 32, 32), generator=generator).byte())


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The least time of several runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def query(images: ImageSet, b: int = 1, t: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """b noisy images (b c h w) at t, alpha (b,) and sigma (b,)."""
    at = torch.full((b,), t, dtype=torch.float64)
    noise = seeded_noise(range(b), images.image_shape)
    x = SCHEDULE.alpha(t) * to_float(images.pixels[:b]) + SCHEDULE.sigma(t) * noise
    return x.float(), SCHEDULE.alpha(at), SCHEDULE.sigma(at)


def pairs(size: int, h: int, w: int, kind: str = "boundary") -> int:
    """(query place, training patch) pairs for each image and query."""

    def of_axis(length: int) -> int:
        return sum(g.query.numel() * g.training.shape[1] for g in axis_groups(kind, length, size))

    return of_axis(h) * of_axis(w)


def unfold_baseline(x: Tensor, pixels: Tensor, alpha: Tensor, sigma: Tensor, size: int) -> Tensor:
    """The straightforward way: unfold all patches, one matrix product, one softmax.

    Interior pixels alone, which are nearly all of `boundary`'s pairs; images in chunks that fit in
    memory, merged by their log-sum-exp.
    """
    queries = rearrange(F.unfold(x, size), "1 d q -> q d")
    c = x.shape[1]
    peaks, means = [], []
    for part in pixels.split(16):
        patches = rearrange(F.unfold(to_float(part), size), "n d p -> (n p) d") * alpha.float()
        distances = (
            queries.square().sum(1)[:, None] - 2 * queries @ patches.T + patches.square().sum(1)
        )
        logits = -distances / (2 * sigma.float() ** 2)
        centres = rearrange(patches, "p (c k) -> p c k", c=c)[:, :, size**2 // 2] / alpha.float()
        means.append(logits.softmax(dim=1) @ centres)
        peaks.append(logits.logsumexp(dim=1))
    weights = torch.stack(peaks).softmax(dim=0)
    return (weights[..., None] * torch.stack(means)).sum(dim=0)


def engines(images: ImageSet, native: bool) -> dict[str, object]:
    """Seconds per 1,000 images and pairs per second of `boundary`, by engine and patch size."""
    x, alpha, sigma = query(images)
    h, w = x.shape[2:]

    def engine(name: str) -> Callable[[Tensor, tuple[int, ...]], object]:
        return lambda pixels, sizes: posteriors(
            PatchQuery(x, pixels, alpha, sigma, rule="boundary", sizes=sizes), engine=name
        )

    def unfold(pixels: Tensor, sizes: tuple[int, ...]) -> None:
        for size in sizes:
            unfold_baseline(x, pixels, alpha, sigma, size)

    candidates = {"torch": (engine("torch"), 96), "unfold": (unfold, 96)}
    if importlib.util.find_spec("numba"):
        import numba_engine

        def in_numba(pixels: Tensor, sizes: tuple[int, ...]) -> None:
            for size in sizes:
                numba_engine.patch_mean(x, pixels, alpha, sigma, size)

        candidates["numba"] = (in_numba, 96)
    if native:
        candidates = {"native": (engine("native"), 1000), **candidates}
    table = Table(title="boundary, one query: s per 1,000 images (billion pairs per second)")
    for column in ("engine", *(f"k = {k}" for k in SIZES), "geometric mean", "3..17 together",
                   "... / k = 3"):  # fmt: skip
        table.add_column(column, justify="right")
    results: dict[str, object] = {}
    for name, (run, count) in candidates.items():
        pixels = images.pixels[:count]
        time_of = {k: seconds(partial(run, pixels, (k,))) * 1000 / count for k in SIZES}
        together = seconds(partial(run, pixels, ALL_SIZES), repeats=2) * 1000 / count
        rates = {k: pairs(k, h, w) * 1000 / time_of[k] for k in SIZES}
        mean = float(torch.tensor(list(rates.values())).log().mean().exp())
        results[name] = {
            "seconds_per_1000": {**time_of, "all": together},
            "pairs_per_second": {**rates, "geometric_mean": mean},
            "all_over_k3": together / time_of[3],
        }
        cells = (f"{time_of[k]:.3f} ({rates[k] / 1e9:.2f})" for k in SIZES)
        table.add_row(name, *cells, f"({mean / 1e9:.2f})", f"{together:.3f}",
                      f"{together / time_of[3]:.2f}")  # fmt: skip
    console.print(table)
    if native:
        for other in [name for name in candidates if name != "native"]:
            slow, fast = (results[name]["seconds_per_1000"] for name in (other, "native"))
            ratios = [slow[k] / fast[k] for k in SIZES]
            results[f"native_over_{other}"] = ratios
            console.print(f"native is {', '.join(f'{r:.1f}' for r in ratios)} x as fast as {other}")
    return results


def details(images: ImageSet, native: bool) -> dict[int, dict[str, float]]:
    """Seconds of the native engine for 1,000 images without and with details, by patch size."""
    if not native:
        return {}
    x, alpha, sigma = query(images)
    pixels = images.pixels[:1000]

    def run(size: int, *, detailed: bool) -> float:
        asked = PatchQuery(
            x, pixels, alpha, sigma, rule="boundary", sizes=(size,), details=detailed
        )
        return seconds(lambda: posteriors(asked, engine="native"), repeats=1)

    results = {}
    for size in SIZES:
        # By turns, so that a busy machine slows both alike.
        times = [(run(size, detailed=False), run(size, detailed=True)) for _ in range(5)]
        plain, detailed = (min(column) for column in zip(*times, strict=True))
        results[size] = {"plain": plain, "detailed": detailed, "ratio": detailed / plain}
        console.print(f"k = {size}: {plain:.3f} s without details, {detailed:.3f} s with them "
                      f"({detailed / plain:.2f} x)")  # fmt: skip
    return results


def growth(images: ImageSet, most: int) -> dict[str, dict[int, float]]:
    """Seconds for k = 7 by number of images, by side of the images, and by batch of queries."""

    def run(some: ImageSet, b: int = 1) -> float:
        x, alpha, sigma = query(some, b)
        asked = PatchQuery(x, some.pixels, alpha, sigma, rule="boundary", sizes=(7,))
        return seconds(lambda: posteriors(asked), repeats=1)

    counts = [n for n in (1000, 5000, 20_000, 50_000) if n <= min(most, len(images))]
    few = images.take(torch.arange(256))
    results = {
        "images": {n: run(images.take(torch.arange(n))) for n in counts},
        "side": {side: run(ImageSet(F.interpolate(few.pixels.float(), side).byte()))
                 for side in (16, 32, 48, 64)},
        "batch": {b: run(images.take(torch.arange(1000)), b) for b in (1, 4, 16)},
    }  # fmt: skip
    for what, times in results.items():
        console.print(f"s by {what}: " + "  ".join(f"{n}: {s:.3f}" for n, s in times.items()))
    return results


def ceiling(native: bool) -> dict[str, float]:
    """What no implementation of this inner loop could pass, from two tuned microbenchmarks.

    A pair cannot do without: two additions for the box sum (one along rows, one along columns),
    one comparison for the maximum, the exponential (one subtraction, rounding as two additions,
    five multiply-adds and two integer operations), one addition to the mass, and c multiply-adds
    to the moment; and it must read its c centre pixels and its stacked squares from cache.
    """
    if not native:
        return {}
    c = 3
    operations, reads = 2 + 1 + 1 + 2 + 5 + 2 + 1 + c, c + 1
    with _library() as library:
        threads = torch.get_num_threads()
        rates = {}
        for name, call in (
            ("multiply_adds_per_second", lambda: library.els_multiply_adds(20_000_000, threads)),
            ("cache_reads_per_second", lambda: library.els_reads(512 << 10, 4000, threads)),
        ):
            rates[name] = max(_rate(call) for _ in range(3))
    by_compute = rates["multiply_adds_per_second"] / operations
    by_cache = rates["cache_reads_per_second"] / reads
    result = {**rates, "operations_per_pair": operations, "reads_per_pair": reads,
              "pairs_per_second": min(by_compute, by_cache)}  # fmt: skip
    console.print(
        f"ceiling: {by_compute / 1e9:.2f} billion pairs/s by arithmetic ({operations} operations), "
        f"{by_cache / 1e9:.2f} by cache ({reads} floats)"
    )
    return result


def _rate(call: Callable[[], float]) -> float:
    start = time.perf_counter()
    count = call()
    return count / (time.perf_counter() - start)


@contextmanager
def _library() -> Iterator[ctypes.CDLL]:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "ceiling.so"
        native_engine.compile_library([Path(__file__).with_name("ceiling.cpp")], built)
        library = ctypes.CDLL(str(built))
        for name, arguments in (
            ("els_multiply_adds", [ctypes.c_int64, ctypes.c_int]),
            ("els_reads", [ctypes.c_int64, ctypes.c_int64, ctypes.c_int]),
        ):
            getattr(library, name).argtypes = arguments
            getattr(library, name).restype = ctypes.c_double
        yield library


# Noise levels with the size that a network's scales have there, about.
PATH = ((0.95, 15), (0.8, 13), (0.65, 9), (0.5, 7), (0.35, 5), (0.2, 3))


def tolerance(images: ImageSet, most: int) -> list[dict[str, float]]:
    """Seconds an image of estimates and of exact answers, by noise level, and the errors.

    Queries are noised images that are not among the training images: 4 at once, and 16, which share
    what is read of the training images.
    """
    unseen = to_float(images.take(torch.arange(len(images) - 16, len(images))).pixels)
    rows = []
    for count in (12_000, 50_000):
        some = images.take(torch.arange(min(count, most, len(images) - 16)))
        for t, size in PATH:
            noise = seeded_noise(range(16), images.image_shape)
            x = (SCHEDULE.alpha(t) * unseen + SCHEDULE.sigma(t) * noise).float()
            machine = make_machine("boundary", some, size=size)
            row: dict[str, float] = {"images": len(some), "t": t, "size": size}
            exact, row["exact"] = _timed(partial(machine, x[:4], t))
            for wanted in (0.01, 0.003):
                found = machine.estimating(wanted)
                if wanted == 0.01:
                    _, row["sorting"] = _timed(partial(found.estimate, x, t))
                few, seconds_of_few = _timed(partial(found.estimate, x[:4], t))
                _, seconds_of_many = _timed(partial(found.estimate, x, t))
                off = (few.mean - exact).square().mean(dim=(1, 2, 3)).sqrt()
                row[f"{wanted} of 4"] = row["exact"] / seconds_of_few
                row[f"{wanted} of 16"] = 4 * row["exact"] / seconds_of_many
                row[f"{wanted} error"] = float(off.max())
                claimed = few.standard_error.square().mean()
                row[f"{wanted} claimed"] = float(claimed.sqrt())
            row["exact"] /= 4
            rows.append(row)
            console.print("exact, and times as fast: "
                          + "  ".join(f"{k} {v:.3g}" for k, v in row.items()))  # fmt: skip
    return rows


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What a call gives, and the seconds that it takes."""
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


class _PaperScales:
    def at(self, t: float) -> int:
        return PAPER_SCALES[round(20 * t) - 1]


def sample(images: ImageSet) -> dict[str, float]:
    """One 20-step `boundary` sample over all images, exact and with tolerances."""
    noise = seeded_noise([0], images.image_shape)
    results, exact = {}, None
    machine = make_machine("boundary", images, size=_PaperScales())
    # The first of those that sample also sorts the patches, which is done once.
    for name, tolerance in (("0.0", 0.0), ("sorting", 0.01), ("0.01", 0.01), ("0.003", 0.003)):
        start = time.perf_counter()
        image = ddim(machine.estimating(tolerance), noise)
        row = {"seconds": time.perf_counter() - start}
        if exact is None:
            exact = image
        else:
            row["share_of_exact"] = row["seconds"] / results["0.0"]["seconds"]
            row["pearson_r"] = float(agreement(image, exact)["pearson_r"][0])
        results[name] = row
        console.print(f"20-step sample, {len(images)} images, tolerance {tolerance} ({name}): "
                      + "  ".join(f"{k} {v:.4g}" for k, v in row.items()))  # fmt: skip
    results["peak_gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    console.print(f"peak memory of the whole run so far: {results['peak_gigabytes']:.2f} GB")
    return results


def mosaic(images: ImageSet) -> dict[str, float]:
    """One 20-step `boundary` sample over 8,192 images, alone and with its mosaics; its novelty."""
    some = images.take(torch.arange(min(8192, len(images))))
    machine = make_machine("boundary", some, size=_PaperScales())
    noise = seeded_noise([0], some.image_shape)

    def traced(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return trace(machine, x, t, label)[0]

    def timed(work: Callable[[], object]) -> float:
        return _timed(work)[1]

    # By turns, so that a busy machine slows both alike.
    times = [(timed(lambda: ddim(machine, noise)), timed(lambda: ddim(traced, noise)))
             for _ in range(3)]  # fmt: skip
    plain, with_mosaics = (min(column) for column in zip(*times, strict=True))
    found = timed(lambda: nearest_images(noise, some))
    console.print(f"20-step sample, {len(some)} images: {plain:.2f} s, with mosaics at every t "
                  f"{with_mosaics:.2f} s ({with_mosaics / plain:.2f} x); nearest image at any "
                  f"shift {found:.2f} s")  # fmt: skip
    return {"plain": plain, "traced": with_mosaics, "ratio": with_mosaics / plain, "nearest": found}


class _Items(Dataset):
    """One image at a time, as most training loops read them."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return to_float(self.images.pixels[index])


def training(images: ImageSet, batch: int = 64, steps: int = 6) -> dict[str, float]:
    """Training images per second: this project's settings, and a plain float32 loop."""
    from els.models.datamodule import Batches

    def run(loader: DataLoader, fast: bool) -> float:
        torch.manual_seed(0)
        net = ResNet(channels=3, width=64)
        layout = torch.channels_last if fast else torch.contiguous_format
        net.to(memory_format=layout)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
        start, seen = 0.0, 0
        for i, item in enumerate(loader):
            x = (to_float(item[0]) if fast else item).contiguous(memory_format=layout)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
                loss = net(x, torch.rand(len(x))).float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if i == 1:
                start = time.perf_counter()
            elif i > 1:
                seen += len(x)
            if i == steps:
                break
        return seen / (time.perf_counter() - start)

    some = images.take(torch.arange(min(len(images), 2048)))
    ours = DataLoader(Batches(some, labelled=False), batch_size=batch, shuffle=True,
                      collate_fn=lambda x: x)  # fmt: skip
    plain = DataLoader(_Items(some), batch_size=batch, shuffle=True)
    result = {
        "bf16_channels_last": run(ours, fast=True),
        "float32_dataloader": run(plain, fast=False),
    }
    ratio = result["bf16_channels_last"] / result["float32_dataloader"]
    console.print("training, images/s: " + "  ".join(f"{k} {v:.0f}" for k, v in result.items())
                  + f"  ({ratio:.1f} x)")  # fmt: skip
    return result


def analysis(data: Path, checkpoint: str | None) -> dict[str, object]:
    """Minutes by stage of a default analysis of an unconditional network, and what was planned."""
    if not data.exists():
        console.print(f"'{data}' is not here: there is nothing to analyse")
        return {}
    with tempfile.TemporaryDirectory() as folder:
        source = Source(
            checkpoint or _trained(data, Path(folder)), data_root=str(data), verify_data=False
        )
        study = load_study(source, Protocol(), Compute(), run="bench")
    planned = plan(study)
    console.print(planned)
    stages = _Stages()
    _, whole = _timed(lambda: analyse(study, Work(progress=stages)))
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    console.print(f"{len(study.images)} images: {whole / 60:.1f} min, {gigabytes:.2f} GB")
    return {
        "images": len(study.images),
        "seconds": whole,
        "stages": stages.seconds,
        "planned": dict(planned.seconds),
        "gigabytes": gigabytes,
    }


def _trained(data: Path, folder: Path) -> str:
    """The run of a network of width 64 after 100 steps."""
    told = {
        "run.name": "net",
        "run.dir": folder,
        "run.logger": "none",
        "data.name": "zip",
        "data.root": data,
        "data.conditional": "false",
        "trainer.max_steps": 100,
        "samples.every_n_epochs": 0,
    }
    options = [word for name, value in told.items() for word in (f"--{name}", str(value))]
    network = ["--config", "evidence/cifar10_resnet_zeros"]
    subprocess.run([sys.executable, ROOT / "train.py", "fit", *network, *options], check=True)
    return str(folder / "net")


class _Stages:
    """The progress of `Work` that prints and adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, total: int) -> Iterator[Callable[[float], None]]:
        """See `els.work.Progress`."""
        start = time.perf_counter()
        yield lambda count: None
        took = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0) + took
        console.print(f"{name}: {took / 60:.2f} min")


if __name__ == "__main__":
    main()
