"""Measure how well closed-form denoisers predict trained networks.

python analyze.py --checkpoint runs/digits_resnet/checkpoints/last.ckpt
python analyze.py --checkpoint A.ckpt B.ckpt C.ckpt --machines all
python analyze.py figures runs/digits_resnet --formats pdf,png (again, from saved results alone)
python analyze.py dashboard --project els (a workspace of W&B; dashboard --help says more)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import secrets
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
import wandb
from lightning_fabric import Fabric
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor

from els.agreement import agreement
from els.analysis.attribution import COPIES, HELD_OUT, NETWORK, Attribution, shown_images
from els.analysis.comparison import Comparison
from els.analysis.report.figures import write_figures
from els.analysis.report.page import write_page
from els.analysis.report.style import FORMATS, chosen_formats
from els.analysis.report.tables import (
    ScaleCurves,
    agreement_table,
    probes_text,
    seed_rows,
    time_rows,
    write_csv,
)
from els.analysis.results import IDEAL, Results, scales_path
from els.analysis.tracking import content, dashboard
from els.calibration import (
    Criterion,
    Point,
    Scales,
    choose_scales,
    criterion_table,
    data_points,
    path_points,
)
from els.console import Parser, console, exit_cleanly, key_values, plural, progress
from els.denoiser import Denoiser
from els.engines.dispatch import EngineName, choose_engine
from els.errors import InputError, reason
from els.files import sha256_of
from els.images import DATASETS, DataSpec, ImageSet, to_float, to_uint8
from els.machines import MACHINES, PATCH_KINDS, Machine, make_machine
from els.machines.local import SIZE, PatchMachine
from els.machines.mixture import Mixture
from els.models.artifacts import PREFIX, artifact_name, is_artifact, version_of
from els.models.checkpoints import find_checkpoint, load_denoiser
from els.models.denoiser import NetworkDenoiser
from els.models.tracking import (
    LoggerName,
    checkpoint_name,
    name_in_sweep,
    print_run_link,
    wandb_settings,
)
from els.mosaic import Mosaic, trace
from els.novelty import Novelty, nearest_images
from els.probes import (
    NO_GRADIENT,
    Probes,
    effective_receptive_field,
    equivariance_error,
    field_text,
    shares_held,
)
from els.sampling import Paths, Step, ddim_paths, ddim_steps, seeded_labels, seeded_noise
from els.stacking import Weights, normal_equations, solve
from els.work import Tensors, Work

# Raised with every change of the code that changes results, so that old ones are not reused.
_RESULTS_VERSION = 2


@dataclass(frozen=True)
class Settings:
    """What to analyse, and how.

    Attributes:
        checkpoint: a checkpoint that train.py wrote, wandb:entity/project/name:alias, a network of
            the paper's code, or a folder of diffusers; see `els.models.checkpoints`.
        out: the run's folder, under which analysis/ is written; unless told, the one that a .ckpt
            is in, and runs/<name> for anything else.
        machines: kinds to compare, the one that should fit first, or "all"; unless told,
            `boundary` for a zero-padded network or `equivariant` for a circular one, then `local`
            and `ideal`.
        sizes: odd patch sizes to calibrate over; unless told, 3, 5, ..., 17, as far as they fit.
            Other scales have values of their own to try.
        symmetries: "flip" and "turns" add the mirrored and the quarter-turned images to the patch
            machines' dictionaries, for networks trained with such augmentation.
        held_out: number of held-out images on which the first machine's scale is also fitted
            without the network, as far as there are any; 0 leaves that out.
        criterion: "cosine" or "l2"; see `els.calibration`.
        seeds: number of seeds, 0 .. seeds - 1.
        calibration_seeds: how many of them, the first, the scales are fitted on; agreement is
            measured on the others.
        steps: DDIM steps of the machines, and of the path that they are calibrated on.
        network_steps: DDIM steps of the network; the first count is the main result.
        label: one class for every seed; unless told, a conditional network gets a random class
            for each seed.
        data_name: the data set that the network was trained on, when its checkpoint does not
            say: one of `els.images.DATASETS`.
        data_root: where the training images are now, if not where they were.
        verify_data: refuse to go on when they are not the images that were trained on.
        padding: "zeros" or "circular", for a state dict alone, which does not say.
        image_size: height and width in pixels, for a network of the paper's code; 32 or what its
            file says unless told.
        batch: seeds at a time.
        engine: "native" (compiled, on the CPU), "triton" (compiled, on a GPU), "torch" (any device)
            or "auto", the fastest that works here.
        tolerance: standard error of x0_hat (in pixel units, images in [-1, 1]) that is good enough
            when machines are sampled; 0 compares with every training image.
        chunk: training images at a time; chosen by memory unless told. Never changes a result.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        devices: processes on each node, which share the seeds; each takes a GPU or its part of
            the cores.
        num_nodes: nodes, when started by torchrun or SLURM; they must see the same folder.
        figures: file formats of the figures beside png, which W&B shows: "pdf,svg".
        logger: "wandb" (online when logged in, else offline), "csv" or "none".
        project: the W&B project.
        mosaic: find out where samples come from: the winning training patch of every pixel, and
            the nearest training images.
        open_page: show the page in a browser when it is done, where there is a desktop.
        force: compute again what is there already.
    """

    checkpoint: str
    out: str | None = None
    machines: Literal["all"] | list[str] | None = None
    sizes: list[int] | None = None
    symmetries: list[Literal["flip", "turns"]] = field(default_factory=list)
    held_out: int = 16
    criterion: Criterion = "cosine"
    seeds: int = 40
    calibration_seeds: int = 8
    steps: int = 20
    network_steps: list[int] = field(default_factory=lambda: [20])
    label: int | None = None
    data_name: str | None = None
    data_root: str | None = None
    verify_data: bool = True
    padding: Literal["zeros", "circular"] | None = None
    image_size: int | None = None
    batch: int = 16
    engine: EngineName = "auto"
    tolerance: float = 0.0
    chunk: int | None = None
    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    figures: list[str] | str = "png"
    logger: LoggerName = "wandb"
    project: str = "els"
    mosaic: bool = True
    open_page: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        chosen_formats(self.figures)
        for name in ("seeds", "calibration_seeds", "steps", "batch", "devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.held_out < 0:
            raise InputError(f"held_out is {self.held_out}; it must be at least 0")
        if not self.network_steps or min(self.network_steps) < 1:
            raise InputError(f"network_steps is {self.network_steps}; give counts of at least 1")
        if self.calibration_seeds >= self.seeds:
            raise InputError(
                f"no seeds are left for agreement: {self.calibration_seeds} of {self.seeds} are "
                "used for calibration; raise --seeds or lower --calibration_seeds"
            )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the figures; W&B shows the PNGs."""
        return tuple(dict.fromkeys(("png", *chosen_formats(self.figures))))

    @property
    def folder(self) -> Path:
        """The run's folder; in a sweep the run's id is added to its name."""
        return self.home.with_name(name_in_sweep(self.home.name))

    @property
    def home(self) -> Path:
        """The same without that id: where the checkpoint's own run is, unless `out` says."""
        if self.out is not None:
            return Path(self.out)
        if is_artifact(self.checkpoint):
            return Path("runs", artifact_name(self.checkpoint))
        path = find_checkpoint(self.checkpoint)
        if path.is_dir():
            return Path("runs", path.resolve().name)
        if path.suffix != ".ckpt":
            return Path("runs", path.stem)
        return path.parent.parent if path.parent.name == "checkpoints" else path.parent


