"""What only a whole process can show; the rest of an analysis is tested in tests/analysis."""

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
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT
from entry import on_terminal, own_environment, run, wandb_records, wandb_runs, wandb_summary
from PIL import Image

from els.analysis.results import Results


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    return trained / "checkpoints" / "last.ckpt"


def shown(folder: Path) -> list[Path]:
    """The files of an analysis that are there for its reader."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def test_everything_is_written_to_the_runs_folder(analysed: Path) -> None:
    assert {path.name for path in shown(analysed)} == {
        "scales.json", "scales_local.json", "data_scales.json", "network.json",
        "looks.png", "equivariance.png", "agreement.json", "samples.npz", "origins.npz",
        "per_seed.csv",
        "per_t.csv", "report.html", "samples.png", "scales.png", "agreement.png", "by_t.png",
        "criterion.png", "mosaic.png", "novelty.png", "copies.png",
        "consistency.png",
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


def test_tables_have_a_row_for_each_seed_and_step(analysed: Path) -> None:
    with open(analysed / "per_seed.csv") as file:
        seeds = list(csv.DictReader(file))
    with open(analysed / "per_t.csv") as file:
        times = list(csv.DictReader(file))
    assert [row["seed"] for row in seeds] == ["2", "3", "4", "5", "6"]
    assert [row["t"] for row in times] == ["1.0", "0.75", "0.5", "0.25"]
    assert {"scale/boundary", "cosine/boundary/k3", "pearson_r/ideal", "erf/50", "erf/90",
            "equivariance_error", "equivariance_error/d0"} <= set(times[0])  # fmt: skip


def test_wandb_has_curves_table_summary_and_artifacts(analysed: Path, checkpoint: Path) -> None:
    records = wandb_records(analysed.parent, "analysis")
    assert records["run"][0]["run_group"] == "tiny"
    rows: dict[float, dict] = {}
    for record in records["history"]:
        if "analysis/t" in record["item"]:
            rows.setdefault(record["item"]["analysis/t"], {}).update(record["item"])
    assert list(rows) == [1.0, 0.75, 0.5, 0.25]
    for key in ("scale/boundary", "cosine/boundary/k7", "pearson_r/boundary", "erf/90",
                "erf_beside/50", "equivariance_error", "equivariance_error/d7"):  # fmt: skip
        assert all(f"analysis/{key}" in row for row in rows.values())
    steps = {m["name"]: m.get("step_metric") for m in records["metric"] if "name" in m}
    assert "analysis/t" in steps
    charts = {name.split(".")[0] for r in records["history"] for name in r["item"]}
    assert {"seeds", "charts/histogram_table", "charts/machine_against_ideal_table"} <= charts
    summary = wandb_summary(records)
    stored = json.loads((analysed / "agreement.json").read_text())
    expected = stored["machines"]["boundary"]["pearson_r"]["median"]
    assert summary["agreement/pearson_r"] == pytest.approx(expected)
    assert summary["agreement/boundary/pearson_r"] == summary["agreement/pearson_r"]
    config = records["run"][0]["config"]["update"]
    assert (config["network"]["receptive_field"], config["network"]["width"]) == (9, 16)
    assert config["train"]["model"]["optimizer"]["init_args"]["lr"] > 0
    assert config["train"]["epochs"] == 3
    scales, report = (
        next(a for a in records["artifact"] if a["type"] == kind) for kind in ("scales", "report")
    )
    parts = {"scales.json", "scales_local.json", "data_scales.json"}
    assert {entry["path"] for entry in scales["manifest"]["contents"]} == parts
    names = {entry["path"] for entry in report["manifest"]["contents"]}
    assert names == {path.name for path in shown(analysed)} - parts
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


def test_attribution_is_in_every_table_and_on_wandb(analysed: Path) -> None:
    with open(analysed / "per_seed.csv") as file:
        rows = list(csv.DictReader(file))
    attribution = Results.load(analysed).attribution
    for side in ("network", "boundary"):
        for name, values in attribution.by_seed[side].items():
            written = [float(row[f"novelty/{side}/{name}"]) for row in rows]
            assert written == pytest.approx(values.tolist())
    summary = json.loads((analysed / "agreement.json").read_text())["novelty"]
    machines = ["boundary", "local", "ideal"]
    assert list(summary) == ["network", *machines, "held-out images", "training images"]
    assert summary["training images"]["distance"]["median"] == 0
    assert summary["training images"]["memorised"]["median"] == 1
    assert summary["network"]["distance"]["median"] > 0
    item = {k: v for row in wandb_records(analysed.parent, "analysis")["history"]
            for k, v in row["item"].items()}  # fmt: skip
    shown = wandb_summary(wandb_records(analysed.parent, "analysis"))
    for side, key in (("network", "network"), ("held-out images", "held_out")):
        median = summary[side]["memorised"]["median"]
        assert shown[f"novelty/{key}/memorised"] == pytest.approx(median)
    assert len(item["mosaics/worst.filenames"]) == 2
    assert "training images" in item["mosaics/worst.captions"][0]
    assert {"analysis/consistency/boundary", "analysis/effective_size/boundary"} <= set(item)


def test_a_finished_analysis_is_reused_and_force_repeats_it(
    analysed: Path, checkpoint: Path
) -> None:
    before = json.loads((analysed / "agreement.json").read_text())
    again = run("analyze.py", "--checkpoint", checkpoint, *QUICK, "--logger", "none")
    assert "finished before" in again.stdout
    content = json.loads((analysed / "agreement.json").read_text())
    assert content == before
    forced = run("analyze.py", "--checkpoint", checkpoint, *QUICK, "--logger", "csv", "--force",
                 "true", "--chunk", "17", "--batch", "5")  # fmt: skip
    assert "finished before" not in forced.stdout
    repeated = json.loads((analysed / "agreement.json").read_text())
    for kind, values in repeated["machines"].items():
        expected = content["machines"][kind]["pearson_r"]["median"]
        assert values["pearson_r"]["median"] == pytest.approx(expected, abs=1e-3)


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


def test_a_killed_analysis_goes_on_where_it_was(checkpoint: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "killed")]
    slow = [sys.executable, "analyze.py", "--checkpoint", checkpoint, *out, "--seeds", "22",
            "--sizes", "[3]", "--calibration_seeds", "2", "--batch", "2", "--held_out", "0",
            "--machines", "[boundary]", "--mosaic", "false"]  # fmt: skip
    process = subprocess.Popen(slow, cwd=ROOT, stdout=subprocess.DEVNULL, env=own_environment())
    work, deadline = tmp_path / "killed" / "analysis" / ".work", time.monotonic() + 120
    while len(list(work.glob("*.pt"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in work.glob("[!.]*.pt")}
    begun = json.loads((work.parent / ".wandb.json").read_text())
    again = run(*slow[1:])
    assert again.returncode == 0, again.stderr
    assert len(Results.load(tmp_path / "killed" / "analysis").seeds) == 20
    assert kept
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    resumed = wandb_runs(tmp_path / "killed", "analysis")[-1]
    assert not begun["finished"]
    assert resumed["run"][0]["run_id"] == begun["id"]
    assert wandb_summary(resumed)["progress/stage"] == "finished"


def test_the_process_ends_with_code_2_and_no_traceback() -> None:
    done = run("analyze.py", "--checkpoint", "nowhere.ckpt")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: there is no checkpoint 'nowhere.ckpt'; it may be")


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


def test_a_terminal_shows_rules_and_a_pipe_plain_lines(
    copied: Path, checkpoint: Path, tmp_path: Path
) -> None:
    again = ("analyze.py", "--checkpoint", checkpoint, *QUICK, "--logger", "none", "--out", copied)
    terminal = on_terminal(*again)
    assert "finished before" in terminal
    assert "\x1b[" in terminal
    assert "─" in terminal
    piped = run(*again, "--figures", "pdf,png", PYTHONIOENCODING="ascii")
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.isascii()
    assert "\x1b" not in piped.stdout
    lines = piped.stdout.splitlines()
    scales, table, pairs, page = (
        next(i for i, line in enumerate(lines) if text in line)
        for text in ("Fitted scale", "Agreement over", "seed by seed", "report.html")
    )
    assert scales < table < pairs < page == len(lines) - 1  # the page is named last
    assert Path(lines[page].split()[1]).exists()
    assert (copied / "analysis" / "scales.pdf").read_bytes().startswith(b"%PDF")
    fresh = run("analyze.py", "--checkpoint", checkpoint, *QUICK, "--logger", "none", "--out",
                tmp_path / "fresh", "--machines", "[ideal]")  # fmt: skip
    assert "sampling ideal, 4 steps ...\n" in fresh.stdout
    assert "Fitted scale" not in fresh.stdout
    assert "Warning" not in fresh.stderr
