from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_results import made_provenance, made_results, made_scales

from els.analysis.report.write import write_report
from els.analysis.results import Results
from els.errors import InputError

KINDS = ("boundary", "mixture", "local", "ideal")


@pytest.fixture
def results() -> Results:
    made = made_results(KINDS)
    data = replace(made_scales("boundary"), criterion="mse")
    return replace(made, data_scales=data, labels=torch.arange(6), seen={"local": torch.ones(4)})


# --- what they tell -----------------------------------------------------------------------------


def test_seeds_have_names_and_an_order(results: Results) -> None:
    score = results.by_seed["boundary"]["pearson_r"]
    ranked = score.argsort(descending=True).tolist()
    assert results.named_seeds == {"best": ranked[0], "median": ranked[3], "worst": ranked[-1]}
    assert results.order[:3] == tuple(results.named_seeds.values())
    assert sorted(results.order) == list(range(6))
    assert list(made_results(("ideal",), seeds=2).named_seeds) == ["best", "median"]
    assert made_results(("ideal",), seeds=1).named_seeds == {"best": 0}


def test_the_summary_is_as_the_contract_says(results: Results) -> None:
    other = replace(results, network={**results.network, 50: results.network[20] + 1})
    summary = other.summary
    assert (other.primary, other.network_steps) == ("boundary", 20)
    assert summary["seeds"] == 6
    assert summary["steps"] == {"network": 20, "machine": 4}
    assert [block["steps"]["network"] for block in summary["other_steps"]] == [50]
    assert list(summary["machines"]) == list(KINDS)
    for kind, values in summary["machines"].items():
        assert ("beats_ideal" in values) == (kind != "ideal")
        for name in ("pearson_r", "r2", "R2"):
            assert values[name]["median"] == pytest.approx(
                float(other.by_seed[kind][name].quantile(0.5))
            )
    for key in ("data", "network", "run", "checkpoint", "novelty", "protocol", "training",
                "versions", "images"):  # fmt: skip
        assert key in summary
    assert summary["network"]["description"].startswith("ResNet, zeros padding, unconditional")
    assert summary["network"]["receptive_field"] == 9
    json.dumps(summary, allow_nan=False)


# --- their folder -------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(results: Results, tmp_path: Path) -> None:
    paths = results.save(tmp_path)
    assert {path.name for path in paths} == {path.name for path in tmp_path.iterdir()} == {
        "scales.json", "scales_local.json", "data_scales.json", "weights.json", "network.json",
        "origins.npz", "samples.npz", "agreement.json",
    }  # fmt: skip
    loaded = Results.load(tmp_path)
    assert loaded.provenance == results.provenance
    assert (loaded.seeds, loaded.t) == (results.seeds, results.t)
    assert loaded.scales == results.scales
    assert loaded.data_scales == results.data_scales
    assert (loaded.probes, loaded.weights) == (results.probes, results.weights)
    assert list(loaded.machines) == list(KINDS)
    assert torch.equal(loaded.labels, results.labels)
    for name in ("network", "machines", "by_t", "seen"):
        for key, value in getattr(results, name).items():
            assert torch.equal(getattr(loaded, name)[key], value)
    assert json.loads(json.dumps(loaded.summary)) == json.loads(json.dumps(results.summary))
    assert loaded.attribution.by_seed.keys() == results.attribution.by_seed.keys()


