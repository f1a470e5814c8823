import math

import numpy as np
import pytest
import scipy.stats
import torch

from els.agreement import (
    Mean,
    Summary,
    agreement,
    beats,
    compare_pairs,
    locality_score,
    summarise,
    summarise_mean,
    summarise_together,
)
from els.errors import InputError


def test_metrics_against_scipy_and_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    network = torch.randn(5, 3, 6, 6, generator=generator)
    machine = 0.7 * network + 0.5 * torch.randn(5, 3, 6, 6, generator=generator) + 0.2
    values = agreement(machine, network)
    for i in range(5):
        a, b = machine[i].double().flatten().numpy(), network[i].double().flatten().numpy()
        r = scipy.stats.pearsonr(a, b).statistic
        explained = 1 - ((a - b) ** 2).sum() / ((b - b.mean()) ** 2).sum()
        assert float(values["pearson_r"][i]) == pytest.approx(r, abs=1e-6)
        assert float(values["r2"][i]) == pytest.approx(r**2, abs=1e-6)
        assert float(values["R2"][i]) == pytest.approx(explained, abs=1e-6)


def test_the_score_of_locality_is_as_its_definition_says() -> None:
    generator = torch.Generator().manual_seed(0)
    network = torch.randn(4, 3, 5, 5, generator=generator)
    machine = 0.7 * network + 0.5 * torch.randn(4, 3, 5, 5, generator=generator) + 0.2
    found = locality_score(machine, network)
    for i in range(4):
        a, b = machine[i].double().flatten().numpy(), network[i].double().flatten().numpy()
        want = 1 - ((a - b) ** 2).sum() / (75 * b.var(ddof=1))
        assert float(found[i]) == pytest.approx(want, abs=1e-9)
    assert (found > agreement(machine, network)["R2"]).all()
    mean = summarise_mean(found)
    assert mean.mean == pytest.approx(float(found.mean()))
    assert mean.ci95[0] < mean.mean < mean.ci95[1]
    assert summarise_mean(found[:1]) == Mean(float(found[0]), (float(found[0]),) * 2)


def test_of_a_constant_network_there_is_no_score_of_locality() -> None:
    network = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    machine = network / 2
    network[1], machine[2] = 0.1, 0.1
    assert locality_score(machine, network).isfinite().tolist() == [True, False, True]
    assert locality_score(machine, network)[1].isnan()


def test_one_pair_gives_one_value_and_perfect_agreement_is_one() -> None:
    x = torch.randn(1, 1, 5, 5)
    for value in agreement(x, x.clone()).values():
        assert value.shape == (1,)
        assert float(value[0]) == pytest.approx(1, abs=1e-6)


def test_a_constant_image_has_no_agreement() -> None:
    machine = torch.cat([torch.randn(1, 1, 4, 4), torch.ones(1, 1, 4, 4)])
    found = agreement(machine, torch.randn(2, 1, 4, 4))
    assert all(values.isnan().tolist() == [False, True] for values in found.values())
    with pytest.raises(InputError, match="the machine's images have the same value everywhere"):
        agreement(torch.ones(2, 1, 4, 4), torch.randn(2, 1, 4, 4))


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        summary = summarise(torch.from_numpy(rng.normal(size=32)))
        assert summary.ci95[0] <= summary.median <= summary.ci95[1]
        covered += summary.ci95[0] <= 0 <= summary.ci95[1]
    assert 88 <= covered <= 100
    assert summarise(torch.tensor([0.5])).ci95 == (0.5, 0.5)
    values = torch.rand(20)
    assert summarise(values) == summarise(values)


def test_pairs_are_compared_by_the_metric_that_is_named() -> None:
    a = {"pearson_r": torch.tensor([0.9, 0.8]), "R2": torch.tensor([0.1, 0.2])}
    b = {"pearson_r": torch.tensor([0.5, 0.5]), "R2": torch.tensor([0.3, 0.7])}
    (r,), (explained,) = (compare_pairs({"a": a, "b": b}, name) for name in ("pearson_r", "R2"))
    assert (r.wins, explained.wins) == (1.0, 0.0)
    assert r.difference.median == pytest.approx(0.35)
    assert explained.difference.median == pytest.approx(-0.35)


def test_beats_counts_seeds() -> None:
    better, worse = torch.tensor([0.9, 0.5, 0.7, 0.8]), torch.tensor([0.8, 0.6, 0.6, 0.8])
    assert beats({"pearson_r": better}, {"pearson_r": worse}) == 0.5


def test_a_summary_reads_as_a_median_with_its_interval() -> None:
    assert str(Summary(0.876, (0.81, 0.9))) == "0.88 [0.81, 0.90]"


def _scores(**values: list[float]) -> dict[str, dict[str, torch.Tensor]]:
    return {kind: {"pearson_r": torch.tensor(one)} for kind, one in values.items()}


def test_pairs_are_compared_seed_by_seed() -> None:
    # Each is above the other on its own spread, and by the same on every seed.
    seeds = torch.linspace(0.2, 0.9, 16)
    by_seed = _scores(a=(seeds + 0.05).tolist(), b=seeds.tolist(), c=(seeds - 0.1).tolist())
    pairs = {(one.machine, one.other): one for one in compare_pairs(by_seed)}
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs["a", "b"].wins == 1
    assert pairs["a", "b"].difference.median == pytest.approx(0.05, abs=1e-6)
    assert pairs["a", "b"].distinguishable
    assert pairs["b", "c"].difference.ci95[0] == pytest.approx(0.1, abs=1e-6)


def test_what_wins_as_often_as_it_loses_is_not_distinguishable() -> None:
    noise = torch.randn(32, generator=torch.Generator().manual_seed(0))
    (pair,) = compare_pairs(_scores(a=(noise - noise.median()).tolist(), b=[0.0] * 32))
    assert not pair.distinguishable
    assert 0.3 < pair.wins < 0.7


@pytest.mark.parametrize(("seeds", "enough"), [(5, False), (6, True)])
def test_few_seeds_distinguish_nothing(seeds: int, enough: bool) -> None:
    (worse,) = compare_pairs(_scores(a=[0.1] * seeds, b=[0.3] * seeds))
    assert worse.distinguishable == enough
    assert worse.wins == 0
    assert worse.difference.median == pytest.approx(-0.2)


def test_an_interval_of_the_sign_test_is_of_order_statistics() -> None:
    """Of 9 values, 2 (1 + 9) / 2^9 = 0.039 lies beyond the second from either end."""
    values = torch.tensor([*(5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0), math.nan])
    assert summarise_together(values, 1) == Summary(5.0, (2.0, 8.0))
    assert summarise_together(values, 2) == Summary(5.0, (1.0, 9.0))
    assert summarise_together(values, 13) == Summary(5.0, (-math.inf, math.inf))
    assert math.isnan(summarise_together(values[-1:], 1).median)
