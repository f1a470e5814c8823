from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_results import made_results, made_scales
from stages import assert_alike

from els.analysis.results import Results
from els.errors import InputError
from els.files import sha256_of

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
        "information_boundary.npz", "information_local.npz",
    }  # fmt: skip
    loaded = Results.load(tmp_path)
    assert loaded.provenance == results.provenance
    assert (loaded.seeds, loaded.t) == (results.seeds, results.t)
    assert loaded.scales == results.scales
    assert_alike(loaded.information, dict(results.information), 0)
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
        made_results(("local", "ideal")),
        probes=None,
        attribution=None,
        data_scales=None,
        information={},
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


def test_each_file_is_the_one_that_was_written_with_the_others(
    results: Results, tmp_path: Path
) -> None:
    results.save(tmp_path / "a")
    replace(results, noise=results.noise + 1).save(tmp_path / "b")
    kept = json.loads((tmp_path / "a" / "agreement.json").read_text())["files"]
    names = {path.name for path in (tmp_path / "a").iterdir()} - {"agreement.json"}
    assert set(kept) == names
    assert Results.load(tmp_path / "a").summary == results.summary
    shutil.copy(tmp_path / "b" / "samples.npz", tmp_path / "a" / "samples.npz")
    with pytest.raises(InputError, match=r"samples.npz is damaged, or that of another analysis"):
        Results.load(tmp_path / "a")
    for name in names:
        path = tmp_path / "b" / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(InputError, match=f"{name} is damaged"):
            Results.load(tmp_path / "b")
        path.unlink()
        with pytest.raises(InputError, match="no complete analysis"):
            Results.load(tmp_path / "b")
        path.write_bytes(before)
    assert Results.load(tmp_path / "b").seeds == results.seeds


def _changed(folder: Path, name: str, changes: dict[str, np.ndarray]) -> None:
    """Arrays of a file changed by somebody who makes the digests right again."""
    with np.load(folder / name) as file:
        arrays = dict(file)
    np.savez(folder / name, **arrays | changes)
    path = folder / "agreement.json"
    summary = json.loads(path.read_text())
    summary["files"][name] = sha256_of(folder / name)
    path.write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("samples.npz", {"machine/<img src=x onerror=alert(1)>": np.zeros(1)}, "is no machine"),
        ("samples.npz", {"machine/local": np.zeros((6, 1, 8, 9))}, "local is of shape"),
        ("samples.npz", {"machine/local": np.full((6, 1, 8, 8), np.nan)}, "NaN or infinite"),
        ("samples.npz", {"machine/local": np.zeros((6, 1, 8, 8), complex)}, "is an array of"),
        ("samples.npz", {"seeds": np.arange(5)}, "of 5 seeds"),
        ("samples.npz", {"seeds": np.array(5)}, "no complete analysis"),
        ("samples.npz", {"labels": np.zeros((6, 2), int)}, "labels of shape"),
        ("samples.npz", {"network/<b>": np.zeros((6, 1, 8, 8))}, "no complete analysis"),
        ("origins.npz", {"path/<b>": np.zeros((4, 6, 1, 8, 8))}, "neither the network nor a"),
        ("origins.npz", {"path/network": np.zeros((4, 6, 1, 8, 9))}, "of different shapes"),
        ("origins.npz", {"mosaic/network/weight": np.zeros((1, 6, 8, 9))}, "of another shape"),
        ("origins.npz", {"mosaic/network/t": np.zeros(7)}, "has 7 times"),
        ("origins.npz", {"novelty/network/distance": np.zeros(2)}, "of different lengths"),
    ],
)
def test_what_somebody_made_up_is_one_line(
    name: str, changes: dict, told: str, results: Results, tmp_path: Path
) -> None:
    results.save(tmp_path)
    _changed(tmp_path, name, changes)
    with pytest.raises(InputError, match=told) as error:
        Results.load(tmp_path)
    assert "\n" not in str(error.value)


def test_links_that_leave_the_folder_are_not_followed(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "a")
    for name in ("agreement.json", "samples.npz", "network.json"):
        path = tmp_path / "a" / name
        path.rename(tmp_path / name)
        path.symlink_to(tmp_path / name)
        with pytest.raises(InputError, match="is a link that leads out of"):
            Results.load(tmp_path / "a")
        path.unlink()
        (tmp_path / name).rename(path)


def test_a_folder_may_be_named_by_a_string(results: Results, tmp_path: Path) -> None:
    results.save(str(tmp_path))
    assert Results.load(str(tmp_path)).summary == Results.load(tmp_path).summary
    with pytest.raises(InputError, match=r"there is no folder '.*none'; give that of an analysis"):
        Results.load(str(tmp_path / "none"))


def test_results_say_in_a_line_what_was_found(results: Results) -> None:
    told = ", ".join(
        f"{kind} {np.median(values['pearson_r'].numpy()):.2f}"
        for kind, values in results.by_seed.items()
    )
    assert repr(results) == f"Results({results.provenance.run}, 6 seeds, pearson_r: {told})"
