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
