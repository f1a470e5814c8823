"""What an analysis will take, from the time of a few queries, before it begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter

import torch

from els.analysis.study import Study
from els.console import duration, key_values
from els.engines.dictionary import along_borders, inside
from els.engines.strata import most_bytes
from els.information import classes_of, covariance_cost
from els.machines import Machine
from els.machines.base import NO_VALUE, Number, PosteriorMachine
from els.machines.gaussian import Cost, moments_cost, rank_of
from els.machines.local import PatchMachine
from els.machines.mixture import Mixture
from els.machines.pca_local import PcaLocal, reach_cost
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
_IN_FULL = 0.3  # of the steps, those of little noise, where all patches are the better way
_LOOK = 0.5  # of the time of an exact answer, to check a quarter of an estimated one
_BYTES = 36  # of a patch that is sorted, beside its centre
_BASE_GIGABYTES = 0.8  # Python, PyTorch and the report
_SOME_IMAGES = 256  # whose moments stand for those of all while machines are timed
_PRODUCT = 512  # rows of the matrices that the time of a multiplication is told from
_MOST_KEPT = 1 << 30  # bytes of the moments of all classes, and of what pixels look at
MOMENTS, COVARIANCES = "moments of the images", "covariances of patches"


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

    for stage, queries, each in _fitting(study, network, seconds):
        add(stage, queries, each)
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
            classes = min(study.network.num_classes or 1, seeds)
            add("sort patches", sizes * classes, _SORTING * len(study.images) * _share(study))
        add("sample the machines", seeds * steps, each)
    add("probe the network", fitted * steps, 20 * network)
    for stage, queries, each in (
        *_tracing(study, seconds),
        *_comparing(study),
        *_answers(study, network, seconds),
        (COVARIANCES, 1, _multiplying(_covariances(study))),
        (MOMENTS, processes, _multiplying(_moments(study))),  # each process finds them for itself
    ):
        add(stage, queries, each)
    return Plan(found, _gigabytes(study))


def _fitting(study: Study, network: float, seconds: Seconds) -> Iterator[Stage]:
    """Stages of fitting scales: their names, queries and seconds of each."""
    protocol, held_out, steps = study.protocol, study.held_out, study.protocol.steps
    fits = [
        ("calibrate", one, len(protocol.calibration), network)
        for one in study.machines
        if study.candidates(one)
    ]
    if held_out is not None and study.primary.scale is not None:
        count = min(protocol.held_out, len(held_out))
        fits.append(("calibrate on held-out images", study.primary, count, 0.0))
    for stage, machine, images, asking in fits:
        yield stage, images * steps, asking + _calibrating(study, machine, seconds)
        yield stage, steps, _checking(study, machine, seconds)


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
        apart = study.wiener not in study.machines
        wiener = seconds(study.wiener, (NO_VALUE,)) if apart else 0.0
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
    times |= {"sort patches": 1, "sample the machines": refits, MOMENTS: 1}
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
    values = tuple(study.candidates(machine))
    every = seconds(machine, values)
    if not study.estimates(machine):
        return every
    one = _estimate(study, machine, seconds(machine, _middle(study, machine)))
    return len(values) * one + _IN_FULL * every


def _checking(study: Study, machine: Machine, seconds: Seconds) -> float:
    """Seconds of holding two estimates against exact answers, as calibration does at each t."""
    return (
        2 * _LOOK * seconds(machine, _middle(study, machine)) if study.estimates(machine) else 0.0
    )


def _informing(study: Study, network: float, seconds: Seconds) -> float:
    """Seconds of a query of every patch machine at all values of its scale, with details."""
    asked = [one for one in study.machines if isinstance(one, PatchMachine)]
    return sum(network + _DETAILS * seconds(one, tuple(study.candidates(one))) for one in asked)


def _estimating(study: Study, machine: Machine, exact: float) -> float:
    """Seconds of an answer of a machine that estimates, from those of an exact one."""
    return (1 - _IN_FULL) * _estimate(study, machine, exact) + _IN_FULL * exact


def _estimate(study: Study, machine: Machine, exact: float) -> float:
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
    if machine.uses_moments:
        return _with_some_moments(study, machine, values)
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


def _with_some_moments(study: Study, machine: Machine, values: tuple[Number, ...]) -> float:
    """Of a query of a machine that knows moments, which all images would have to be seen for."""
    x, _ = study.starts([0])
    t = torch.full((1,), _MIDDLE, dtype=torch.float64, device=x.device)
    some = study.images.take(torch.arange(min(_SOME_IMAGES, len(study.images))))
    seconds = _time(lambda: machine.x0_hats(x, t, some, values))
    n, d = _images_of_a_class(study), x[0].numel()
    if machine.scale is None:  # the filter alone
        return seconds * rank_of(n, d) / rank_of(len(some), d)
    return seconds * max(1.0, n / len(some))


def _images_of_a_class(study: Study) -> int:
    return max(1, round(len(study.images) * _share(study)))


def _moments(study: Study) -> list[Cost]:
    """What the moments of the images take, and what follows from them, class by class."""
    parts = () if study.mixture is None else study.mixture.parts
    asked = [*study.machines, *(part.machine for part in parts)]
    if not study.protocol.denoising and not any(one.uses_moments for one in asked):
        return []
    shape, n = study.images.image_shape, _images_of_a_class(study)
    found = [moments_cost(n, math.prod(shape))]
    if any(isinstance(one, PcaLocal) for one in asked):
        # What pixels look at is found at every t on the paths of calibration and of sampling.
        found += 2 * study.protocol.steps * [reach_cost(n, shape)]
    return found * (study.network.num_classes or 1)


def _covariances(study: Study) -> list[Cost]:
    """What the covariances of patches of every size take, by which information is predicted."""
    seeds = study.protocol.calibration[: study.protocol.information]
    return [
        covariance_cost(one, one.of_class(label), value)
        for one in study.machines
        if seeds and isinstance(one, PatchMachine)
        for label in classes_of(study.starts, seeds)
        for value in study.candidates(one)
    ]


def _multiplying(costs: Sequence[Cost]) -> float:
    """Seconds of linear algebra in float64, from those of a product."""
    if not costs:
        return 0.0
    matrix = torch.ones(_PRODUCT, _PRODUCT, dtype=torch.float64)
    return _time(lambda: matrix @ matrix) * sum(one.multiplications for one in costs) / _PRODUCT**3


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
    moments = _moments(study)
    at_once = max((8 * one.numbers for one in (*moments, *_covariances(study))), default=0)
    return found + (at_once + min(8 * sum(one.kept for one in moments), _MOST_KEPT)) / 1e9
