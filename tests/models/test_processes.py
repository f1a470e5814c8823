"""Tests for what starts processes on other nodes."""

import pytest

from els.errors import InputError
from els.models.processes import check_nodes


def test_one_node_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    check_nodes(1)


def test_several_nodes_need_something_that_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "NODE_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="num_nodes is 2, but nothing has started the others"):
        check_nodes(2)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    check_nodes(2)


def test_no_node_is_refused() -> None:
    with pytest.raises(InputError, match="num_nodes is 0; it must be at least 1"):
        check_nodes(0)
