import csv
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import torch
from made_results import made_results, made_scales, with_answers
from rich.console import Console

from els.agreement import Summary
from els.analysis.comparison import Comparison
from els.analysis.report.tables import (
    BOUND,
    agreement_cells,
    agreement_tables,
    comparison_table,
    network_cells,
    pair_cells,
    pairs_table,
    scale_text,
    scales_table,
    seed_rows,
    share_cells,
    time_rows,
    write_csv,
)
from els.analysis.report.views import REACHED
from els.analysis.report.words import interval_text
from els.ceiling import Ceiling, ceiling_by_seed, network_pairs


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


@pytest.mark.parametrize(
    ("r", "explained", "bounds"),
    [(0.81, 0.6, ("0.900", "0.800")), (-0.1, -1, ("", "0.000")), (0.04, -1.1, ("0.200", ""))],
)
def test_what_a_theory_without_error_would_reach_is_the_last_row(
    r: float, explained: float, bounds: tuple[str, str]
) -> None:
    """sqrt(r) and (1 + R2) / 2, where networks share a signal."""
    (one,) = with_answers(made_results(("boundary", "ideal"))).agreement
    metrics = {"pearson_r": r, "r2": r**2, "R2": explained}
    reached = Ceiling({name: Summary(x, (x, x)) for name, x in metrics.items()}, ())
    assert agreement_cells(replace(one, ceiling=reached))[-1] == (BOUND, *bounds)


def test_shares_of_the_ceiling_stand_beside_the_machines_and_above_what_they_are_of() -> None:
    results = with_answers(made_results(("boundary", "local", "ideal"), seeds=12))
    (one,) = results.agreement
    header, *rows = agreement_cells(one)
    assert [row[0] for row in rows] == ["boundary", "local", "ideal", REACHED, BOUND]
    assert rows[-2][1] == interval_text(one.ceiling.metrics["pearson_r"])
    shares = share_cells(one)
    assert shares[0] == ("machine", "pearson_r / ceiling", "R2 / ceiling")
    share = one.machines["local"].of_ceiling["pearson_r"]
    assert shares[2][:2] == ("local", interval_text(share))
    reached = ceiling_by_seed(
        network_pairs({"n": results.network[20], **{k: x[20] for k, x in results.twins.items()}}),
        "n",
    )["pearson_r"]
    ratio = results.by_seed["local"]["pearson_r"].quantile(0.5) / reached.quantile(0.5)
    assert share.median == pytest.approx(float(ratio))
    (table,) = agreement_tables(results)
    assert [column.header for column in table.columns] == [*header, *shares[0][1:]]
    assert table.row_count == 5
    pairs = network_cells(one)
    assert [row[:2] for row in pairs[1:]] == [
        ("network", "twin"),
        ("network", "other"),
        ("twin", "other"),
    ]


def test_answers_apart_from_paths_are_columns() -> None:
    results = with_answers(made_results(("boundary", "ideal")))
    row = time_rows(results)[1]
    found = results.denoising
    assert row["mse/held_out/network"] == found.mean["held_out"]["network"].value[1]
    ratio = found.over_wiener["training"]["ideal"]
    assert row["mse_over_wiener/training/ideal_high"] == ratio.high[1]
    assert row["mse_gap/boundary_low"] == found.gap["boundary"].low[1]
    same = results.same_x.median["machine"]["boundary"]["R2"]
    assert row["same_x/machine/R2/boundary"] == same.value[1]
    assert row["same_x/images/pearson_r/ceiling"] > 0
    assert row["ceiling/r2"] == pytest.approx(float(results.ceiling_by_t["r2"][1].quantile(0.5)))
    seed = seed_rows(results)[2]
    assert seed["ceiling/pearson_r"] == float(results.ceiling_by_seed["pearson_r"][2])


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    path = tmp_path / "é" / "rows.csv"
    first = {"run": '=HYPERLINK("x")', "@sum": -1.5, "r": None, "é": "a,b"}
    write_csv(path, [first, {"run": "-1\x1b"}])
    assert path.read_text(encoding="utf-8").splitlines() == [
        "run,'@sum,r,é",
        '"\'=HYPERLINK(""x"")",-1.5,,"a,b"',
        "'-1\\x1b,,,",
    ]
    for start in "=+-@\t\r":
        write_csv(path, [{"a": f"{start}1", "b": "x"}])
        with open(path, newline="", encoding="utf-8") as file:
            assert not list(csv.reader(file))[1][0].startswith(start)
