"""What the repository and an installation look like: names, folders, who imports whom, declared dependencies."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("service", "trainer", "rewards", "agent")
TOP_LEVEL = {
    *PACKAGES,
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "deploy",
    "pyproject.toml",
    "tests",
}
MADE_LOCALLY = {"build", "demo", "dist", "shared"}
PARTS = {
    "annotated_types": "pydantic",
    "datasets": "trl",
    "huggingface_hub": "transformers",
    "pydantic_core": "pydantic",
    "starlette": "fastapi",
    "tokenizers": "transformers",
    "triton": "torch",
}
"""Distributions that belong to a declared one: it fixes their version and its documentation sends users to them."""
RUNTIME_EXTRAS = ("cuda", "deepspeed")
"""Extras of pyproject.toml whose packages the code imports where they are needed, and says what to install if not."""
VLLM_FILES = {
    "service/engine.py",
    "service/engine_arguments.py",
    "service/engine_output.py",
    "trainer/vllm_changes.py",
    "trainer/worker.py",
}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Top-level names of every module that a file imports, at whatever depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module.partition(".")[0]


def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_other_distribution_claims_our_import_names() -> None:
    """`service`, `agent`, `trainer`, `rewards` are common words: an installed package of that name would hide ours."""
    owners = packages_distributions()
    others = {name: {*owners.get(name, ())} - {project()["name"]} for name in PACKAGES}
    assert others == {name: set() for name in PACKAGES}


def test_our_packages_come_from_this_repository() -> None:
    """What tests import is the code beside them, not an installed copy."""
    for name in PACKAGES:
        assert Path(str(__import__(name).__file__)) == ROOT / name / "__init__.py"


def test_the_repository_holds_only_the_agreed_entries() -> None:
    """A new top-level folder is a decision, written here, not an accident."""
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert visible - MADE_LOCALLY == TOP_LEVEL


def test_vllm_is_imported_in_two_files_only() -> None:
    """What differs between vLLM's versions and platforms has one place in each process."""
    importers = {path.relative_to(ROOT).as_posix() for path in sources() if "vllm" in imported(path)}
    assert importers <= VLLM_FILES


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_a_declared_dependency(package: str) -> None:
    """What the code imports is named in pyproject.toml, not there by luck of another package's needs."""
    required, extras = project()["dependencies"], project()["optional-dependencies"]
    assert isinstance(required, list)
    assert isinstance(extras, dict)
    requirements = required + [item for extra in RUNTIME_EXTRAS for item in extras[extra]]
    declared = {canonical(re.split(r"[<>=\[;! ]", requirement)[0]) for requirement in requirements}
    owners = packages_distributions()
    known = {*PACKAGES, "vllm", *sys.stdlib_module_names, *(part for part, whole in PARTS.items() if whole in declared)}
    names = {name for path in (ROOT / package).rglob("*.py") for name in imported(path)} - known
    undeclared = {
        name for name in names if not declared & {canonical(owner) for owner in [name, *owners.get(name, ())]}
    }
    assert undeclared == set()


def test_every_test_says_what_it_shows() -> None:
    """The docstring of a test states a behaviour as a fact."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]
    assert silent == []


def test_the_import_layers_are_those_of_the_packages() -> None:
    """The contract that lint-imports checks names exactly the packages that the wheel ships."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tuple(tools["importlinter"]["root_packages"]) == PACKAGES
    assert tuple(tools["importlinter"]["contracts"][0]["layers"]) == PACKAGES
    assert set(tools["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(PACKAGES)
