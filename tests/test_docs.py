"""What README and the pages of docs say is there: links, flags, paths, and Python that runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT
from entry import run

from els.analysis.short_help import COMMANDS as ANALYSES

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

# The parts of the project that a path in backticks may begin with, and what a path looks like.
PARTS = ("analysis", "benchmarks", "configs", "docs", "els", "examples", "models", "tests", "zoo")
PROJECT_PATH = re.compile(rf"(?:{'|'.join(PARTS)})/[\w./]+|[\w]+\.(?:py|toml|cff|txt)|LICENSE")
W_AND_B_KEYS = {"analysis/t"}  # which look like paths
COMMANDS = ("train.py", "analyze.py", "els-train", "els-analyze")
FLAG = re.compile(r"(?<![\w-])--([A-Za-z](?:[\w.-]*\w)?)")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The language and the content of every fenced block."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def prose(text: str) -> str:
    """The text without its blocks of code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", prose(text))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page.read_text()), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


@BY_PAGE
def test_every_link_and_picture_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(ROOT), f"{target} leads out of the project"
        assert there.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(there), f"{target}: no such heading"


def test_every_page_and_every_picture_is_reached() -> None:
    told = "".join(page.read_text() for page in PAGES)
    for path in (*PAGES[1:], *(ROOT / "docs" / "images").iterdir()):
        assert f"{path.name})" in told or f"{path.name}#" in told, f"nothing leads to {path.name}"


def flags(text: str) -> set[str]:
    """The flags of this project's commands: in prose all, in blocks those of our commands."""
    found = {flag for span in code_spans(text) for flag in FLAG.findall(span)}
    for _, block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            if any(command in line for command in COMMANDS):
                found |= set(FLAG.findall(line))
    return found


@cache
def known_flags() -> frozenset[str]:
    """The flags that some command has; `name.help` is there where name stands for a class."""
    rest = ["train.py export", *(f"analyze.py {command}" for command in ANALYSES)]
    with ThreadPoolExecutor() as pool:
        told = "".join(pool.map(whole_help, ["train.py fit", *rest]))
    denied = {f"no-{switch}" for switch in re.findall(r"--([\w.]+) \{true,false\}", told)}
    return frozenset({*FLAG.findall(told), *denied, "help", "help_all"})


def whole_help(command: str) -> str:
    """All options of a command; --help shows the common ones alone."""
    done = run(*command.split(), "--help_all", COLUMNS="200")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_known(flag: str) -> bool:
    """Whether a command has it, or the class that it is an argument of."""
    parents = [flag[: dot.start()] for dot in re.finditer(r"\.", flag)]
    return flag in known_flags() or any(f"{one}.help" in known_flags() for one in parents)


@BY_PAGE
def test_every_flag_is_one_of_a_command(page: Path) -> None:
    assert not {flag for flag in flags(page.read_text()) if not is_known(flag)}


def test_flags_are_told_from_what_is_none() -> None:
    text = (
        "`--ema.decay 0` a--b `--no_such` --- \n```bash\nwandb x --theirs\npython train.py --a\n```"
    )
    assert flags(text) == {"ema.decay", "no_such", "a"}
    assert flags("`--no-mosaic --force`, `--a-b.`") == {"no-mosaic", "force", "a-b"}
    assert is_known("model.optimizer.lr")
    assert is_known("calibration_seeds")
    assert is_known("no-mosaic")
    assert is_known("csv")
    assert not is_known("no_such")
    assert not is_known("no-seeds")
    assert not is_known("data.no_such")


@BY_PAGE
def test_every_path_of_the_project_is_there(page: Path) -> None:
    spans = [span for span in code_spans(page.read_text()) if PROJECT_PATH.fullmatch(span)]
    spans += re.findall(r"configs/[\w/]+\.yaml", page.read_text())
    places = (ROOT, ROOT / "analysis" / "report", ROOT / "analysis" / "tracking")
    missing = {span for span in spans if not any((place / span).exists() for place in places)}
    assert not missing - W_AND_B_KEYS


@BY_PAGE
def test_every_file_in_a_drawing_of_the_tree_is_there(page: Path) -> None:
    unfenced = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(re.findall(r"^    .*", unfenced, re.MULTILINE))
    drawn = re.findall(r"\b[\w.]+\.(?:py|jinja)\b", lines)
    assert not {name for name in drawn if not any(tree_has(name, part) for part in (".", *PARTS))}


def tree_has(name: str, part: str) -> bool:
    return any((ROOT / part).glob(name if part == "." else f"**/{name}"))


def test_every_configuration_is_told() -> None:
    told = "".join(page.read_text() for page in PAGES)
    for group in re.findall(r"\{[\w,]+\}(?:_\w+)", told):  # {mnist,cifar10}_resnet_circular
        names, rest = group[1:].split("}")
        told += " ".join(f"`{name}{rest}`" for name in names.split(","))
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        assert f"`{path.stem}`" in told or f"{path.name}`" in told, f"{path.name} is not told"


def test_every_machine_is_told() -> None:
    from els.machines.registry import MACHINES

    told = README.read_text() + (ROOT / "docs" / "machines.md").read_text()
    for kind in MACHINES:
        assert f"`{kind}`" in told, f"the machine {kind} is not told"


def test_readme_fits_on_a_page() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_the_python_of_readme_runs(trained: Path, capsys: pytest.CaptureFixture) -> None:
    (program,) = [block for language, block in blocks(README.read_text()) if language == "python"]
    assert "runs/garments_resnet" in program
    assert len([line for line in program.splitlines() if line]) <= 12
    program = program.replace("runs/garments_resnet", str(trained)).replace("steps=150", "steps=3")
    names: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), names)
    assert names["drawn"].shape == names["predicted"].shape
    assert capsys.readouterr().out.count("[") == 3  # a line for each metric, with its interval


@pytest.mark.parametrize("name", ["docs/machines.md"])
def test_the_python_of_a_page_runs(name: str) -> None:
    names: dict[str, object] = {}
    text = (ROOT / name).read_text()
    programs = [block for language, block in blocks(text) if language == "python"]
    assert programs
    for program in programs:
        exec(compile(program, name, "exec"), names)
    samples = names["x"]
    assert samples.shape == (3, 1, 16, 16)  # as the page says
    assert samples.abs().max() < 1 + 1e-5


def test_the_commands_of_export_run_as_they_stand(trained: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "checkpoints.md").read_text()
    section = text.split("\n## Out again\n")[1].split("\n## ")[0]
    folder = tmp_path / "for_others"
    quick = ["--dry_run", "--logger", "none", "--out", str(tmp_path / "out")]
    for language, block in blocks(section):
        block = block.replace("runs/digits_resnet", str(trained))
        block = block.replace("for_others", str(folder))
        if language == "bash":
            for line in block.splitlines():
                words = line.partition(" #")[0].split()[1:]
                done = run(*words, *(quick if words[0] == "analyze.py" else ()))
                assert done.returncode == 0, done.stdout + done.stderr
        elif language == "python":
            names: dict[str, object] = {}
            exec(compile(block, "checkpoints.md", "exec"), names)
            assert names["x0_hat"].shape == (4, 1, 16, 16)
    assert (folder / "README.md").is_file()


@BY_PAGE
def test_no_page_speaks_of_the_names_before(page: Path) -> None:
    for old in ("dial", "kernel_triton", "places.py", "pipelines.py", "wandb_report", "els/report"):
        assert not re.search(rf"\b{re.escape(old)}\b", page.read_text()), f"{old} is an old name"
