"""Folders that version 2 wrote are loaded and drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import made_provenance, made_results

from els.analysis.report.write import write_report
from els.analysis.results import Results

KINDS = ("boundary", "mixture", "local", "ideal")
SENTENCE = "ResNet, zeros padding, unconditional, 0.00 M parameters, receptive field 9"


@pytest.fixture
def results() -> Results:
    return made_results(KINDS)


def as_version_2(results: Results, folder: Path) -> None:
    """Save results the way that version 2 did."""
    results.save(folder)
    record = json.loads((folder / "agreement.json").read_text())
    protocol = record.pop("protocol")
    del record["images"], record["files"], protocol["mosaic"]
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
