from __future__ import annotations

import shutil
import types
from pathlib import Path

import paper_code
import pytest
import torch
import wandb

from els.errors import InputError
from els.models import artifacts
from els.models.checkpoints import find_checkpoint, load_denoiser

NAME = "wandb:team/els/digits-checkpoint"


class FakeArtifact:
    """One version of an artifact, whose files lie in a folder here."""

    def __init__(self, files: Path, version: str, fail: bool = False) -> None:
        self.files, self.version, self.fail, self.downloads = files, version, fail, 0

    def download(self, root: str) -> str:
        self.downloads += 1
        shutil.copytree(self.files, root)
        if self.fail:
            raise ValueError("the connection was lost half-way")
        return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    torch.save(paper_code.resnet().state_dict(), folder / "model.ckpt")
    return folder


@pytest.fixture
def remote(files: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeArtifact]:
    """What stands in for W&B: artifacts by their full name."""
    known = {"team/els/digits-checkpoint:latest": FakeArtifact(files, "v3")}
    known["team/els/digits-checkpoint:v3"] = known["team/els/digits-checkpoint:latest"]

    def artifact(name: str) -> FakeArtifact:
        if name not in known:
            raise wandb.errors.CommError(f"artifact '{name}' not found")
        return known[name]

    monkeypatch.setattr(wandb, "login", lambda **options: True)
    monkeypatch.setattr(wandb, "Api", lambda: types.SimpleNamespace(artifact=artifact))
    return known


def test_an_artifact_is_downloaded_once(cache: Path, remote: dict[str, FakeArtifact]) -> None:
    for name in (NAME, f"{NAME}:latest", f"{NAME}:v3"):
        assert load_denoiser(name).padding == "zeros"
    assert remote["team/els/digits-checkpoint:v3"].downloads == 1
    assert find_checkpoint(NAME).relative_to(cache) == Path(
        "artifacts/team/els/digits-checkpoint/v3/model.ckpt"
    )


def test_a_moved_alias_is_followed(
    cache: Path, files: Path, remote: dict[str, FakeArtifact]
) -> None:
    first = artifacts.download(NAME)
    remote["team/els/digits-checkpoint:latest"] = FakeArtifact(files, "v4")
    assert (first.name, artifacts.download(NAME).name) == ("v3", "v4")


def test_without_an_owner_it_is_ones_own_in_the_usual_project(
    cache: Path, remote: dict[str, FakeArtifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = "team/els/digits-checkpoint"
    api = types.SimpleNamespace(artifact=remote.get, default_entity="team")
    monkeypatch.setattr(wandb, "Api", lambda: api)
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    short = "wandb:digits-checkpoint"
    assert artifacts.full_name(short) == f"{whole}:latest"
    assert artifacts.full_name(NAME) == f"{whole}:latest"
    assert artifacts.download(f"{short}:v3") == cache / "artifacts" / whole / "v3"
    assert artifacts.artifact_name(short) == "digits-checkpoint"
    monkeypatch.setenv("WANDB_ENTITY", "other")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    assert artifacts.full_name(f"{short}:best") == "other/theirs/digits-checkpoint:best"
    monkeypatch.delenv("WANDB_ENTITY")
    monkeypatch.setattr(wandb, "login", lambda **options: False)
    with pytest.raises(InputError, match=r"not logged in.*write wandb:entity/project/name:alias"):
        artifacts.download(short)


def test_half_a_download_is_not_kept(
    cache: Path, files: Path, remote: dict[str, FakeArtifact]
) -> None:
    remote["team/els/digits-checkpoint:latest"] = FakeArtifact(files, "v3", fail=True)
    with pytest.raises(InputError, match="the connection was lost half-way"):
        load_denoiser(NAME)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    remote["team/els/digits-checkpoint:latest"] = FakeArtifact(files, "v3")
    assert load_denoiser(NAME)


def test_which_file_of_a_folder(tmp_path: Path) -> None:
    def find(*names: str) -> str:
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        return find_checkpoint(folder).name

    assert find("best.ckpt", "last.ckpt", "x.ckpt") == "last.ckpt"
    assert find("best.ckpt", "x.ckpt") == "best.ckpt"
    assert find("x.ckpt", "readme.txt") == "x.ckpt"
    with pytest.raises(
        InputError, match=r"holds several checkpoints; name one of: a\.ckpt, b\.ckpt"
    ):
        find("a.ckpt", "b.ckpt")
    with pytest.raises(InputError, match=r"holds no checkpoint, but a\.txt"):
        find("a.txt")


def test_without_a_login_the_way_out_is_a_path(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    message = (
        r"artifact 'team/els/digits-checkpoint:best' could not be downloaded.*path of a checkpoint"
    )
    with pytest.raises(InputError, match=message):
        load_denoiser(f"{NAME}:best")
    assert not cache.exists()


def test_without_a_network_what_was_downloaded_is_found(
    cache: Path, remote: dict[str, FakeArtifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.download(NAME)
    remote.clear()
    assert load_denoiser(f"{NAME}:v3").num_classes is None
    with pytest.raises(InputError, match="found offline by their version: v3"):
        load_denoiser(f"{NAME}:latest")


@pytest.mark.parametrize(
    "name", ["", "a/b", "a/b/c/d", "../b/c", "a/b/..:v0", "a/b/c:v/0", "a/b/c:", "a:", ".."]
)
def test_odd_names_are_refused(name: str, cache: Path) -> None:
    with pytest.raises(InputError, match="write wandb:entity/project/name:alias"):
        load_denoiser(f"wandb:{name}")
