from pathlib import Path

import pytest

from els.errors import InputError
from els.models.runs import Run, check_replaceable, is_run, move_aside, remove, run_names


def run_folder(path: Path, *, checkpoint: bool = True) -> Path:
    """A folder as training leaves it."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("# v\nrun:\n  name: a\ndata:\n  x: 1\nmodel:\ntrainer:\n")
    if checkpoint:
        (path / "checkpoints").mkdir()
        (path / "checkpoints" / "last.ckpt").write_text("trained")
    return path


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\\b", "-rf", "a\nb"])
def test_a_name_is_that_of_one_folder(name: str) -> None:
    with pytest.raises(InputError, match=r"^run\.name is '.*must be the name of one folder"):
        Run(name=name)


def test_names_that_people_use_are_taken() -> None:
    for name in ("digits_resnet", "mnist 2", "é", ".hidden", "a.b-c"):
        assert Run(name=name).folder == Path("runs") / name


def test_a_run_is_known_by_its_checkpoints_or_its_configuration(tmp_path: Path) -> None:
    assert is_run(run_folder(tmp_path / "a"))
    assert is_run(run_folder(tmp_path / "b", checkpoint=False))
    other = tmp_path / "precious"
    other.mkdir()
    (other / "config.yaml").write_text("run: 1\nmodel: 2\n")
    assert not is_run(other)
    assert not is_run(tmp_path / "nothing")
    assert not is_run(tmp_path)  # the folder of all runs is none
    assert run_names(tmp_path) == ["a"]


def test_only_a_run_is_ever_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    check_replaceable(precious)  # empty: there is nothing to lose
    assert move_aside(precious) is None
    (precious / "thesis.tex").write_text("years")
    for refused in (check_replaceable, move_aside):
        with pytest.raises(InputError, match=r"precious' is not a run of train\.py"):
            refused(precious)
    with pytest.raises(InputError, match="is not a run"):
        Run("precious", str(tmp_path), overwrite=True).check_room(None)
    assert (precious / "thesis.tex").read_text() == "years"
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="is not a run"):
        check_replaceable(file)


def test_what_is_moved_aside_takes_a_free_name(tmp_path: Path) -> None:
    for name in ("a.old", "a.old2"):
        run_folder(tmp_path / "a")
        assert move_aside(tmp_path / "a") == tmp_path / name
        assert (tmp_path / name / "checkpoints" / "last.ckpt").read_text() == "trained"
    assert move_aside(tmp_path / "a") is None
    remove(tmp_path / "a.old")
    assert [path.name for path in tmp_path.iterdir()] == ["a.old2"]


def test_of_a_link_the_link_is_removed(tmp_path: Path) -> None:
    far = run_folder(tmp_path / "far")
    (tmp_path / "near").symlink_to(far)
    moved = move_aside(tmp_path / "near")
    remove(moved)
    assert is_run(far)
    assert not moved.is_symlink()


def test_a_trained_run_is_replaced_by_nothing_but_what_says_so(tmp_path: Path) -> None:
    last = run_folder(tmp_path / "a") / "checkpoints" / "last.ckpt"
    other = run_folder(tmp_path / "b") / "checkpoints" / "last.ckpt"
    run = Run("a", str(tmp_path))
    run.check_room(str(last))  # it goes on
    Run("a", str(tmp_path), overwrite=True).check_room(str(other))
    for elsewhere in (None, str(other)):
        with pytest.raises(InputError, match="already holds a trained run; add --ckpt_path last"):
            run.check_room(elsewhere)
    with pytest.raises(InputError, match=r"--run\.overwrite would replace"):
        Run("a", str(tmp_path), overwrite=True).check_room(str(last))


def test_what_cannot_go_on_names_the_folder_and_like_runs(tmp_path: Path) -> None:
    run_folder(tmp_path / "digits_resnet")
    run = Run("digit_resnet", str(tmp_path))
    meant = r"digit_resnet' has no .*/last.ckpt .*; did you mean --run.name digits_resnet\?"
    with pytest.raises(InputError, match=meant):
        run.checkpoint("last")
    with pytest.raises(InputError, match=r"has no checkpoints/best.ckpt to go on from$"):
        Run("x", str(tmp_path)).checkpoint("best")
    with pytest.raises(InputError, match=r"there is no checkpoint 'nowhere\.ckpt'"):
        run.checkpoint("nowhere.ckpt")
    found = run.checkpoint(str(tmp_path / "digits_resnet"))
    assert found == tmp_path / "digits_resnet" / "checkpoints" / "last.ckpt"