class Analysis:
    """One network, its training images, and the machines made from them.

    Raises:
        InputError: when any of them cannot be had, or settings do not fit the network.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.folder / "analysis"
        self.device = _device(settings.device)
        checkpoint = find_checkpoint(settings.checkpoint)
        self.network = load_denoiser(
            checkpoint, device=self.device, data_root=settings.data_root,
            padding=settings.padding, image_size=settings.image_size,
        )  # fmt: skip
        self.checkpoint_hash = sha256_of(checkpoint)
        _check_label(settings.label, self.network.num_classes)
        self.data = _data(self.network, settings)
        self.images = self.data.load("train")
        if self.images.image_shape != self.network.image_shape:
            raise InputError(
                f"the training images have shape {self.images.image_shape}, the network "
                f"{self.network.image_shape}; point --data_root at the right ones"
            )
        self.data_hash = self.images.fingerprint()
        if settings.verify_data:
            self.data.verify(self.images)
        if self.data.fingerprint is None:  # for the record of what was compared with
            self.data = replace(self.data, fingerprint=self.data_hash)
        self.fabric = Fabric(accelerator="cpu", devices=1)
        self.work = Work(self.folder / ".work")
        self.kinds = self._kinds()
        self.engine = choose_engine(
            torch.empty(0, *self.images.image_shape, device=self.device), settings.engine,
            plain=not any(kind == "mixture" or kind.endswith("_soft") for kind in self.kinds),
        )  # fmt: skip
        self._made: dict[str, Machine] = {}
        self.sizes = self._sizes()
        self.scaled = {
            kind: self._candidates(machine)
            for kind in self.kinds
            if (machine := self._machine(kind, None)).scale
        }

    def share_out(self) -> None:
        """Start the other processes, or join them under torchrun or SLURM."""
        settings = self.settings
        many = settings.devices * settings.num_nodes > 1 or "TORCHELASTIC_RUN_ID" in os.environ
        if not many:
            return
        accelerator = "cuda" if self.device.type == "cuda" else "cpu"
        self.fabric = _launched(accelerator, settings.devices, settings.num_nodes)
        self.device = self.fabric.device
        self.network.net.to(self.device)
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // settings.devices))
        self.work = Work(
            self.folder / ".work", rank=self.fabric.global_rank, world=self.fabric.world_size,
            barrier=self.fabric.barrier,
        )  # fmt: skip

    def run(self) -> Results:
        """Calibrate, sample and compare; whatever was finished before is not done again."""
        settings = self.settings
        if settings.force:
            self.work.clear()
        seeds = range(settings.seeds)
        fitted = seeds[: settings.calibration_seeds]
        judged = seeds[settings.calibration_seeds :]
        noise, labels = self._starts(judged)
        scales = {kind: self._calibrate(kind, fitted) for kind in self.scaled}
        data_scales = self._calibrate_on_data() if self.kinds[0] in self.scaled else None
        weights = self._stack(fitted) if "mixture" in self.kinds else None
        tracer = self._tracer(scales)
        network = {
            steps: self._sample(NETWORK, self.network, judged, steps, tracer)
            for steps in dict.fromkeys([*settings.network_steps, settings.steps])
        }
        machines = {
            kind: self._sample(
                kind, self._machine(kind, weights if kind == "mixture" else scales.get(kind)),
                judged, settings.steps, tracer,
            )
            for kind in self.kinds
        }  # fmt: skip
        results = Results(
            seeds=tuple(judged),
            labels=labels,
            noise=noise,
            network={steps: network[steps].paths.samples for steps in settings.network_steps},
            machines={kind: walk.paths.samples for kind, walk in machines.items()},
            by_t={
                kind: _agreement_by_t(walk.paths, network[settings.steps].paths)
                for kind, walk in machines.items()
            },
            t=tuple(self._times),
            scales=scales,
            context=self._context(),
            probes=self._probe(fitted),
            weights=weights,
            data_scales=data_scales,
        )
        if settings.mosaic:
            every = {NETWORK: network[settings.steps], **machines}
            attribution = self._attribution(results.order(), every, tracer)
            results = replace(results, attribution=attribution)
        if self.fabric.is_global_zero:
            results.save(self.folder)
        self.work.clear()
        return results

    def reusable(self) -> Results | None:
        """The results of an earlier, finished analysis of the same things, if there is one."""
        if self.settings.force or not (self.folder / "agreement.json").exists():
            return None
        results = Results.load(self.folder)
        context = self._context()
        if any(
            results.context.get(key) != value for key, value in context.items() if key != "training"
        ):  # a record for readers
            return None
        if self.settings.mosaic and results.attribution is None:
            console.print("The earlier analysis has no mosaics; --force true makes them.")
        return results

    @property
    def _around(self) -> str:
        """The patch machine that is made for networks like this one."""
        return "equivariant" if self.network.padding == "circular" else "boundary"

    def _kinds(self) -> tuple[str, ...]:
        asked = self.settings.machines
        if asked is None:
            return (self._around, "local", IDEAL)
        if asked == "all":
            others = set(PATCH_KINDS) - {"local"}
            first = (self._around, "mixture", f"{self._around}_soft")
            return (*first, *(kind for kind in MACHINES[::-1] if kind not in {*first, *others}))
        if unknown := [kind for kind in asked if kind not in MACHINES]:
            raise InputError(f"unknown machines {unknown}; there are all, {', '.join(MACHINES)}")
        return tuple(dict.fromkeys(asked))

    def _sizes(self) -> list[int]:
        side = min(self.images.image_shape[1:])
        sizes = sorted(set(self.settings.sizes or [k for k in range(3, 19, 2) if k <= side]))
        for kind in self.kinds:
            machine = self._machine(kind, None)
            for size in sizes if machine.scale == SIZE else ():
                machine.check(size)
        return sizes

    def _candidates(self, machine: Machine) -> list[float]:
        """The values of its scale that are tried."""
        values = self.sizes if machine.scale == SIZE else machine.allowed(machine.scale.candidates)
        if not values:
            raise InputError(
                f"no {machine.scale.name} of the {machine.kind} machine fits images of shape "
                f"{self.images.image_shape}; leave it out of --machines, or give --sizes"
            )
        return values

    def _starts(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Noise (n c h w) and labels (n,) or None of the seeds."""
        noise = seeded_noise(seeds, self.network.image_shape)
        if self.network.num_classes is None:
            return noise, None
        if self.settings.label is not None:
            return noise, torch.full((len(seeds),), self.settings.label)
        return noise, seeded_labels(seeds, self.network.num_classes)

    def _machine(self, kind: str, fitted: Scales | Weights | None) -> Machine:
        """The machine of that kind, which keeps what it knows of the images from call to call."""
        if kind not in self._made:
            self._made[kind] = make_machine(
                kind, self.images, schedule=self.network.schedule, engine=self.settings.engine,
                chunk=self.settings.chunk, tolerance=self.settings.tolerance, around=self._around,
                symmetries=self.settings.symmetries if kind in (*PATCH_KINDS, "mixture") else (),
            )  # fmt: skip
        return self._made[kind].fitted(fitted)

    def _calibrate(self, kind: str, seeds: Sequence[int]) -> Scales:
        settings = self.settings
        path = scales_path(self.folder, kind, list(self.scaled))
        machine, candidates = self._machine(kind, None), self.scaled[kind]
        what = ("calibration", kind, settings.criterion, candidates, settings.steps)
        source = self._key(*what, settings.label, list(seeds))
        if path.exists() and not settings.force:
            scales = Scales.load(path)
            if scales.source == source:
                return scales

        def compute(some: Sequence[int], advance: Callable[[int], None]) -> Tensors:
            points, labels = self._points(some)
            return {
                "table": criterion_table(
                    points, machine, candidates=candidates, label=labels,
                    criterion=settings.criterion, schedule=self.network.schedule, on_step=advance,
                )
            }  # fmt: skip

        parts = self._by_batch(f"calibrating {kind}", what, seeds, settings.steps, compute)
        scales = choose_scales(
            torch.cat([part["table"] for part in parts], dim=-1), machine=machine,
            criterion=settings.criterion, seeds=seeds, candidates=candidates, source=source,
            t=self._times,
        )  # fmt: skip
        return scales

    @property
    def _times(self) -> list[float]:
        """The times of the machines' steps."""
        return self.network.schedule.timesteps(self.settings.steps)[:-1].tolist()

    def _points(self, seeds: Sequence[int]) -> tuple[Iterator[Point], Tensor | None]:
        """The network's path from some seeds, and their labels."""
        noise, labels = self._starts(seeds)
        labels = _to(labels, self.device)
        return path_points(
            self.network, noise.to(self.device), steps=self.settings.steps, label=labels,
            schedule=self.network.schedule,
        ), labels  # fmt: skip

    def _stack(self, seeds: Sequence[int]) -> Weights:
        """The weights of the mixture, by least squares on the network's path."""
        mixture = self._machine("mixture", None)
        label = self.settings.label
        what = ("stacking", "mixture", list(mixture.names), self.settings.steps, label, list(seeds))

        def compute(some: Sequence[int], advance: Callable[[int], None]) -> Tensors:
            points, labels = self._points(some)
            return normal_equations(points, mixture, label=labels, on_step=advance)

        parts = self._by_batch("fitting mixture", what, seeds, self.settings.steps, compute)
        total = {name: sum(part[name] for part in parts) for name in parts[0]}
        return solve(total, mixture, t=self._times, seeds=seeds, source=self._key(*what))

    @cached_property
    def held_out(self) -> ImageSet | None:
        """Images that the network was not trained on, as many as were asked for."""
        if not self.settings.held_out:
            return None
        try:
            images = replace(self.data, limit=None).load("val")
        except InputError as error:
            console.print(f"no held-out images, which the calibration without the network and the "
                          f"yardsticks of novelty need ({error})")  # fmt: skip
            return None
        return self._some_of(images)

    def _some_of(self, images: ImageSet) -> ImageSet | None:
        """As many images as `held_out` asks for, at random, of classes that the network knows."""
        if self.network.num_classes is not None:
            label = self.settings.label
            classes = self.images.labels.unique() if label is None else torch.tensor([label])
            images = images.take(torch.isin(images.labels, classes).nonzero().flatten())
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        chosen = order[: self.settings.held_out].sort().values
        return images.take(chosen) if len(chosen) else None

    def _calibrate_on_data(self) -> Scales | None:
        """The first machine's scale that denoises held-out images best, without the network."""
        settings, machine = self.settings, self._machine(self.kinds[0], None)
        conditional, held_out = self.network.num_classes is not None, self.held_out
        if held_out is None:
            return None
        count, candidates = len(held_out), self.scaled[machine.kind]
        what = ("data", machine.kind, candidates, settings.steps, held_out.fingerprint())

        def compute(some: Sequence[int], advance: Callable[[int], None]) -> Tensors:
            part = held_out.take(torch.tensor(some))
            points = data_points(
                to_float(part.pixels).to(self.device), seeds=some, t=self._times,
                schedule=self.network.schedule,
            )  # fmt: skip
            return {
                "table": criterion_table(
                    points,
                    machine,
                    candidates=candidates,
                    criterion="mse",
                    label=_to(part.labels, self.device) if conditional else None,
                    schedule=self.network.schedule,
                    on_step=advance,
                )
            }

        parts = self._by_batch(
            f"calibrating {machine.kind} on images", what, range(count), settings.steps, compute
        )
        return choose_scales(
            torch.cat([part["table"] for part in parts], dim=-1), machine=machine,
            criterion="mse", seeds=range(count), candidates=candidates, t=self._times,
        )  # fmt: skip

    def _probe(self, seeds: Sequence[int]) -> Probes:
        """What the network looks at, and whether it knows where it is, at the x of calibration."""
        noise, labels = self._starts(seeds)
        labels, schedule = _to(labels, self.device), self.network.schedule
        path = list(ddim_steps(
            self.network, noise.to(self.device), steps=self.settings.steps, label=labels,
            schedule=schedule,
        ))  # fmt: skip
        key = self._key("probes", self.settings.steps, self.settings.label, list(seeds))
        mine = len(self.work.share(len(path))) * len(seeds)
        with progress("probing the network", mine) as advance:
            parts = self.work.all({
                f"probe-{key}-{step.i}": partial(_probe_at, self.network, step, labels, advance)
                for step in path
            })  # fmt: skip
        shares = tuple(tuple(part["shares"].tolist()) for part in parts if len(part["shares"]))
        return Probes(
            parameters=self.network.parameter_count,
            receptive_field=self.network.receptive_field,
            seeds=tuple(seeds),
            t=tuple(step.t for step in path),
            shares=shares,
            equivariance=tuple(tuple(part["equivariance"].tolist()) for part in parts),
            skipped="" if shares else NO_GRADIENT,
        )

    def _tracer(self, scales: Mapping[str, Scales]) -> PatchMachine | None:
        """The machine whose patches mosaics are made of: the first that has any."""
        kinds = [kind for kind in self.kinds if kind in PATCH_KINDS]
        if not kinds or not self.settings.mosaic:
            return None
        return self._machine(kinds[0], scales[kinds[0]])

    def _sample(
        self,
        name: str,
        denoiser: Denoiser,
        seeds: Sequence[int],
        steps: int,
        tracer: PatchMachine | None,
    ) -> Walk:
        """Sample from every seed; trace the tracer's path, and the end of the network's like it."""
        estimated = isinstance(denoiser, PatchMachine) and self.settings.tolerance > 0
        tolerance = self.settings.tolerance if estimated else 0
        traced = tracer is not None and (
            steps == self.settings.steps if name == NETWORK else name == tracer.kind
        )
        tracer = tracer if traced else None
        by = tracer and (tracer.kind, _fitted(tracer))
        what = ("paths", name, steps, _fitted(denoiser), tolerance, by)

        def compute(some: Sequence[int], advance: Callable[[int], None]) -> Tensors:
            noise, labels = self._starts(some)
            recording = Recording(denoiser, tracer, every_time=name != NETWORK and not estimated)
            found = ddim_paths(
                recording, noise.to(self.device), steps=steps, batch=len(some),
                label=_to(labels, self.device), schedule=self.network.schedule, on_step=advance,
            )  # fmt: skip
            return {
                "samples": found.samples.cpu(),
                "x0_hats": found.x0_hats.cpu(),
                "seen": torch.stack(recording.seen),
                **recording.traces(),
            }

        parts = self._by_batch(f"sampling {name}, {steps} steps", what, seeds, steps, compute)
        found = {key: torch.cat([part.pop(key) for part in parts], dim=int(key != "samples"))
                 for key in list(parts[0])}  # fmt: skip
        seen = found.pop("seen")
        if estimated:
            _print_seen(name, seen)
        paths = Paths(samples=found.pop("samples"), x0_hats=found.pop("x0_hats"))
        times = self.network.schedule.timesteps(steps)[:-1].tolist()
        return Walk(
            paths, Mosaic.of(tuple(times[-len(found["best"]) :]), found) if traced else None
        )

    def _attribution(
        self, order: Sequence[int], every: Mapping[str, Walk], tracer: PatchMachine | None
    ) -> Attribution:
        """Where samples of the same number of steps come from: the network's and the machines'."""
        mosaics = {name: walk.mosaic for name, walk in every.items() if walk.mosaic is not None}
        sides = tuple(dict.fromkeys([NETWORK, self.kinds[0], *mosaics]))
        samples = {name: every[name].paths.samples for name in sides}
        real = {HELD_OUT: self.held_out, COPIES: self._some_of(self.images)}
        real = {name: images for name, images in real.items() if images is not None}
        samples |= {name: to_float(images.pixels) for name, images in real.items()}
        return Attribution(
            subject=self.kinds[0],
            machine=None if tracer is None else tracer.kind,
            mosaics=mosaics,
            novelty={name: self._novelty(name, x) for name, x in samples.items()},
            paths={name: to_uint8(every[name].paths.x0_hats) for name in sides},
            training=shown_images(self.images, mosaics.values(), order) if mosaics else None,
            yardsticks={} if tracer is None else {
                name: self._trace_images(name, images, tracer) for name, images in real.items()
            },
        )  # fmt: skip

    def _trace_images(self, name: str, images: ImageSet, tracer: PatchMachine) -> Mosaic:
        """The mosaics of real images at the last of the machines' times."""
        last, conditional = self._times[-1], self.network.num_classes is not None

        def compute(some: Sequence[int], advance: Callable[[int], None]) -> Tensors:
            part = images.take(torch.tensor(some))
            (point,) = data_points(
                to_float(part.pixels).to(self.device), seeds=some, t=[last],
                schedule=self.network.schedule,
            )  # fmt: skip
            t = point.x.new_full((len(some),), last, dtype=torch.float64)
            label = _to(part.labels, self.device) if conditional else None
            found = trace(tracer, point.x, t, label)[1]
            advance(len(some))
            return {key: value[None] for key, value in found.items()}

        what = ("yardstick", name, images.fingerprint(), tracer.kind, _fitted(tracer), last)
        parts = self._by_batch(f"tracing {name}", what, range(len(images)), 1, compute)
        found = {key: torch.cat([part[key] for part in parts], dim=1) for key in parts[0]}
        return Mosaic.of((last,), found)

    def _novelty(self, name: str, samples: Tensor) -> Novelty:
        """The nearest training images of samples."""
        digest = hashlib.sha256(samples.contiguous().numpy()).hexdigest()

        def compute(some: Sequence[int], advance: Callable[[int], None]) -> Tensors:
            x = samples[torch.tensor(some)].to(self.device)
            return nearest_images(x, self.images.pixels, on_step=advance).tensors()

        parts = self._by_batch(
            f"nearest images of {name}", ("novelty", name, digest), range(len(samples)), 1, compute
        )
        return Novelty(**{key: torch.cat([part[key] for part in parts]) for key in parts[0]})

    def _by_batch(
        self,
        description: str,
        what: tuple[object, ...],
        seeds: Sequence[int],
        steps: int,
        compute: Callable[[Sequence[int], Callable[[int], None]], Tensors],
    ) -> list[Tensors]:
        """Results of `compute` for each batch of seeds, shared out over the processes."""
        size = min(self.settings.batch, math.ceil(len(seeds) / self.work.world))
        batches = [seeds[start : start + size] for start in range(0, len(seeds), size)]
        mine = sum(len(batches[i]) for i in self.work.share(len(batches)))
        with progress(description, mine * steps) as advance:
            return self.work.all({
                f"{what[1]}-{self._key(*what, self.settings.label, list(some))}": partial(
                    compute, some, advance
                )
                for some in batches
            })  # fmt: skip

    def _key(self, *parts: object) -> str:
        """A name for what is computed from this checkpoint, these images and `parts`."""
        # The description tells apart what one file of weights can be loaded as.
        loaded = (self.checkpoint_hash, self.network.facts.description)
        made_by = (_RESULTS_VERSION, self.settings.symmetries)
        content = json.dumps([*loaded, self.data_hash, *made_by, *parts])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def _context(self) -> dict[str, object]:
        """What the results were made from, for the record and to know them again."""
        data, settings, shape = self.data, self.settings, self.images.image_shape
        return {
            "run": settings.folder.name,
            "data": {**asdict(data), "images": len(self.images), "shape": list(shape),
                     "sha256": self.data_hash},
            "network": self.network.facts.description,
            "checkpoint": {"path": settings.checkpoint, "sha256": self.checkpoint_hash},
            "training": _training(settings.checkpoint),
            "settings": {
                "machines": list(self.kinds), "sizes": self.sizes, "scales": self.scaled,
                "held_out": settings.held_out, "symmetries": list(settings.symmetries),
                "criterion": settings.criterion, "seeds": settings.seeds,
                "calibration_seeds": settings.calibration_seeds, "steps": settings.steps,
                "tolerance": settings.tolerance,
                "network_steps": settings.network_steps, "label": settings.label,
            },
            "versions": {
                "results": _RESULTS_VERSION,
                **{name: version(name) for name in ("torch", "pytorch-lightning", "numpy")},
            },
        }  # fmt: skip


