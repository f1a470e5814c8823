from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_results import made_provenance, made_results, with_answers
from PIL import Image
from wandb.sdk.lib.hashutil import md5_file_b64

from els.analysis.report.write import ReportFiles
from els.analysis.results import FileId, Results
from els.analysis.tracking import content
from els.audit import Audit
from els.files import replacing
from els.images import to_uint8
from els.machines import MACHINES


@pytest.fixture
def results() -> Results:
    """Five seeds of 3 x 8 x 8, of which the last is predicted best and the first worst."""
    generator = torch.Generator().manual_seed(0)
    noise, network, other = torch.randn(3, 5, 3, 8, 8, generator=generator)
    share = torch.linspace(0, 0.9, 5)[:, None, None, None]
    return Results(
        seeds=(4, 5, 6, 7, 8), labels=torch.arange(5), noise=noise, network={20: network},
        machines={"local": share * network + (1 - share) * other, "ideal": other},
        by_t={}, t=(1.0,), scales={},
        provenance=made_provenance(run="x", checkpoint=FileId("a", "b")),
    )  # fmt: skip


def test_images_are_those_of_the_best_the_median_and_the_worst_seed(results: Results) -> None:
    panels = content.images(results)
    assert list(panels) == ["images/best", "images/median", "images/worst"]
    for panel, index in zip(panels.values(), (4, 2, 0), strict=True):
        captions = [image._caption for image in panel]
        seed = f"seed {results.seeds[index]}, label {index}"
        assert captions[:2] == [f"noise, {seed}", f"network, {seed}"]
        r = float(results.by_seed["local"]["pearson_r"][index])
        assert captions[2].startswith(f"local, {seed}: pearson_r {r:.3f}, r2 {r * r:.3f}, R2 ")
        drawn = (results.noise, results.network[20], *results.machines.values())
        for image, samples in zip(panel, drawn, strict=True):
            pixels = np.asarray(image.image)
            assert pixels.shape == (96, 96, 3)
            expected = to_uint8(samples[index]).permute(1, 2, 0).numpy()
            for corner in (0, 11):  # each pixel is a square of 12
                np.testing.assert_array_equal(pixels[corner::12, corner::12], expected)


def test_the_table_has_every_seed_and_large_images_stay_as_they_are(results: Results) -> None:
    table = content.seed_table(results)
    assert table.columns[:3] == ["seed", "label", "local/pearson_r"]
    assert table.columns[-4:] == ["image/noise", "image/network", "image/local", "image/ideal"]
    assert [row[0] for row in table.data] == [4, 5, 6, 7, 8]
    assert table.data[3][-2]._caption.startswith("local, seed 7, label 3: ")
    assert content._pixels(torch.zeros(1, 128, 128)).shape == (128, 128, 1)


def test_agreement_is_that_of_the_first_machine(results: Results) -> None:
    numbers = content.agreement_of_first(results) | content.agreement_by_kind(results)
    machines = results.summary["machines"]
    for metric in ("pearson_r", "r2", "R2"):
        expected = [machines["local"][metric]["median"], *machines["local"][metric]["ci95"]]
        names = [f"agreement/{metric}{end}" for end in ("", "_low", "_high")]
        assert [numbers[name] for name in names] == expected
    assert numbers["agreement/beats_ideal"] == machines["local"]["beats_ideal"]
    for kind, values in machines.items():
        assert numbers[f"agreement/{kind}/pearson_r"] == values["pearson_r"]["median"]
    assert all(isinstance(value, float) for value in numbers.values())
    table = content.machine_table(results)
    assert [row[:2] for row in table.data] == [
        [kind, values["pearson_r"]["median"]] for kind, values in machines.items()
    ]
    assert table.columns[-1] == "beats_ideal"


def test_machines_against_each_other_are_a_table(results: Results) -> None:
    (row,) = content.pair_table(results).data
    (pair,) = results.pairs
    assert row == [
        "local",
        "ideal",
        pair.wins,
        pair.difference.median,
        *pair.difference.ci95,
        False,
    ]


