import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from els.images import load_images
from els.machines import make_machine
from els.work import Advance, Tensors, Work, tick


class Squares:
    """A computation that counts what it is asked for, and can fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.fails_at: int | None = None

    def __call__(self, some: list[int], advance: Advance) -> Tensors:
        if self.fails_at in some:
            raise RuntimeError("stopped")
        self.batches.append(some)
        advance(len(some))
        return {"square": torch.tensor(some) ** 2, "row": torch.arange(3).expand(len(some), 3)}


def squares(work: Work, compute: Callable, items: range = range(5), **options: object) -> list[int]:
    depends = options.pop("depends", "squares")
    found = work.map("squares", items, compute, depends=depends, **options)
    assert found["row"].tolist() == [[0, 1, 2]] * len(items)
    return found["square"].tolist()


def test_in_memory_every_item_is_computed_in_order() -> None:
    compute = Squares()
    assert squares(Work(batch=2), compute) == [0, 1, 4, 9, 16]
    assert compute.batches == [[0, 1], [2, 3], [4]]


def test_what_was_finished_before_a_failure_is_not_computed_again(tmp_path: Path) -> None:
    compute = Squares()
    compute.fails_at = 3
    with pytest.raises(RuntimeError, match="stopped"):
        squares(Work(tmp_path, batch=2), compute)
    compute.fails_at = None
    work = Work(tmp_path, batch=2)
    assert squares(work, compute) == [0, 1, 4, 9, 16]
    assert compute.batches == [[0, 1], [2, 3], [4]]
    assert work.computed == {"squares": 3}
    again = Work(tmp_path, batch=5)
    assert squares(again, compute) == [0, 1, 4, 9, 16]
    assert not again.computed
    assert compute.batches == [[0, 1], [2, 3], [4]]


def test_more_items_compute_only_those_that_are_new(tmp_path: Path) -> None:
    compute = Squares()
    squares(Work(tmp_path), compute, range(3))
    assert squares(Work(tmp_path), compute, range(1, 6)) == [1, 4, 9, 16, 25]
    assert compute.batches == [[0, 1, 2], [3, 4, 5]]


def test_results_are_known_by_what_they_depend_on(tmp_path: Path) -> None:
    compute = Squares()
    squares(Work(tmp_path), compute, range(1))
    squares(Work(tmp_path, context="other"), compute, range(1))
    squares(Work(tmp_path), compute, range(1), depends=["squares", 2])
    squares(Work(tmp_path), compute, range(1), keys=["another"])
    assert len(compute.batches) == 4
    squares(Work(tmp_path), compute, range(1), keys=[0])
    assert len(compute.batches) == 4


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    compute = Squares()
    squares(Work(tmp_path), compute)
    damaged = sorted(tmp_path.glob("*.pt"))[2]
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert squares(Work(tmp_path), compute) == [0, 1, 4, 9, 16]
    assert [len(batch) for batch in compute.batches] == [5, 5]  # in the batch that it was in


def test_a_row_is_kept_without_the_rest_of_its_batch(tmp_path: Path) -> None:
    Work(tmp_path).map("big", range(4), lambda some, advance: {"x": torch.zeros(len(some), 10_000)},
                       depends="big")  # fmt: skip
    assert max(path.stat().st_size for path in tmp_path.glob("*.pt")) < 2 * 4 * 10_000


def test_prune_drops_what_was_not_used_and_clear_everything(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    squares(Work(folder), Squares(), range(4))
    work = Work(folder)
    squares(work, Squares(), range(2))
    work.prune()
    assert len(list(folder.glob("*.pt"))) == 2
    work.clear()
    assert not folder.exists()


def test_progress_is_shown_for_what_is_computed(tmp_path: Path) -> None:
    shown: list[tuple[str, int]] = []
    done: list[int] = []

    class Bar:
        def __init__(self, name: str, total: int) -> None:
            shown.append((name, total))

        def __enter__(self) -> Advance:
            return done.append

        def __exit__(self, *error: object) -> None: ...

    squares(Work(tmp_path, progress=Bar, batch=2), Squares(), range(3), steps=2)
    squares(Work(tmp_path, progress=Bar, batch=2), Squares(), range(3), steps=2)
    assert shown == [("squares", 6), ("squares", 0)]
    assert sum(done) == 3


@pytest.mark.timeout(60)
def test_processes_do_their_shares_and_get_everything(tmp_path: Path) -> None:
    barrier, computes = threading.Barrier(2), [Squares(), Squares()]
    found: dict[int, list[int]] = {}

    def one(rank: int) -> None:
        work = Work(tmp_path, rank=rank, world=2, barrier=barrier.wait, batch=16)
        found[rank] = squares(work, computes[rank])

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: [0, 1, 4, 9, 16], 1: [0, 1, 4, 9, 16]}
    assert [compute.batches for compute in computes] == [[[0, 1, 2]], [[3, 4]]]


def test_progress_moves_within_a_batch_and_never_beyond_it(tmp_path: Path) -> None:
    moves: list[float] = []

    @contextmanager
    def progress(name: str, total: int) -> Iterator[Advance]:
        moves.append(-total)
        yield moves.append

    def compute(some: list[int], advance: Advance) -> Tensors:
        for _ in range(2):  # points on a path
            for _ in range(8):  # parts of the training set; more than were foreseen
                tick(0.5)
            advance(len(some))
        return {"x": torch.zeros(len(some))}

    work = Work(tmp_path, batch=2, progress=progress)
    work.map("x", range(4), compute, depends="x", steps=2)
    assert moves[0] == -8
    assert sum(moves[1:]) == 8
    assert moves[1:6] == [0.5, 0.5, 0.5, 0.5, 0]  # two images of the batch, and no more
    tick(1)  # outside of a computation it does nothing
    assert sum(moves[1:]) == 8
    Work(tmp_path, progress=progress).map("x", range(4), compute, depends="x")
    assert moves[-1] == 0  # all kept from before


def test_a_pass_over_a_large_set_ticks_by_its_parts() -> None:
    moves: list[float] = []

    @contextmanager
    def progress(name: str, total: int) -> Iterator[Advance]:
        yield moves.append

    images = load_images("digits", size=8)
    machine = make_machine("boundary", images, size=3, engine="torch", chunk=100)

    def compute(some: list[int], advance: Advance) -> Tensors:
        x = torch.randn(len(some), *images.image_shape)
        return {"x": machine(x, torch.full((len(some),), 0.5))}

    Work(progress=progress).map("x", range(2), compute, depends="x")
    assert len(moves) == 15  # of 1,437 images, 100 at a time
    assert sum(moves) == pytest.approx(2)


def _nothing(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _foreign(path: Path) -> None:
    """Another part, whole and in its place."""
    others = sorted(set(path.parent.glob("*.pt")) - {path})
    path.write_bytes(others[0].read_bytes())


def _flipped(path: Path) -> None:
    """One bit, in the middle of the numbers."""
    data = bytearray(path.read_bytes())
    data[data.index(b"\x04\0\0\0\0\0\0\0")] ^= 1  # 2 squared
    path.write_bytes(data)


def _of_torch(path: Path) -> None:
    """As an earlier version kept it."""
    torch.save({"square": torch.tensor(7), "row": torch.arange(3)}, path)


@pytest.mark.parametrize(
    "damage",
    [
        _nothing,
        _foreign,
        _flipped,
        _of_torch,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(b"PK\x03\x04 text"),
        lambda path: path.write_bytes(path.read_bytes()[:43]),
    ],
)
def test_a_part_that_is_not_as_it_was_written_is_computed_again(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    compute = Squares()
    squares(Work(tmp_path, batch=5), compute)
    paths = {Work(tmp_path)._path("squares", i): i for i in range(5)}
    path = next(path for path, i in paths.items() if i == 2)
    damage(path)
    assert squares(Work(tmp_path), compute) == [0, 1, 4, 9, 16]
    assert compute.batches[1:] == [[0, 1, 2, 3, 4]]
    again = Work(tmp_path)
    assert squares(again, compute) == [0, 1, 4, 9, 16]  # and it stays whole
    assert not again.computed


def test_planted_parts_that_do_not_fit_each_other_are_all_computed_again(tmp_path: Path) -> None:
    compute = Squares()
    squares(Work(tmp_path), compute)
    work = Work(tmp_path)
    planted = {"square": torch.zeros(2), "other": torch.zeros(1)}
    work._write(work._path("squares", 3), planted, [])
    assert squares(Work(tmp_path), compute) == [0, 1, 4, 9, 16]
    assert compute.batches[1:] == [[0, 1, 2, 3, 4]]


def test_a_lost_item_comes_out_the_same_to_the_byte(tmp_path: Path) -> None:
    """Results depend on the batch by rounding; here by much, so that it shows."""

    def compute(some: list[int], advance: Advance) -> Tensors:
        return {"x": torch.tensor([float(i) + len(some) / 10 for i in some])}

    def found(work: Work, items: range = range(5)) -> list[float]:
        return work.map("x", items, compute, depends="x")["x"].tolist()

    first = found(Work(tmp_path, batch=3))
    for i in range(5):  # one by one, and what a kill leaves of a batch that was being written
        Work(tmp_path)._path("x", i).unlink()
        work = Work(tmp_path, batch=2)
        assert found(work) == first
        assert work.computed == {"x": 1}
    for i in (1, 2, 4):
        Work(tmp_path)._path("x", i).unlink()
    assert found(Work(tmp_path, batch=16)) == first
    # Fewer items than the batch had: then there is no other way.
    Work(tmp_path)._path("x", 1).unlink()
    assert found(Work(tmp_path), range(1, 2)) == [pytest.approx(1.1)]


@pytest.mark.timeout(60)
def test_what_another_process_lost_is_computed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, computes = threading.Barrier(2), [Squares(), Squares()]
    found: dict[int, list[int]] = {}
    write = Work._write
    monkeypatch.setattr(Work, "_write", lambda work, *args: work.rank or write(work, *args))

    def one(rank: int) -> None:
        work = Work(tmp_path, rank=rank, world=2, barrier=barrier.wait)
        found[rank] = squares(work, computes[rank])

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: [0, 1, 4, 9, 16], 1: [0, 1, 4, 9, 16]}
    assert computes[0].batches == [[0, 1, 2], [3, 4]]
