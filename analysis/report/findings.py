"""What an analysis found, in five sentences that can be quoted.

The words are chosen by the thresholds below, and are never stronger than the 95 % intervals allow:
a word needs the whole interval on its side of a threshold, and where an interval holds the
threshold nothing is said beyond that. Fewer than `FEW` seeds tell nothing at 95 %, so that numbers
stand without words. What was not measured is said not to be, with the option that measures it.
docs/analysis.md has the thresholds as a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from els.agreement import FEW, IDEAL, Pair
from els.analysis.attribution import NETWORK
from els.analysis.report.words import hardly_trained, interval_text
from els.analysis.results import AgreementAt, Results
from els.calibration import Scales
from els.console import plural
from els.intervals import median_by_t
from els.machines.local import SIZE

# How much of what the network draws is predicted, by the lower end of pearson_r's interval.
AMOUNTS = ((0.9, "nearly"), (0.7, "much of"), (0.4, "some of"), (0.0, "little of"))
# Below this pearson_r a machine fails at a t: it has less than a quarter of the variance.
FAILS = 0.5
# A network copies where more than this share of its samples are copies of training images.
COPIES = 0.05
# From this pearson_r on the memoriser's pictures are not called something else.
ALIKE = 0.7
# Above this t a network's x0_hat is mostly its error in eps, many times over.
NOISE = 0.9
# With so many machines beside the best, all are named; of more, the nearest alone.
_NAMED = 3


def findings(results: Results) -> dict[str, str]:
    """Five sentences, by what they are about: agreement, scale, time, copies and best."""
    return {
        "agreement": agreement(results),
        "scale": scale(results),
        "time": time(results),
        "copies": copies(results),
        "best": best(results),
    }


def plain_sentence(results: Results) -> str:
    """What was found in plain words, before any number."""
    if hardly_trained(results.provenance):
        return "This network was hardly trained: what it draws says little yet."
    found = _amount(results)
    amount = f"draws {found} what this network draws" if found else "and this network draw"
    text = f"Without any training, theory {amount} from the same noise"
    pair = results.pair(IDEAL)
    if pair is None:
        return f"{text}."
    if not pair.distinguishable:
        return f"{text}; a machine that can only memorise does about as well."
    if pair.difference.median < 0:
        return f"{text}; a machine that can only memorise comes closer."
    _, high = results.agreement[0].machines[IDEAL].metrics["pearson_r"].ci95
    how = "draws something else" if high < ALIKE else "comes less close"
    return f"{text}; a machine that can only memorise {how}."


# --- agreement ------------------------------------------------------------------------------------


def agreement(results: Results) -> str:
    """How well the first machine predicts the network, and its share of the ceiling."""
    main, kind = results.agreement[0], results.primary
    first = main.machines[kind]
    amount, seeds = _amount(results), plural(len(results.seeds), "seed")
    told = f"predicts {amount} what the network draws, with" if amount else "has"
    left_out = ""
    if first.undefined:
        left_out = f", without {plural(first.undefined, 'seed')} on which an image is constant"
    text = (
        f"From the same noise the {kind} machine {told} a median pearson_r of "
        f"{interval_text(first.metrics['pearson_r'])} (95 % interval, {seeds}{left_out}; network "
        f"{plural(main.network_steps, 'step')}, machines {main.machine_steps}{_protocol(results)})"
    )
    before = hardly_trained(results.provenance)
    start = "" if before is None else f"{before} "
    return f"{start}{text}{_of_ceiling(main, kind, known=_known(results))}."


def _protocol(results: Results) -> str:
    name = results.provenance.protocol.protocol
    return "" if name == "default" else f"; protocol {name}"


def _known(results: Results) -> int:
    """On how many seeds the first machine's agreement is defined."""
    return len(results.seeds) - results.agreement[0].machines[results.primary].undefined