@dataclass(frozen=True)
class Walk:
    """Sampling paths, and where their samples come from if they were traced."""

    paths: Paths
    mosaic: Mosaic | None


class Recording:
    """A denoiser that keeps what is to be known of each answer.

    Attributes:
        denoiser: what answers.
        tracer: the machine to trace answers with; None for none.
        every_time: whether the tracer is the denoiser itself, so that every answer can be traced at
            no further cost; else only the latest is.
        seen: the share of the images that each answer took (b,).
    """

    def __init__(
        self, denoiser: Denoiser, tracer: PatchMachine | None, *, every_time: bool
    ) -> None:
        self.denoiser = denoiser
        self.tracer = tracer
        self.every_time = every_time
        self.seen: list[Tensor] = []
        self._traces: list[Tensors] = []
        self._latest: tuple[Tensor, Tensor, Tensor | None] | None = None

    def traces(self) -> Tensors:
        """The fields of `Mosaic` at each traced time (m b ...); none without a tracer."""
        if self.tracer is None:
            return {}
        found = self._traces or [trace(self.tracer, *self._latest)[1]]
        return {name: torch.stack([one[name] for one in found]) for name in found[0]}

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """See `els.denoiser.Denoiser`."""
        machine = self.denoiser
        self._latest = (x, t, label)
        if self.tracer is not None and self.every_time:
            self.seen.append(torch.ones(len(x)))
            x0_hat, found = trace(self.tracer, x, t, label)
            self._traces.append(found)
            return x0_hat
        if isinstance(machine, PatchMachine) and machine.tolerance:
            estimate = machine.estimate(x, t, label)
            self.seen.append(estimate.seen)
            return estimate.mean
        self.seen.append(torch.ones(len(x)))
        return machine(x, t, label)


