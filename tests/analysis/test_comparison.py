from dataclasses import replace

from made_results import made_results

from els.analysis.comparison import Comparison
from els.analysis.report.tables import comparison_table


def test_a_row_has_every_metric_of_every_machine() -> None:
    one, two = made_results(("boundary", "ideal")), made_results(("wiener",))
    named = replace(two, provenance=replace(two.provenance, run="other"))
    comparison = Comparison((one, named))
    assert comparison.names == ["made", "other"]
    assert comparison.kinds == ["boundary", "ideal", "wiener"]
    first, second = comparison.rows()
    assert list(first) == list(second)
    assert (first["network"], first["seeds"]) == ("made", 6)
    assert (first["network_steps"], first["machine_steps"]) == (20, 4)
    wanted = one.summary["machines"]["boundary"]["R2"]
    assert first["boundary/R2"] == wanted["median"]
    assert (first["boundary/R2_low"], first["boundary/R2_high"]) == wanted["ci95"]
    assert first["wiener/r2"] is first["wiener/r2_low"] is None
    assert second["boundary/r2"] is None


def test_networks_of_one_name_are_numbered() -> None:
    results = made_results(("ideal",))
    assert Comparison((results, results)).names == ["made (1)", "made (2)"]


def test_the_table_is_turned_where_its_machines_do_not_fit() -> None:
    comparison = Comparison((made_results(("boundary", "local", "ideal")),))
    wide, narrow = (comparison_table(comparison, width) for width in (120, 60))
    assert [column.header for column in wide.columns][1:] == [
        "network", "boundary", "local", "ideal",
    ]  # fmt: skip
    assert [column.header for column in narrow.columns][1:] == ["machine", "made"]


def test_what_analyses_were_not_made_alike_in_is_said() -> None:
    one = made_results(("boundary", "ideal"))
    source = one.provenance
    protocol = replace(source.protocol, clip=True, seeds=50)
    other = replace(one, provenance=replace(source, run="other", protocol=protocol))
    assert Comparison((one, one)).differences == []
    seeds = source.protocol.seeds
    assert Comparison((one, other)).differences == [
        f"the analyses differ in seeds: made {seeds}, other 50",
        "the analyses differ in clip: made False, other True",
    ]
