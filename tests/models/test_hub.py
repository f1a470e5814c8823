"""Downloads of the hub, from a small one on the loopback address."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from els.analysis.options import Source
from els.errors import InputError
from els.models.checkpoints import find_checkpoint, load_denoiser
from els.models.hub import download, repository_name

diffusers = pytest.importorskip("diffusers", reason="needs diffusers, an optional library")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = re.compile(
    r"(?:/api/models)?/(\w+/[\w-]+)/(resolve|revision|tree)/([^/?]+)/?([^?]*).*"
)


class Hub:
    """Repositories by name, each a folder; `asked` are the files that were downloaded."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories, self.asked = repositories, set[str]()

    def answer(self, path: str) -> tuple[dict[str, str], bytes] | None:
        match = REPOSITORY.fullmatch(path)
        if match is None or match[1] not in self.repositories:
            return None
        folder = self.repositories[match[1]]
        files = sorted(one for one in folder.rglob("*") if one.is_file())
        names = [str(one.relative_to(folder)) for one in files]
        if match[3] not in ("main", COMMIT):
            return None
        if match[2] == "revision":
            siblings = [{"rfilename": name} for name in names]
            return {}, json.dumps({"id": match[1], "sha": COMMIT, "siblings": siblings}).encode()
        if match[2] == "tree":
            return {}, json.dumps(
                [
                    {"type": "file", "path": name, "size": one.stat().st_size, "oid": name}
                    for name, one in zip(names, files, strict=True)
                ]
            ).encode()
        if match[4] not in names:
            return None
        data = (folder / match[4]).read_bytes()
        self.asked.add(match[4])
        return {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}, data


@contextmanager
def serving(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = hub.answer(self.path)
            headers, data = answer if answer else ({"X-Error-Code": "RepoNotFound"}, b"")
            self.send_response(200 if answer else 404)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def pipeline(folder: Path) -> Path:
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(folder)
    (folder / "README.md").write_text("a card")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"of half size")
    return folder


def test_a_pipeline_is_downloaded_once_and_found_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub({"lab/net": pipeline(tmp_path / "net")})
    with serving(hub, monkeypatch):
        first = load_denoiser("hf:lab/net")
        at_commit = load_denoiser(f"hf:lab/net@{COMMIT}")
    assert hub.asked == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert first.declared.prediction == "v"
    offline = load_denoiser("hf:lab/net")  # the server is gone
    assert offline.identity == first.identity == at_commit.identity
    assert find_checkpoint("hf:lab/net").is_dir()
    assert Source("hf:lab/net@main").home == Path("runs", "net")
    assert Source("hf:lab/net").part == ""
    with pytest.raises(InputError, match=r"'hf:lab/other' could not be downloaded .*not before"):
        download("hf:lab/other")


def test_what_is_kept_is_no_answer_where_the_hub_says_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub({"lab/net": pipeline(tmp_path / "net")})
    with serving(hub, monkeypatch):
        download("hf:lab/net")
        hub.repositories.clear()  # it was taken back, or made private
        with pytest.raises(InputError, match=r"'hf:lab/net' could not be downloaded \([^)]*\)"):
            download("hf:lab/net")
    assert download("hf:lab/net").name == COMMIT


def test_all_files_are_of_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch that moves while it is downloaded does not mix two networks."""
    hub = Hub({"lab/net": pipeline(tmp_path / "net")})
    answer, asked = hub.answer, []

    def at_commits(path: str) -> tuple[dict[str, str], bytes] | None:
        asked.append(path)
        return answer(path)

    monkeypatch.setattr(hub, "answer", at_commits)
    with serving(hub, monkeypatch):
        download("hf:lab/net")
    resolved = [path for path in asked if "/resolve/" in path]
    assert resolved
    assert all(f"/resolve/{COMMIT}/" in path for path in resolved)


def test_older_pipelines_have_all_their_files_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pipeline(tmp_path / "net")
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    with serving(Hub({"lab/net": folder}), monkeypatch):
        denoiser = load_denoiser("hf:lab/net")
    assert (denoiser.image_shape, denoiser.net.prediction) == ((1, 8, 8), "v")


def test_what_cannot_be_had_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pipeline(tmp_path / "net")
    for file in (folder / "unet").glob("*.safetensors"):
        file.unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").touch()
    hub = Hub({"lab/net": folder, "lab/empty": tmp_path / "empty"})
    with serving(hub, monkeypatch):
        with pytest.raises(InputError, match=r"pickled weights alone, such as 'unet/diff.*\.bin'"):
            load_denoiser("hf:lab/net")
        with pytest.raises(InputError, match=r"has no network of diffusers .* but 'README\.md'"):
            load_denoiser("hf:lab/empty")
        with pytest.raises(InputError, match="could not be downloaded"):
            load_denoiser("hf:lab/net@gone")
    assert hub.asked == set()


def test_names_of_repositories() -> None:
    assert repository_name("hf:lab/net.v1@refs/pr/1") == "net.v1"
    for bad in ("hf:net", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a/b@../../x", "hf:a/b@", "hf:"):
        with pytest.raises(InputError, match="does not name a repository; write hf:owner/name"):
            repository_name(bad)
