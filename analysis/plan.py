"""What an analysis will take, from the time of a few queries, before it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter

import torch

from els.analysis.study import Study
from els.console import duration, key_values
from els.denoiser import at_time
from els.engines.dictionary import along_borders, inside
from els.engines.strata import most_bytes
from els.machines import Machine
from els.machines.base import NO_VALUE, Number, PosteriorMachine
from els.machines.local import PatchMachine
from els.machines.mixture import Mixture
from els.novelty import nearest_images

_LONG_ENOUGH = 0.1  # seconds of a query that its time can be told from
_FIRST_IMAGES = 32
_BATCH = 8  # noises that the network is asked about at once
_MIDDLE = 0.5  # the time t that is asked about
_COMPARED = 2048  # training images that the time of comparing a sample with all is told from
NEAREST = "find the nearest images"
_DETAILS = 1.15  # times as long with the details that mosaics are made of
# Of an estimate, as measured with two cores: to sort an image's patches of a size, and how many
# times faster than all patches it is by their number.
_SORTING = 0.7e-3
_FASTER_FROM, _FASTER_POWER = 1e6, 0.55
_LOOKED_AT = 0.6  # of an image's pixels times values, where calibration searches
_BYTES = 36  # of a patch that is sorted, beside its centre
_BASE_GIGABYTES = 0.8  # Python, PyTorch and the report


Seconds = Callable[[Machine, tuple[Number, ...]], float]
Stage = tuple[str, int, float]  # its name, its queries, and the seconds of each


@dataclass(frozen=True)
class Plan:
    """What is to be done, and how long it will take here.

    Attributes:
        seconds: of each stage, in the order of the work.
        gigabytes: of memory.
    """

    seconds: Mapping[str, float]
    gigabytes: float

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def __rich__(self) -> object:
        rows = {stage: duration(time) for stage, time in self.seconds.items()}
        rows["in all"] = f"about {duration(self.total)}, {self.gigabytes:.1f} GB of memory"
        return key_values(rows)


def plan(study: Study, *, processes: int = 1) -> Plan:
    """Time a query of each machine and of the network, and add up all that are to come.

    Args:
        study: what is to be analysed.
        processes: that share the work.
    """
    protocol = study.protocol
    seeds, fitted, steps = len(protocol.evaluation), len(protocol.calibration), protocol.steps
    network = _asking(study)
    seconds = cache(partial(_seconds, study))
    found: dict[str, float] = {}

    def add(stage: str, queries: int, each: float) -> None:
        if queries * each:
            found[stage] = found.get(stage, 0) + queries * each / processes

    for machine in study.machines:
        if study.candidates(machine):
            add("calibrate", fitted * steps, network + _calibrating(study, machine, seconds))
    if study.held_out is not None and study.primary.scale is not None:
        each = _calibrating(study, study.primary, seconds)
        count = min(protocol.held_out, len(study.held_out))
        add("calibrate on held-out images", count * steps, each)
    if study.mixture is not None:
        add("fit the mixture", fitted * steps, seconds(study.mixture, (NO_VALUE,)))
    drawn = seeds * sum(protocol.all_network_steps)
    add("sample the network", drawn, network)
    add("sample networks of other seeds", drawn * len(study.twins), network)
    for machine in study.machines:
        each = seconds(machine, _middle(study, machine))
        if study.estimates(machine):
            each = _estimating(study, machine, each)
            sizes = len(study.candidates(machine))
            add("sort patches", sizes, _SORTING * len(study.images) * _share(study))
        add("sample the machines", seeds * steps, each)
    add("probe the network", fitted * steps, 20 * network)
    for stage, queries, each in (
        *_tracing(study, seconds),
        *_comparing(study),
        *_answers(study, network, seconds),
    ):
        add(stage, queries, each)
    return Plan(found, _gigabytes(study))


def _tracing(study: Study, seconds: Seconds) -> Iterator[Stage]:
    """The mosaics, of the first machine that has patches."""
    patches_of = next((one for one in study.machines if isinstance(one, PatchMachine)), None)
    if study.protocol.mosaic and patches_of is not None:
        each = _DETAILS * seconds(patches_of, _middle(study, patches_of))
        held_out = 0 if study.held_out is None else len(study.held_out)
        again = (1 + bool(float(study.protocol.tolerance))) * len(study.protocol.evaluation)
        yield "trace mosaics", again + 2 * held_out, each


def _asking(study: Study) -> float:
    """Seconds of a query of the network."""
    x, label = study.starts(range(_BATCH))
    return _time(lambda: study.network(x, _MIDDLE, label)) / _BATCH


def _comparing(study: Study) -> Iterator[Stage]:
    """The nearest images of the samples of all sides, and of the real images beside them."""
    if study.protocol.mosaic:
        drawn = (1 + len(study.machines)) * len(study.protocol.evaluation)
        real = [study.held_out, study.training_sample]
        count = drawn + sum(len(one) for one in real if one is not None)
        yield NEAREST, count, _nearest(study)


def _nearest(study: Study) -> float:
    """Seconds of a sample that is compared with every training image at every shift."""
    some = study.images.take(torch.arange(min(_COMPARED, len(study.images))))
    x, _ = study.starts(range(_BATCH))
    seconds = _time(lambda: nearest_images(x, some, device=study.starts.device)) / _BATCH
    return seconds * len(study.images) / len(some)


def _answers(study: Study, network: float, seconds: Seconds) -> Iterator[tuple[str, int, float]]:
    """Stages of single answers: their names, queries and seconds of each."""
    protocol, steps = study.protocol, study.protocol.steps
    if protocol.information:
        yield (
            "measure information",
            protocol.information * steps,
            _informing(study, network, seconds),
        )
    exact = [(one, seconds(one, _middle(study, one))) for one in study.machines]
    each = sum(
        _estimating(study, one, time) if study.estimates(one) else time for one, time in exact
    )
    if protocol.denoising:
        unseen = 0 if study.unseen is None else min(protocol.denoising, len(study.unseen))
        images = unseen + min(protocol.denoising, len(study.images))
        wiener = 0.0
        if "wiener" not in {one.kind for one in study.machines}:
            x, label = study.starts([0])
            t = at_time(x, _MIDDLE)
            wiener = _time(lambda: study.wiener(x, t, label))
        yield "errors of denoising", images * steps, network + each + wiener
    if protocol.same_x:
        seeds = min(protocol.same_x, len(protocol.evaluation))
        unseen = 0 if study.unseen is None else min(protocol.same_x, len(study.unseen))
        sides = len(study.machines) + len(study.twins)
        asked = each + network * len(study.twins)
        yield "ask at the same x", seeds * steps, asked + network * sides
        yield "ask at the same x", unseen * steps, asked + network


def plan_along(study: Study, snapshots: int, *, processes: int = 1) -> Plan:
    """What the snapshots of a training take together, at most.

    Args:
        study: that of the last snapshot.
        snapshots: how many there are.
        processes: that share the work.
    """
    one = plan(study, processes=processes)
    refits = snapshots if study.protocol.refit else 1
    times = {"sample the network": snapshots, "calibrate": refits, "fit the mixture": refits}
    times |= {"sort patches": 1, "sample the machines": refits}
    found = {name: count * one.seconds.get(name, 0) for name, count in times.items()}
    protocol = study.protocol
    if protocol.mosaic:
        queries = snapshots * len(protocol.evaluation)
        found[NEAREST] = queries * _nearest(study) / processes
    count = protocol.denoising or protocol.real_images
    images = 0 if study.unseen is None else min(count, len(study.unseen))
    images += min(count, len(study.images))
    network = _asking(study)
    found["errors of denoising"] = snapshots * images * protocol.steps * network / processes
    return Plan({name: time for name, time in found.items() if time}, one.gigabytes)


def _middle(study: Study, machine: Machine) -> tuple[Number]:
    candidates = study.candidates(machine)
    return (candidates[len(candidates) // 2] if candidates else NO_VALUE,)


def _calibrating(study: Study, machine: Machine, seconds: Seconds) -> float:
    """Seconds of a query at all values of the scale that calibration tries."""
    if study.estimates(machine):
        return _LOOKED_AT * _estimating(study, machine, seconds(machine, _middle(study, machine)))
    return seconds(machine, tuple(study.candidates(machine)))


def _informing(study: Study, network: float, seconds: Seconds) -> float:
    """Seconds of a query of every patch machine at all values of its scale, with details."""
    asked = [one for one in study.machines if isinstance(one, PatchMachine)]
    return sum(network + _DETAILS * seconds(one, tuple(study.candidates(one))) for one in asked)


def _estimating(study: Study, machine: Machine, exact: float) -> float:
    """Seconds of an estimate, from those of an exact answer."""
    patches = _patches(study, _middle(study, machine)[0])
    return exact / max(1.0, (patches / _FASTER_FROM) ** _FASTER_POWER)


def _share(study: Study) -> float:
    """Of the images that a query is compared with: those of its class."""
    classes = study.network.num_classes
    return 1.0 if classes is None else 1 / classes


def _patches(study: Study, size: Number) -> float:
    _, h, w = study.images.image_shape
    return len(study.images) * _share(study) * inside(int(size), h, w).places


def _seconds(study: Study, machine: Machine, values: tuple[Number, ...]) -> float:
    """Of one query at some values of a machine's scale."""
    if isinstance(machine, Mixture):
        return sum(_seconds(study, part.machine, part.values) for part in machine.parts)
    x, label = study.starts([0])
    if not isinstance(machine, PosteriorMachine):
        asked = None if values == (NO_VALUE,) else values
        return _time(lambda: machine.at_values(x, _MIDDLE, asked, label))
    t = torch.full((1,), _MIDDLE, dtype=torch.float64, device=x.device)
    every = len(study.images) * _share(study)
    count = _FIRST_IMAGES
    while True:
        pixels = study.images.pixels[:count]
        seconds = _time(partial(machine.posteriors, x, t, pixels, values))
        if seconds > _LONG_ENOUGH or count >= every:
            return seconds * max(1.0, every / len(pixels))
        count *= 4


def _time(work: Callable[[], object]) -> float:
    """Seconds of a call, the second time it is made."""
    work()
    start = perf_counter()
    work()
    return perf_counter() - start


def _gigabytes(study: Study) -> float:
    pixels = study.images.pixels
    found = _BASE_GIGABYTES + 2 * pixels.numel() / 1e9
    estimated = [one for one in study.machines if study.estimates(one)]
    for machine in estimated[:1]:
        c, *shape = study.images.image_shape
        sizes = [int(k) for k in study.candidates(machine) if k <= min(shape)]
        regions = [one for k in sizes for one in (inside(k, *shape), *along_borders(k, *shape))]
        each = [len(study.images) * one.places * (_BYTES + c) for one in regions]
        # While the last are made they are there twice.
        found += (min(sum(each), most_bytes()) + 2 * max(each)) / 1e9
    return found
