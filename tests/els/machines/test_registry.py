import re

import pytest
from conftest import random_images
from tester import MachineTester

from els.errors import InputError
from els.machines import MACHINES, Machine, MachineOptions, make_machine
from els.machines.registry import PADDINGS, all_for, around, default_for, described


@pytest.mark.parametrize("kind", MACHINES)
def test_a_machine_keeps_its_promises(kind: str) -> None:
    MachineTester(kind).check()


@pytest.mark.parametrize("kind", MACHINES)
def test_an_entry_says_what_its_machine_is(kind: str) -> None:
    entry, machine = MACHINES[kind], make_machine(kind, random_images())
    assert isinstance(machine, Machine)
    assert machine.kind == kind
    assert entry.says.endswith(".")
    assert set(entry.pads) <= set(PADDINGS)
    scale = "weights" if kind == "mixture" else machine.scale.name if machine.scale else ""
    assert entry.scale == scale
    for other in re.findall(r"`(\w+)`", entry.says):
        assert other in MACHINES


def test_the_machines_of_a_padding_begin_with_the_one_that_fits() -> None:
    for padding, first in (("zeros", "boundary"), ("circular", "equivariant")):
        assert around(padding) == default_for(padding)[0] == all_for(padding)[0] == first
        assert default_for(padding)[1:] == ("local", "ideal")
    assert set(all_for("zeros")) | set(all_for("circular")) == set(MACHINES)
    assert "equivariant" not in all_for("zeros")
    assert all_for("reflect") == all_for("zeros")
    order = "boundary mixture boundary_soft wiener nearest tempered smoothed global_equivariant"
    order += " pca_local patch_composite patch_composite_soft local ideal"
    assert all_for("zeros") == tuple(order.split())


def test_every_machine_is_described_on_a_line() -> None:
    assert [line.split()[0] for line in described().splitlines()] == list(MACHINES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "steam"}, "unknown engine 'steam'"),
        ({"chunk": 0}, "chunk is 0"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"symmetries": ("glide",)}, r"unknown symmetries \['glide'\]"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"around": "local"}, "around is 'local'"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MachineOptions(**options)


def test_machines_and_options_that_do_not_go_together_are_refused() -> None:
    images = random_images()
    with pytest.raises(InputError, match="unknown machine 'magic'; known are boundary"):
        make_machine("magic", images)
    with pytest.raises(InputError, match="no training images"):
        make_machine("ideal", images.take(images.pixels[:0, 0, 0, 0].long()))
    with pytest.raises(InputError, match="the wiener machine has no patches: window"):
        make_machine("wiener", images, window="flat")
    with pytest.raises(InputError, match="the ideal machine has no patches, which symmetries"):
        make_machine("ideal", images, symmetries=["flip"])
    with pytest.raises(InputError, match="only `boundary` has a largest displacement"):
        make_machine("local", images, shift=2)
