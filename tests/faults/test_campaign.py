"""A little of the campaign of faults, which `make faults` runs whole."""

import os
from pathlib import Path

from entry import run

CAMPAIGN = Path(__file__).with_name("campaign.py")


def test_a_sample_of_the_campaign_survives() -> None:
    tests = CAMPAIGN.parents[1]
    path = os.pathsep.join(map(str, (tests.parent, tests, CAMPAIGN.parent)))
    done = run(
        CAMPAIGN, "--sample", "--minutes", "2", PYTHONPATH=path, OMP_NUM_THREADS="1", timeout=290
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert any("kill -9" in row[1] and int(row[2]) > 0 for row in rows)
    assert all(row[2] == row[3] for row in rows)
