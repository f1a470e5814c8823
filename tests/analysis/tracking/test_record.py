from dataclasses import replace
from pathlib import Path

import pytest

from els.analysis.tracking.record import RECORD, LoggedRun, digest_of, run_of


def test_a_run_goes_on_with_what_it_was_begun_with(tmp_path: Path) -> None:
    first = run_of(tmp_path, "a")
    assert not list(tmp_path.iterdir())  # nothing has been logged
    begun = replace(first, where="here")
    begun.save(tmp_path)
    assert run_of(tmp_path, "a") == begun
    assert run_of(tmp_path, "b").id != first.id
    assert run_of(tmp_path, "a", anew=True).id != first.id
    replace(begun, finished=True).save(tmp_path)
    assert run_of(tmp_path, "a").finished


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 3}'])
def test_a_damaged_record_is_as_good_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(content)
    assert run_of(tmp_path, "a").where == ""


def test_a_sweep_says_which_run_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LoggedRun("mine", "a", finished=True).save(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert run_of(tmp_path, "a") == LoggedRun("given", "a")
    LoggedRun("given", "a", finished=True).save(tmp_path)
    assert run_of(tmp_path, "a").finished


def test_a_digest_tells_data_apart_and_not_the_order_of_its_keys() -> None:
    assert digest_of("els", {"a": 1, "b": [2]}) == digest_of("els", {"b": [2], "a": 1})
    assert (
        len({digest_of(*parts) for parts in (["els", 1], ["els", 2], ["other", 1], ["els"])}) == 4
    )