def _amount(results: Results) -> str:
    """How much is predicted: what stands before "what the network draws"; "" of too few seeds."""
    if _known(results) < FEW:
        return ""
    low, _ = results.agreement[0].machines[results.primary].metrics["pearson_r"].ci95
    found = (word for least, word in AMOUNTS if low > least)
    return next(found, "nothing beyond chance of")


def _of_ceiling(main: AgreementAt, kind: str, *, known: int) -> str:
    """The machine's share of what networks of other seeds reach, and whether it is below that."""
    if main.ceiling is None:
        return "; what a network of another seed reaches was not measured (--twin)"
    reached = interval_text(main.ceiling.metrics["pearson_r"])
    share = main.machines[kind].of_ceiling.get("pearson_r")
    if share is None:
        return f"; a network of another seed reaches {reached}, of which nothing is a share"
    low, high = share.ci95
    how = "not told apart from it"
    if known >= FEW:
        how = "less than it" if high < 1 else "more than it" if low > 1 else how
    return (
        f"; that is a share of {interval_text(share)} of what a network of another seed reaches, "
        f"{reached}: {how}"
    )


# --- the fitted scale -----------------------------------------------------------------------------


def scale(results: Results) -> str:
    """How the fitted scale of the first machine changes with t."""
    kind = results.primary
    one = results.scales.get(kind)
    if one is not None:
        return _change(one) + _edge(one)
    if results.weights is not None and results.weights.machine == kind:
        count = plural(len(results.weights.components), "component")
        return f"Fitted at each t are the weights of the {count} of {kind}."
    return f"Nothing was fitted: {kind} has no scale."


def _change(one: Scales) -> str:
    """From which value to which, where their bands lie apart."""
    start, end = (_fitted(one, i) for i in (0, -1))
    text = f"The fitted {one.scale} of {one.machine}"
    if len(one.seeds) < 2:
        return f"{text} is {start} and {end}; one calibration seed does not tell them apart."
    (low, high), (last_low, last_high) = one.band[0], one.band[-1]
    if low > last_high:
        return f"{text} falls from {start} to {end}."
    if high < last_low:
        return f"{text} rises from {start} to {end}."
    return f"{text} is {start} and {end}, which are not told apart."


def _fitted(one: Scales, step: int) -> str:
    value, (low, high) = one.values[step], one.band[step]
    band = "" if low == high else f" (band {low:g}-{high:g})"
    return f"{value:g}{band} at t = {one.t[step]:.2g}"


def _edge(one: Scales) -> str:
    at_edge = [t for t, edge in zip(one.t, one.at_edge, strict=True) if edge]
    if not at_edge:
        return ""
    larger = " (give larger --sizes)" if one.scale == SIZE.name else ""
    return (
        f" At {times(at_edge)} it is the largest that was tried: a ceiling of this analysis, not a "
        f"finding{larger}."
    )


# --- where along t it fails -----------------------------------------------------------------------


def time(results: Results) -> str:
    """At which t the first machine fails, and where its agreement is least."""
    kind = results.primary
    if kind not in results.by_t:
        return "Agreement along t was not measured."
    found = median_by_t(results.by_t[kind])
    known = [i for i, value in enumerate(found.value) if math.isfinite(value)]
    if not known:
        return f"Along t nothing of {kind} correlates with the network."
    worst, last = min(known, key=found.value.__getitem__), known[-1]
    why = ", where the network's guess is mostly its own error" if results.t[worst] > NOISE else ""
    least, end = (
        f"{found.value[i]:.2f} [{found.low[i]:.2f}, {found.high[i]:.2f}]" for i in (worst, last)
    )
    ends = f"it is lowest at t = {results.t[worst]:.2g} ({least}){why}, and ends at {end}"
    text = f"Along t, by the median pearson_r of x0_hat, {kind}"
    if _known(results) < FEW:
        return f"{text} is not told from a failure on fewer than {FEW} seeds; {ends}."
    fails = [results.t[i] for i in known if found.high[i] < FAILS]
    unsure = [results.t[i] for i in known if found.low[i] < FAILS <= found.high[i]]
    told = [f"fails (is below {FAILS:g}) at {times(fails) if fails else 'no time'}"]
    if unsure:
        told.append(f"is not told from that at {times(unsure)}")
    return f"{text} {' and '.join(told)}; {ends}."


