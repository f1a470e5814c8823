from pathlib import Path

import pytest
import torch
from studies import write_checkpoint

from els.analysis.commands import main
from els.analysis.options import Compute, Output, Protocol, Source, chosen_formats
from els.errors import InputError


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        (Protocol, {"seeds": 0}, "seeds is 0; it must be at least 1"),
        (Protocol, {"steps": 0}, "steps is 0"),
        (Protocol, {"held_out": -1}, "held_out is -1"),
        (Protocol, {"network_steps": [0]}, r"network_steps is \[0\]"),
        (Protocol, {"network_steps": []}, r"network_steps is \[\]"),
        (Protocol, {"seeds": 4, "calibration_seeds": 4}, "no seeds are left for agreement"),
        (Protocol, {"information": 9}, "information is 9; give 0 to 8 seeds"),
        (Protocol, {"information": -1}, "information is -1"),
        (Compute, {"batch": 0}, "batch is 0"),
        (Compute, {"devices": 0}, "devices is 0"),
        (Output, {"figures": "gif"}, "give one or more of png, pdf, svg"),
        (Output, {"figures": ""}, "give one or more of png, pdf, svg"),
    ],
)
def test_values_without_a_meaning_are_refused(group: type, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        group(**options)


def test_the_same_x_goes_with_the_default_protocol_alone() -> None:
    assert Protocol(same_x=3, denoising=5, held_out=0).unseen_images == 5
    with pytest.raises(InputError, match="same_x is 3 with protocol locality"):
        Protocol(same_x=3, protocol="locality")


def test_seeds_are_for_calibration_first_and_never_for_both() -> None:
    protocol = Protocol(seeds=7, calibration_seeds=2)
    assert list(protocol.calibration) == [0, 1]
    assert list(protocol.evaluation) == [2, 3, 4, 5, 6]


def test_the_network_is_always_sampled_with_the_steps_of_the_machines() -> None:
    assert Protocol(steps=20, network_steps=[150]).all_network_steps == [150, 20]
    assert Protocol(steps=20, network_steps=[20, 150, 20]).all_network_steps == [20, 150]


def test_the_protocol_of_locality_has_ten_steps_and_clamps_itself() -> None:
    protocol = Protocol(protocol="locality")
    assert (protocol.steps, protocol.network_steps, protocol.clip) == (10, [10], False)
    assert Protocol(protocol="locality", steps=10, network_steps=[10]) == protocol
    for name, value in (("steps", 40), ("network_steps", [150, 20]), ("clip", True)):
        with pytest.raises(InputError, match=f"{name} is .* with protocol locality, which has 10"):
            Protocol(protocol="locality", **{name: value})


def test_what_a_protocol_replaces_is_said(capsys: pytest.CaptureFixture) -> None:
    for given, said in (
        ("--protocol locality --steps 20", "protocol locality sets steps to 10, in place of 20"),
        ("--protocol locality", "protocol locality sets network_steps to [10], in place of [20]"),
    ):
        with pytest.raises(InputError, match=r"net\.pt"):
            main(["net.pt", *given.split()])
        assert said in " ".join(capsys.readouterr().out.split())
    for given in ("--steps 20", "--protocol locality --steps 10 --network_steps 10"):
        with pytest.raises(InputError, match=r"net\.pt"):
            main(["net.pt", *given.split()])
        assert "in place of" not in capsys.readouterr().out


def test_formats_come_once_and_png_is_always_there() -> None:
    assert chosen_formats("pdf, svg,pdf") == ("pdf", "svg")
    assert Output(figures="pdf").formats == ("png", "pdf")
    assert Output(figures=["svg", "png"]).formats == ("png", "svg")


def test_where_an_analysis_is_written(tmp_path: Path) -> None:
    def folder(name: object, **options: object) -> Path:
        return Output(**options).folder(Source(str(name)))

    checkpoint = write_checkpoint(tmp_path / "tiny" / "checkpoints" / "last.ckpt")
    weights = tmp_path / "w.pt"
    torch.save({}, weights)
    assert folder(checkpoint) == folder(checkpoint.parent) == tmp_path / "tiny"
    assert folder(weights) == Path("runs", "w")
    assert folder(weights, out="elsewhere/x") == Path("elsewhere/x")
    assert folder("wandb:team/els/digits:v3") == Path("runs", "digits")
    (tmp_path / "config.json").touch()
    assert folder(tmp_path) == Path("runs", tmp_path.name)


def test_in_a_sweep_the_runs_id_is_in_the_folders_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    source = Source("wandb:team/els/digits:v3")
    assert Output().folder(source) == Path("runs", "digits-r1")
    assert source.home == Path("runs", "digits")