def test_what_an_analysis_lacks_does_not_stay(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    (tmp_path / "notes.json").write_text("{}")
    less = replace(
        made_results(("local", "ideal")), probes=None, attribution=None, data_scales=None
    )
    less.save(tmp_path)
    names = {"scales.json", "samples.npz", "agreement.json", "notes.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    loaded = Results.load(tmp_path)
    assert loaded.probes is loaded.attribution is loaded.weights is loaded.data_scales is None


def test_agreement_is_written_last(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.save(tmp_path)

    def fail(*args: object, **options: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="no space"):
        results.save(tmp_path)
    assert not (tmp_path / "agreement.json").exists()
    with pytest.raises(InputError, match="no complete analysis"):
        Results.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("agreement.json", b"{"), ("agreement.json", b'{"protocol": {}, "run": 1}'),
     ("samples.npz", b"PK"), ("network.json", b"[]"), ("origins.npz", b"")],
)  # fmt: skip
def test_damage_is_one_line(name: str, content: bytes, results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        Results.load(tmp_path)


def test_the_files_of_a_report_have_roles(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path)
    files = write_report(results, tmp_path, ("png", "svg"))
    assert {path.name for path in files.scales} == {
        "scales.json", "scales_local.json", "data_scales.json", "weights.json",
    }  # fmt: skip
    assert {path.name for path in files.data} == {
        "agreement.json", "samples.npz", "network.json", "origins.npz",
    }  # fmt: skip
    assert [path.name for path in files.tables] == ["per_seed.csv", "per_t.csv"]
    assert {path.suffix for path in files.figures} == {".png", ".svg"}
    assert files.paths[0] == files.page == tmp_path / "report.html"
    assert set(files.paths) == set(tmp_path.iterdir())


# --- folders of earlier versions ----------------------------------------------------------------

SENTENCE = "ResNet, zeros padding, unconditional, 0.00 M parameters, receptive field 9"


def as_version_2(results: Results, folder: Path) -> None:
    """Save results the way that version 2 did."""
    results.save(folder)
    record = json.loads((folder / "agreement.json").read_text())
    protocol = record.pop("protocol")
    del record["images"], protocol["mosaic"]
    record["network"] = SENTENCE
    record["data"] |= {"images": 20, "shape": [1, 8, 8], "sha256": "1" * 64}
    record["training"] = {"config": "runs/made/config.yaml", "text": "seed_everything: 0\n"}
    record["versions"] = {"results": 2, "torch": "2"}
    record["settings"] = {**protocol, "dials": {"boundary": [3, 5, 7]}}
    text = json.dumps(record).replace('"mixture"', '"best"')
    (folder / "agreement.json").write_text(text)
    for path in (*folder.glob("scales*.json"), folder / "weights.json"):
        edit(path, {"source": "778776f4d7b78bc7"})
    edit(folder / "network.json", {"parameters": 10, "receptive_field": 9})
    path = folder / "weights.json"
    path.write_text(path.read_text().replace('"mixture"', '"best"'))
    with np.load(folder / "samples.npz") as file:
        arrays = {name.replace("/mixture", "/best"): file[name] for name in file}
    np.savez_compressed(folder / "samples.npz", **arrays)
    with np.load(folder / "origins.npz") as file:
        arrays = {name: file[name] for name in file if not name.endswith("/sides")}
    np.savez_compressed(folder / "origins.npz", **arrays, subject=np.array("boundary"))


def edit(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_analysis_of_version_2_is_loaded_and_drawn(results: Results, tmp_path: Path) -> None:
    as_version_2(results, tmp_path)
    loaded = Results.load(tmp_path)
    source = loaded.provenance
    assert source.network.description == SENTENCE
    assert (source.network.parameters, source.network.receptive_field) == (10, 9)
    assert (source.images, source.data) == (20, results.provenance.data)
    assert source.protocol == results.provenance.protocol
    assert source.training == results.provenance.training
    assert source.versions == {"results": "2", "torch": "2"}
    assert list(loaded.machines) == list(loaded.by_t) == list(KINDS)
    assert loaded.weights.machine == "mixture"
    assert loaded.attribution.traced.sides == (7, 5, 5, 3)
    for key in ("seeds", "steps", "machines", "other_steps", "novelty", "checkpoint", "run"):
        assert json.dumps(loaded.summary[key]) == json.dumps(results.summary[key])
    write_report(loaded, tmp_path, ("png",))
    assert SENTENCE in (tmp_path / "report.html").read_text()


def test_what_version_2_did_not_know_is_unknown(tmp_path: Path) -> None:
    made = replace(made_results(("mixture", "ideal")), provenance=made_provenance(("mixture",)))
    as_version_2(made, tmp_path)
    for name in ("network.json", "origins.npz"):
        (tmp_path / name).unlink()
    record = json.loads((tmp_path / "agreement.json").read_text())
    for key in ("training", "versions", "settings", "checkpoint"):
        del record[key]
    (tmp_path / "agreement.json").write_text(json.dumps(record))
    loaded = Results.load(tmp_path)
    assert loaded.primary == "mixture"
    assert (loaded.probes, loaded.attribution, loaded.provenance.training) == (None, None, None)
    assert loaded.provenance.protocol.machines == ["mixture", "ideal"]
    write_report(loaded, tmp_path, ("png",))
