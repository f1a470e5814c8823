"""Training, a scan and an analysis alone and beside busy loops, by threads and waiting policy.

    python -m benchmarks.contention

Each policy is a process: how threads of PyTorch wait for each other (OMP_WAIT_POLICY) is settled
when they are started. Prints a table in Markdown: milliseconds that pass, and of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Measured = tuple[str, int, float, float]  # what, threads, wall and processor seconds
LOOPS = (0, 2, 8)
POLICIES = ("", "passive")  # the first: as it is where nobody says anything
# Networks of `configs/`: width, side of the images, channels, batch.
NETWORKS = {
    "garments_resnet": (32, 20, 1, 32),
    "mnist_resnet_64_zeros": (64, 32, 1, 64),
    "evidence/cifar10_resnet_zeros": (64, 32, 3, 128),
}
ANALYZE = Path(__file__).resolve().parents[1] / "analyze.py"
SECONDS = 2.0  # of each measurement, after one call that is not counted


def main() -> None:
    """Measure all and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", action="store_true", help="one process, as JSON")
    parser.add_argument("--loops", type=int, nargs="+", default=list(LOOPS), help="busy loops")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return
    contention(options.loops)


def contention(loops: Sequence[int] = LOOPS) -> dict[str, list[Measured]]:
    """Print all as a table in Markdown; returns it by the loops and the policy."""
    print("| beside | waiting | what | threads | wall | processor |\n|---|---|---|---|---|---|")
    found = {}
    for count in loops:
        for policy in POLICIES:
            others, waiting = f"{count} loops", policy or "default"
            found[f"{others}, {waiting}"] = several = _measured(count, policy)
            for what, threads, wall, cpu in several:
                times = f"{1e3 * wall:.1f} ms | {1e3 * cpu:.1f} ms"
                print(f"| {others} | {waiting} | {what} | {threads} | {times} |", flush=True)
    return found


def measure() -> list[Measured]:
    """Everything that is measured, in this process."""
    import torch

    from els.images import ImageSet
    from els.machines import make_machine

    most = torch.get_num_threads()
    found = []
    for name, shape in NETWORKS.items():
        step = training_step(*shape)
        for threads in sorted({1, most}):
            torch.set_num_threads(threads)
            found.append((f"a step of {name}", threads, *timed(step)))
    torch.set_num_threads(most)
    images = torch.randint(0, 256, (2000, 1, 20, 20), dtype=torch.uint8)
    machine, x = make_machine("boundary", ImageSet(images), size=7), torch.randn(4, 1, 20, 20)
    found.append(("a scan of 2,000 images", most, *timed(lambda: machine(x, 0.5))))
    found.append(("an analysis", most, *analysis()))
    return found


def training_step(width: int, side: int, channels: int, batch: int) -> Callable[[], object]:
    """A step of a ResNet, as `configs/trainer/cpu_bf16.yaml` takes it."""
    import torch

    from els.models.resnet import ResNet

    net = ResNet(channels, width=width, depth=6).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters())
    x = torch.randn(batch, channels, side, side).contiguous(memory_format=torch.channels_last)
    t = torch.rand(batch)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = (net(x, t, None) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def analysis() -> tuple[float, float]:
    """Wall and processor seconds of a small analysis of a network of the zoo, with its start."""
    options = "--machines boundary --seeds 6 --calibration_seeds 2 --sizes 3,7 --held_out 0"
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, ANALYZE, "zoo:garments_resnet", *options.split(), "--logger", "none"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    done = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = done.ru_utime + done.ru_stime - begun.ru_utime - begun.ru_stime
    return time.perf_counter() - start, spent


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of a call, on average."""
    work()
    count, start, begun = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < SECONDS:
        work()
        count += 1
    return (time.perf_counter() - start) / count, (time.process_time() - begun) / count


@contextmanager
def beside(loops: int) -> Iterator[None]:
    """What is done within has so many processes beside it that compute for ever."""
    busy: list[subprocess.Popen[str]] = []
    loop = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    try:
        for _ in range(loops):
            busy.append(subprocess.Popen(loop, stdout=subprocess.PIPE, text=True))
        for process in busy:
            assert process.stdout is not None
            process.stdout.readline()  # it runs
        yield
    finally:
        for process in busy:
            process.kill()
            process.communicate()


def _measured(loops: int, policy: str) -> list[Measured]:
    """`measure` in a process of its own, beside busy loops."""
    with beside(loops):
        done = subprocess.run(
            [sys.executable, __file__, "--measure"],
            env=os.environ | ({"OMP_WAIT_POLICY": policy} if policy else {}),
            stdout=subprocess.PIPE,
            check=True,
        )
    found: list[Measured] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
