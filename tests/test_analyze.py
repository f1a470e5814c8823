import csv
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wandb
import yaml
from conftest import QUICK, ROOT, random_images
from entry import on_terminal, refusal, run, wandb_records
from PIL import Image

import analyze
from els.analysis.comparison import Comparison
from els.analysis.report.tables import time_rows
from els.analysis.results import Results
from els.calibration import Scales
from els.errors import InputError
from els.machines import Scale, make_machine
from els.machines.tempered import Tempered
from els.models.checkpoints import load_denoiser
from els.models.denoiser import NetworkDenoiser
from els.models.networks import build_network
from els.probes import effective_receptive_field, equivariance_error, shares_held
from els.sampling import ddim, ddim_steps, seeded_noise


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    return trained / "checkpoints" / "last.ckpt"


def test_everything_is_written_to_the_runs_folder(analysed: Path) -> None:
    assert {path.name for path in analysed.iterdir()} == {
        "scales.json", "scales_local.json", "data_scales.json", "network.json",
        "looks.png", "equivariance.png", "agreement.json", "samples.npz", "origins.npz",
        "per_seed.csv",
        "per_t.csv", "report.html", "samples.png", "scales.png", "agreement.png", "by_t.png",
        "criterion.png", "mosaic.png", "novelty.png", "consistency.png",
    }  # fmt: skip
    for path in analysed.glob("*.png"):
        assert np.asarray(Image.open(path).convert("L")).std() > 5


def test_agreement_json_is_as_the_contract_says(analysed: Path, checkpoint: Path) -> None:
    summary = json.loads((analysed / "agreement.json").read_text())
    assert summary["seeds"] == 5
    assert summary["steps"] == {"network": 4, "machine": 4}
    assert summary["other_steps"][0]["steps"] == {"network": 6, "machine": 4}
    assert list(summary["machines"]) == ["boundary", "local", "ideal"]
    for kind, values in summary["machines"].items():
        for name in ("pearson_r", "r2", "R2"):
            low, high = values[name]["ci95"]
            assert low <= values[name]["median"] <= high
        assert ("beats_ideal" in values) == (kind != "ideal")
    assert summary["checkpoint"]["path"] == str(checkpoint)


