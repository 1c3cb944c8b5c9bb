"""The import rules of docs/design.md, each in a process of its own; and that these tests can fail."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kcost

ROOT = Path(kcost.__file__).parent
HEAVY = (
    *("keras", "keras_nlp", "tensorflow", "jax", "torch", "pandas", "plotly", "matplotlib", "scipy", "sklearn"),
    *("optuna", "sqlalchemy"),
)
FRAMEWORKS = ("keras", "keras_nlp", "keras_hub", "tensorflow", "jax", "torch")
PARENT_SIDE = ("core", "cost", "bench", "search", "report", "serving", "data")
ISLAND = ("backends", "models", "training", "optimize", "runtimes", "worker")

MAY_IMPORT = {
    "core": {"core"},
    "cost": {"cost", "core"},
    "bench": {"bench", "core"},
    "cli": {"cli", "api", "report", "core"},
    "data": {"data", "core"},
    "search": {"search", "bench", "cost", "core"},
    "report": {"report", "search", "cost", "core"},
    "serving": {"serving", "core"},
    "backends": {"backends", "models", "training", "core", "data"},
    "models": {"models", "core"},
    "training": {"training", "models", "backends", "data", "core"},
    "optimize": {"optimize", "backends", "models", "training", "core"},
    "runtimes": {"runtimes", "core"},
    "worker": {"worker", "backends", "models", "training", "optimize", "runtimes", "data", "core"},
}
"""Folder -> folders of kcost that its modules may import."""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def loaded_by(statement: str, *unwanted: str) -> str:
    found = run_python(f"import sys; {statement}; print(','.join(m for m in {unwanted!r} if m in sys.modules))")
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


class _WithoutTypeChecking(ast.NodeTransformer):
    """Imports for the type checker alone are not run."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        only_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if only_types else self.generic_visit(node)


def imports_of(source: str) -> set[str]:
    """The top-level packages, and for kcost the folders, that a module imports anywhere in it."""
    names: set[str] = set()
    tree = _WithoutTypeChecking().visit(ast.parse(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names if node.module == "kcost")}
    return {".".join(name.split(".")[:2]) if name.startswith("kcost") else name.split(".")[0] for name in names}


def violations(folder: str, source: str) -> set[str]:
    """What a module in `folder` imports against the rules."""
    used = imports_of(source)
    top_level = {"kcost", "kcost.__version__"}
    bad = {u for u in used if u.startswith("kcost") and u not in top_level and u[6:] not in MAY_IMPORT[folder]}
    return bad | ({u for u in used if u in FRAMEWORKS} if folder in PARENT_SIDE else set())


@pytest.mark.parametrize("path", sorted(p for f in MAY_IMPORT for p in (ROOT / f).rglob("*.py")), ids=str)
def test_a_module_imports_only_what_its_folder_may(path: Path) -> None:
    assert violations(path.relative_to(ROOT).parts[0], path.read_text()) == set()


def test_every_folder_has_a_rule() -> None:
    folders = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()}
    assert folders == set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("folder", "source", "expected"),
    [
        ("core", "import keras", {"keras"}),
        ("cost", "def f():\n    import torch.nn", {"torch"}),
        ("bench", "from kcost.worker.measure import run", {"kcost.worker"}),
        ("core", "from kcost.cost import pricebook", {"kcost.cost"}),
        ("report", "from kcost import training", {"kcost.training"}),
        ("models", "from kcost.bench import runner", {"kcost.bench"}),
    ],
)
def test_a_broken_rule_is_found(folder: str, source: str, expected: set[str]) -> None:
    assert violations(folder, source) == expected


@pytest.mark.parametrize("module", ["kcost", "kcost.cli", "kcost.api", *(f"kcost.{f}" for f in PARENT_SIDE)])
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}", *HEAVY) == ""


def test_every_public_name_is_there_and_loads_no_framework() -> None:
    assert loaded_by("import kcost; [getattr(kcost, n) for n in kcost.__all__]", *FRAMEWORKS) == ""


def test_no_public_name_is_that_of_a_module() -> None:
    """Importing `kcost.bench.runner` puts the module `bench` into the package, over a function of that name."""
    modules = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert modules & set(kcost.__all__) == set()


def test_help_loads_no_framework() -> None:
    run = "from typer.testing import CliRunner; from kcost.cli import app; CliRunner().invoke(app, ['--help'])"
    assert loaded_by(run, *HEAVY) == ""


def test_a_heavy_import_is_found() -> None:
    assert loaded_by("import kcost, scipy", *HEAVY) == "scipy"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kcost.nothing  # noqa: B018
