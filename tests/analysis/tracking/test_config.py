from dataclasses import replace
from pathlib import Path

import pytest
from studies import small_study, write_checkpoint

from els.analysis.results import TrainingConfig
from els.analysis.study import Study
from els.analysis.tracking import config
from els.models.blocks import Trained
from els.models.networks import build_network

OPTIONS = """
seed_everything: 0
run:
  name: tiny
data:
  name: digits
trainer:
  max_epochs: 3
  devices: null
model:
  net: {class_path: els.models.resnet.ResNet, init_args: {width: 16}}
  betas: [0.9, 0.99]
"""

# So many values by aliases of aliases.
BILLION = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30)
)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Of a network that was trained for 12 steps in 3 epochs."""
    path = write_checkpoint(tmp_path / "tiny" / "checkpoints" / "last.ckpt")
    (tmp_path / "tiny" / "config.yaml").write_text(OPTIONS)
    made = small_study(path)
    return trained_for(made, Trained(steps=12, epochs=3))


def trained_for(study: Study, trained: Trained | None) -> Study:
    return replace(study, provenance=replace(study.provenance, trained=trained))


def test_runs_can_be_grouped_and_filtered_by_network_data_protocol_and_training(
    study: Study,
) -> None:
    told = config.config(study)
    facts = study.provenance.network
    assert told["network"] == {
        "class": "ResNet",
        "padding": "zeros",
        "width": 16,
        "depth": 1,
        "kernel": 3,
        "last_kernel": 3,
        "norm": "none",
        "parameters": facts.parameters,
        "conditional": False,
        "local": True,
        "receptive_field": 7,
    }
    data = study.provenance.data
    assert told["data"] == {
        "name": "digits",
        "images": 40,
        "size": 8,
        "channels": 1,
        "limit": 40,
        "seed": 0,
        "root": "data",
        "fingerprint": data.fingerprint,
    }
    assert told["protocol"]["machines"] == ["boundary", "local", "ideal"]
    assert told["protocol"]["seeds"] == 5
    assert told["train"] == {
        "seed_everything": 0,
        "run": {"name": "tiny"},
        "data": {"name": "digits"},
        "trainer": {"max_epochs": 3},
        "steps": 12,
        "epochs": 3,
        "model": {
            "net": {"class_path": "els.models.resnet.ResNet", "init_args": {"width": 16}},
            "betas": [0.9, 0.99],
        },
    }
    assert config.tags(study) == ["digits", "zeros", "boundary"]


def test_nothing_in_the_config_is_unset_or_stands_there_twice(study: Study) -> None:
    values = flat(config.config(study))
    assert None not in values.values()
    digests = [value for value in values.values() if isinstance(value, str) and len(value) == 64]
    assert len(digests) == len(set(digests)) == 2  # of the checkpoint and of the images
    assert [name for name in values if name.endswith(".seeds")] == [".protocol.seeds"]


def flat(value: object, name: str = "") -> dict[str, object]:
    """The values of nested tables by their names with dots, as W&B shows them."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, one in value.items() for k, v in flat(one, f"{name}.{key}").items()}


def test_the_loss_is_known_where_the_checkpoint_tells_it(study: Study) -> None:
    parameters = {"network/parameters": study.provenance.network.parameters}
    assert config.network_numbers(study) == parameters
    study = trained_for(study, Trained(steps=11, epochs=2, val_loss=0.25))
    assert config.network_numbers(study) == {**parameters, "val/loss": 0.25}
    told = config.config(study)["train"]
    assert (told["steps"], told["epochs"], told["val_loss"]) == (11, 2, 0.25)


def test_a_network_of_elsewhere_and_one_that_sees_the_whole_image(study: Study) -> None:
    net = build_network("UNet", {"channels": 1, "widths": [16, 32], "attention": [1]})
    study.network.net = net
    provenance = replace(study.provenance, network=net.facts, training=None, trained=None)
    elsewhere = replace(study, provenance=provenance)
    told = config.config(elsewhere)
    assert told["train"] == {}
    expected = {"class": "UNet", "width": 16, "depth": 2, "widths": [16, 32], "local": False}
    assert expected.items() <= told["network"].items()
    assert "receptive_field" not in told["network"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("a: [", {}),
        ("- 1", {}),
        ("when: 2026-01-02\n3: {x: null}\nn: .nan", {"when": "2026-01-02", "3": {}, "n": "nan"}),
        ("a: &a [*a]", {}),
        ("a: !!python/object:os.system {}", {}),
        (BILLION, {}),
    ],
)
def test_any_training_configuration_is_read(text: str, options: dict) -> None:
    found = config.training_options(TrainingConfig("config.yaml", text))
    if "n" in found:
        found["n"] = str(found["n"])
    assert found == options


def test_an_analysis_is_known_wherever_its_files_are(study: Study) -> None:
    provenance = study.provenance
    moved = replace(
        provenance,
        run="other",
        data=replace(provenance.data, root="elsewhere"),
        checkpoint=replace(provenance.checkpoint, path="elsewhere.ckpt"),
    )
    assert config.known_by(moved) == config.known_by(provenance)
    for changes in (
        {"data": replace(provenance.data, fingerprint="0")},
        {"checkpoint": replace(provenance.checkpoint, sha256="0")},
        {"protocol": replace(provenance.protocol, seeds=6)},
        {"versions": {**provenance.versions, "results": "0"}},
    ):
        assert config.known_by(replace(provenance, **changes)) != config.known_by(provenance)
