from studies import small_study, write_checkpoint

from els.models.checkpoints import load_denoiser


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