def _fitted(denoiser: Denoiser) -> object:
    """What a machine's answers depend on beside its images, as plain data."""
    if isinstance(denoiser, Mixture):
        return [denoiser.names, denoiser.weights.weights]
    return denoiser.value.values if isinstance(denoiser, Machine) and denoiser.value else None


@cache
def _launched(accelerator: str, devices: int, num_nodes: int) -> Fabric:
    """The processes, started once however many networks they analyse."""
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy="ddp")
    fabric.launch()
    return fabric


def _probe_at(
    network: Denoiser, step: Step, label: Tensor | None, advance: Callable[[int], None]
) -> Tensors:
    """Both probes at one step of the network's path."""
    query = (network, step.x, step.x.new_full((len(step.x),), step.t, dtype=torch.float64), label)
    try:
        shares = shares_held(effective_receptive_field(*query)).cpu()
    except InputError:  # without a gradient; equivariance can still be measured
        shares = torch.empty(0)
    found = {"shares": shares, "equivariance": equivariance_error(*query)}
    advance(len(step.x))
    return found


def _print_seen(name: str, seen: Tensor) -> None:
    """How much of the images each step took (steps n), t = 1 first."""
    steps = len(seen)
    shares = (f"{1 - i / steps:.2f}: {float(row.mean()):.0%}" for i, row in enumerate(seen))
    console.print(f"{name} compared with, at t  " + "  ".join(shares))


