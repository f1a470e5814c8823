from dataclasses import replace
from io import BytesIO, TextIOWrapper

import pytest
from made_results import made_results, made_scales
from rich.console import Console

from els.analysis.comparison import Comparison
from els.analysis.report.tables import ScaleCurves, agreement_tables, comparison_table, curve

BLOCKS = "▁▂▃▄▅▆▇█"


def said(thing: object, *, terminal: bool, encoding: str = "utf-8") -> str:
    """What a console of that kind prints."""
    file = TextIOWrapper(BytesIO(), encoding=encoding)
    Console(file=file, force_terminal=terminal, width=100).print(thing)
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def test_a_curve_goes_from_the_smallest_value_to_the_largest() -> None:
    assert curve(made_scales("boundary", sizes=(7, 5, 5, 3)), BLOCKS) == "█▅▅▁"
    assert curve(made_scales("boundary", sizes=(5, 7, 7, 5)), "0123456789") == "0990"
    assert curve(made_scales("boundary", sizes=(5, 5, 5, 5)), BLOCKS) == "▁▁▁▁"
    # By the place among the values that were tried, which need not be in order or evenly spaced.
    spread = replace(made_scales("tempered", sizes=(64, 1, 2, 64)), candidates=(64, 2, 1))
    assert curve(spread, "0123456789") == "9049"


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    sizes = (7, *[5] * 148, 3)
    thinned = curve(replace(made_scales("boundary"), values=sizes), BLOCKS)
    assert (len(thinned), thinned[0], thinned[-1]) == (40, "█", "▁")


def test_every_fitted_machine_has_a_line() -> None:
    scales = made_results(("boundary", "tempered", "ideal")).scales
    text = said(ScaleCurves(scales), terminal=True)
    (boundary,) = [line for line in text.splitlines() if "boundary" in line]
    assert "█▅▅▁" in boundary
    assert "size 3 to 7" in boundary
    assert "temperature 3 to 7" in text
    assert "t = 1 to 0.25" in text
    assert "ideal" not in text


@pytest.mark.parametrize(("terminal", "encoding"), [(False, "utf-8"), (True, "ascii")])
def test_without_a_terminal_or_its_letters_everything_is_ascii(
    terminal: bool, encoding: str
) -> None:
    results = made_results(("boundary", "ideal"))
    curves, compared = ScaleCurves(results.scales), comparison_table(Comparison((results,)), 100)
    things = (*agreement_tables(results), curves, compared)
    text = "".join(said(thing, terminal=terminal, encoding=encoding) for thing in things)
    assert text.isascii()
    assert "9440" in text
    assert ("\x1b" in text) == terminal
    assert not set("+|") & set(text)  # no frames
    assert "─" in said(things[0], terminal=True)
