"""What benchmarks and scripts import of kcost is there: no test runs them all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path for folder in ("benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py"))


def missing(source: str) -> Iterator[str]:
    """The names that a program imports from modules of kcost, and that these do not have."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kcost."):
            for alias in node.names:
                if not _has(str(node.module), alias.name):
                    yield f"{node.module}.{alias.name}"


def _has(module: str, name: str) -> bool:
    path = ROOT / module.replace(".", "/")
    if (path / f"{name}.py").exists() or (path / name).is_dir():
        return True
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not source.exists():
        return False
    tree = ast.parse(source.read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}  # names that are loaded late
    return name in words | set(_defined(tree))


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname for alias in node.names if alias.asname == alias.name)  # meant for others


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_program_imports_of_kcost_is_there(program: Path) -> None:
    assert list(missing(program.read_text())) == []


def test_a_name_that_moved_is_found() -> None:
    assert list(missing("def f():\n    from kcost.models.loading import with_precision")) == [
        "kcost.models.loading.with_precision"
    ]
    assert list(missing("from kcost.serving.export import export")) == ["kcost.serving.export.export"]


def imported(source: str) -> Iterator[str]:
    """The modules that a program imports, in the order in which it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def astray(source: str) -> list[str]:
    """What a program imports that is not there where it is run as a file, or not meant for it."""
    modules = list(imported(source))
    tests = [module for module in modules if module.split(".")[0] == "tests"]
    first = next((i for i, module in enumerate(modules) if module.split(".")[0] == "testing"), None)
    return tests + (["testing"] if first is not None and "checkout" not in modules[:first] else [])


RUN_AS_FILES = [p for p in PROGRAMS if p.parent == ROOT / "benchmarks" and not p.name.startswith(("test_", "conftest"))]


@pytest.mark.parametrize("program", RUN_AS_FILES, ids=lambda path: path.name)
def test_a_benchmark_imports_no_tests_and_finds_what_it_shares_with_them(program: Path) -> None:
    assert astray(program.read_text()) == []


def test_an_import_of_tests_is_seen() -> None:
    assert astray("from tests.unit.cost.budgets import case") == ["tests.unit.cost.budgets"]
    assert astray("from testing.budgets import case") == ["testing"]
    assert astray("import checkout\nfrom testing.budgets import case") == []


def test_no_test_module_has_what_others_need() -> None:
    """Helpers lie in modules of their own."""
    for path in (ROOT / "tests").rglob("*.py"):
        borrowed = [m for m in imported(path.read_text()) if m.rpartition(".")[2].startswith("test_")]
        assert borrowed == [], path