def _agreement_by_t(machine: Paths, network: Paths) -> Tensor:
    """pearson_r of the x0_hats at every step (steps n)."""
    return torch.stack([
        agreement(a, b)["pearson_r"]
        for a, b in zip(machine.x0_hats, network.x0_hats, strict=True)
    ])  # fmt: skip


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device '{name}' is not available here: {str(error)[:120]}") from error


def _data(network: NetworkDenoiser, settings: Settings) -> DataSpec:
    """The training images: as the checkpoint says, or else as the settings do.

    Raises:
        InputError: when neither says it, or both do and differ.
    """
    known, name = network.data, settings.data_name
    if known is not None:
        if name not in (None, known.name):
            raise InputError(f"--data_name is '{name}', but the checkpoint says that it was "
                             f"trained on '{known.name}'; leave it out")  # fmt: skip
        return known
    if name is None:
        raise InputError(
            f"'{settings.checkpoint}' does not say which images it was trained on; name them, such "
            f"as --data_name cifar10 --data_root path/to/data (known are {', '.join(DATASETS)})"
        )
    channels, height, width = network.image_shape
    if height != width:
        raise InputError(f"the network draws images of {height} x {width} pixels; data sets are "
                         "loaded as squares")  # fmt: skip
    return DataSpec(name, root=settings.data_root or "data", size=height, channels=channels)


