"""What results say, in sentences: one rule for the page, the terminal and W&B."""

from __future__ import annotations

from els.agreement import IDEAL, Pair, Summary
from els.analysis.results import Results
from els.console import plural


def interval_text(value: Summary, *, sign: bool = False) -> str:
    """A median and its interval, as "0.912 [0.90, 0.92]"; with a sign, "+0.064 [+0.05, +0.08]"."""
    plus = "+" if sign else ""
    low, high = value.ci95
    return f"{value.median:{plus}.3f} [{low:{plus}.2f}, {high:{plus}.2f}]"


def headline(results: Results) -> str:
    """The main number in a sentence, and how the machine does against its rivals."""
    main = results.agreement[0]
    metric = main.machines[results.primary].metrics["pearson_r"]
    against = [pair_text(pair) for pair in _rivals(results)]
    told = f" It is {' and '.join(against)}." if against else ""
    seeds, steps = plural(len(results.seeds), "seed"), plural(main.network_steps, "step")
    return (
        f"From the same noise, the {results.primary} machine predicts what the network draws with "
        f"a median pearson_r of {interval_text(metric)} (95 % interval) over {seeds}.{told} "
        f"The network took {steps}, the machines {main.machine_steps}."
    )


def pair_text(pair: Pair) -> str:
    """How the one machine of a pair is to the other: what follows "it is"."""
    difference = interval_text(pair.difference, sign=True)
    if not pair.distinguishable:
        return f"not distinguishable from {pair.other} (median difference {difference})"
    how = "closer" if pair.difference.median > 0 else "farther off"
    share = pair.wins if pair.difference.median > 0 else 1 - pair.wins
    return f"{how} than {pair.other} on {share:.0%} of the seeds (median difference {difference})"


def _rivals(results: Results) -> list[Pair]:
    """The first machine against the best of the others, and against the one that memorises."""
    machines = results.agreement[0].machines
    others = [kind for kind in machines if kind != results.primary]
    others.sort(key=lambda kind: machines[kind].metrics["pearson_r"].median, reverse=True)
    chosen = [kind for kind in others if kind in (*others[:1], IDEAL)]
    return [pair for pair in map(results.pair, chosen) if pair is not None]
