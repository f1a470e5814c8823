"""The arrows between the parts run one way (README, "How the code is laid out")."""

import ast
from pathlib import Path

from conftest import ROOT

FORBIDDEN = {
    "els": ("models", "configs", "pytorch_lightning", "wandb", "train", "analyze"),
    "models": ("train", "analyze"),
}
ORDER = (
    "els.errors", "els.schedule", "els.denoiser", "els.probes", "els.sampling", "els.machines",
    "els.calibration", "els.stacking", "els.report", "models", "analyze",
)  # fmt: skip


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(modules()) or {node.module}
    return found


def modules() -> dict[str, Path]:
    files = [*ROOT.glob("*.py"), *ROOT.glob("els/**/*.py"), *ROOT.glob("models/**/*.py")]
    names = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in files}
    return {name.removesuffix(".__init__"): file for name, file in names.items()}


def test_no_forbidden_arrow() -> None:
    for name, path in modules().items():
        for target in imports(path):
            for part, banned in FORBIDDEN.items():
                if name.split(".")[0] == part:
                    assert target.split(".")[0] not in banned, f"{name} imports {target}"
            level = [i for i, part in enumerate(ORDER) if f"{name}.".startswith(f"{part}.")]
            reached = [i for i, part in enumerate(ORDER) if f"{target}.".startswith(f"{part}.")]
            if level and reached:
                assert reached[0] <= level[0], f"{name} imports {target}"


def test_no_circle() -> None:
    files = modules()
    graph = {name: imports(path) & set(files) - {name} for name, path in files.items()}
    while leaves := [name for name, targets in graph.items() if not targets & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f"these modules import each other: {sorted(graph)}"


def test_few_places_know_wandb_and_analyze_starts_runs() -> None:
    knowing = {name for name, path in modules().items() if "wandb" in imports(path)}
    assert knowing == {
        "analyze", "models.tracking", "models.wandb_report", "models.dashboard",
        "models.formats.artifacts",
    }  # fmt: skip
    starting = {name for name, path in modules().items() if "wandb.init(" in path.read_text()}
    assert starting == {"analyze"}