def times(t: Sequence[float]) -> str:
    """Such as "t = 0.5" and "3 times between t = 1 and 0.75"."""
    if len(t) == 1:
        return f"t = {t[0]:.2g}"
    return f"{len(t)} times between t = {max(t):.2g} and {min(t):.2g}"


# --- copies ---------------------------------------------------------------------------------------


def copies(results: Results) -> str:
    """Which share of the network's samples, and of the first machine's, are copies."""
    if results.attribution is None:
        return "Whether samples are copies of training images was not measured (--mosaic true)."
    shares = {side: found.get("in_place") for side, found in results.attribution.copies.items()}
    drawn = shares.get(NETWORK)
    if drawn is None:
        return "Whether samples are copies is not known: that takes two different training images."
    low, high = drawn.ci95
    how = "not told apart from"
    how = "more than" if low > COPIES else "less than" if high < COPIES else how
    mine = shares.get(results.primary)
    others = "" if mine is None else f", and {mine} of those of {results.primary}"
    return (
        f"Copies of a training image, in place, are {drawn} of the network's samples (95 % "
        f"interval), {how} {COPIES:.0%}{others}."
    )


# --- the best machine -----------------------------------------------------------------------------


def best(results: Results) -> str:
    """Which machine predicts the network best, if one is told apart from all others."""
    kinds = list(results.machines)
    if len(kinds) == 1:
        return f"No machine was compared with {kinds[0]} (--machines all)."
    first = max(kinds, key=lambda kind: _standing(results, kind))
    groups: dict[str, list[str]] = {"closer than": [], "not told apart from": [], "behind": []}
    for other, pair in _against(results, first):
        lead = None if pair is None else pair.lead_of(first)
        group = "not told apart from"
        if pair is not None and lead is not None and pair.distinguishable:
            group = "closer than" if lead.median > 0 else "behind"
        number = "" if lead is None else f" ({interval_text(lead, sign=True)})"
        groups[group].append(f"{other}{number}")
    told = " and ".join(f"{how} {_listed(names)}" for how, names in groups.items() if names)
    number = plural(len(kinds), "machine")
    if len(groups["closer than"]) == len(kinds) - 1:
        return (
            f"Of {number} {first} is the best: in pearson_r, seed by seed, it is closer to the "
            f"network than {_listed(groups['closer than'])}."
        )
    return (
        f"Of {number} none can be called the best: in pearson_r, seed by seed, {first} is {told}."
    )


def _standing(results: Results, kind: str) -> tuple[int, int, float]:
    """By what machines are ranked: how few are ahead of it, how many behind, and its median."""
    leads = [
        pair.lead_of(kind).median
        for _, pair in _against(results, kind)
        if pair is not None and pair.distinguishable
    ]
    median = results.agreement[0].machines[kind].metrics["pearson_r"].median
    return -sum(lead < 0 for lead in leads), sum(lead > 0 for lead in leads), median


def _against(results: Results, kind: str) -> list[tuple[str, Pair | None]]:
    """Every other machine, the nearest rival first, and how it compares on the same seeds."""
    machines = results.agreement[0].machines
    pairs = {frozenset((one.machine, one.other)): one for one in results.pairs}
    others = sorted(
        (other for other in machines if other != kind),
        key=lambda other: -machines[other].metrics["pearson_r"].median,
    )
    return [(other, pairs.get(frozenset((kind, other)))) for other in others]


def _listed(names: Sequence[str]) -> str:
    """All of a few names; of many, the first and how many others there are."""
    if len(names) == 1:
        return names[0]
    if len(names) > _NAMED:
        return f"{names[0]} and {len(names) - 1} others"
    return f"{', '.join(names[:-1])} and {names[-1]}"
