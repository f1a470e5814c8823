import pytest
import torch
from studies import small_study, write_checkpoint

from els.errors import InputError
from els.models.checkpoints import load_denoiser
from els.sampling import Starts, sample_paths


def test_a_network_is_known_by_its_weights_and_facts_wherever_it_lies(tmp_path) -> None:
    one = write_checkpoint(tmp_path / "one.ckpt")
    (tmp_path / "moved.ckpt").write_bytes(one.read_bytes())
    same, other, circular = (
        load_denoiser(path)
        for path in (
            tmp_path / "moved.ckpt",
            write_checkpoint(tmp_path / "other.ckpt", seed=1),
            write_checkpoint(tmp_path / "circular.ckpt", padding="circular"),
        )
    )
    network = load_denoiser(one)
    assert network.identity == same.identity
    assert len({str(net.identity) for net in (network, other, circular)}) == 3
    study = small_study(one, seeds=9, steps=5)
    assert study.network.identity == network.identity


def test_identity_is_plain_data(tmp_path) -> None:
    network = load_denoiser(write_checkpoint(tmp_path / "one.ckpt", classes=10))
    facts, schedule, digest = network.identity
    assert schedule == network.schedule.identity
    assert facts["num_classes"] == 10
    assert len(digest) == 64


def test_one_number_stands_for_a_batch(tmp_path) -> None:
    network = load_denoiser(str(write_checkpoint(tmp_path / "one.ckpt", classes=3)))
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    want = network(x, torch.full((4,), 0.4, dtype=torch.float64), torch.full((4,), 2))
    assert torch.equal(network(x, 0.4, 2), want)
    assert torch.equal(network(x, torch.tensor(0.4, dtype=torch.float64), torch.tensor(2)), want)
    for t in (0, 1.2, torch.tensor([0.5, 0.5])):
        with pytest.raises(InputError, match=r"^t (is|has shape)"):
            network(x, t, 2)
    with pytest.raises(InputError, match="label 3 is out of range"):
        network(x, 0.4, 3)


def test_it_is_sampled_as_an_analysis_does(tmp_path) -> None:
    network = load_denoiser(write_checkpoint(tmp_path / "one.ckpt", classes=3))
    starts = Starts.of(network)
    assert starts == Starts((1, 8, 8), 3, None, torch.device("cpu"))
    want = sample_paths(network, starts, range(5, 8), steps=4).samples
    assert torch.equal(network.sample(3, seed=5, steps=4), want)


def test_it_says_in_a_line_what_it_is(tmp_path) -> None:
    network = load_denoiser(write_checkpoint(tmp_path / "one.ckpt"))
    count = f"{network.parameter_count:,}"
    assert repr(network) == f"NetworkDenoiser(ResNet, zeros padding, {count} parameters, 1 x 8 x 8)"
    network = load_denoiser(write_checkpoint(tmp_path / "two.ckpt", classes=3))
    assert "padding, 3 classes, " in repr(network)


def test_a_clipped_network_stays_in_the_range_and_keeps_its_gradient(tmp_path) -> None:
    network = load_denoiser(write_checkpoint(tmp_path / "x.ckpt"))
    clipped = network.clipped()
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    answer = network(x, 1.0)
    assert answer.abs().max() > 2
    assert torch.equal(clipped(x, 1.0), answer.clamp(-1, 1))
    assert clipped.identity != network.identity
    assert network.identity == load_denoiser(tmp_path / "x.ckpt").identity
    slopes = []
    for one in (network, clipped):
        query = x.clone().requires_grad_()
        one(query, 1.0).sum().backward()
        slopes.append(query.grad)
    assert torch.equal(*slopes)
