"""What results say, in sentences: one rule for the page, the terminal and W&B."""

from __future__ import annotations

from els.agreement import Pair, Summary
from els.analysis.along import Along
from els.analysis.comparison import Comparison
from els.analysis.results import Provenance
from els.console import plural

HARDLY_TRAINED = 0.5  # a held-out loss; answering zero has 1, and small trained networks below 0.2


def interval_text(value: Summary, *, sign: bool = False) -> str:
    """A median and its interval, as "0.912 [0.90, 0.92]"; with a sign, "+0.064 [+0.05, +0.08]"."""
    plus = "+" if sign else ""
    low, high = value.ci95
    return f"{value.median:{plus}.3f} [{low:{plus}.2f}, {high:{plus}.2f}]"


def hardly_trained(provenance: Provenance) -> str | None:
    """A sentence where a network was hardly trained; None where it was, or is not known."""
    trained = provenance.trained
    if trained is None or trained.val_loss is None or trained.val_loss < HARDLY_TRAINED:
        return None
    return (
        f"This network was hardly trained: after {plural(trained.steps, 'step')} its loss on "
        f"held-out images is {trained.val_loss:.2f}, and answering zero has 1."
    )


def pair_text(pair: Pair) -> str:
    """How the one machine of a pair is to the other: what follows "it is"."""
    difference = interval_text(pair.difference, sign=True)
    if not pair.distinguishable:
        return f"not distinguishable from {pair.other} (median difference {difference})"
    how = "closer" if pair.difference.median > 0 else "farther off"
    share = pair.wins if pair.difference.median > 0 else 1 - pair.wins
    return f"{how} than {pair.other} on {share:.0%} of the seeds (median difference {difference})"


def comparison_headline(comparison: Comparison) -> str:
    """Which of the networks is predicted best, and whether that is beyond chance."""
    scores = {
        name: one.agreement[0].machines[one.primary].metrics["pearson_r"].median
        for name, one in comparison.by_name.items()
    }
    first, second, *_ = sorted(scores, key=scores.__getitem__, reverse=True)
    numbers = f"median pearson_r {scores[first]:.2f} against {scores[second]:.2f}"
    found = (one for one in comparison.pairs if {one.machine, one.other} == {first, second})
    pair = next(found, None)
    if pair is None:
        return f"{first} is predicted best: {numbers} of {second}; they have no seeds in common."
    seeds = plural(pair.seeds, "common seed")
    difference = interval_text(pair.lead_of(first), sign=True)
    if not pair.distinguishable:
        return (
            f"{first} and {second} are predicted equally well, as far as {seeds} can tell: "
            f"{numbers}, paired difference {difference}."
        )
    return (
        f"{first} is predicted better than {second}: {numbers}, paired difference {difference} "
        f"over {seeds}."
    )


def along_headline(along: Along) -> str:
    """When in training the first machine predicts the network best, and whether it does to the end.

    Two snapshots differ where the interval of their paired difference leaves out zero, at all
    snapshots together; of those that do not, the unbroken run around the best is named.
    """
    kind, steps = along.primary, along.steps
    best, (first, last) = along.best(kind), _run_around_best(along)
    found = along.summaries[along.scales][kind]["pearson_r"]
    fitted = "fitted to each snapshot" if along.refitted else "as fitted to the last snapshot"
    text = (
        f"The {kind} machine, {fitted}, has its highest median pearson_r with the network at step "
        f"{steps[best]:,}: {interval_text(found[best])} over {plural(len(along.seeds), 'seed')}."
    )
    if first < last:
        text += f" From step {steps[first]:,} to step {steps[last]:,} it cannot be told from that."
    text += _after(along, last)
    if undefined := along.undefined(kind):
        text += (
            f" On {plural(undefined, 'seed')} of one snapshot or another an image is constant and "
            "nothing correlates; they are left out there."
        )
    return text


def _run_around_best(along: Along) -> tuple[int, int]:
    """The first and the last of the snapshots around the best that cannot be told from it."""
    as_good, best = along.as_good(along.primary), along.best(along.primary)
    first = last = best
    while first > 0 and as_good[first - 1]:
        first -= 1
    while last + 1 < len(as_good) and as_good[last + 1]:
        last += 1
    return first, last


def _after(along: Along, last: int) -> str:
    """What becomes of the first machine after the snapshots that are as good as the best."""
    kind, steps, end = along.primary, along.steps, len(along.steps) - 1
    if along.best(kind) == end:
        return " That is the last snapshot."
    if last == end:
        return " Until the end nothing shows that it falls."
    if not along.as_good(kind)[end]:
        lost = interval_text(along.below_best(kind, end))
        return f" Then it leaves its theory: at the last, step {steps[end]:,}, it is {lost} below."
    lost = interval_text(along.below_best(kind, last + 1))
    return (
        f" At step {steps[last + 1]:,} it is {lost} below; at the last, step {steps[end]:,}, it "
        "cannot be told from the highest again."
    )
