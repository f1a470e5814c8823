"""W&B that is lost in the middle of a run: a server that begins it, and then is silent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from threading import Event, Thread

import pytest
from campaign import ANALYSIS, TRAINING
from conftest import ROOT
from entry import run

from els.models.tracking import _SILENCE

KEY = "a" * 40
PROJECT = {"id": "UDE=", "name": "els", "entity": {"id": "RTE=", "name": "team"}}


def answers(name: str) -> dict[str, object]:
    """What the server says of each thing that is asked for, of the run of that name."""
    viewer = {"id": "VTE=", "entity": "team", "username": "me", "name": "me", "flags": "{}"}
    features = {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None}
    bucket = {"id": "QjE=", "name": name, "displayName": name, "config": "{}", "project": PROJECT}
    return {
        "viewer": {**viewer, "teams": {"edges": []}},
        "serverInfo": features,
        "upsertBucket": {"bucket": bucket, "inserted": True},
    }


class Briefly(BaseHTTPRequestHandler):
    """Answers what begins a run, and nothing after that."""

    protocol_version = "HTTP/1.1"
    gone = False  # whether the run has begun
    holds = False  # whether connections stay open after that
    over = Event()  # lets those go

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        if type(self).gone or not self.path.endswith("graphql"):
            self.do_GET()
            return
        said = answers(json.loads(asked).get("variables", {}).get("name") or "")
        content = json.dumps({"data": {k: v for k, v in said.items() if k in asked}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        type(self).gone = "upsertBucket" in asked

    def do_GET(self) -> None:
        """Hang up, at once or in the end."""
        if type(self).holds:
            type(self).over.wait()
        self.close_connection = True

    def log_message(self, *args: object) -> None: ...


class Service(ThreadingHTTPServer):
    """Does not wait for those that are held."""

    daemon_threads = True


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Variables of the environment that name it; its parameter is whether it holds connections."""
    Briefly.gone, Briefly.holds = False, request.param
    Briefly.over.clear()
    with Service(("127.0.0.1", 0), Briefly) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{served.server_address[1]}"
        yield {"WANDB_MODE": "online", "WANDB_API_KEY": KEY, "WANDB_BASE_URL": address}
        Briefly.over.set()
        served.shutdown()


def check(done: CompletedProcess[str]) -> None:
    """It ended well, and named in a line what `wandb sync` can upload."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert Briefly.gone
    (line,) = [line for line in done.stdout.splitlines() if "W&B does not get" in line]
    assert f"no answer for {_SILENCE:.0f} s" in line
    kept = ROOT / line.rpartition("wandb sync ")[2].rstrip(")")
    assert next(kept.glob("*.wandb")).stat().st_size
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("server", [False], ids=["hangs up"], indirect=True)
def test_a_training_ends_without_wandb_and_says_so_in_a_line(
    server: dict[str, str], tmp_path: Path
) -> None:
    words = [*TRAINING, "--run.dir", str(tmp_path), "--run.logger", "wandb"]
    check(run("train.py", *words, timeout=200, OMP_NUM_THREADS="1", **server))
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("server", [True], ids=["never answers"], indirect=True)
def test_an_analysis_ends_without_wandb_and_keeps_its_results(
    server: dict[str, str], tmp_path: Path
) -> None:
    words = ["zoo:digits_resnet", *ANALYSIS, "--logger", "wandb", "--out", str(tmp_path)]
    check(run("analyze.py", *words, timeout=200, OMP_NUM_THREADS="1", **server))
    found = json.loads((tmp_path / "analysis" / "agreement.json").read_text())
    assert found["seeds"] == 3
    assert (tmp_path / "analysis" / "report.html").is_file()