def _training(checkpoint: str) -> dict[str, str]:
    """The training run's configuration, where it lies beside the checkpoint."""
    path = Path(checkpoint)
    for folder in (path.parent.parent, path.parent, path):
        if (config := folder / "config.yaml").is_file():
            return {"config": str(config), "text": config.read_text()}
    return {}


def _check_label(label: int | None, num_classes: int | None) -> None:
    if label is None:
        return
    if num_classes is None:
        raise InputError(f"label {label} was given, but the network is not class-conditional")
    if not 0 <= label < num_classes:
        raise InputError(f"label {label} is out of range; the network knows 0..{num_classes - 1}")


def _to(labels: Tensor | None, device: torch.device) -> Tensor | None:
    return None if labels is None else labels.to(device)


def _peak_gigabytes() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


# --- Weights & Biases -----------------------------------------------------------------------


def log_to_wandb(results: Results, settings: Settings, files: Sequence[Path]) -> None:
    """Log an analysis as a run of the training run's group, with its files as artifacts."""
    folder = settings.folder
    run = wandb.init(
        **wandb_settings(folder.name, folder, settings.project, "analysis"),
        config={**asdict(settings), **results.context},
    )
    run.define_metric("analysis/t")
    run.define_metric("analysis/*", step_metric="analysis/t")
    for row in time_rows(results):
        run.log({f"analysis/{name}": value for name, value in row.items()})
    # What is logged is in the summary too; a sweep's metric may come from either.
    run.log({
        **content.content(results, files), **content.agreement_numbers(results),
        **content.novelty_numbers(results),
    })  # fmt: skip
    run.summary.update(content.network_numbers(results))
    source = use_checkpoint(run, settings)
    *scales, whole = content.artifacts(results, files, name=folder.name, checkpoint=source)
    logged = [run.log_artifact(artifact) for artifact in scales]
    linked = bool(scales) and run.settings.mode == "online"
    if linked:  # the report follows from the scales, so that a run of its own has them as input
        logged = [artifact.wait() for artifact in logged]
    else:
        run.log_artifact(whole)
    print_run_link(run, console.print)
    run.finish()
    if linked:
        named = wandb_settings(folder.name, folder, settings.project, "report")
        # An id of its own, also where the environment gives the run of a sweep its id.
        with wandb.init(**named, id=secrets.token_hex(4)) as after:
            after.use_artifact(logged[0])
            after.log_artifact(whole)


