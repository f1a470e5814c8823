"""The Triton engine: in Triton's interpreter, on a GPU where there is one, and compiled for one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from els.engines import torch_engine, triton_engine
from els.engines.dictionary import RULES, axis_groups

CASES = Path(__file__).with_name("triton_cases.py")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def run(*command: str, interpret: bool) -> subprocess.CompletedProcess:
    """Another Python: Triton decides at import whether to interpret, and must not here."""
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, text=True,
                          capture_output=True, check=False)  # fmt: skip


@pytest.mark.parametrize("interpret", [True, pytest.param(False, marks=needs_gpu)])
def test_the_cases_hold(interpret):
    result = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CASES),
                 interpret=interpret)  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


# Prints the PTX. The interpreter takes more than the compiler does, which needs no GPU to compile.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from els.engines.triton_kernel import patch_sums

fixed = {"CHANNELS": 3, "HEIGHT": 40, "WIDTH": 32, "ROWS": 32, "COLUMNS": 32, "NEAR_Y": 2,
         "NEAR_X": 1, "SUMS": 4}
pointers = {"queries": "*fp32", "pixels": "*u8", "steps": "*fp32", "partials": "*fp32",
            "best": "*i32"}
names = patch_sums.arg_names
for fixed["WRAPS"], fixed["DETAILS"] in ((True, True), (False, True), (False, False)):
    source = ASTSource(
        patch_sums,
        signature={name: "constexpr" if name in fixed else pointers.get(name, "i32")
                   for name in names},
        constexprs={(names.index(name),): value for name, value in fixed.items()},
    )
    print(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"])
"""


def test_the_kernel_compiles_for_an_h100_without_tf32():
    result = run("-c", COMPILE, interpret=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(".visible .entry patch_sums") == 3
    assert "fma.rn.f32" in result.stdout
    assert "tf32" not in result.stdout


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("length", [1, 7, 16, 31, 32, 33, 64, 65, 97])
def test_displacements_and_tiles_reach_all_that_is_needed_once(kind, length):
    for size in range(1, length + 1 if kind == "equivariant" else 2 * length, 2):
        axis = triton_engine._Axis.of(kind, size, length)
        shifts = {s % length for s in range(axis.first, axis.first + axis.shifts)}
        assert len(shifts) == axis.shifts
        for group in axis_groups(kind, length, size):
            away = group.training[:, None] - group.query[:, :, None]
            assert set(away.remainder(length).unique().tolist()) <= shifts

        cells = torch.arange(length)[:, None] + torch.arange(size) - size // 2
        inside = (cells >= 0) & (cells < length) | (kind == "equivariant")
        tiles = -(-length // axis.tile)
        steps = cells % length // axis.tile - torch.arange(length)[:, None] // axis.tile
        assert axis.near <= tiles
        assert ((steps + axis.near // 2) % tiles)[inside].max() < axis.near


def test_without_triton_or_a_gpu_there_is_a_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert triton_engine.available() == "there is no CUDA device"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_engine.available() is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert triton_engine.available() == "Triton is not installed"


def test_an_engine_that_fails_or_errs_on_the_gpu_is_not_available(monkeypatch):
    """What `available` asks first, here on the CPU with the torch engine in the kernel's place."""

    def verdict(answer) -> str | None:
        monkeypatch.setattr(triton_engine, "posteriors", answer)
        return triton_engine._failure.__wrapped__("cpu")

    def fail(query):
        raise RuntimeError("no C compiler")

    def err(query):
        return torch_engine.posteriors(replace(query, sizes=(5,)))

    assert "does not run here (RuntimeError: no C compiler)" in verdict(fail)
    assert "computes wrongly here" in verdict(err)
    assert verdict(torch_engine.posteriors) is None
