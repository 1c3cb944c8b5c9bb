"""The quickstart notebook, run from its first cell to its last in an empty folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kcost.core.process import installed

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"
NEEDS = pytest.mark.skipif(not (installed("jax") and installed("tensorflow")), reason="needs kcost[jax,tensorflow]")

# What is measured beside other tests would have no figure.
BESIDE_OTHERS = """
import kcost.cost.verdict
kcost.cost.verdict.disturbances = lambda cell, environment: ()
"""

# Without a kernel: the cells run one after another in one process, and the last expression of each shows itself.
RUN_CELLS = """
import ast, json, sys
names = {"__name__": "__main__"}
for number, source in enumerate(json.load(sys.stdin)):
    tree = ast.parse(source, f"cell {number}")
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        shown = value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)
        print("cell", number, type(value).__name__, len(shown))
"""


def sources() -> list[str]:
    """The code of the notebook, a text a cell."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_holds_code_that_compiles_and_no_results() -> None:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])
    assert all(cell["outputs"] == [] for cell in document["cells"] if cell["cell_type"] == "code")
    for source in sources():
        compile(source, "a cell", "exec")


@pytest.mark.slow
@NEEDS
def test_every_cell_runs_in_one_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BESIDE_OTHERS + RUN_CELLS]
    done = subprocess.run(
        command, input=json.dumps(sources()), capture_output=True, text=True, timeout=600, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for kind in ("ShownVerdict", "ShownPayoff", "ShownBudget", "ShownExport", "Figure", "tuple"):
        assert f" {kind} " in done.stdout, done.stdout


@pytest.mark.slow
@NEEDS
def test_every_cell_runs_in_a_kernel(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs kcost[notebook]")
    nbformat = pytest.importorskip("nbformat", reason="needs kcost[notebook]")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(BESIDE_OTHERS))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [set(o.get("data", {})) for c in notebook.cells for o in c.get("outputs", [])]
    assert sum("text/html" in kinds for kinds in outputs) == 4, "the verdict, the payoff, the budget, the export"
    assert sum("application/vnd.plotly.v1+json" in kinds for kinds in outputs) == 1, "the plot"