def test_networks_of_other_seeds_are_a_table_and_two_numbers() -> None:
    results = with_answers(made_results(["boundary", "ideal"]))
    numbers, ceiling = content.agreement_of_first(results), results.agreement[0].ceiling
    assert numbers["agreement/ceiling"] == ceiling.metrics["pearson_r"].median
    share = results.agreement[0].machines["boundary"].of_ceiling["pearson_r"]
    assert numbers["agreement/of_ceiling"] == share.median
    table = content.network_table(results)
    assert [row[:3] for row in table.data] == [
        [pair.network, pair.other, pair.metrics["pearson_r"].median] for pair in ceiling.pairs
    ]
    machines = content.machine_table(results)
    column = machines.columns.index("pearson_r/ceiling")
    assert machines.data[0][column] == share.median
    rows = content.rows_by_t(results)
    assert "analysis/mse/held_out/network" in rows[0]
    assert not [name for name in rows[0] if name.endswith(("_low", "_high"))]


def test_the_summary_has_what_matters_most_and_no_more_than_has_room() -> None:
    kinds = ["boundary", "local", "ideal"]
    usual = content.numbers(made_results(kinds))
    parts = [name.split("/") for name in usual]
    assert {tuple(part[:2]) for part in parts if part[0] == "novelty"} == {
        ("novelty", "network"),
        ("novelty", "held_out"),
        ("novelty", "training"),
    }
    assert not [name for name in usual if " " in name]
    assert [part[1] for part in parts if part[0] == "copied"] == ["network", "boundary"]
    assert len(usual) == 25  # beside the size of the network and its loss
    results = with_answers(made_results(list(MACHINES)))
    assert content.agreement_by_kind(results).keys() <= content.numbers(results).keys()
    many = {kind: Audit(0.01, (0.5,), (0.005,), (0.1,), (0.1,), 12) for kind in MACHINES}
    crowded = content.numbers(replace(results, audits=many))
    assert len(crowded) == 29
    # What is optional cuts off nothing that is always there.
    assert {f"copied/{side}" for side in ("network", results.primary)} <= set(crowded)


def test_scales_that_were_logged_when_they_were_fitted_are_not_logged_again() -> None:
    results = made_results(["boundary", "local", "ideal"])
    early = content.scale_rows(results.scales["boundary"])
    assert [row["analysis/t"] for row in early] == list(results.t)
    assert set(early[0]) == {
        "analysis/t",
        "analysis/scale/boundary",
        *(f"analysis/cosine/boundary/k{k}" for k in (3, 5, 7)),
    }
    whole, rest = content.rows_by_t(results), content.rows_by_t(results, without=["boundary"])
    for row, first, second in zip(whole, early, rest, strict=True):
        assert set(first) & set(second) == {"analysis/t"}
        assert {**first, **second} == row


def report_files(folder: Path) -> ReportFiles:
    page, picture = folder / "report.html", folder / "criterion.png"
    page.write_text("<p>")
    Image.new("L", (4, 4)).save(picture)
    return ReportFiles(page=page, scales=(), data=(), tables=(), figures=(picture,))


def test_a_report_without_scales_is_one_artifact(results: Results, tmp_path: Path) -> None:
    files = report_files(tmp_path)
    (report,) = content.artifacts(
        results, files, name="x", checkpoint="x:v1", kept=tmp_path / "kept"
    )
    assert (report.name, report.type) == ("x-report", "report")
    assert report.metadata["checkpoint"] == {"path": "a", "sha256": "b", "artifact": "x:v1"}
    assert "scales" not in report.metadata
    logged = content.panels(results, files)
    panels = {
        "seeds",
        "agreement/machines",
        "agreement/pairs",
        "charts/histogram",
        "images/best",
        "figures/criterion",
        "report",
    }
    assert panels <= set(logged)
    assert logged["report"].html == "<p>"
    assert not [name for name, value in logged.items() if isinstance(value, int | float)]


def test_what_waits_to_be_uploaded_takes_no_room_and_stays_as_it_was(
    results: Results, tmp_path: Path
) -> None:
    files = report_files(tmp_path)
    kept = tmp_path / "kept"
    (report,) = content.artifacts(results, files, name="x", checkpoint=None, kept=kept)
    page = report.manifest.entries["report.html"]
    assert Path(page.local_path) == kept / "report.html"
    assert (kept / "report.html").samefile(files.page)
    with replacing(files.page) as partial:  # as a later analysis does
        partial.write_text("<b>")
    assert (kept / "report.html").read_text() == "<p>"
    assert page.digest == md5_file_b64(kept / "report.html")
