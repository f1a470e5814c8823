from pathlib import Path

import pytest
import torch

from els.work import Work


def tasks(done: list[int], fail_at: int | None = None) -> dict:
    def compute(i: int) -> dict[str, torch.Tensor]:
        if i == fail_at:
            raise RuntimeError
        done.append(i)
        return {"value": torch.tensor(i)}

    return {f"task{i}": lambda i=i: compute(i) for i in range(5)}


def test_finished_tasks_are_not_done_again(tmp_path: Path) -> None:
    work, done = Work(tmp_path / "work"), []
    with pytest.raises(RuntimeError):
        work.all(tasks(done, fail_at=3))
    assert done == [0, 1, 2]
    results = work.all(tasks(done))
    assert done == [0, 1, 2, 3, 4]
    assert [int(r["value"]) for r in results] == [0, 1, 2, 3, 4]
    work.clear()
    assert not (tmp_path / "work").exists()


def test_processes_do_their_shares_and_get_everything(tmp_path: Path) -> None:
    done: list[list[int]] = [[], []]
    waiting = Work(tmp_path, rank=1, world=2, barrier=lambda: first.all(tasks(done[0])))
    first = Work(tmp_path, rank=0, world=2)
    with pytest.raises(FileNotFoundError):  # without its partner a process cannot have everything
        first.all(tasks([]))
    for file in tmp_path.iterdir():
        file.unlink()
    results = waiting.all(tasks(done[1]))
    assert done == [[0, 2, 4], [1, 3]]
    assert [int(r["value"]) for r in results] == [0, 1, 2, 3, 4]