def use_checkpoint(run: wandb.sdk.wandb_run.Run, settings: Settings) -> str | None:
    """Make the checkpoint's artifact an input of the run; its name, or None where it has none.

    Offline, where a run cannot have inputs, the name is the one under which training logs it.
    """
    named = is_artifact(settings.checkpoint)
    if named:
        name = settings.checkpoint.removeprefix(PREFIX)
    elif find_checkpoint(settings.checkpoint).suffix == ".ckpt":
        name = checkpoint_name(replace(settings, out=None).home.name)
    else:
        return None
    if run.settings.mode != "online":
        return name
    try:
        collection = f"{run.entity}/{run.project}/{name}"
        used = name if named else version_of(find_checkpoint(settings.checkpoint), collection)
        return run.use_artifact(used).qualified_name
    except Exception as error:  # the lineage is an extra, whatever W&B answers
        console.print(f"W&B shows this run without its checkpoint '{name}' ({reason(error)})")
        return None


# --- entry point ----------------------------------------------------------------------------


def report(results: Results, settings: Settings) -> list[Path]:
    """Write figures, tables and the page beside the results; returns all the paths."""
    folder = settings.folder / "analysis"
    figures = write_figures(results, folder, formats=settings.formats)
    write_page(results, folder / "report.html")
    write_csv(folder / "per_seed.csv", seed_rows(results))
    write_csv(folder / "per_t.csv", time_rows(results))
    return [
        folder / "report.html", *sorted(folder.glob("*scales*.json")),
        *folder.glob("network.json"), *folder.glob("weights.json"), folder / "agreement.json",
        folder / "samples.npz", *folder.glob("origins.npz"), folder / "per_seed.csv",
        folder / "per_t.csv", *figures,
    ]  # fmt: skip


def _introduction(analysis: Analysis) -> dict[str, str]:
    """What is about to be analysed, as labels and values."""
    network, settings = analysis.network, analysis.settings
    images = plural(len(analysis.images), "image")
    c, h, w = analysis.images.image_shape
    judged = settings.seeds - settings.calibration_seeds
    steps = " and ".join(map(str, settings.network_steps))
    return {
        # Its numbers have rows of their own.
        "network": ", ".join(network.facts.description.split(", ")[:3]),
        "parameters": f"{network.parameter_count:,}",
        "receptive field": field_text(network.receptive_field),
        "images": f"{analysis.data.name}, {images}, {c} x {h} x {w}",
        "machines": ", ".join(analysis.kinds),
        "seeds": f"{settings.calibration_seeds} to calibrate on, {judged} to compare",
        "steps": f"network {steps}, machines {settings.steps}",
        "engine": f"{analysis.engine} on {analysis.device}",
        "results": str(analysis.folder),
    }


