"""The ceiling: networks against each other, held to what is known of a signal and its errors."""

from __future__ import annotations

import pytest
import torch

from els.agreement import METRICS, agreement, metrics_by_t, share, shares, summarise_machines
from els.ceiling import ceiling_by_seed, ceiling_by_t, network_pairs, summarise_ceiling
from els.machines import make_machine
from els.sampling import Starts, sample_paths

SIZE, SEEDS = 100, 12


def parts(count: int) -> list[torch.Tensor]:
    """Independent normal images."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, SEEDS, 1, SIZE, SIZE)
    return list(torch.randn(shape, generator=generator, dtype=torch.float64))


def test_of_a_signal_and_an_error_the_ceiling_is_the_share_of_the_signal() -> None:
    """Networks f + e_i with var e = 1/4: r = 1 / 1.25, and f itself reaches its root."""
    signal, *errors = parts(4)
    names = ("network", "b", "c")
    networks = {name: signal + e / 2 for name, e in zip(names, errors, strict=True)}
    found = summarise_ceiling(network_pairs(networks), "network")
    assert [(pair.network, pair.other) for pair in found.pairs] == [
        ("network", "b"),
        ("network", "c"),
        ("b", "c"),
    ]
    assert found.metrics["pearson_r"].median == pytest.approx(0.8, abs=0.005)
    assert found.metrics["r2"].median == pytest.approx(0.64, abs=0.008)
    # 1 - (var e + var e) / (var f + var e)
    assert found.metrics["R2"].median == pytest.approx(1 - 0.5 / 1.25, abs=0.01)
    reached = ceiling_by_seed(network_pairs(networks), "network")
    theory = agreement(signal, networks["network"])
    for name, bound in found.bounds.items():  # which the signal reaches, and other networks do not
        assert float(theory[name].median()) == pytest.approx(bound, abs=0.01)
        assert bound > found.metrics[name].median + 0.05
    machines = {"theory": agreement(signal, networks["network"])}
    of_ceiling = summarise_machines(machines, reached)["theory"].of_ceiling
    assert of_ceiling["pearson_r"].median == pytest.approx(0.8**-0.5, abs=0.005)
    assert of_ceiling["r2"].median == pytest.approx(1 / 0.8, abs=0.01)


def test_with_several_networks_a_seed_has_the_mean_of_the_others() -> None:
    a, b, c = parts(3)
    pairs = network_pairs({"network": a, "b": a + b, "c": a + 2 * c})
    found = ceiling_by_seed(pairs, "network")
    for name in METRICS:
        each = (pairs["network", "b"][name], pairs["network", "c"][name])
        assert torch.allclose(found[name], sum(each) / 2)


def test_the_target_is_the_network_that_is_named_first() -> None:
    a, b = (part[:, :, :4, :4] for part in parts(2))
    (pair,) = network_pairs({"a": a, "b": 3 * b}).values()
    assert torch.equal(pair["R2"], agreement(3 * b, a)["R2"])


def test_a_share_is_of_medians_and_paired_by_seed() -> None:
    reference = torch.linspace(0.2, 1, 9)
    half = share(reference / 2, reference)
    assert (half.median, half.ci95) == (pytest.approx(0.5), (pytest.approx(0.5),) * 2)
    assert share(reference, reference - 0.9) is None  # of what reaches zero
    values = dict.fromkeys(METRICS, reference)
    assert list(shares(values, {**values, "R2": -reference})) == ["pearson_r", "r2"]


def test_a_network_is_its_own_ceiling_on_its_own_path() -> None:
    from conftest import random_images

    network = make_machine("wiener", random_images(30))
    paths = sample_paths(network, Starts((1, 8, 8)), range(3), steps=4)
    found = ceiling_by_t(paths.x0_hats, {"again": paths.x0_hats})
    for name in METRICS:
        assert torch.allclose(found[name], torch.ones(4, 3).double())


def test_where_an_image_is_constant_there_is_no_metric() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, 3, 1, 4, 4, generator=generator)
    a[1, 2] = 0.5
    found = metrics_by_t(a, b)
    for name in METRICS:
        assert found[name].isnan().nonzero().tolist() == [[1, 2]]
        assert torch.allclose(found[name][0], agreement(a[0], b[0])[name])


def test_where_one_network_is_constant_the_ceiling_is_that_of_the_others() -> None:
    a, b, c = (part[:, :, :4, :4] for part in parts(3))
    c[2] = 0.5
    a[5] = 0.5
    pairs = network_pairs({"network": a, "b": a + b, "c": c})
    found = ceiling_by_seed(pairs, "network")
    for name in METRICS:
        assert found[name][2] == pairs["network", "b"][name][2]
        assert found[name].isnan().nonzero().flatten().tolist() == [5]
