"""The rules that keep the shape (docs/development.md): what may import what, and where."""

import ast
from pathlib import Path

from conftest import ROOT

# What each part may not import, by the beginning of the modules' names.
FORBIDDEN = {
    "els": ("els.models", "els.analysis", "els.console", "pytorch_lightning", "lightning_fabric",
            "wandb", "rich", "jsonargparse", "matplotlib", "altair", "vl_convert", "train",
            "analyze"),
    "els.models": ("els.analysis", "train", "analyze"),
    "els.analysis": ("train", "analyze"),
    "els.console": ("els.models", "els.analysis"),
}  # fmt: skip
ORDER = (
    "els.errors", "els.schedule", "els.denoiser", "els.probes", "els.sampling", "els.engines",
    "els.machines", "els.calibration", "els.stacking", "els.console", "els.models", "els.analysis",
    "analyze",
)  # fmt: skip


def part_of(name: str) -> str:
    """The part of the project that a module belongs to."""
    parts = ("els.models", "els.analysis", "els.console")
    return next((part for part in parts if f"{name}.".startswith(f"{part}.")), name.split(".")[0])


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
    """Every module by its name; models, analysis and console.py are parts of els."""
    files = dict.fromkeys((ROOT / "train.py", ROOT / "analyze.py"), "")
    files |= dict.fromkeys(file for file in (ROOT / "els").rglob("*.py") if _own(file))
    for folder in ("models", "analysis"):
        files |= dict.fromkeys((ROOT / folder).rglob("*.py"), "els.")
    files[ROOT / "console.py"] = "els."
    named = {
        (prefix or "") + ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for file, prefix in files.items()
    }
    return {name.removesuffix(".__init__"): file for name, file in named.items()}


def _own(file: Path) -> bool:
    return not any(one.is_symlink() for one in (file, *file.parents) if one.is_relative_to(ROOT))


def test_no_forbidden_arrow() -> None:
    for name, path in modules().items():
        for target in imports(path):
            for banned in FORBIDDEN.get(part_of(name), ()):
                allowed = name == "els"  # whose load_denoiser is imported when it is asked for
                assert allowed or not f"{target}.".startswith(f"{banned}."), (
                    f"{name} imports {target}"
                )
            level = [i for i, part in enumerate(ORDER) if f"{name}.".startswith(f"{part}.")]
            reached = [i for i, part in enumerate(ORDER) if f"{target}.".startswith(f"{part}.")]
            if level and reached:
                assert reached[0] <= level[0], f"{name} imports {target}"


def test_no_circle() -> None:
    files = modules()
    graph = {name: imports(path) & set(files) - {name, "els"} for name, path in files.items()}
    while leaves := [name for name, targets in graph.items() if not targets & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f"these modules import each other: {sorted(graph)}"
