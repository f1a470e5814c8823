"""W&B that is lost in the middle of a run: a server that begins a run and then hangs up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from campaign import TRAINING
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
    gone = False

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
        """Hang up."""
        self.close_connection = True

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    Briefly.gone = False
    with ThreadingHTTPServer(("127.0.0.1", 0), Briefly) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()


def test_a_training_ends_without_wandb_and_says_so_in_a_line(server: str, tmp_path: Path) -> None:
    words = [*TRAINING, "--run.dir", str(tmp_path), "--run.logger", "wandb"]
    online = {"WANDB_MODE": "online", "WANDB_API_KEY": KEY, "WANDB_BASE_URL": server}
    done = run("train.py", *words, timeout=200, OMP_NUM_THREADS="1", **online)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Briefly.gone
    (line,) = [line for line in done.stdout.splitlines() if "W&B does not get" in line]
    assert f"no answer for {_SILENCE:.0f} s" in line
    kept = ROOT / line.rpartition("wandb sync ")[2].rstrip(")")
    assert next(kept.glob("*.wandb")).stat().st_size
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    assert "Traceback" not in done.stderr
