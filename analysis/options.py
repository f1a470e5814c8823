"""The command line of an analysis as plain data, in four groups."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from els.engines.dispatch import EngineName
from els.errors import InputError, check_between
from els.machines.base import Symmetry
from els.models.checkpoints import find_checkpoint
from els.models.formats.loaded import Prediction, RangeName, ScheduleName, Which
from els.models.processes import check_nodes
from els.models.snapshots import is_snapshot
from els.models.sources import name_of
from els.models.tracking import LoggerName, name_in_sweep
from els.schedule import MOST_STEPS

_MOST_SEEDS, _MOST_PROCESSES = 1_000_000, 1024
FORMATS = ("png", "pdf", "svg")
STEPS, LOCALITY_STEPS = 20, 10  # of both sides, where nothing is said and by protocol locality


@dataclass(frozen=True)
class Source:
    """What is analysed.

    Attributes:
        checkpoint: a checkpoint that train.py wrote, wandb:entity/project/name:alias, a pickle of
            EDM, a network of the paper's code, a state dict in a container of training, a file of
            lucidrains' Trainer, a folder of diffusers, hf:owner/name, zoo:name, or
            python:my_net.py:load, which runs that code; see `els.models.checkpoints`.
        data_name: the data set that the network was trained on, when its checkpoint does not
            say: one of `els.images.DATASETS`.
        data_root: where the training images are now, if not where they were.
        verify_data: refuse to go on when they are not the images that were trained on.
        padding: "zeros" or "circular", for a state dict or a function, which do not say.
        image_size: height and width in pixels, for a network of the paper's code; default: what
            its file says, or 32.
        weights: "ema" (averaged) or "online", of a file that has both; default: averaged.
        prediction: what a network of discrete steps predicts, "eps", "v" or "x0", when its file
            does not say.
        schedule: the noise of its steps, "linear", "scaled_linear" or "cosine", likewise.
        image_range: the values of black and white that a network of others was trained on: "signed"
            (-1 and 1; default) or "unit" (0 and 1).
        self_check: what is done where a network denoises badly as it is declared, and another
            reading of it does clearly better: "error" stops, "warn" says so, "off" checks nothing.
        twin: checkpoints of networks that were trained as this one but from other seeds
            (`train.py fit --run.twin_of`): how well they predict it is what machines are
            measured against.
    """

    checkpoint: str
    data_name: str | None = None
    data_root: str | None = None
    verify_data: bool = True
    padding: Literal["zeros", "circular"] | None = None
    image_size: int | None = None
    weights: Which | None = None
    prediction: Prediction | None = None
    schedule: ScheduleName | None = None
    image_range: RangeName | None = None
    self_check: Literal["error", "warn", "off"] = "error"
    twin: list[str] = field(default_factory=list)

    @property
    def part(self) -> str:
        """Which of the checkpoints of one run this is, such as "best"; "" for the last, or one."""
        if name_of(self.checkpoint) is not None:
            return ""
        path = find_checkpoint(self.checkpoint)
        if is_snapshot(path):
            return path.name
        several = path.parent.name == "checkpoints" and path.stem != "last"
        return path.stem if several else ""

    @property
    def home(self) -> Path:
        """The run's folder where nothing else is said: that of a .ckpt, or runs/<name>."""
        if (name := name_of(self.checkpoint)) is not None:
            return Path("runs", name)
        path = find_checkpoint(self.checkpoint)
        if is_snapshot(path):
            return path.parent.parent
        if path.is_dir():
            folder = path.resolve()
            state = folder.name.startswith("checkpoint-")  # of a training script of diffusers
            return Path("runs", f"{folder.parent.name}-{folder.name}" if state else folder.name)
        if path.suffix != ".ckpt":
            return Path("runs", path.stem)
        return path.parent.parent if path.parent.name == "checkpoints" else path.parent


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how: everything that may change a number, and nothing else.

    Attributes:
        machines: kinds to compare, the one that should fit first, or "all"; default: `boundary` for
            a zero-padded network or `equivariant` for a circular one, then `local` and `ideal`.
        sizes: odd patch sizes to calibrate over; default: 3, 5, ..., 17, as far as they fit. Other
            scales have values of their own to try.
        symmetries: "flip" and "turns" add the mirrored and the quarter-turned images to the patch
            machines' dictionaries, for networks trained with such augmentation.
        held_out: number of held-out images on which the first machine's scale is also fitted
            without the network, as far as there are any; 0 leaves that out, and yardsticks too.
        yardsticks: number of held-out and of training images that the novelty of samples is
            compared with; at least as many as `held_out`.
        criterion: "cosine" or "l2"; see `els.calibration`.
        seeds: number of seeds, 0 .. seeds - 1.
        calibration_seeds: how many of them, the first, the scales are fitted on; agreement is
            measured on the others.
        steps: DDIM steps of the machines, and of the path that they are calibrated on.
        network_steps: DDIM steps of the network; the first count is the main result.
        label: one class for every seed; default: a random class for each seed of a conditional
            network.
        tolerance: root mean square error of x0_hat (in pixel units, images in [-1, 1]) that is good
            enough when machines are sampled; 0 compares with every training patch. "auto" is 0
            where that takes two cores less than about two minutes, and 0.01 above.
        denoising: number of held-out and of training images on which the error of x0_hat is
            measured at every t, of the network and of every machine; 0 leaves that out.
        same_x: number of seeds and of held-out images on which network and machines are asked at
            the same x; 0 leaves that out.
        protocol: "locality" samples as locality-in-diffusion-models does, to compare with its
            tables: ten DDIM steps, 900, 800, ..., 0 of 1,000 linear betas, x0_hat clamped in each,
            and its score beside the others; it sets `steps` and `network_steps` to 10.
        clip: clamp x0_hat of the network and the machines to the data's range in every step, as
            many samplers do.
        mosaic: find out where samples come from: the winning training patch of every pixel, and
            the nearest training images.
        refit: of snapshots along training: also fit the scales to each of them; else those of the
            last one are taken, which costs the networks' part alone.
        information: number of seeds, the first that scales are fitted on, on whose paths the
            entropy of each patch machine's posterior is measured at every scale: over how many
            patches it averages, and from which scale on it memorises; 0 leaves that out.
    """

    machines: Literal["all"] | list[str] | None = None
    sizes: list[int] | None = None
    symmetries: list[Symmetry] = field(default_factory=list)
    held_out: int = 4
    yardsticks: int = 16
    criterion: Literal["cosine", "l2"] = "cosine"
    seeds: int = 40
    calibration_seeds: int = 8
    steps: int = STEPS
    network_steps: list[int] = field(default_factory=lambda: [STEPS])
    label: int | None = None
    tolerance: float | Literal["auto"] = "auto"
    denoising: int = 0
    same_x: int = 0
    protocol: Literal["default", "locality"] = "default"
    clip: bool = False
    mosaic: bool = True
    refit: bool = True
    information: int = 0

    def __post_init__(self) -> None:
        if self.protocol == "locality":
            self._take_locality()
        for name in ("calibration_seeds", "yardsticks"):
            check_between(name, getattr(self, name), 1)
        if self.tolerance != "auto" and not 0 <= self.tolerance < math.inf:
            raise InputError(f"tolerance is {self.tolerance}; give auto, or an error of at least 0")
        for name in ("held_out", "denoising", "same_x"):
            check_between(name, getattr(self, name), 0)
        if not 0 <= self.information <= self.calibration_seeds:
            raise InputError(
                f"information is {self.information}; give 0 to {self.calibration_seeds} seeds, as "
                "many as scales are fitted on"
            )
        if not self.network_steps or not all(1 <= n <= MOST_STEPS for n in self.network_steps):
            raise InputError(
                f"network_steps is {self.network_steps}; give counts of at least 1 and at most "
                f"{MOST_STEPS:,}"
            )
        check_between("seeds", self.seeds, 1, _MOST_SEEDS)
        check_between("steps", self.steps, 1, MOST_STEPS)
        if self.machines == []:
            raise InputError("machines is []; name at least one, or all, or leave it out")
        if self.sizes == []:
            raise InputError("sizes is []; give odd numbers such as 3,5,7, or leave it out")
        if self.calibration_seeds >= self.seeds:
            raise InputError(
                f"no seeds are left for agreement: {self.calibration_seeds} of {self.seeds} are "
                "used for calibration; raise --seeds or lower --calibration_seeds"
            )

    def _take_locality(self) -> None:
        """Set what the protocol of locality-in-diffusion-models sets; refuse anything else."""
        for name, usual, own in (
            ("steps", STEPS, LOCALITY_STEPS),
            ("network_steps", [STEPS], [LOCALITY_STEPS]),
            ("clip", False, False),
        ):
            if getattr(self, name) not in (usual, own):
                raise InputError(
                    f"{name} is {getattr(self, name)} with protocol locality, which has "
                    f"{LOCALITY_STEPS} steps on both sides and clamps x0_hat itself; leave it out"
                )
            object.__setattr__(self, name, own)
        if self.same_x:
            # From clamped answers paths cannot be walked again without asking.
            raise InputError(
                f"same_x is {self.same_x} with protocol locality, whose steps clamp x0_hat; give "
                "--same_x 0, or ask at the same x by the default protocol"
            )

    @property
    def real_images(self) -> int:
        """How many held-out images, and training images beside them, are wanted."""
        return max(self.held_out, self.yardsticks) if self.held_out else 0

    @property
    def unseen_images(self) -> int:
        """How many held-out images are wanted for anything."""
        return max(self.real_images, self.denoising, self.same_x)

    @property
    def calibration(self) -> range:
        """The seeds that scales and weights are fitted on."""
        return range(self.calibration_seeds)

    @property
    def evaluation(self) -> range:
        """The seeds that agreement is measured on."""
        return range(self.calibration_seeds, self.seeds)

    @property
    def all_network_steps(self) -> list[int]:
        """The counts of steps that the network is sampled with: also that of the machines."""
        return list(dict.fromkeys([*self.network_steps, self.steps]))


@dataclass(frozen=True)
class Compute:
    """On what it is computed, which never changes a result beyond rounding.

    Attributes:
        batch: seeds at a time.
        engine: "native" (compiled, on the CPU), "triton" (compiled, on a GPU), "torch" (any device)
            or "auto", the fastest that works here.
        chunk: training images at a time; default: chosen by memory.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        devices: processes on each node, which share the seeds; each takes a GPU or its part of
            the cores.
        num_nodes: nodes, when started by torchrun or SLURM; they must see the same folder.
        dry_run: say what is to be done and how long it will take, and stop there.
        force: replace a finished analysis: one of other settings, of which the parts that are the
            same are kept; one of the same settings is computed again.
    """

    batch: int = 16
    engine: EngineName = "auto"
    chunk: int | None = None
    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    dry_run: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        check_between("batch", self.batch, 1)
        check_between("devices", self.devices, 1, _MOST_PROCESSES)
        check_nodes(self.num_nodes)


@dataclass(frozen=True)
class Output:
    """Where results go, and what is shown of them.

    Attributes:
        out: the run's folder, under which analysis/ is written; default: the folder of the .ckpt,
            and runs/<name> for anything else.
        name: of this analysis, which is then written to analysis-<name>/ beside others; default:
            none for last.ckpt, and the checkpoint's name for others of a run.
        figures: file formats of the figures beside png, which W&B shows: "pdf,svg".
        logger: "wandb" (online when logged in, else offline), "csv" or "none".
        project: the W&B project.
        relog: log to W&B again, as a new run, what it has already.
        open_page: show the page in a browser when it is done, where there is a desktop.
    """

    out: str | None = None
    name: str | None = None
    figures: list[str] | str = "png"
    logger: LoggerName = "wandb"
    project: str = "els"
    relog: bool = False
    open_page: bool = False

    def __post_init__(self) -> None:
        chosen_formats(self.figures)
        if self.out is not None and (not self.out or "\0" in self.out):
            raise InputError(f"out is {self.out!r}; give the name of a folder, or leave it out")
        if self.name is not None and not re.fullmatch(r"\w[\w.-]*", self.name):
            raise InputError(
                f"name is '{self.name}'; it becomes a folder, analysis-<name>: give letters, "
                "digits, -, _ or ."
            )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the figures; W&B shows the PNGs."""
        return tuple(dict.fromkeys(("png", *chosen_formats(self.figures))))

    def folder(self, source: Source) -> Path:
        """The run's folder; in a sweep the run's id is added to its name."""
        home = source.home if self.out is None else Path(self.out)
        return home.with_name(name_in_sweep(home.name))

    def analysis(self, source: Source) -> Path:
        """The folder of the results."""
        name = source.part if self.name is None else self.name
        return self.folder(source) / (f"analysis-{name}" if name else "analysis")


def chosen_formats(asked: str | list[str]) -> tuple[str, ...]:
    """The file formats of figures in "pdf,png" or a list of names.

    Raises:
        InputError: when one is unknown, or there is none.
    """
    names = asked.split(",") if isinstance(asked, str) else asked
    formats = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not formats or set(formats) - set(FORMATS):
        raise InputError(
            f"figures are asked for as '{asked if isinstance(asked, str) else ','.join(asked)}'; "
            f"give one or more of {', '.join(FORMATS)}, such as pdf,png"
        )
    return formats
