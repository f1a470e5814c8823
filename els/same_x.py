"""Agreement of two denoisers at the same x: errors of a step, apart from those a path adds up.

From the same noise a network and a machine follow paths of their own, so that their x0_hats differ
at each t for two reasons: they answer otherwise, and they are asked at another x. Here both are
asked at the same x, which lies on the network's path, on the machine's own, or is a real image
under noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from els.agreement import METRICS, metrics_by_t
from els.criterion import data_points, part_of
from els.denoiser import Denoiser, at_time, identity_of, schedule_of
from els.denoising import image_keys
from els.files import sha256_of_tensor
from els.images import ImageSet
from els.sampling import Paths, Starts, retraced
from els.work import IN_MEMORY, Advance, Tensors, Work

Owner = Literal["network", "machine"]
# Where x lies, in the order in which it is shown, and its title.
PLACES = {
    "network": "on the network's path",
    "machine": "on the machine's own path",
    "images": "on unseen images under noise",
}


@torch.no_grad()
def agreement_on_path(
    paths: Paths,
    asked: Denoiser,
    starts: Starts,
    seeds: Sequence[int],
    *,
    of: Owner,
    name: str = "asking at the same x",
    work: Work = IN_MEMORY,
) -> dict[str, Tensor]:
    """The metrics (steps n) of a machine's x0_hat against the network's, at the x of one's path.

    Only the other one is asked: what the path's own denoiser answers is known.

    Args:
        paths: those of the network or of the machine, from all of the seeds.
        asked: the other one; a machine at its fitted scale.
        starts: where they start.
        seeds: of the paths.
        of: whose paths they are.
        name: of the computation, for its progress.
        work: where results are kept, and how they are computed.
    """
    schedule = schedule_of(asked)

    def compute(some: list[int], advance: Advance) -> Tensors:
        noise, label = starts([seeds[i] for i in some])
        own, other = paths.x0_hats[:, some], []
        for step in retraced(own, noise, schedule=schedule):
            other.append(asked(step.x, at_time(step.x, step.t), label).cpu())
            advance(len(some))
        answers = torch.stack(other)
        pair = (answers, own) if of == "network" else (own, answers)
        return _by_item(metrics_by_t(*pair))

    depends = ["same x on a path", of, identity_of(asked), starts.identity, len(paths.t)]
    # A path is known by its answers, whoever gave them.
    keys = [
        [seed, sha256_of_tensor(paths.x0_hats[:, i].contiguous())] for i, seed in enumerate(seeds)
    ]
    found = work.map(
        name, range(len(seeds)), compute, depends=depends, keys=keys, steps=len(paths.t)
    )
    return _by_step(found)


@torch.no_grad()
def answers_on_images(
    denoiser: Denoiser,
    images: ImageSet,
    *,
    steps: int = 20,
    conditional: bool = False,
    device: torch.device | str = "cpu",
    name: str = "asking on images",
    work: Work = IN_MEMORY,
) -> Tensor:
    """The x0_hats (steps n c h w) at noised images, on the CPU.

    Two denoisers' are compared by `els.agreement.metrics_by_t`; the network is asked once,
    however many there are to compare with it.

    Args:
        denoiser: the network, or a machine at its fitted scale.
        images: clean images; image i gets the noise of seed i at every t.
        steps: number of times, t = 1, (n-1)/n, ..., 1/n.
        conditional: give the images' labels.
        device: where it is asked.
        name: of the computation, for its progress.
        work: where results are kept, and how they are computed.
    """
    schedule = schedule_of(denoiser)
    t = schedule.timesteps(steps)[:-1].tolist()

    def compute(some: list[int], advance: Advance) -> Tensors:
        answers = []
        clean, label = part_of(images, some, conditional=conditional, device=device)
        for point in data_points(clean, seeds=some, t=t, schedule=schedule):
            answers.append(denoiser(point.x, at_time(point.x, point.t), label).cpu())
            advance(len(some))
        return {"x0_hats": torch.stack(answers, dim=1)}

    depends = ["answers on images", identity_of(denoiser), steps, conditional]
    keys = image_keys(images, conditional=conditional)
    found = work.map(name, range(len(images)), compute, depends=depends, keys=keys, steps=steps)
    return found["x0_hats"].transpose(0, 1).contiguous()


def _by_item(metrics: Mapping[str, Tensor]) -> Tensors:
    """As `Work` keeps them: r2 follows from pearson_r."""
    return {name: values.T for name, values in metrics.items() if name != "r2"}


def _by_step(found: Tensors) -> dict[str, Tensor]:
    by_step = {name: values.T.contiguous() for name, values in found.items()}
    by_step["r2"] = by_step["pearson_r"] ** 2
    return {name: by_step[name] for name in METRICS}
