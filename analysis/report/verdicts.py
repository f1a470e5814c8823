"""What each figure shows of these results, in a sentence made from its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from els.agreement import summarise
from els.analysis.answers import TRAINING, UNSEEN, Denoising
from els.analysis.attribution import HELD_OUT, NETWORK
from els.analysis.report import findings, views
from els.analysis.report.findings import times
from els.analysis.report.views import medians, rival
from els.analysis.report.words import interval_text, pair_text
from els.analysis.results import Results
from els.calibration import Scales
from els.information import HALF
from els.intervals import ByTime
from els.machines.local import SIZE

_EQUIVARIANT = 0.02


def scales(results: Results) -> str:
    """How the fitted scale of the first machine changes, and how it compares with data alone."""
    one = results.scales.get(results.primary)
    if one is None:
        return ""
    return findings.scale(results) + _against_data(one, results.data_scales)


def _against_data(one: Scales, data: Scales | None) -> str:
    if data is None or data.scale != SIZE.name:
        return ""
    pairs = list(zip(data.values, one.values, strict=True))
    larger, smaller = (sum(sign * (a - b) > 0 for a, b in pairs) for sign in (1, -1))
    if max(larger, smaller) <= len(pairs) // 4:
        return " To denoise unseen images best, much the same sizes are needed."
    if smaller >= larger:
        return (
            f" To denoise unseen images best, smaller ones do at {smaller} of {len(pairs)} times."
        )
    ceiling = sum(data.at_edge)
    most = f", at {ceiling} of them the largest that was tried" if ceiling else ""
    return (
        f" To denoise unseen images best, larger ones are needed at {larger} of {len(pairs)} "
        f"times{most}: the network looks less far than would serve it."
    )


def criterion(results: Results) -> str:
    """Where the scale is not decided by what was measured."""
    one = results.scales.get(results.primary)
    if one is None:
        return ""
    wide = [
        t
        for t, (low, high) in zip(one.t, one.band, strict=True)
        if one.candidates.index(high) - one.candidates.index(low) >= 2
    ]
    if not wide:
        return f"At every t at most two values of {one.machine} are as good as each other."
    return (
        f"At {times(wide)} three or more values of {one.machine} are as good as each other, so "
        "that the one chosen there means little."
    )


def weights(results: Results) -> str:
    """Which machines the mixture is made of, and whether it beats each of them by R2."""
    view, pairs = views.weights(results), results.mixture_pairs
    if view is None:
        return ""
    ends = []
    for i in (0, len(view.series[0].t) // 2, -1):
        most = max(view.series, key=lambda one: one.value[i])
        ends.append(f"{most.name} at t = {most.t[i]:.2g} ({most.value[i]:.0%})")
    text = f"It is mostly {', '.join(ends)}."
    if not pairs:
        return text
    ahead = [one for one in pairs if one.distinguishable and one.difference.median > 0]
    hardest = pairs[0]
    difference = interval_text(hardest.difference, sign=True)
    if len(ahead) == len(pairs):
        how = f"Its R2 is above that of every single machine, of {hardest.other}, the best, by"
        return f"{text} {how} {difference}."
    others = ", ".join(one.other for one in pairs if one not in ahead)
    return (
        f"{text} Its R2 is not above that of every single machine by more than chance: not of "
        f"{others}. From that of {hardest.other}, the best, it differs by {difference}."
    )


def by_t(results: Results) -> str:
    """Where on the path the first machine fails, and what networks of other seeds reach there."""
    told = findings.time(results)
    if not results.ceiling_by_t:
        return told
    values = medians(results.by_t[results.primary])
    worst = min(range(len(values)), key=values.__getitem__)
    reached = medians(results.ceiling_by_t["pearson_r"])
    return (
        f"{told} Networks of other seeds agree with it at {reached[worst]:.2f} there and "
        f"{reached[-1]:.2f} at the end."
    )


def denoising(results: Results) -> str:
    """Network and machines against the Wiener filter, and whether training images are known."""
    found = results.denoising
    if found is None:
        return ""
    split = UNSEEN if UNSEEN in found.over_wiener else TRAINING
    named, ratios = "unseen" if split == UNSEEN else "training", found.over_wiener[split]
    text = f"On {named} images the network {_against_wiener(ratios[NETWORK], found.t)}."
    told = [
        f"{side} {_against_wiener(one, found.t)}"
        for side, one in ratios.items()
        if side != NETWORK and min(one.high) < 1
    ]
    if told:
        text += f" Of the machines, {'; '.join(told)}."
    elif len(ratios) > 1:
        text += " None of the machines beats it anywhere beyond chance."
    return text + _gap(found)


def _against_wiener(ratio: ByTime, t: Sequence[float]) -> str:
    """At how many times a side does better than the Wiener filter, beyond chance."""
    better = sum(high < 1 for high in ratio.high)
    least = min(range(len(t)), key=ratio.value.__getitem__)
    low, high = ratio.low[least], ratio.high[least]
    at = f"{ratio.value[least]:.2f} [{low:.2f}, {high:.2f}] of its error at t = {t[least]:.2g}"
    if not better:
        return f"beats the Wiener filter at no time beyond chance (at best {at})"
    return f"beats the Wiener filter at {better} of {len(t)} times (down to {at})"


def _gap(found: Denoising) -> str:
    gap = found.relative_gap.get(NETWORK)
    if gap is None:
        return ""
    most = max(range(len(found.t)), key=gap.value.__getitem__)
    seen = [t for t, low in zip(found.t, gap.low, strict=True) if low > 0]
    if not seen:
        return (
            " On training images the network is not better than on unseen ones beyond chance: no "
            "sign of memorising."
        )
    return (
        f" On training images the network's error is lower at {times(seen)}, by up to "
        f"{gap.value[most]:.0%} (t = {found.t[most]:.2g}): it knows them."
    )


def same_x(results: Results) -> str:
    """Whether the first machine loses in single steps, or along the path."""
    found, kind = results.same_x, results.primary
    if found is None:
        return ""
    apart = median(medians(results.by_t[kind]))
    at = {place: median(kinds[kind]["pearson_r"].value) for place, kinds in found.median.items()}
    text = (
        f"Medians over t: {kind} agrees with the network at {at['network']:.2f} on the network's "
        f"path, {at['machine']:.2f} on its own"
    )
    if "images" in at:
        text += f" and {at['images']:.2f} on unseen images"
    text += f"; at {apart:.2f} where each is on its own path."
    steps, paths = 1 - at["network"], at["network"] - apart
    if paths <= 0:
        return f"{text} Paths add nothing to the errors of single steps."
    where = "single steps" if steps > paths else "what the path adds up"
    return f"{text} Most of what it loses is lost in {where}."


def scatter(results: Results) -> str:
    """The first machine against the one that is drawn against."""
    pair = results.pair(rival(results) or "")
    return "" if pair is None else f"{pair.machine} is {pair_text(pair)}."


def novelty(results: Results) -> str:
    """Whether the network copies: its distance to the training images, and that of unseen ones."""
    by_seed = {} if results.attribution is None else results.attribution.by_seed
    if not {NETWORK, HELD_OUT} <= set(by_seed):
        return ""
    drawn, unseen = (summarise(by_seed[side]["distance"]) for side in (NETWORK, HELD_OUT))
    numbers = f"(median distance {drawn.median:.2f} against {unseen.median:.2f})"
    if drawn.ci95[0] > unseen.median:
        return (
            "The network's samples are farther from the training images than images are that it "
            f"has not seen {numbers}: no copies."
        )
    if drawn.median < unseen.median / 2:
        return (
            "The network's samples are much closer to training images than unseen images are "
            f"{numbers}: it copies, at least in parts."
        )
    return (
        "The network's samples are about as far from the training images as unseen images are "
        f"{numbers}."
    )


def copies(results: Results) -> str:
    """What share of the network's and of the first machine's samples is copied."""
    return "" if results.attribution is None else findings.copies(results)


def information(results: Results) -> str:
    """At how many times the first machine averages over patches, and at how many it copies one."""
    one, scales = results.information.get(results.primary), results.scales.get(results.primary)
    if one is None or scales is None:
        return ""
    # Asked where the scale is, and not by k_mem: above it the weight may be below one half again.
    weights = one.weight_at([scales.at(t) for t in one.t])
    copying = [t for t, weight in zip(one.t, weights, strict=True) if weight >= HALF]
    if not copying:
        return (
            f"At every t, at the fitted {one.scale} of {one.machine}, no single patch has half of "
            "the weight at most pixels."
        )
    return (
        f"At {times(copying)}, at the fitted {one.scale} of {one.machine}, one patch has half of "
        "the weight or more at most pixels."
    )


def consistency(results: Results) -> str:
    """Where the average at a pixel runs over the fewest patches."""
    attribution = results.attribution
    mosaic = None if attribution is None else attribution.traced
    if mosaic is None:
        return ""
    counts = medians(mosaic.of_a_pixel("effective_size"))
    fewest = min(range(len(counts)), key=counts.__getitem__)
    return (
        f"Fewest patches count at t = {mosaic.t[fewest]:.2g} (a median of {counts[fewest]:,.0f}, "
        f"k = {mosaic.sides[fewest]}). Jumps are where k changes."
    )


def equivariance(results: Results) -> str:
    """Whether the network is less equivariant near the border than away from it."""
    if results.probes is None:
        return ""
    errors = [found for found in results.probes.equivariance if len(found) > 2]
    near, far = (median(found[i] for found in errors) for i in (1, -1)) if errors else (0, 0)
    if max(near, far) < _EQUIVARIANT:
        return (
            f"The answer hardly depends on the place anywhere (error at most {max(near, far):.2g})."
        )
    if near > 4 * far:
        return (
            f"At the border the answer depends on the place (error {near:.2g}), far from it much "
            f"less ({far:.2g}): the network tells where it is by the border alone."
        )
    return (
        f"The answer depends on the place far from the border too (error {far:.2g}; at the border "
        f"{near:.2g}): the network is not equivariant, as the machine is."
    )


VERDICTS: dict[str, Callable[[Results], str]] = {
    "scales": scales,
    "criterion": criterion,
    "weights": weights,
    "by_t": by_t,
    "scatter": scatter,
    "novelty": novelty,
    "copies": copies,
    "information": information,
    "consistency": consistency,
    "equivariance": equivariance,
    "denoising": denoising,
    "same_x": same_x,
}


def verdicts(results: Results) -> dict[str, str]:
    """The sentence under each figure; empty where there is nothing to say."""
    return {name: tell(results) for name, tell in VERDICTS.items()}
