import json
from math import nan

import pytest

from els.analysis.report.charts import specs
from els.analysis.report.style import DASHED, DOTTED, Style
from els.analysis.report.views import HeatMap, Lines, Panels, Series


def series(name: str, **options: object) -> Series:
    style = Style("#0072B2", **options)
    return Series(name, style, (1.0, 0.5, 0.0), (1.0, nan, 3.0), (0.5, nan, 2.0), (2.0, nan, 4.0))


def test_what_is_not_a_number_is_left_out_and_bands_are_kept() -> None:
    (spec,) = specs(Lines("", "y", (series("a"),)))
    assert spec["data"]["values"] == [
        {"series": "a", "t": 1.0, "value": 1.0, "low": 0.5, "high": 2.0},
        {"series": "a", "t": 0.0, "value": 3.0, "low": 2.0, "high": 4.0},
    ]
    json.dumps(spec, allow_nan=False)


def test_series_keep_their_colours_and_dashes() -> None:
    (spec,) = specs(Lines("", "y", (series("a", dashes=DASHED), series("b", dashes=DOTTED))))
    line = spec["layer"][1]["encoding"]
    assert line["strokeDash"]["scale"] == {"domain": ["a", "b"], "range": [[10, 3], [2, 2.4]]}
    assert line["color"]["scale"]["range"] == ["#0072B2"] * 2


@pytest.mark.parametrize(("log", "shape"), [(True, "step"), (False, "linear")])
def test_axes_are_as_the_view_says(log: bool, shape: str) -> None:
    (spec,) = specs(Lines("", "y", (series("a"),), log=log, step=shape == "step"))
    line = spec["layer"][1]
    assert line["mark"]["interpolate"] == shape
    assert (line["encoding"]["y"]["scale"].get("type") == "log") == log
    assert line["encoding"]["x"]["scale"]["reverse"]


def test_a_logarithmic_scale_of_colours_has_no_zero() -> None:
    view = HeatMap("a", "y", (1.0,), (3, 5), ((0.0, 0.5),), "u", log=True,
                   told=("cosine", ((1.0, 0.5),)))  # fmt: skip
    (spec,) = specs(view)
    assert spec["data"]["values"] == [
        {"t": 1.0, "row": 3, "value": 1.0, "colour": 1e-6},
        {"t": 1.0, "row": 5, "value": 0.5, "colour": 0.5},
    ]


def test_several_charts_have_titles_and_one_has_none() -> None:
    view = HeatMap("a", "y", (1.0,), (3,), ((0.5,),), "u")
    assert "title" not in specs(view)[0]
    assert [spec["title"] for spec in specs(Panels("", (view, view)))] == ["a: u"] * 2
    assert specs(None) == []
