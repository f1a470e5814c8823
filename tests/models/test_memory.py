"""Steps of training take their memory from each other, not from the system."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from els.models.memory import keep_freed_memory
changed = "keep" in sys.argv and keep_freed_memory()
def step():
    parts = [torch.zeros(1 << 23) for _ in range(4)]  # 32 MiB each
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(changed, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*args: str, **variables: str) -> tuple[bool, int]:
    """Whether malloc was told, and the pages that the system gave to five later steps."""
    command = [sys.executable, "-c", COUNT, *args]
    text = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    changed, count = text.split()
    return changed == "True", int(count)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_is_kept() -> None:
    """Blocks of a step serve the next, unless the environment says how it shall be."""
    _, plain = faults()
    changed, kept = faults("keep")
    assert changed
    assert kept < plain / 10
    assert not faults("keep", MALLOC_MMAP_MAX_="65536")[0]
