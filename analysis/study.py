"""What an analysis is of: a network, its training images, and the machines made from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path

import torch

from els.analysis.answers import CEILING
from els.analysis.attribution import COPIES, HELD_OUT, NETWORK
from els.analysis.options import Compute, Protocol, Source
from els.analysis.results import FileId, Provenance, TrainingConfig
from els.analysis.self_check import self_check
from els.calibration import Scales
from els.console import console, progress
from els.engines.dictionary import inside
from els.errors import InputError, reason
from els.files import sha256_of
from els.images import DATASETS, DataSpec, ImageSet
from els.machines import MACHINES, Machine, make_machine
from els.machines.base import Number
from els.machines.local import SIZE, PatchMachine
from els.machines.mixture import Mixture
from els.machines.registry import all_for, around, default_for
from els.models.checkpoints import find_checkpoint, load_denoiser
from els.models.denoiser import NetworkDenoiser
from els.models.formats.loaded import Declared
from els.models.readings import Reading
from els.models.runs import CONFIG, is_configuration
from els.models.user_code import is_code
from els.reading import member, read_text
from els.sampling import Starts
from els.schedule import LinearSteps
from els.stacking import Weights

# Raised with every change of the code that changes results, so that old ones are not taken up.
RESULTS_VERSION = 12
# Of tolerance "auto": above so many seconds of two cores, this one.
_PATIENCE, _TOLERANCE = 120.0, 0.01
_SECONDS_PER_PAIR = 8e-10
# What stands beside the names of twins in tables and pictures.
_TAKEN = (NETWORK, HELD_OUT, COPIES, "noise", CEILING, *MACHINES)


@dataclass(frozen=True)
class Study:
    """One network, its images and machines, complete when it is made.

    Attributes:
        network: the trained network.
        images: the images that it was trained on.
        unseen: images that it was not trained on, in random order; None where there are none.
        machines: the machines, the one that is meant to predict the network first; without values
            of their scales.
        starts: where sampling starts.
        protocol: what is measured, with `machines` and `sizes` resolved.
        provenance: where all of it comes from.
        engine: the engine that the patch machines run on.
        twins: networks that were trained as this one from other seeds, by name.
    """

    network: NetworkDenoiser
    images: ImageSet
    unseen: ImageSet | None
    machines: tuple[Machine, ...]
    starts: Starts
    protocol: Protocol
    provenance: Provenance
    engine: str
    twins: Mapping[str, NetworkDenoiser] = field(default_factory=dict)

    @cached_property
    def held_out(self) -> ImageSet | None:
        """The unseen images that scales are fitted to, and that are yardsticks of novelty."""
        return self.unseen_of(self.protocol.real_images)

    def unseen_of(self, count: int) -> ImageSet | None:
        """The first of the unseen images, as many as there are; None of none."""
        if self.unseen is None or not count:
            return None
        return self.unseen.take(torch.arange(min(count, len(self.unseen))))

    @property
    def primary(self) -> Machine:
        """The machine that is meant to predict this network."""
        return self.machines[0]

    @property
    def mixture(self) -> Mixture | None:
        """The mixture, where it is among the machines."""
        return next((one for one in self.machines if isinstance(one, Mixture)), None)

    @property
    def conditional(self) -> bool:
        """Whether the network is told classes."""
        return self.network.num_classes is not None

    @cached_property
    def training_sample(self) -> ImageSet | None:
        """As many training images as there are held-out ones, as a yardstick."""
        return self.seen_of(self.protocol.real_images)

    def seen_of(self, count: int) -> ImageSet | None:
        """Training images at random, of classes that the network is asked for; None of none."""
        return _some_of(self.images, self.images, self.protocol, self.network.num_classes, count)

    @cached_property
    def wiener(self) -> Machine:
        """The Wiener filter of the training images, the same whether or not it is a machine."""
        kept = next((one for one in self.machines if one.kind == "wiener"), None)
        return kept or make_machine(
            "wiener", self.images, schedule=self.network.schedule, clip=self.protocol.clip
        )

    def estimates(self, machine: Machine) -> bool:
        """Whether the tolerance makes a machine compare with a part of the patches."""
        sizes = self.candidates(machine)
        if not (float(self.protocol.tolerance) and sizes and isinstance(machine, PatchMachine)):
            return False
        images = self.images.pixels[: len(self.images) // (self.network.num_classes or 1)]
        return machine.can_estimate(self.starts([0])[0], images, sizes[len(sizes) // 2])

    def candidates(self, machine: Machine) -> list[Number]:
        """The values of its scale that a machine is calibrated over."""
        return _candidates(machine, self.protocol.sizes or [])

    def fitted(self, scales: Mapping[str, Scales], weights: Weights | None) -> list[Machine]:
        """The machines at what was fitted, exact."""
        fits: Mapping[str, Scales | Weights | None] = scales
        if self.mixture is not None:
            fits = {**scales, self.mixture.kind: weights}
        return [machine.fitted(fits.get(machine.kind)) for machine in self.machines]

    def to(self, device: torch.device) -> Study:
        """The same study on another device, to which the network's weights are moved."""
        for network in (self.network, *self.twins.values()):
            network.net.to(device)
        return replace(self, starts=replace(self.starts, device=device))


