"""The rules that keep the shape (docs/development.md): what may import what, and where."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

# What each part may not import, by the beginning of the modules' names.
FORBIDDEN = {
    "els": ("els.models", "els.analysis", "els.console", "pytorch_lightning", "lightning_fabric",
            "wandb", "rich", "jsonargparse", "matplotlib", "altair", "train",
            "analyze"),
    "els.models": ("els.analysis", "train", "analyze"),
    "els.analysis": ("train", "analyze"),
    "els.console": ("els.models", "els.analysis"),
}  # fmt: skip
# Each imports what stands before it, at most; what is on one line is of one level.
LEVELS = (
    ("els.errors", "els.schedule"),
    ("els.files", "els.denoiser"),
    ("els.reading",),
    ("els.work",),
    ("els.images",),
    ("els.engines.query", "els.engines.posterior", "els.engines.dictionary", "els.engines.windows"),
    ("els.engines",),
    ("els.sampling",),
    ("els.machines",),
    ("els.criterion",),
    ("els.search",),
    (
        "els.adapters",
        "els.denoising",
        "els.calibration",
        "els.probes",
        "els.novelty",
        "els.agreement",
    ),
    (
        "els.stacking",
        "els.mosaic",
        "els.information",
        "els.intervals",
        "els.ceiling",
        "els.same_x",
    ),
    ("els.console",),
    ("els.models",),
    ("els.analysis.options", "els.analysis.self_check", "els.analysis.answers"),
    ("els.analysis.earlier", "els.analysis.attribution", "els.analysis.results"),
    ("els.analysis.comparison", "els.analysis.along", "els.analysis.study", "els.analysis.launch"),
    ("els.analysis.pipeline", "els.analysis.following", "els.analysis.report"),
    ("els.analysis.tracking",),
    ("els.analysis.again", "els.analysis.overwriting", "els.analysis.inventory"),
    ("els.analysis.training",),
    ("els.analysis.running",),
    ("els.analysis.commands", "els.analysis.parsers"),
    ("train", "analyze"),
)
# The only modules that may import a library.
USERS = {
    "rich": r"els\.console|els\.models\.progress|els\.analysis\..*",
    "jsonargparse": r"els\.console|els\.analysis\..*",
    "matplotlib": r"els\.analysis\.report\.(figures|style|sprites)",
    "altair": r"els\.analysis\.report\.(charts|page)",
    "jinja2": r"els\.analysis\.report\.page",
    "wandb": r"els\.models\.(tracking|artifacts)|els\.analysis\.tracking\..*",
    "huggingface_hub": r"els\.models\.hub",
    "pytorch_lightning": r"els\.models\..*",
    "lightning_fabric": r"els\.analysis\.(launch|running)",
    "yaml": r"els\.reading",  # with bounds
}
# Modules without a test file of their name, and where they are tested instead.
TESTED_ELSEWHERE = {
    "els.engines.triton_kernel": "tests/els/engines/test_triton_engine.py runs it",
    "els.engines.torch_engine": "the reference of tests/els/engines/test_posterior.py",
    "els.engines.strata_code": "tests/els/engines/test_strata.py and test_subsample.py call it",
    "els.machines.ideal": "tests/els/machines/test_family.py, against the paper's code",
    "els.machines.local": "tests/els/machines/test_family.py, against the paper's code",
    "els.models.resnet": "tests/models/test_networks.py",
    "els.models.unet": "tests/models/test_networks.py",
    "els.models.blocks": "tests/models/test_networks.py",
    "els.images.named": "tests/els/test_images.py",
    "els.images.pictures": "tests/els/test_image_modes.py",
    "els.images.garments.stored": "tests/els/test_images.py",
    "els.images.garments.make": "tests/els/test_images.py",
    "els.images.sets": "tests/els/test_images.py",
    "els.images.source": "tests/els/test_images.py",
    "els.images.files": "tests/els/test_images.py and test_image_modes.py",
    **dict.fromkeys(
        (f"els.machines.{name}" for name in ("tempered", "nearest", "smoothed", "wiener",
         "pca_local", "patch_composite", "soft_composite", "global_equivariant")),
        "tests/els/machines/test_machines.py and tester.py, which go over all of them",
    ),
    "els.machines.mixture": "tests/els/test_stacking.py",
    "els.models.diffusers": "tests/models/formats/test_diffusers.py",
    "els.models.adapted": "tests/models/test_user_code.py",
    "els.models.formats.own": "tests/models/test_checkpoints.py",
    "els.models.formats.loaded": "the tests of the readers, which are asked and answer by it",
    "els.models.training": "tests/models/test_cli.py and tests/test_train.py, which train",
    "els.models.entry": "tests/models/test_short_help.py and tests/analysis/test_commands.py",
    "els.analysis.launch": "tests/test_analyze.py: it takes processes",
    **dict.fromkeys(
        (f"els.analysis.{name}" for name in
         ("running", "parsers", "short_help", "again", "overwriting", "inventory")),
        "tests/analysis/test_commands.py, which gives the commands",
    ),
}  # fmt: skip
MOST_FORMAT_SKIPS = 191  # may only fall


def part_of(name: str) -> str:
    """The part of the project that a module belongs to."""
    parts = ("els.models", "els.analysis", "els.console")
    return next((part for part in parts if f"{name}.".startswith(f"{part}.")), name.split(".")[0])


@cache
def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(modules()) or {node.module}
    return found


@cache
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


def level_of(name: str) -> int | None:
    """The level of a module: that of the longest of its beginnings that is listed."""
    found = [(len(part), level) for level, parts in enumerate(LEVELS) for part in parts
             if f"{name}.".startswith(f"{part}.")]  # fmt: skip
    return max(found)[1] if found else None


def test_arrows_go_down() -> None:
    for name, path in modules().items():
        for target in imports(path):
            level, reached = level_of(name), level_of(target)
            if level is not None and reached is not None:
                assert reached <= level, f"{name} imports {target}"


def test_no_circle() -> None:
    files = modules()
    graph = {name: imports(path) & set(files) - {name, "els"} for name, path in files.items()}
    while leaves := [name for name, targets in graph.items() if not targets & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f"these modules import each other: {sorted(graph)}"


@pytest.mark.parametrize("library", USERS)
def test_a_library_is_used_where_it_belongs(library: str) -> None:
    for name, path in modules().items():
        if any(target.split(".")[0] == library for target in imports(path)):
            assert re.fullmatch(USERS[library], name), f"{name} imports {library}"


def test_runs_of_wandb_start_in_one_place() -> None:
    starting = {name for name, path in modules().items() if "wandb.init(" in path.read_text()}
    assert starting == {"els.analysis.tracking.log"}


@pytest.mark.parametrize("name", ["train.py", "analyze.py"])
def test_entry_points_call_and_define_nothing(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= 30
    defined = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef, ast.Assign)
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, defined)]


def test_packages_re_export_and_define_nothing() -> None:
    for path in modules().values():
        if path.name == "__init__.py" and path != ROOT / "els" / "__init__.py":
            defined = (ast.FunctionDef, ast.ClassDef)
            nodes = ast.parse(path.read_text()).body
            assert not [node for node in nodes if isinstance(node, defined)], path


def test_renderers_compute_nothing() -> None:
    renderers = ("report.figures", "report.charts", "report.page", "tracking.content")
    for name in renderers:
        text = modules()[f"els.analysis.{name}"].read_text()
        for banned in ("quantile(", "median(", "agreement(", "summarise(", ".mean(", ".std("):
            assert banned not in text, f"{name} computes with {banned}"


def test_untyped_tables_stay_at_the_borders() -> None:
    """`Mapping[str, Any]` and its kin are for JSON, rows of tables, the page's data and W&B."""
    border = re.compile(
        r"els\.analysis\.(results|earlier|along|comparison|running|again|inventory|overwriting|parsers|short_help|report\..*|tracking\..*)|"
        r"els\.models\.(blocks|checkpoints|edm|tracking|diffusion|callbacks|networks|schedules|formats\..*)|"
        r"els\.(files|reading|__init__)|els"
    )
    for name, path in modules().items():
        if re.search(r"(Mapping|dict)\[str, (Any|object)\]", path.read_text()):
            assert border.fullmatch(name), f"{name} hands on an untyped table"


