import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from conftest import ROOT
from test_architecture import modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Comes with torch, on the machines that it works on.
NOT_OURS = {"triton"}


def blocks(name: str) -> list[list[str]]:
    """The requirements of a file, block by block, without those that it takes from another."""
    text = (ROOT / name).read_text()
    lines = [
        [line for line in block.splitlines() if not line.startswith(("#", "-r "))]
        for block in re.split(r"\n\n+", text.strip())
    ]
    return [block for block in lines if block]


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


def test_requirements_are_those_of_the_package_and_its_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    assert list(extras) == ["dev", "diffusers", "dashboard", "tensorboard"]
    assert blocks("requirements.txt") == [PROJECT["dependencies"]]
    assert blocks("requirements-dev.txt") == [*extras.values()]
    assert "-r requirements.txt" in (ROOT / "requirements-dev.txt").read_text().splitlines()


def test_the_package_declares_what_it_imports() -> None:
    imported = set()
    for file in modules().values():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - NOT_OURS - {"els"}
    extras = PROJECT["optional-dependencies"]
    runtime = [*PROJECT["dependencies"], *extras["diffusers"], *extras["dashboard"]]
    declared = {name_of(requirement) for requirement in runtime}
    distributions = packages_distributions()
    for module in sorted(foreign):
        names = {name_of(name) for name in distributions.get(module, [module])}
        assert names & declared, f"{module} is imported, but not declared"