def load_study(source: Source, protocol: Protocol, compute: Compute, *, run: str) -> Study:
    """Load everything that an analysis needs, and check that it fits together.

    Args:
        source: what is analysed.
        protocol: what is measured.
        compute: on what.
        run: the name of the run, for the record.

    Raises:
        InputError: when something is missing, or options do not fit the network.
    """
    device = _device(compute.device)
    code = is_code(source.checkpoint)
    checkpoint = source.checkpoint if code else find_checkpoint(source.checkpoint)
    network = load_network(checkpoint, source, protocol, device)
    for note in network.notes:
        console.print(note)
    _check_label(protocol.label, network.num_classes)
    data, images = _images(network, source)
    network, checked = self_check(
        network,
        images,
        source.self_check,
        partial(_read_again, checkpoint, source, protocol, device, network.declared),
    )
    if checked is not None:
        console.print(f"self-check: {checked.line}")
    kinds = _kinds(protocol, network.padding)
    machines = tuple(_machine(kind, images, network, protocol, compute) for kind in kinds)
    sizes = _sizes(protocol, machines, images)
    for machine in machines:
        _candidates(machine, sizes)
    tolerance = _tolerance(protocol, machines, images, network, sizes)
    protocol = replace(protocol, machines=list(kinds), sizes=sizes, tolerance=tolerance)
    twins = _twins(source, protocol, device, network, (data, images))
    return Study(
        network=network,
        images=images,
        unseen=_unseen(data, images, protocol, network, needed=machines[0].scale is not None),
        machines=machines,
        starts=Starts(network.image_shape, network.num_classes, protocol.label, device),
        protocol=protocol,
        provenance=Provenance(
            run=run,
            checkpoint=FileId(source.checkpoint, _digest(checkpoint, network)),
            network=network.facts,
            data=data,
            images=len(images),
            protocol=protocol,
            training=_training(source.checkpoint),
            versions=_versions(),
            trained=network.trained,
            self_check=checked,
            twins={name: one for name, (_, one) in twins.items()},
            declared=network.declared,
        ),
        engine=_engines(machines, device),
        twins={name: one for name, (one, _) in twins.items()},
    )


def _twins(
    source: Source,
    protocol: Protocol,
    device: torch.device,
    network: NetworkDenoiser,
    trained_on: tuple[DataSpec, ImageSet],
) -> dict[str, tuple[NetworkDenoiser, FileId]]:
    """The networks of other seeds by the names of their runs, and their files.

    Raises:
        InputError: when one is the network itself, or was trained on other images.
    """
    found: dict[str, tuple[NetworkDenoiser, FileId]] = {}
    known = [network.net.identity]
    for given in source.twin:
        twin = replace(source, checkpoint=given)
        code = is_code(given)
        checkpoint = given if code else find_checkpoint(given)
        data, images = trained_on
        other = load_network(checkpoint, twin, protocol, device)
        _check_twin(given, other, network, data)
        other, _ = self_check(
            other,
            images,
            source.self_check,
            partial(_read_again, checkpoint, twin, protocol, device, other.declared),
        )
        if other.net.identity in known:
            raise InputError(
                f"the twin '{given}' has the weights of another of these networks; give one that "
                "was trained from another seed (train.py fit --run.twin_of makes it)"
            )
        if other.facts != network.facts:
            console.print(
                f"'{given}' is another network ({other.facts.description}, not "
                f"{network.facts.description}): agreement with it is no ceiling of this one"
            )
        known.append(other.net.identity)
        name = _free_name(twin.home.name, {*_TAKEN, *found})
        found[name] = (other, FileId(given, _digest(checkpoint, other)))
    return found


