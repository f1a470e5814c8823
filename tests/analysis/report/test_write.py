from dataclasses import replace
from pathlib import Path

from made_results import made_results, made_scales

from els.analysis.comparison import Comparison
from els.analysis.report.figures import FIGURES
from els.analysis.report.write import write_comparison, write_figures, write_report

KINDS = ("boundary", "mixture", "local", "ideal")


def test_the_files_of_a_report_have_roles(tmp_path: Path) -> None:
    data = replace(made_scales("boundary"), criterion="mse")
    results = replace(made_results(KINDS), data_scales=data)
    results.save(tmp_path)
    files = write_report(results, tmp_path, ("png", "svg"))
    assert {path.name for path in files.scales} == {
        "scales.json", "scales_local.json", "data_scales.json", "weights.json",
    }  # fmt: skip
    assert {path.name for path in files.data} == {
        "agreement.json", "samples.npz", "network.json", "origins.npz",
        "information_boundary.npz", "information_local.npz",
    }  # fmt: skip
    assert [path.name for path in files.tables] == ["per_seed.csv", "per_t.csv"]
    assert {path.suffix for path in files.figures} == {".png", ".svg"}
    assert files.paths[0] == files.page == tmp_path / "report.html"
    assert set(files.paths) == set(tmp_path.iterdir())


def test_figures_of_an_earlier_analysis_with_more_to_show_do_not_stay(tmp_path: Path) -> None:
    for name in ("mosaic.pdf", "scales.svg", "notes.png"):
        (tmp_path / name).touch()
    paths = write_figures(made_results(("ideal",)), tmp_path, ("png",))
    shown = {path.stem for path in paths}
    without = {"scales", "criterion", "mosaic", "consistency", "information", "memorisation"}
    without |= {"locality", "denoising", "same_x", "weights"}
    assert set(FIGURES) - shown == without
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths} | {
        "notes.png"
    }


def test_a_comparison_has_a_page_a_table_and_curves(tmp_path: Path) -> None:
    comparison = Comparison((made_results(KINDS), made_results(("wiener",))))
    files = write_comparison(comparison, tmp_path, ("svg", "pdf"))
    names = [path.name for path in files.paths]
    assert names == ["report.html", "comparison.csv", "by_t.svg", "by_t.pdf"]
    assert (files.scales, files.data) == ((), ())