def test_all_machines_and_several_networks_make_one_table(
    checkpoint: Path, analysed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other" / "checkpoints" / "last.ckpt"
    other.parent.mkdir(parents=True)
    shutil.copy(checkpoint, other)
    args = ["--checkpoint", str(checkpoint), str(other), *QUICK, "--machines", "all",
            "--held_out", "4", "--out", str(tmp_path / "out")]  # fmt: skip
    first, second = analyze.main(args)
    kinds = ["boundary", "mixture", "boundary_soft", "wiener", "nearest", "tempered", "smoothed",
             "global_equivariant", "pca_local", "patch_composite", "local", "ideal"]  # fmt: skip
    assert list(first.machines) == kinds
    assert set(first.scales) == {"boundary", "boundary_soft", "tempered", "smoothed", "pca_local",
                                 "patch_composite", "local"}  # fmt: skip
    for kind in kinds:
        torch.testing.assert_close(first.machines[kind], second.machines[kind])
    folder = tmp_path / "out" / "comparison"
    with open(folder / "comparison.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == ["tiny", "other"]
    summary = first.summary()["machines"]
    for kind in kinds:
        assert float(rows[0][f"{kind}/R2"]) == pytest.approx(summary[kind]["R2"]["median"])
    assert np.asarray(Image.open(folder / "by_t.png").convert("L")).std() > 5
    assert "Agreement with each network" in capsys.readouterr().out
    assert '"comparison' in json.dumps(wandb_records(folder, "comparison")["history"])
    analyze.main(args)
    assert capsys.readouterr().out.count("This analysis was finished before") == 2
    loaded = Results.load(tmp_path / "out" / "tiny" / "analysis")
    assert loaded.weights == first.weights
    assert loaded.data_scales == first.data_scales
    for row in loaded.weights.weights:
        assert sum(row) == pytest.approx(1)


def test_networks_of_the_same_name_are_not_compared(
    checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    args = ["--checkpoint", checkpoint, checkpoint, *QUICK]
    assert "not told apart by their names" in refusal(analyze.main, args, capsys)


def test_the_samples_are_what_the_parts_give(analysed: Path, checkpoint: Path) -> None:
    results = Results.load(analysed)
    assert results.seeds == (2, 3, 4, 5, 6)
    network = load_denoiser(checkpoint)
    noise = seeded_noise(results.seeds, network.image_shape)
    assert torch.equal(results.noise, noise)
    # Convolutions round differently with the batch, and at t = 1 x0_hat is eps_hat times 80.
    again = ddim(network, noise, steps=6)
    torch.testing.assert_close(results.network[6], again, atol=1e-3, rtol=0)
    scales = Scales.load(analysed / "scales.json")
    assert scales.seeds == (0, 1)
    assert not set(scales.seeds) & set(results.seeds)
    machine = make_machine("boundary", network.data.load(), size=scales)
    torch.testing.assert_close(
        results.machines["boundary"], ddim(machine, noise, steps=4), atol=1e-3, rtol=1e-3
    )


def test_tables_have_a_row_for_each_seed_and_step(analysed: Path) -> None:
    with open(analysed / "per_seed.csv") as file:
        seeds = list(csv.DictReader(file))
    with open(analysed / "per_t.csv") as file:
        times = list(csv.DictReader(file))
    assert [row["seed"] for row in seeds] == ["2", "3", "4", "5", "6"]
    assert [row["t"] for row in times] == ["1.0", "0.75", "0.5", "0.25"]
    assert {"scale/boundary", "cosine/boundary/k3", "pearson_r/ideal", "erf/50", "erf/90",
            "equivariance_error", "equivariance_error/d0"} <= set(times[0])  # fmt: skip


def test_the_network_is_probed_at_the_x_of_calibration(analysed: Path, checkpoint: Path) -> None:
    probes, network = Results.load(analysed).probes, load_denoiser(checkpoint)
    assert probes.parameters == sum(p.numel() for p in network.net.parameters())
    assert probes.receptive_field == network.receptive_field == 9
    assert (probes.seeds, probes.t, probes.skipped) == ((0, 1), (1.0, 0.75, 0.5, 0.25), "")
    steps = list(ddim_steps(network, seeded_noise([0, 1], network.image_shape), steps=4))
    t = torch.full((2,), 0.5)
    shares = shares_held(effective_receptive_field(network, steps[2].x, t))
    torch.testing.assert_close(torch.tensor(probes.shares[2]).double(), shares, atol=1e-4, rtol=0)
    assert probes.shares[2][4] == pytest.approx(1)  # it cannot look further
    error = equivariance_error(network, steps[2].x, t)
    torch.testing.assert_close(
        torch.tensor(probes.equivariance[2]).double(), error, atol=1e-4, rtol=0
    )
    page = (analysed / "report.html").read_text()
    assert f"{probes.parameters:,} parameters; receptive field 9 px" in page


def test_a_folder_without_probes_still_loads_and_is_shown(analysed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "analysis"
    shutil.copytree(analysed, folder, ignore=shutil.ignore_patterns("network.json", "*.png"))
    results = Results.load(folder)
    assert results.probes is None
    settings = analyze.Settings(checkpoint="x", out=str(tmp_path))
    files = {path.name for path in analyze.report(results, settings)}
    assert {"scales.png", "by_t.png"} <= files
    assert not files & {"looks.png", "equivariance.png", "network.json"}
    assert not any(name.startswith(("erf", "equivariance")) for name in time_rows(results)[0])


def test_a_denoiser_without_a_gradient_is_probed_for_equivariance_alone(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = analyze.Settings(
        checkpoint=str(checkpoint), out=str(tmp_path), steps=2, machines=["local", "ideal"],
        sizes=[3], seeds=3, calibration_seeds=1, device="cpu",
    )  # fmt: skip
    analysis = analyze.Analysis(settings)
    monkeypatch.setattr(NetworkDenoiser, "__call__", torch.no_grad()(NetworkDenoiser.__call__))
    results = analysis.run()
    assert results.probes.shares == ()
    assert "no gradient" in results.probes.skipped
    assert len(results.probes.equivariance) == 2
    page = analyze.report(Results.load(tmp_path / "analysis"), settings)
    assert "looks.png" in {path.name for path in page}


def test_wandb_has_curves_table_summary_and_artifacts(analysed: Path, checkpoint: Path) -> None:
    records = wandb_records(analysed.parent, "analysis")
    assert records["run"][0]["run_group"] == "tiny"
    rows = [r["item"] for r in records["history"] if "analysis/t" in r["item"]]
    assert [row["analysis/t"] for row in rows] == [1.0, 0.75, 0.5, 0.25]
    for key in ("scale/boundary", "cosine/boundary/k7", "pearson_r/boundary", "erf/90",
                "erf_beside/50", "equivariance_error", "equivariance_error/d7"):  # fmt: skip
        assert all(f"analysis/{key}" in row for row in rows)
    steps = {m["name"]: m.get("step_metric") for m in records["metric"] if "name" in m}
    assert "analysis/t" in steps
    charts = {name.split(".")[0] for r in records["history"] for name in r["item"]}
    assert {"seeds", "histogram_table", "machine_against_ideal_table"} <= charts
    summary = {}
    for record in records["summary"]:
        summary |= record["update"]
    stored = json.loads((analysed / "agreement.json").read_text())
    expected = stored["machines"]["boundary"]["pearson_r"]["median"]
    assert summary["boundary/pearson_r"] == pytest.approx(expected)
    assert summary["network/receptive_field"] == 9
    for key in ("pearson_r", "r2", "R2", "pearson_r_low", "R2_high", "beats_ideal"):
        assert summary[f"agreement/{key}"] == summary[f"boundary/{key}"]
    scales, report = (
        next(a for a in records["artifact"] if a["type"] == kind) for kind in ("scales", "report")
    )
    parts = {"scales.json", "scales_local.json", "data_scales.json"}
    assert {entry["path"] for entry in scales["manifest"]["contents"]} == parts
    names = {entry["path"] for entry in report["manifest"]["contents"]}
    assert names == {path.name for path in analysed.iterdir()} - parts
    source = json.loads(scales["metadata"])["checkpoint"]
    assert source == json.loads(report["metadata"])["checkpoint"]
    assert (source["path"], source["artifact"]) == (str(checkpoint), "tiny-checkpoint")
    assert source["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    follows = json.loads(report["metadata"])["scales"]
    assert follows["artifact"] == scales["name"] == "tiny-scales"
    content = (analysed / "scales.json").read_bytes()
    assert follows["sha256"]["scales.json"] == hashlib.sha256(content).hexdigest()
    tables = [a["manifest"]["contents"] for a in records["artifact"] if a["type"] == "run_table"]
    images = [e for entries in tables for e in entries if "media/images" in e["path"]]
    assert len(images) >= 5 * 5  # noise, network and three machines of five seeds
    (last,) = [r["item"] for r in records["history"] if "report.path" in r["item"]]
    folder = next((analysed.parent / "wandb").glob(f"*-{records['run'][0]['run_id']}")) / "files"
    page = (folder / last["report.path"]).read_text()
    assert page == (analysed / "report.html").read_text()
    criterion = (folder / last["figures/criterion.path"]).read_bytes()
    assert criterion == (analysed / "criterion.png").read_bytes()
    assert len(last["images/best.filenames"]) == 5
    assert last["images/best.captions"][2].startswith("boundary, seed ")


class OnlineRun:
    """As much of an online run as lineage needs."""

    entity, project, settings = "team", "els", SimpleNamespace(mode="online")

    def use_artifact(self, artifact: object) -> SimpleNamespace:
        self.used = artifact
        return SimpleNamespace(qualified_name=getattr(artifact, "qualified_name", artifact))


def test_online_the_checkpoint_that_training_logged_is_an_input(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    def version(number: int, file: Path) -> SimpleNamespace:
        artifact = wandb.Artifact("tiny-checkpoint", "model")
        artifact.add_file(str(file), name="model.ckpt")
        name = f"team/els/tiny-checkpoint:v{number}"
        return SimpleNamespace(manifest=artifact.manifest, qualified_name=name)

    asked = []

    def artifacts(api: object, kind: str, name: str) -> list[SimpleNamespace]:
        asked.append((kind, name))
        return versions

    versions = [version(1, checkpoint.with_name("best.ckpt")), version(0, checkpoint)]
    monkeypatch.setattr(wandb, "Api", type("Api", (), {"artifacts": artifacts}))
    settings = analyze.Settings(checkpoint=str(checkpoint), out=str(tmp_path / "elsewhere"))
    online = OnlineRun()
    assert analyze.use_checkpoint(online, settings) == "team/els/tiny-checkpoint:v0"
    assert online.used is versions[1]
    assert asked == [("model", "team/els/tiny-checkpoint")]
    assert capsys.readouterr().out == ""
    versions.pop()
    assert analyze.use_checkpoint(OnlineRun(), settings) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert "without its checkpoint 'tiny-checkpoint' (no version of" in line


def test_online_an_artifact_that_was_named_is_the_input(foreign: Path) -> None:
    settings = analyze.Settings(checkpoint="wandb:team/els/tiny-checkpoint:best")
    online = OnlineRun()
    assert analyze.use_checkpoint(online, settings) == "team/els/tiny-checkpoint:best"
    assert online.used == "team/els/tiny-checkpoint:best"
    elsewhere = OnlineRun()
    assert analyze.use_checkpoint(elsewhere, analyze.Settings(checkpoint=str(foreign))) is None
    assert not hasattr(elsewhere, "used")


class Recorded:
    """An online run that keeps what it is told and answers nothing."""

    entity, project, url = "team", "els", "here"
    settings = SimpleNamespace(mode="online")

    def __init__(self, job_type: str) -> None:
        self.job_type = job_type
        self.used: list[object] = []
        self.logged: list[wandb.Artifact] = []
        self.summary: dict[str, object] = {}

    def __enter__(self) -> "Recorded":
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()

    def define_metric(self, *names: object, **options: object) -> None: ...

    def log(self, row: dict[str, object]) -> None: ...

    def finish(self) -> None: ...

    def use_artifact(self, artifact: object) -> SimpleNamespace:
        self.used.append(artifact)
        return SimpleNamespace(qualified_name="checkpoint:v0")

    def log_artifact(self, artifact: wandb.Artifact) -> SimpleNamespace:
        self.logged.append(artifact)
        return SimpleNamespace(wait=lambda: f"{artifact.name}:v0")


def test_online_the_report_follows_from_the_scales(
    analysed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def init(*, job_type: str, **settings: object) -> Recorded:
        runs.append(Recorded(job_type))
        return runs[-1]

    monkeypatch.setattr(wandb, "init", init)
    settings = analyze.Settings(checkpoint="wandb:team/els/tiny-checkpoint:v0",
                                out=str(tmp_path / "tiny"))  # fmt: skip
    files = [analysed / name for name in ("report.html", "scales.json", "agreement.json")]
    analyze.log_to_wandb(Results.load(analysed), settings, files)
    assert [run.job_type for run in runs] == ["analysis", "report"]
    assert [run.used for run in runs] == [["team/els/tiny-checkpoint:v0"], ["tiny-scales:v0"]]
    assert [[one.type for one in run.logged] for run in runs] == [["scales"], ["report"]]


def test_origins_are_in_every_table_and_on_wandb(analysed: Path) -> None:
    with open(analysed / "per_seed.csv") as file:
        rows = list(csv.DictReader(file))
    attribution = Results.load(analysed).attribution
    for side in ("network", "boundary"):
        for name, values in attribution.by_seed()[side].items():
            written = [float(row[f"novelty/{side}/{name}"]) for row in rows]
            assert written == pytest.approx(values.tolist())
    summary = json.loads((analysed / "agreement.json").read_text())["novelty"]
    assert list(summary) == ["network", "boundary", "held-out images", "training images"]
    assert summary["training images"]["distance"]["median"] == 0
    assert summary["training images"]["memorised"]["median"] == 1
    assert summary["network"]["distance"]["median"] > 0
    item = {k: v for row in wandb_records(analysed.parent, "analysis")["history"]
            for k, v in row["item"].items()}  # fmt: skip
    assert float(item["novelty/boundary/memorised"]) == pytest.approx(
        summary["boundary"]["memorised"]["median"]
    )
    assert len(item["mosaics/worst.filenames"]) == 2
    assert "training images" in item["mosaics/worst.captions"][0]
    assert {"analysis/consistency/boundary", "analysis/effective_size/boundary"} <= set(item)


def test_origins_are_what_the_samples_were_made_of(analysed: Path, checkpoint: Path) -> None:
    results = Results.load(analysed)
    attribution, network = results.attribution, load_denoiser(checkpoint)
    images = network.data.load()
    mosaic = attribution.traced
    assert mosaic.t == results.t == (1, 0.75, 0.5, 0.25)
    assert attribution.mosaics["network"].t == (0.25,)
    assert torch.equal(attribution.training.pixels, images.pixels[attribution.training.indices])
    machine = make_machine("boundary", images, size=results.scales["boundary"])
    x = results.noise
    for i, step in enumerate(ddim_steps(machine, x, steps=4)):
        t = torch.full((len(x),), step.t, dtype=torch.float64)
        best = machine.posterior(step.x, t).best
        assert (best == mosaic.best[i]).float().mean() > 0.99  # but for equal patches
        image, row, column = mosaic.best[i].unbind(dim=1)
        assert torch.equal(images.pixels[image, :, row, column][:, None, ..., 0], mosaic.pixels[i])
        clipped = ((step.x0_hat.clamp(-1, 1) + 1) * 127.5).round()
        assert (clipped - attribution.paths["boundary"][i].float()).abs().max() <= 1
    last = list(ddim_steps(network, results.noise, steps=4))[-1]
    x = last.x
    torch.testing.assert_close(last.x_next, last.x0_hat)
    best = machine.posterior(x, torch.full((len(x),), 0.25, dtype=torch.float64)).best
    assert (best == attribution.mosaics["network"].best[0]).float().mean() > 0.99


def test_earlier_results_without_mosaics_are_reused_and_say_so(
    analysed: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(analysed, tmp_path / "tiny" / "analysis")
    (tmp_path / "tiny" / "analysis" / "origins.npz").unlink()
    analyze.main(["--checkpoint", str(checkpoint), *QUICK, "--logger", "none",
                  "--out", str(tmp_path / "tiny")])  # fmt: skip
    printed = capsys.readouterr().out
    assert "finished before" in printed
    assert "no mosaics; --force true makes them" in printed
    assert "--force true" in (tmp_path / "tiny" / "analysis" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "times"),
    [(["--mosaic", "false"], None), (["--tolerance", "0.05"], (0.5,)),
     (["--machines", "[ideal,wiener]"], ()), (["--machines", "[wiener,local]"], (1.0, 0.5)),
     (["--machines", "[boundary_soft,ideal]", "--network_steps", "[4]"], (1.0, 0.5))],
)  # fmt: skip
def test_mosaics_are_made_where_they_can_be(
    checkpoint: Path, tmp_path: Path, options: list[str], times: tuple[float, ...] | None
) -> None:
    analyze.main([
        "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--logger", "none",
        "--seeds", "4", "--calibration_seeds", "1", "--steps", "2", "--network_steps", "[2]",
        "--sizes", "[3,5]", "--held_out", "0", "--device", "cpu", *options,
    ])  # fmt: skip
    results = Results.load(tmp_path / "out" / "analysis")
    page = (tmp_path / "out" / "analysis" / "report.html").read_text()
    if times is None:
        assert results.attribution is None
        assert 'id="walk"' not in page
        return
    first, machine = next(iter(results.machines)), results.attribution.machine
    sides = dict.fromkeys(["network", first, *([machine] if times else [])])
    assert list(results.attribution.novelty) == list(results.attribution.paths) == list(sides)
    assert 'id="walk"' in page
    assert ('id="mosaic"' in page) == bool(times)
    for side, mosaic in results.attribution.mosaics.items():
        assert mosaic.t == (times[-1:] if side == "network" else times)
        assert {"images", "largest_piece"} <= set(results.attribution.by_seed()[side])
    with open(tmp_path / "out" / "analysis" / "per_seed.csv") as file:
        assert f"novelty/{first}/distance" in file.readline()


def test_an_analysis_that_is_stopped_leaves_the_finished_one_as_it_was(
    analysed: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    shutil.copytree(analysed, tmp_path / "tiny" / "analysis")
    before = {path.name: path.read_bytes() for path in analysed.glob("*.json")}
    again = ["--checkpoint", str(checkpoint), "--logger", "none", "--out", str(tmp_path / "tiny")]

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(analyze.Analysis, "_sample", stop)
        analyze.main([*again, *QUICK, "--sizes", "[5]"])
    capsys.readouterr()
    analyze.main([*again, *QUICK])
    assert "finished before" in capsys.readouterr().out
    for name, content in before.items():
        assert (tmp_path / "tiny" / "analysis" / name).read_bytes() == content


def test_mosaics_are_of_the_machine_that_was_asked_for(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = [
        "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--logger", "none",
        "--seeds", "3", "--calibration_seeds", "1", "--steps", "2", "--network_steps", "[2]",
        "--sizes", "[5]", "--held_out", "0", "--device", "cpu",
    ]  # fmt: skip

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(analyze.Analysis, "_attribution", stop)
        analyze.main([*args, "--machines", "[boundary]"])
    analyze.main([*args, "--machines", "[local]"])
    attribution = Results.load(tmp_path / "out" / "analysis").attribution
    _, row, column = attribution.mosaics["network"].best[-1].unbind(dim=1)
    assert (row == torch.arange(16)[:, None]).all()
    assert (column == torch.arange(16)).all()


def test_figures_of_an_earlier_analysis_do_not_stay(
    analysed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny" / "analysis"
    shutil.copytree(analysed, folder)
    analyze.main(["--checkpoint", str(checkpoint), *QUICK, "--logger", "none", "--out",
                  str(tmp_path / "tiny"), "--mosaic", "false", "--force", "true"])  # fmt: skip
    assert (folder / "samples.png").exists()
    left = {"mosaic.png", "novelty.png", "consistency.png", "origins.npz"}
    assert not left & {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["origins.npz", "samples.npz", "network.json"])
def test_damaged_results_are_refused_by_name(analysed: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(analysed, tmp_path / "analysis")
    content = (analysed / name).read_bytes()
    (tmp_path / "analysis" / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="holds no complete analysis"):
        Results.load(tmp_path / "analysis")


@pytest.mark.parametrize(("display", "shown"), [(":0", True), (None, False)])
def test_the_page_is_opened_where_there_is_a_desktop(
    analysed: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, display: str | None,
    shown: bool,
) -> None:  # fmt: skip
    opened = []
    monkeypatch.setattr(analyze.webbrowser, "open", opened.append)
    monkeypatch.setattr(analyze.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    analyze.main(["--checkpoint", str(checkpoint), *QUICK, "--logger", "none",
                  "--open_page", "true"])  # fmt: skip
    assert opened == ([(analysed / "report.html").resolve().as_uri()] if shown else [])


def test_a_finished_analysis_is_reused_and_force_repeats_it(
    analysed: Path, checkpoint: Path
) -> None:
    before = (analysed / "agreement.json").stat().st_mtime_ns
    again = run("analyze.py", "--checkpoint", checkpoint, *QUICK, "--logger", "none")
    assert "finished before" in again.stdout
    assert (analysed / "agreement.json").stat().st_mtime_ns == before
    content = json.loads((analysed / "agreement.json").read_text())
    forced = run("analyze.py", "--checkpoint", checkpoint, *QUICK, "--logger", "csv", "--force",
                 "true", "--chunk", "17", "--batch", "5")  # fmt: skip
    assert "finished before" not in forced.stdout
    assert (analysed / "agreement.json").stat().st_mtime_ns > before
    repeated = json.loads((analysed / "agreement.json").read_text())
    for kind, values in repeated["machines"].items():
        expected = content["machines"][kind]["pearson_r"]["median"]
        assert values["pearson_r"]["median"] == pytest.approx(expected, abs=1e-3)


def test_results_of_other_dials_or_other_code_are_not_reused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["--checkpoint", str(checkpoint), *QUICK, "--logger", "none", "--out", str(tmp_path)]
    args += ["--machines", "[tempered,ideal]", "--held_out", "0"]
    first = analyze.main(args)
    monkeypatch.setattr(Tempered, "scale", Scale("temperature", (3.0, 5.0)))
    second = analyze.main(args)
    assert first.scales["tempered"].candidates != second.scales["tempered"].candidates
    before = (tmp_path / "analysis" / "agreement.json").stat().st_mtime_ns
    monkeypatch.setattr(analyze, "_RESULTS_VERSION", -1)
    analyze.main(args)
    assert (tmp_path / "analysis" / "agreement.json").stat().st_mtime_ns > before


def test_two_processes_share_what_is_left_of_several_networks(
    checkpoint: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "checkpoints" / "last.ckpt"
    other.parent.mkdir(parents=True)
    shutil.copy(checkpoint, other)
    ask = [*QUICK, "--logger", "none", "--held_out", "0"]
    done = run("analyze.py", "--checkpoint", checkpoint, *ask, "--out", tmp_path / "tiny")
    assert done.returncode == 0, done.stderr
    done = run("analyze.py", "--checkpoint", checkpoint, other, *ask, "--out", tmp_path,
               "--devices", "2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("This analysis was finished before") == 1
    assert done.stdout.count("Agreement with each network") == 1
    one, two = (Results.load(tmp_path / name / "analysis") for name in ("tiny", "other"))
    assert one.scales["boundary"].values == two.scales["boundary"].values


@pytest.mark.parametrize("launcher", [
    [], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
], ids=["devices", "torchrun"])  # fmt: skip
def test_two_processes_give_the_numbers_of_one(
    launcher: list[str], analysed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shared"
    done = run(*launcher, "analyze.py", "--checkpoint", checkpoint, *QUICK, "--out", out,
               "--logger", "none", "--devices", "2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Agreement over 5 seeds") == 2  # once for each count of steps
    one, two = Results.load(analysed), Results.load(out / "analysis")
    assert one.scales["boundary"].values == two.scales["boundary"].values
    torch.testing.assert_close(
        torch.tensor(one.probes.equivariance), torch.tensor(two.probes.equivariance),
        atol=1e-4, rtol=0,
    )  # fmt: skip
    for kind, samples in one.machines.items():
        torch.testing.assert_close(two.machines[kind], samples, atol=1e-3, rtol=0)


def test_a_tolerance_is_reported_and_stays_close(
    analysed: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = ["--checkpoint", str(checkpoint), *QUICK, "--logger", "none"]
    results = analyze.main([*base, "--out", str(tmp_path), "--tolerance", "0.05"])
    assert "boundary compared with, at t  1.00: " in capsys.readouterr().out
    exact = Results.load(analysed)
    assert (results.machines["boundary"] - exact.machines["boundary"]).abs().mean() < 0.1


def test_ideal_alone_needs_no_scales(checkpoint: Path, tmp_path: Path) -> None:
    base = ["--checkpoint", str(checkpoint), *QUICK, "--logger", "none"]
    results = analyze.main([*base, "--out", str(tmp_path), "--machines", "[ideal]"])
    assert (results.primary, dict(results.scales)) == ("ideal", {})
    assert not list((tmp_path / "analysis").glob("scales*"))
    both = analyze.main([*base, "--out", str(tmp_path), "--machines", "[local,ideal]"])
    assert list(both.scales) == ["local"]
    alone = analyze.main([*base, "--out", str(tmp_path), "--machines", "[ideal]"])
    assert dict(alone.scales) == {}
    assert dict(Results.load(tmp_path / "analysis").scales) == {}


def test_a_killed_analysis_goes_on_where_it_was(checkpoint: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "killed"), "--logger", "none"]
    slow = [sys.executable, "analyze.py", "--checkpoint", checkpoint, *out, "--seeds", "60",
            "--sizes", "[3]", "--calibration_seeds", "2", "--batch", "2"]  # fmt: skip
    process = subprocess.Popen(slow, cwd=ROOT, stdout=subprocess.DEVNULL)
    work, deadline = tmp_path / "killed" / "analysis" / ".work", time.monotonic() + 120
    while len(list(work.glob("*.pt"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in work.glob("[!.]*.pt")}
    settings = analyze.Settings(
        checkpoint=str(checkpoint), out=str(tmp_path / "killed"), seeds=60, sizes=[3],
        calibration_seeds=2, batch=2, machines=["local", "ideal"], logger="none",
    )  # fmt: skip
    results = analyze.Analysis(settings).run()
    assert len(results.seeds) == 58
    assert not work.exists()
    assert kept


def test_a_conditional_network_is_analysed_with_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from entry import fit

    fit(tmp_path, "--run.name", "labelled", "--data.conditional", "true", "--run.logger", "none",
        "--trainer.max_epochs", "1")  # fmt: skip
    last = tmp_path / "labelled" / "checkpoints" / "last.ckpt"
    base = ["--checkpoint", str(last), "--logger", "none", "--seeds", "4", "--calibration_seeds",
            "1", "--steps", "2", "--sizes", "[3]"]  # fmt: skip
    results = analyze.main(base)
    assert results.labels.shape == (3,)
    fixed = analyze.main([*base, "--label", "7", "--network_steps", "[2]"])
    assert fixed.labels.tolist() == [7, 7, 7]
    network = load_denoiser(last)
    machine = make_machine("ideal", network.data.load().of_class(7))
    torch.testing.assert_close(
        fixed.machines["ideal"], ddim(machine, fixed.noise, steps=2), atol=1e-4, rtol=1e-4
    )
    line = refusal(analyze.main, [*base, "--label", "10"], capsys)
    assert "label 10 is out of range; the network knows 0..9" in line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--sizes", "[3,4]"], "patch size 4 is not a positive odd number"),
        (["--sizes", "[41]"], "patch size 41 is too large"),
        (["--calibration_seeds", "7"], "no seeds are left for agreement"),
        (["--label", "1"], "the network is not class-conditional"),
        (["--checkpoint", "nowhere.ckpt"], "there is no checkpoint 'nowhere.ckpt'"),
        (["--device", "warp"], "device 'warp' is not available"),
        (["--engine", "triton"], "the triton engine cannot be used"),
        (["--machines", "[magic]"], "magic"),
        (["--colour", "1"], "colour"),
        (["--steps", "0"], "steps is 0"),
        (["--network_steps", "[0]"], "network_steps is [0]"),
        (["--figures", "gif"], "give one or more of png, pdf, svg"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    base = ["--checkpoint", checkpoint, *QUICK, "--out", tmp_path / "out"]
    assert message in refusal(analyze.main, [*base, *args], capsys)
    assert not (tmp_path / "out" / "analysis" / "agreement.json").exists()


def test_the_process_ends_with_code_2_and_no_traceback() -> None:
    done = run("analyze.py", "--checkpoint", "nowhere.ckpt")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: there is no checkpoint 'nowhere.ckpt'; it may be")


def test_other_images_than_those_trained_on_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["els"]["data"]["seed"] = 5
    torch.save(content, tmp_path / "moved.ckpt")
    base = ["--checkpoint", str(tmp_path / "moved.ckpt"), *QUICK, "--logger", "none"]
    assert "not the ones the network was trained on" in refusal(analyze.main, base, capsys)
    assert analyze.main([*base, "--verify_data", "false"]).seeds


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A state dict of the paper's code, which knows no data, padding or size."""
    net = build_network("ResNet", {"channels": 1, "width": 16, "depth": 2})
    torch.save({f"backbone.{k}": v for k, v in net.state_dict().items()}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_a_network_from_elsewhere_is_analysed_on_the_images_named(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = ["--checkpoint", str(foreign), "--logger", "none", "--seeds", "3", "--steps", "2",
            "--calibration_seeds", "1", "--sizes", "[3]", "--network_steps", "[2]",
            "--out", str(tmp_path / "run"), "--image_size", "12", "--device", "cpu"]  # fmt: skip
    line = refusal(analyze.main, base, capsys)
    assert "does not say which images it was trained on" in line
    assert "--data_name cifar10 --data_root" in line
    zeros = analyze.main([*base, "--data_name", "digits"])
    assert zeros.primary == "boundary"
    assert zeros.noise.shape == (2, 1, 12, 12)
    stored = json.loads((tmp_path / "run" / "analysis" / "agreement.json").read_text())
    assert (stored["data"]["name"], stored["data"]["size"]) == ("digits", 12)
    assert stored["data"]["fingerprint"]
    capsys.readouterr()
    again = analyze.main([*base, "--data_name", "digits"])
    assert "finished before" in capsys.readouterr().out
    circular = analyze.main([*base, "--data_name", "digits", "--padding", "circular"])
    assert circular.primary == "equivariant"
    assert torch.equal(again.network[2], zeros.network[2])
    assert not torch.allclose(circular.network[2], zeros.network[2])


def test_data_that_the_checkpoint_knows_otherwise_are_refused(
    checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    line = refusal(analyze.main, ["--checkpoint", checkpoint, "--data_name", "mnist"], capsys)
    assert "--data_name is 'mnist', but the checkpoint says that it was trained on 'digits'" in line


def test_where_an_analysis_is_written(checkpoint: Path, foreign: Path) -> None:
    def folder(name: object) -> Path:
        return analyze.Settings(checkpoint=str(name)).folder

    assert folder(checkpoint) == folder(checkpoint.parent) == checkpoint.parents[1]
    assert folder(foreign) == Path("runs", "w")
    assert folder("wandb:team/els/digits:v3") == Path("runs", "digits")
    (foreign.parent / "config.json").touch()
    assert folder(foreign.parent) == Path("runs", foreign.parent.name)


def test_a_full_disk_is_a_clear_error_and_leaves_the_old_results(
    analysed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(analysed, out / "analysis")
    before = {p.name: p.read_bytes() for p in (out / "analysis").glob("*.json")}

    def small_files() -> None:
        # A limit on file sizes fails writes the way a full disk does; EFBIG stands for ENOSPC.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = subprocess.run(
        [sys.executable, "analyze.py", "--checkpoint", checkpoint, *QUICK, "--out", out,
         "--logger", "none", "--force", "true"],
        cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=small_files,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert "disk" in done.stderr
    for name in before:
        json.loads((out / "analysis" / name).read_text())
    assert not list(out.rglob("*.partial*"))


@pytest.fixture
def copied(analysed: Path, tmp_path: Path) -> Path:
    """A run of which there is nothing but its analysis."""
    shutil.copytree(analysed, tmp_path / "tiny" / "analysis")
    return tmp_path / "tiny"


def test_a_terminal_shows_blocks_and_a_pipe_plain_lines(
    copied: Path, checkpoint: Path, tmp_path: Path
) -> None:
    again = ("analyze.py", "--checkpoint", checkpoint, *QUICK, "--logger", "none", "--out", copied)
    terminal = on_terminal(*again)
    assert "finished before" in terminal
    assert "\x1b[" in terminal
    assert "█" in terminal
    piped = run(*again, "--figures", "pdf,png", PYTHONIOENCODING="ascii")
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.isascii()
    assert "\x1b" not in piped.stdout
    lines = piped.stdout.splitlines()
    table, curves, page = (
        next(i for i, line in enumerate(lines) if text in line)
        for text in ("Agreement over", "Fitted scale against t", "report.html")
    )
    assert table < curves < page
    assert all(Path(line).exists() for line in lines[page:])  # the page first, then the rest
    assert (copied / "analysis" / "scales.pdf").read_bytes().startswith(b"%PDF")
    fresh = run("analyze.py", "--checkpoint", checkpoint, *QUICK, "--logger", "none", "--out",
                tmp_path / "fresh", "--machines", "[ideal]")  # fmt: skip
    assert "sampling ideal, 4 steps ...\n" in fresh.stdout
    assert "Fitted scale" not in fresh.stdout
    assert "Warning" not in fresh.stderr


def test_figures_are_drawn_again_from_the_analysis_alone(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*args: object, **options: object) -> None:
        raise AssertionError("nothing but the saved results is there")

    for name in ("load_denoiser", "find_checkpoint", "make_machine", "Fabric"):
        monkeypatch.setattr(analyze, name, absent)
    names = {path.name for path in (copied / "analysis").glob("*.png")}
    for path in (copied / "analysis").glob("*.png"):
        path.unlink()
    paths = analyze.main(["figures", str(copied)])
    assert {path.name for path in paths} == names
    assert all(path.parent == copied / "analysis" and path.exists() for path in paths)
    out = tmp_path / "paper"
    paths = analyze.main(["figures", str(copied), "--formats", "pdf,svg", "--out", str(out)])
    assert len(paths) == 2 * len(names)
    assert {path.suffix for path in out.iterdir()} == {".pdf", ".svg"}
    other = tmp_path / "other"
    shutil.copytree(copied, other)
    analyze.main(["figures", str(copied), str(other), "--formats", "pdf", "--out", str(out)])
    assert (out / "tiny" / "by_t.pdf").exists()
    assert (out / "other" / "by_t.pdf").exists()
    assert (out / "comparison" / "by_t.pdf").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{run}", "--formats", "gif"], "give one or more of png, pdf, svg"),
        (["{run}", "{run}"], "not told apart by their names"),
        (["nowhere"], "'nowhere/analysis' holds no complete analysis"),
        ([], "runs"),
        (["{run}", "--colour", "1"], "colour"),
    ],
)
def test_bad_figures_are_one_line_and_exit_code_2(
    args: list[str], message: str, copied: Path, capsys: pytest.CaptureFixture
) -> None:
    args = ["figures", *(arg.format(run=copied) for arg in args)]
    assert message in refusal(analyze.main, args, capsys)


def test_help_config_and_print_config() -> None:
    help_text = run("analyze.py", "--help").stdout
    assert "calibration_seeds" in help_text
    for command in analyze._COMMANDS:
        assert f"analyze.py {command} " in " ".join(help_text.split())
    for path in ROOT.glob("configs/analysis/*.yaml"):
        done = run("analyze.py", "--config", path, "--checkpoint", "x", "--print_config")
        assert done.returncode == 0, done.stderr
        expected = yaml.safe_load(path.read_text())
        printed = yaml.safe_load(done.stdout)
        assert {name: printed[name] for name in expected} == expected


def test_results_come_back_from_disk_unchanged(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = random_images().image_shape
    images = [torch.randn(3, *shape, generator=generator) for _ in range(4)]
    results = Results(
        seeds=(4, 5, 6), labels=torch.tensor([1, 0, 1]), noise=images[0], network={20: images[1]},
        machines={"boundary": images[2], "ideal": images[3]},
        by_t={"boundary": torch.rand(2, 3), "ideal": torch.rand(2, 3)}, t=(1.0, 0.5), scales={},
        context={"run": "x"},
    )  # fmt: skip
    results.save(tmp_path)
    loaded = Results.load(tmp_path)
    assert loaded.summary() == results.summary()
    one, other = (
        Scales("boundary", "cosine", (0,), (3, 5), (1.0, 0.5), sizes, (sizes,), (((0.1,),),))
        for sizes in ((3, 3), (5, 5))
    )
    local = replace(one, machine="local")
    machines = {"local": images[3], "boundary": images[2]}
    replace(results, scales={"local": local, "boundary": one}, machines=machines).save(tmp_path)
    replace(results, scales={"boundary": other}).save(tmp_path)  # which is scales.json now
    assert dict(Results.load(tmp_path).scales) == {"boundary": other}
    assert [path.name for path in tmp_path.glob("scales*.json")] == ["scales.json"]
    assert loaded.primary == "boundary"
    assert torch.equal(loaded.labels, results.labels)


def test_the_table_is_turned_round_where_it_does_not_fit() -> None:
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    one = Results(
        seeds=(4, 5, 6), labels=None, noise=x, network={20: x}, machines={"local": x, "ideal": -x},
        by_t={}, t=(1.0,), scales={}, context={"run": "first"},
    )  # fmt: skip
    both = Comparison((one, replace(one, machines={"local": x}, context={"run": "second"})))
    wide, narrow = both.table(100), both.table(40)
    assert [column.header for column in wide.columns] == ["metric", "network", "local", "ideal"]
    assert [column.header for column in narrow.columns] == ["metric", "machine", "first", "second"]
    assert list(wide.columns[3].cells)[:2] == ["-1.000 [-1.00, -1.00]", ""]
    assert list(narrow.columns[3].cells)[:2] == ["1.000 [1.00, 1.00]", ""]
