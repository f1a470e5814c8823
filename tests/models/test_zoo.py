"""The networks that come along are what their cards say, wherever their files are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from entry import refusal
from studies import small_results, write_checkpoint

import els
from els.analysis import commands
from els.analysis.options import Source
from els.analysis.results import Results
from els.errors import InputError
from els.files import sha256_of
from els.models import zoo
from els.sampling import seeded_noise
from zoo import add as maker

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(zoo.index())
# x0_hat of the noise of seed 0 at t = 0.5, class 0 where there are any: mean and mean square.
ANSWERS = {
    "cifar10_resnet": (-0.00139086, 0.0570774),
    "digits_resnet": (-0.1043708, 0.211551),
    "digits_resnet_circular": (0.02769946, 0.132914),
    "digits_unet": (-0.2016826, 0.296091),
    "fashion_mnist_resnet": (0.02466908, 0.0999744),
    "garments_resnet": (0.0321005, 0.147292),
    "mnist_16_resnet": (-0.337856, 0.439199),
    "mnist_16_resnet_circular": (0.0318101, 0.241188),
}


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of the zoo, for an installed package that has none of it."""
    monkeypatch.setattr(zoo, "INDEX", tmp_path / "models" / "zoo.json")
    monkeypatch.setenv("ELS_CACHE", str(tmp_path / "cache"))
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    serve = partial(quiet, directory=str(ROOT / "zoo"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_every_folder_is_in_the_index() -> None:
    assert sorted(path.name for path in (ROOT / "zoo").iterdir() if path.is_dir()) == NAMES
    assert sorted(ANSWERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_what_its_card_says(name: str) -> None:
    folder = zoo.download(f"zoo:{name}")
    assert {one.name: sha256_of(one) for one in folder.iterdir()} == zoo.index()[name]
    network = els.load_denoiser(f"zoo:{name}")
    x = seeded_noise([0], network.image_shape)
    answer = network(x, 0.5, None if network.num_classes is None else 0)
    found = (answer.mean().item(), answer.square().mean().item())
    assert found == pytest.approx(ANSWERS[name], rel=1e-4, abs=1e-5)

    card = (folder / "README.md").read_text()
    content = json.loads((folder / "agreement.json").read_text())
    for kind, machine in content["machines"].items():
        r, share = (
            f"{machine[metric]['median']:.3f} [{low:.2f}, {high:.2f}]"
            for metric in ("pearson_r", "R2")
            for low, high in [machine[metric]["ci95"]]
        )
        assert f"| `{kind}` | {r} | {share} |" in card
    assert network.trained is not None
    assert f"{network.trained.steps:,} steps" in card
    assert content["trained"]["steps"] == network.trained.steps
    assert els.Scales.load(folder / "scales.json").machine == next(iter(content["machines"]))


def test_a_network_is_analysed_under_its_own_name() -> None:
    source = Source("zoo:garments_resnet")
    assert (source.home, source.part) == (Path("runs/garments_resnet"), "")


def test_an_installed_package_downloads_what_the_index_says(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELS_ZOO", f"{address}/")
    folder = zoo.download("zoo:garments_resnet")
    assert folder.is_relative_to(zoo.cache_folder())
    monkeypatch.setenv("ELS_ZOO", "http://127.0.0.1:9")
    assert zoo.download("zoo:garments_resnet") == folder
    (folder / "config.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"config\.json' of 'zoo:garments_resnet' is missing or was"
    ):
        zoo.download("zoo:garments_resnet")


def test_other_files_than_those_of_the_index_are_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELS_ZOO", address)
    other = {"garments_resnet": {**zoo.index()["garments_resnet"], "config.json": "0" * 64}}
    monkeypatch.setattr(zoo, "index", lambda: other)
    with pytest.raises(InputError, match="is not the file of this version's"):
        zoo.download("zoo:garments_resnet")
    assert not list((zoo.cache_folder() / "zoo").iterdir())


@pytest.mark.usefixtures("address")
def test_without_a_network_it_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELS_ZOO", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"could not be downloaded from http://127\.0\.0\.1:9"):
        zoo.download("zoo:garments_resnet")
    monkeypatch.delenv("ELS_ZOO")
    with pytest.raises(InputError, match="names no address of the zoo; set ELS_ZOO"):
        zoo.download("zoo:garments_resnet")


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(commands.main, ["zoo:nobody"], capsys)
    assert "the zoo has no network 'nobody'; there are " in said


def test_a_run_is_added_with_its_analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("tiny")
    checkpoint = write_checkpoint(run / "checkpoints" / "last.ckpt")
    small_results(checkpoint).save(run / "analysis")
    (run / "config.yaml").write_text("run: {name: tiny}\n")
    shutil.copy(ROOT / "zoo" / "garments_resnet" / "samples.png", run / "analysis")
    home, index = tmp_path / "zoo", tmp_path / "zoo.json"
    folder = maker.add(run, "tiny", home, index)
    assert json.loads(index.read_text())["tiny"] == {
        one.name: sha256_of(one) for one in folder.iterdir()
    }
    assert els.load_denoiser(folder).identity == els.load_denoiser(checkpoint).identity
    assert maker.rows(Results.load(run / "analysis"))[0] in (folder / "README.md").read_text()
    with pytest.raises(InputError, match="is no name"):
        maker.add(run, "../tiny", home, index)
    write_checkpoint(checkpoint, classes=10)
    with pytest.raises(InputError, match="is of another checkpoint"):
        maker.add(run, "tiny", home, index)