def analyse(settings: Settings) -> Results:
    """One network: measured, or taken from an earlier analysis, and reported by one process."""
    analysis = Analysis(settings)
    console.print(key_values(_introduction(analysis)))
    results = analysis.reusable()
    if results is not None:
        console.print("This analysis was finished before; --force true computes it again.")
    else:
        analysis.share_out()
        results = analysis.run()
    if rank_zero_only.rank:
        return results
    console.print("writing the report ...")
    files = report(results, settings)
    summary = results.summary()
    if results.probes is not None:
        console.print(probes_text(results.probes))
    console.print(f"peak memory {_peak_gigabytes():.2f} GB")
    for block in (summary, *summary["other_steps"]):
        console.print(agreement_table({"seeds": summary["seeds"], **block}))
    if results.scales:
        console.print(ScaleCurves(results.scales))
    for file in files:
        console.print(str(file))
    if settings.logger == "wandb":
        log_to_wandb(results, settings, files)
    if settings.open_page and _has_desktop():
        webbrowser.open(files[0].resolve().as_uri())
    return results


def _has_desktop() -> bool:
    """Whether a browser would have a window; without one, some open in the terminal instead."""
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, displays))


def compare(results: Sequence[Results], settings: Sequence[Settings]) -> None:
    """One row a network, one column a machine: printed, as CSV, as figures, and to W&B."""
    folder = Path(settings[0].out).parent if settings[0].out else Path("runs")
    folder = folder / "comparison"
    folder.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(tuple(results))
    console.print(comparison.table(console.width))
    files = comparison.write(folder, formats=settings[0].formats)
    for file in files:
        console.print(str(file))
    if settings[0].logger == "wandb":
        run = wandb.init(
            **wandb_settings("comparison", folder, settings[0].project, "comparison"),
            config={"checkpoints": [one.checkpoint for one in settings]},
        )
        rows = comparison.rows()
        run.log({
            "comparison": wandb.Table(
                columns=list(rows[0]), data=[list(row.values()) for row in rows]
            ),
            **{f"comparison/{file.stem}": wandb.Image(str(file))
               for file in files if file.suffix == ".png"},
            **{file.stem: wandb.Html(str(file), inject=False)
               for file in files if file.suffix == ".html"},
        })  # fmt: skip
        print_run_link(run, console.print)
        run.finish()


def draw_figures(args: Sequence[str]) -> list[Path]:
    """Draw the figures of finished analyses again, from what is saved alone; returns the paths."""
    parser = Parser(description=draw_figures.__doc__.split(";")[0], prog="analyze.py figures")
    parser.add_argument("runs", nargs="+", type=str, help="runs' folders, such as runs/digits")
    parser.add_argument("--formats", default="png", help=f"some of {', '.join(FORMATS)}: pdf,png")
    parser.add_argument("--out", type=str | None, help="a folder; beside the results unless told")
    options = parser.parse_args(args)
    formats, runs = chosen_formats(options.formats), [Path(run) for run in options.runs]
    every = [Results.load(run / "analysis") for run in runs]
    names = _told_apart([run.resolve().name for run in runs])
    several, paths = len(runs) > 1, []
    for run, name, results in zip(runs, names, every, strict=True):
        folder = run / "analysis"
        if options.out is not None:
            folder = Path(options.out, name) if several else Path(options.out)
        paths += write_figures(results, folder, formats=formats)
    if several:
        folder = Path(options.out or runs[0].parent, "comparison")
        paths += Comparison(tuple(every)).write_figures(folder, formats=formats)
    for path in paths:
        console.print(str(path))
    return paths


def _told_apart(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise InputError(f"the runs are not told apart by their names: {names}")
    return names


# What stands in for an analysis when it is the first argument; called with the other arguments.
_COMMANDS: dict[str, Callable[[Sequence[str]], object]] = {
    "figures": draw_figures,
    "dashboard": dashboard.main,
}


def main(args: Sequence[str] | None = None) -> object:
    """Run the command line; `args` stands in for sys.argv in tests.

    Returns:
        the results, a list of them for several checkpoints; or what a command returns.
    """
    args = list(sys.argv[1:] if args is None else args)
    if args and args[0] in _COMMANDS:
        return _COMMANDS[args[0]](args[1:])
    console.quiet = rank_zero_only.rank > 0
    parser = Parser(description=__doc__)
    parser.add_argument("-c", "--config", action="config", help="a YAML file of these options")
    parser.add_argument(
        "--checkpoint", nargs="+", type=str, required=True,
        help="what train.py wrote, wandb:entity/project/name:alias, a network of the paper's code, "
        "or a folder of diffusers; several are compared",
    )  # fmt: skip
    parser.add_class_arguments(Settings, None, skip={"checkpoint"})
    options = parser.parse_args(args).as_dict()
    del options["config"]
    checkpoints = options.pop("checkpoint")
    every = [Settings(checkpoint=checkpoint, **options) for checkpoint in checkpoints]
    if len(every) == 1:
        return analyse(every[0])
    if options["out"] is not None:
        every = [
            replace(one, out=str(Path(options["out"]) / replace(one, out=None).home.name))
            for one in every
        ]
    _told_apart([one.folder.name for one in every])
    results = [analyse(one) for one in every]
    if not rank_zero_only.rank:
        compare(results, every)
    return results


if __name__ == "__main__":
    with exit_cleanly():
        main()