def _free_name(name: str, taken: Collection[str]) -> str:
    """The name, or that with a number where it stands for something else."""
    numbered = (f"{name} ({number})" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def _check_twin(
    given: str, twin: NetworkDenoiser, network: NetworkDenoiser, data: DataSpec
) -> None:
    """Refuse a network that cannot be compared with the one that is analysed."""
    for what in ("image_shape", "num_classes", "schedule"):
        theirs, ours = getattr(twin, what), getattr(network, what)
        if theirs != ours:
            raise InputError(f"the {what} of the twin '{given}' is {theirs}, the network's {ours}")
    fingerprint = twin.data.fingerprint if twin.data is not None else None
    if fingerprint and data.fingerprint and fingerprint != data.fingerprint:
        raise InputError(
            f"the twin '{given}' was trained on other images than the network; a twin differs by "
            "its seed alone"
        )


def load_network(
    checkpoint: str | Path, source: Source, protocol: Protocol, device: torch.device
) -> NetworkDenoiser:
    """The network of a checkpoint, read and asked as the options say."""
    network = load_denoiser(
        checkpoint,
        device=device,
        data_root=source.data_root,
        padding=source.padding,
        image_size=source.image_size,
        weights=source.weights,
        prediction=source.prediction,
        schedule=source.schedule,
        image_range=source.image_range,
    )
    if protocol.protocol == "locality":
        network = network.with_schedule(LinearSteps(network.schedule.offset))
    return network.clipped() if protocol.clip else network


def _read_again(
    checkpoint: str | Path,
    source: Source,
    protocol: Protocol,
    device: torch.device,
    declared: Declared | None,
    reading: Reading,
) -> NetworkDenoiser:
    """The network by another reading, in what its file leaves open."""
    assumed = declared.assumed if declared else ()
    read = replace(
        source,
        prediction=reading.prediction if "prediction" in assumed else source.prediction,
        schedule=reading.schedule if "schedule" in assumed else source.schedule,
        image_range=reading.range_name if "image_range" in assumed else source.image_range,
    )
    return load_network(checkpoint, read, protocol, device)


def _digest(checkpoint: str | Path, network: NetworkDenoiser) -> str:
    """Of the checkpoint; of a network that a function gave, of its code and weights."""
    if isinstance(checkpoint, Path):
        return sha256_of(checkpoint)
    return hashlib.sha256(json.dumps(network.net.identity).encode()).hexdigest()


def _images(network: NetworkDenoiser, source: Source) -> tuple[DataSpec, ImageSet]:
    """The training images, and where they come from with their fingerprint."""
    data = _data(network, source)
    images = data.load("train", progress=progress)
    if images.image_shape != network.image_shape:
        raise InputError(
            f"the training images have shape {images.image_shape}, the network "
            f"{network.image_shape}; point --data_root at the right ones"
        )
    if source.verify_data:
        data.verify(images)
    return replace(data, fingerprint=images.fingerprint()), images


def _data(network: NetworkDenoiser, source: Source) -> DataSpec:
    """The training images: as the checkpoint says, or else as the options do.

    Raises:
        InputError: when neither says it, or both do and differ.
    """
    known, name = network.data, source.data_name
    if known is not None:
        if name not in (None, known.name):
            raise InputError(
                f"--data_name is '{name}', but the checkpoint says that it was trained on "
                f"'{known.name}'; leave it out"
            )
        return known
    if name is None:
        raise InputError(
            f"'{source.checkpoint}' does not say which images it was trained on; name them, such "
            f"as --data_name cifar10 --data_root path/to/data (known are {', '.join(DATASETS)})"
        )
    channels, height, width = network.image_shape
    if height != width:
        raise InputError(
            f"the network draws images of {height} x {width} pixels, but data sets are loaded as "
            "squares"
        )
    return DataSpec(name, root=source.data_root or "data", size=height, channels=channels)


def _kinds(protocol: Protocol, padding: str) -> tuple[str, ...]:
    asked = protocol.machines
    if asked is None:
        return default_for(padding)
    if asked == "all":
        return all_for(padding)
    if unknown := [kind for kind in asked if kind not in MACHINES]:
        raise InputError(f"unknown machines {unknown}; there are all, {', '.join(MACHINES)}")
    return tuple(dict.fromkeys(asked))


def _machine(
    kind: str, images: ImageSet, network: NetworkDenoiser, protocol: Protocol, compute: Compute
) -> Machine:
    return make_machine(
        kind,
        images,
        schedule=network.schedule,
        engine=compute.engine,
        chunk=compute.chunk,
        around=around(network.padding),
        symmetries=protocol.symmetries if MACHINES[kind].symmetries else (),
        clip=protocol.clip,
    )


def _sizes(protocol: Protocol, machines: tuple[Machine, ...], images: ImageSet) -> list[int]:
    """The patch sizes that are tried.

    Raises:
        InputError: when a machine has no meaning for one of them.
    """
    side = min(images.image_shape[1:])
    sizes = sorted(set(protocol.sizes or [k for k in range(3, 19, 2) if k <= side]))
    for machine in machines:
        for size in sizes if machine.scale == SIZE else ():
            machine.check(size)
    return sizes


def _tolerance(
    protocol: Protocol,
    machines: tuple[Machine, ...],
    images: ImageSet,
    network: NetworkDenoiser,
    sizes: list[int],
) -> float:
    """That of the protocol; of "auto", by how many pairs of patches an exact analysis compares.

    By count and not by the clock, so that it is the same on every machine.
    """
    if protocol.tolerance != "auto":
        return protocol.tolerance
    c, h, w = images.image_shape
    some = images.pixels[: len(images) // (network.num_classes or 1)]
    x, size = torch.empty(1, c, h, w), sizes[0]
    pairs = sum(
        protocol.seeds * protocol.steps * h * w * len(some) * inside(size, h, w).places
        for machine in machines
        if isinstance(machine, PatchMachine)
        and machine.scale == SIZE
        and machine.can_estimate(x, some, size)
    )
    return _TOLERANCE if _SECONDS_PER_PAIR * pairs > _PATIENCE else 0.0


def _candidates(machine: Machine, sizes: list[int]) -> list[Number]:
    if machine.scale is None:
        return []
    values = sizes if machine.scale == SIZE else machine.allowed(machine.scale.candidates)
    if not values:
        raise InputError(
            f"no {machine.scale.name} of the {machine.kind} machine fits images of shape "
            f"{machine.images.image_shape}; leave it out of --machines, or give --sizes"
        )
    return list(values)


def _unseen(
    data: DataSpec, images: ImageSet, protocol: Protocol, network: NetworkDenoiser, *, needed: bool
) -> ImageSet | None:
    """Images that the network was not trained on, as many as the protocol wants."""
    as_before = protocol.held_out and (needed or protocol.mosaic)
    if not as_before and not (protocol.denoising or protocol.same_x):
        return None
    try:
        unseen = replace(data, limit=None).load("val", progress=progress)
    except InputError as error:
        console.print(
            "no held-out images, which the calibration without the network, the yardsticks of "
            f"novelty and errors of denoising need ({error})"
        )
        return None
    return _some_of(unseen, images, protocol, network.num_classes, protocol.unseen_images)


def _some_of(
    images: ImageSet, training: ImageSet, protocol: Protocol, num_classes: int | None, count: int
) -> ImageSet | None:
    """As many of the images as are wanted, at random, of classes that the network knows."""
    if num_classes is not None and images.labels is not None and training.labels is not None:
        label = protocol.label
        classes = training.labels.unique() if label is None else torch.tensor([label])
        images = images.take(torch.isin(images.labels, classes).nonzero().flatten())
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.take(order[:count]) if count and len(images) else None


def _engines(machines: tuple[Machine, ...], device: torch.device) -> str:
    """The engines that the patch machines run on; refuses one that cannot.

    Raises:
        InputError: when the engine asked for cannot take these images here.
    """
    names = (name for machine in machines for name in machine.engines_on(device))
    return ", ".join(dict.fromkeys(names)) or "torch"


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device
        if device.type == "meta":
            raise RuntimeError("it holds no numbers; give cpu, or leave it out")
        return device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device '{name}' is not available here: {str(error)[:120]}") from error


def _training(checkpoint: str) -> TrainingConfig | None:
    """The training run's configuration, where it lies beside the checkpoint."""
    path = Path(checkpoint)
    if not path.exists():
        return None
    for folder in (path.parent.parent, path.parent, path):
        try:
            config = member(folder, CONFIG)
            text = read_text(config)
        except (FileNotFoundError, NotADirectoryError):  # the checkpoint may be a file
            continue
        except (OSError, InputError) as error:
            console.print(f"the training's configuration is left out: {reason(error, length=400)}")
            return None
        if is_configuration(text):
            return TrainingConfig(str(config), text)
    return None


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "pytorch-lightning", "numpy")}
    return {"results": str(RESULTS_VERSION), **packages}


def _check_label(label: int | None, num_classes: int | None) -> None:
    if label is None:
        return
    if num_classes is None:
        raise InputError(f"label {label} was given, but the network is not class-conditional")
    if not 0 <= label < num_classes:
        raise InputError(f"label {label} is out of range; the network knows 0..{num_classes - 1}")
