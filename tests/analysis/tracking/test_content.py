from pathlib import Path

import numpy as np
import pytest
import torch
from made_results import made_provenance
from PIL import Image

from els.analysis.report.write import ReportFiles
from els.analysis.results import FileId, Results
from els.analysis.tracking import content
from els.images import to_uint8


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
    numbers = content.agreement_numbers(results)
    machines = results.summary["machines"]
    for metric in ("pearson_r", "r2", "R2"):
        expected = [machines["local"][metric]["median"], *machines["local"][metric]["ci95"]]
        for name in ("agreement", "local"):
            key = f"{name}/{metric}"
            assert [numbers[key], numbers[f"{key}_low"], numbers[f"{key}_high"]] == expected
        assert numbers[f"ideal/{metric}"] != numbers[f"agreement/{metric}"]
    assert numbers["agreement/beats_ideal"] == machines["local"]["beats_ideal"]
    assert "ideal/beats_ideal" not in numbers
    assert all(isinstance(value, float) for value in numbers.values())


def test_a_report_without_scales_is_one_artifact(results: Results, tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "criterion.png"
    page.write_text("<p>")
    Image.new("L", (4, 4)).save(picture)
    files = ReportFiles(page=page, scales=(), data=(), tables=(), figures=(picture,))
    (report,) = content.artifacts(results, files, name="x", checkpoint="x:v1")
    assert (report.name, report.type) == ("x-report", "report")
    assert report.metadata["checkpoint"] == {"path": "a", "sha256": "b", "artifact": "x:v1"}
    assert "scales" not in report.metadata
    logged = content.panels(results, files)
    assert {"seeds", "histogram", "images/best", "figures/criterion", "report"} <= set(logged)
    assert logged["report"].html == "<p>"


def test_settings_stand_by_themselves_for_sweeps(results: Results) -> None:
    config = content.config(results)
    assert config["steps"] == config["protocol"]["steps"] == results.provenance.protocol.steps
    assert config["checkpoint"] == {"path": "a", "sha256": "b"}
    assert "ResNet" in config["network"]["description"]