def test_prose_is_printed_and_never_read() -> None:
    """A description is no operand of a comparison, and nothing of it is looked up or cut off."""
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            read = []
            if isinstance(node, ast.Compare):
                read = [node.left, *node.comparators]
            elif isinstance(node, ast.Attribute | ast.Subscript):
                read = [node.value]
            for one in read:
                described = isinstance(one, ast.Attribute) and one.attr == "description"
                assert not described, f"{name}, line {node.lineno}, reads a description"


def test_keys_of_results_are_made_where_they_are_computed() -> None:
    text = {name: path.read_text() for name, path in modules().items()}
    calling = {name for name, code in text.items() if "work.map(" in code}
    assert calling
    assert all(part_of(name) == "els" for name in calling), calling


def test_every_module_has_its_tests() -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    without = {
        name for name, path in modules().items()
        if path.name != "__init__.py" and f"test_{path.stem}.py" not in tests
    }  # fmt: skip
    assert without <= set(TESTED_ELSEWHERE), without - set(TESTED_ELSEWHERE)


def test_formatting_is_left_to_the_formatter() -> None:
    files = [
        *modules().values(),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    skips = sum(path.read_text().count("# fmt: " + "skip") for path in files)
    assert skips <= MOST_FORMAT_SKIPS, f"{skips} times; write shorter calls instead"
