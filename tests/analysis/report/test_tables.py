from dataclasses import replace
from io import BytesIO, TextIOWrapper

import pytest
import torch
from made_results import made_results, made_scales
from rich.console import Console

from els.analysis.comparison import Comparison
from els.analysis.report.tables import (
    agreement_tables,
    comparison_table,
    pair_cells,
    pairs_table,
    scale_text,
    scales_table,
)
from els.analysis.report.words import headline


def said(thing: object, *, terminal: bool, encoding: str = "utf-8", width: int = 100) -> str:
    """What a console of that kind prints."""
    file = TextIOWrapper(BytesIO(), encoding=encoding)
    Console(file=file, force_terminal=terminal, width=width).print(thing)
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def test_every_fitted_machine_has_a_row_with_its_scale_and_what_is_as_good() -> None:
    scales = made_results(("boundary", "tempered", "ideal")).scales
    text = said(scales_table(scales), terminal=True)
    (boundary,) = [line for line in text.splitlines() if "boundary" in line]
    assert boundary.split() == ["boundary", "size", "7+", "5", "(5-7)", "5", "(5-7)", "3", "(3-7)"]
    assert "temperature" in text
    assert all(f"t = {t:g}" in text for t in (1, 0.75, 0.5, 0.25))
    assert "ideal" not in text


def test_a_scale_says_what_is_as_good() -> None:
    table = (((0.5,) * 2, (0.9, 0.91), (0.91, 0.9)), ((0.9,) * 2, (0.5,) * 2, (0.5,) * 2))
    one = replace(made_scales("boundary", sizes=(5, 3)), t=(1.0, 0.5), table=table)
    assert [scale_text(one, step) for step in (0, 1)] == ["5 (5-7)", "3"]


def test_machines_against_each_other_and_what_cannot_be_told() -> None:
    results = made_results(("boundary", "local", "ideal"), seeds=12)
    network = results.network[20]
    alike = network + 0.3 * torch.randn(network.shape, generator=torch.Generator().manual_seed(5))
    other = network + 0.3 * torch.randn(network.shape, generator=torch.Generator().manual_seed(6))
    machines = {**results.machines, "boundary": alike, "local": other}
    results = replace(results, machines=machines)
    rows = {row[1]: row for row in pair_cells(results.pairs) if row[0] == "boundary"}
    assert rows["local"][-1] == "not distinguishable"
    assert rows["ideal"][2:] == ("100%", rows["ideal"][3], "")
    assert rows["ideal"][3].startswith("+0.")
    told = headline(results)
    assert "not distinguishable from local" in told
    assert "closer than ideal on 100% of the seeds" in told


def test_a_machine_that_loses_is_said_to() -> None:
    results = made_results(("boundary", "local"), seeds=12)
    good, bad = results.machines.values()
    results = replace(results, machines={"boundary": bad, "local": good})
    assert "farther off than local on 100% of the seeds" in headline(results)


def test_tables_fit_into_80_columns() -> None:
    results = made_results(("global_equivariant", "patch_composite", "ideal"))
    results = replace(results, scales={"global_equivariant": made_scales("boundary")})
    for thing in (*agreement_tables(results), pairs_table(results), scales_table(results.scales)):
        text = said(thing, terminal=False, width=80)
        assert max(map(len, text.splitlines())) <= 80
        assert all("]" in line for line in text.splitlines() if "[" in line)  # none is broken


@pytest.mark.parametrize(("terminal", "encoding"), [(False, "utf-8"), (True, "ascii")])
def test_without_a_terminal_or_its_letters_everything_is_ascii(
    terminal: bool, encoding: str
) -> None:
    results = made_results(("boundary", "ideal"))
    fitted, compared = scales_table(results.scales), comparison_table(Comparison((results,)), 100)
    things = (*agreement_tables(results), pairs_table(results), fitted, compared)
    text = "".join(said(thing, terminal=terminal, encoding=encoding) for thing in things)
    assert text.isascii()
    assert "7+" in text
    assert ("\x1b" in text) == terminal
    assert not [frame for frame in ("|", "+-") if frame in text]
    assert "─" in said(things[0], terminal=True)
