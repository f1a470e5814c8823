"""A session of training in a terminal of 80 x 24, as people have it."""

import os
import re
import shlex
import sys
from pathlib import Path

import pexpect
from conftest import ROOT
from entry import TINY

from els.models.checkpoints import load_denoiser

WAIT = 120  # seconds, of a busy machine
ANSI = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


class Terminal:
    """One command in a terminal of 80 x 24; what it has said is in `said`, without colours."""

    def __init__(self, words: list[str]) -> None:
        env = {key: it for key, it in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self._child = pexpect.spawn(
            sys.executable,
            words,
            cwd=str(ROOT),
            env=env | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
            dimensions=(24, 80),
            timeout=WAIT,
            encoding="utf-8",
            codec_errors="replace",
        )
        self.said = ""

    def until(self, pattern: str) -> None:
        """Wait for text."""
        self._child.expect(pattern)
        self._hear()

    def press_ctrl_c(self) -> None:
        self._child.sendintr()

    def end(self) -> int:
        """The exit code."""
        self._child.expect(pexpect.EOF)
        self._hear()
        self._child.close()
        return self._child.exitstatus

    def _hear(self) -> None:
        matched = self._child.after if isinstance(self._child.after, str) else ""
        self.said += ANSI.sub("", self._child.before + matched)

    def lines(self) -> list[str]:
        """Every line that was ever drawn."""
        return [line for part in self.said.split("\n") for line in part.split("\r")]


def test_training_is_watched_stopped_and_gone_on_with(tmp_path: Path) -> None:
    options = ["--run.dir", os.path.relpath(tmp_path, ROOT), "--run.logger", "csv"]
    slow = ["--run.name", "a", "--samples.every_n_epochs", "0", "--trainer.max_epochs", "9999"]
    first = Terminal(["train.py", "fit", *TINY, *options, *slow, "--data.batch_size", "8"])
    first.until(r"about [\d.]+ \w+ left, ends [\w: ]+, [\d,]+ images/s")
    first.until(r"step [\d,]+ of 119,988 .*left, ends")  # in the bar, too
    first.until("train/loss")
    first.press_ctrl_c()
    assert first.end() == 130
    step = re.search(r"stopped +at step ([\d,]+), epoch [\d,]+ of 9,999", first.said)[1]
    assert re.search(rf"kept +\S+/a/checkpoints/last.ckpt \(step {step}\)", first.said)
    assert load_denoiser(tmp_path / "a").trained.steps == int(step.replace(",", ""))
    assert "v_num" not in first.said
    assert "Traceback" not in first.said
    short = [line for line in first.lines() if "/" not in line or "images/s" in line]
    assert max(map(len, short)) <= 80  # paths may be longer

    pasted = re.search(r"go on with +python (.*?--ckpt_path last)", first.said, re.DOTALL)[1]
    words = shlex.split(pasted.replace("\r", "").replace("\\\n", " "))
    goal = str(int(step.replace(",", "")) + 5)
    second = Terminal([*words, "--trainer.max_steps", goal])
    second.until(f"goes on from.* step {step}, epoch")
    assert second.end() == 0
    assert f"finished at step {int(goal):,} of {int(goal):,}, train/loss" in second.said
    assert re.search(r"next +python analyze.py \S+/a", second.said)
