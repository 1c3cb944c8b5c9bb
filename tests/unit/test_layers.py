"""The import rules of docs/design.md, and what importing loads; and that these tests can fail."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import kcost

from .import_graph import circles, import_graph

ROOT = Path(kcost.__file__).parent
HEAVY = (
    *("keras", "keras_nlp", "tensorflow", "jax", "torch", "pandas", "plotly", "matplotlib", "scipy", "sklearn"),
    *("optuna", "sqlalchemy"),
)
FRAMEWORKS = {"keras", "keras_nlp", "keras_hub", "tensorflow", "jax", "torch"}

PARENT = {
    "__main__": {"cli"},
    "cli": {"kcost", "api.demo", "api.doctor", "report", "cost", "ship", "serving", "data", "core", "version"},
    # `load` alone is of the island: its user's process is one of one backend.
    "kcost": {"api.demo", "api", "bench", "forward.prepared", "core", "version"},
    "api.demo": {"api", "recommend", "ship", "core"},
    "api": {"api.doctor", "report", "search", "recommend", "bench", "cost", "risk", "ship", "serving", "data", "core"},
    "api.doctor": {"core"},
    "report": {"search", "recommend", "bench", "cost", "risk", "ship", "serving", "core", "version"},
    "recommend": {"bench", "cost", "risk", "core"},
    "search": {"bench", "cost", "core"},
    "bench": {"core"},
    "cost": {"core"},
    "risk": {"core"},
    "ship": {"core"},
    "serving": {"cost", "risk", "core", "version"},
    "data": {"core"},
    "core": {"version"},
    "version": set(),
}
"""A part of kcost -> those that its modules may import besides its own. `kcost` is the package's own file."""
ISLAND = {
    "worker": {"training", "optimize", "forward", "runtimes", "backends", "models", "data", "core"},
    "forward.prepared": {"forward", "backends", "models", "core"},
    "forward": {"runtimes", "backends", "core"},
    "training": {"backends", "models", "data", "core"},
    "optimize": {"backends", "models", "core"},
    "runtimes": {"core"},
    "backends": {"models", "core"},
    "models": {"core"},
}
"""The same for what only a process of one backend imports: these import frameworks too."""
MAY_IMPORT = PARENT | ISLAND


def faults(package: Path) -> list[str]:
    """What the modules of a package do against the rules."""
    graph = import_graph(package)
    arrows = [(name, target) for name, targets in graph.items() for target in targets]
    bad = [f"{name} imports {target}" for name, target in arrows if not _is_allowed(_room(name), target)]
    rules = [f"{room} has no rule" for room in {_room(name) for name in graph} - MAY_IMPORT.keys()]
    return sorted([*bad, *rules, *(f"a circle: {', '.join(circle)}" for circle in circles(graph))])


def _room(module: str) -> str:
    """The part of kcost that a module is in: the longest that has a rule; the package's own file is `kcost`."""
    _, *names = module.split(".")
    return ".".join(names[:2]) if ".".join(names[:2]) in MAY_IMPORT else names[0] if names else module


def _is_allowed(room: str, target: str) -> bool:
    if target.partition(".")[0] == "kcost":
        return _room(target) in {room, *MAY_IMPORT.get(room, ())}
    return room in ISLAND or target not in FRAMEWORKS


def test_every_import_is_one_that_the_rules_allow() -> None:
    assert faults(ROOT) == []


def test_the_rules_point_down() -> None:
    assert circles(MAY_IMPORT) == []


def test_every_rule_is_of_something() -> None:
    assert {_room(name) for name in import_graph(ROOT)} == MAY_IMPORT.keys()


def house(folder: Path, **sources: str) -> Path:
    """A small package of that name whose imports are right, but for what `sources` put in: `core__schema` and so on."""
    right = {
        "version": "__version__ = '1'",
        "core__schema": "from kcost.version import __version__",
        "cost__ranking": "from kcost.core.schema import Record\nimport numpy",
        "models__cnn": "import keras",
        "api__measuring": "def f():\n    from kcost.cost import ranking",
        "api__demo": "from kcost.api import measuring",
    }
    for name, source in {**right, **sources}.items():
        path = folder / "kcost" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(source)
    return folder / "kcost"


def test_a_right_house_has_no_fault(tmp_path: Path) -> None:
    assert faults(house(tmp_path)) == []


UP = "kcost.core.plan imports kcost.cost.ranking"


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"core__plan": "from kcost.cost.ranking import rank"}, [UP]),
        ({"core__plan": "from kcost.cost import ranking"}, [UP]),
        ({"core__plan": "import kcost.cost.ranking"}, [UP]),
        ({"core__plan": "from ..cost import ranking"}, [UP]),
        ({"core__plan": "from ..cost.ranking import rank"}, [UP]),
        ({"core__plan": "def f():\n    from kcost.cost.ranking import rank"}, [UP]),
        ({"core__plan": "if TYPE_CHECKING:\n    from kcost.cost.ranking import Ranking"}, [UP]),
        ({"core__plan": "import typing as t\nif t.TYPE_CHECKING:\n    from kcost.cost.ranking import Ranking"}, [UP]),
        ({"core__plan": "from kcost import __version__"}, ["kcost.core.plan imports kcost"]),
        ({"core__plan": "from kcost.nowhere import x"}, ["kcost.core.plan imports kcost.nowhere.x"]),
        ({"report__page": "from kcost.api import measuring"}, ["kcost.report.page imports kcost.api.measuring"]),
        ({"api__optimize": "from kcost.cli import x", "cli__x": ""}, ["kcost.api.optimize imports kcost.cli.x"]),
        ({"api__doctor": "from kcost.cost import ranking"}, ["kcost.api.doctor imports kcost.cost.ranking"]),
        ({"api__demo": "from kcost.report import page", "report__page": ""},
         ["kcost.api.demo imports kcost.report.page"]),
        ({"version": "from kcost.core import schema"}, ["a circle: kcost.core.schema, kcost.version",
                                                         "kcost.version imports kcost.core.schema"]),
        ({"api__measuring": "if TYPE_CHECKING:\n    from kcost.api.demo import Report"},
         ["a circle: kcost.api.demo, kcost.api.measuring", "kcost.api.measuring imports kcost.api.demo"]),
        ({"bench__runner": "from kcost.models import cnn"}, ["kcost.bench.runner imports kcost.models.cnn"]),
        ({"models__bert": "from kcost.api import measuring"}, ["kcost.models.bert imports kcost.api.measuring"]),
        ({"core__plan": "import keras"}, ["kcost.core.plan imports keras"]),
        ({"cost__total": "def f():\n    import torch.nn"}, ["kcost.cost.total imports torch"]),
        ({"api__x": "if TYPE_CHECKING:\n    from tensorflow import Tensor"}, ["kcost.api.x imports tensorflow"]),
        ({"extra": ""}, ["extra has no rule"]),
    ],
)  # fmt: skip
def test_an_import_against_the_rules_is_found(tmp_path: Path, sources: dict[str, str], expected: list[str]) -> None:
    assert faults(house(tmp_path, **sources)) == expected


@pytest.mark.parametrize(
    "back",
    [
        "from kcost.core import plan",
        "from . import plan",
        "def f():\n    import kcost.core.plan",
        "if TYPE_CHECKING:\n    from kcost.core.plan import Plan",
        "from kcost.core.cell import Cell",
    ],
)
def test_a_circle_is_found(tmp_path: Path, back: str) -> None:
    package = house(
        tmp_path,
        core__plan="from kcost.core.run import Run",
        core__run=back,
        core__cell="from kcost.core import plan",
    )
    members = ["kcost.core.cell"] * ("cell" in back) + ["kcost.core.plan", "kcost.core.run"]
    assert faults(package) == [f"a circle: {', '.join(members)}"]


def test_a_rule_that_points_back_is_found() -> None:
    assert circles({**MAY_IMPORT, "core": {"version", "report"}}) != []
    assert circles({"a": {"a"}, "b": {"a"}}) == [("a",)]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def loaded_by(statement: str, *unwanted: str) -> str:
    child = run_python(f"import sys; {statement}; print(','.join(m for m in {unwanted!r} if m in sys.modules))")
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


@pytest.mark.parametrize("module", ["kcost", *(f"kcost.{f}" for f in PARENT if f != "kcost")])
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}", *HEAVY) == ""


def test_every_public_name_is_there_and_loads_no_framework() -> None:
    assert loaded_by("import kcost; [getattr(kcost, n) for n in kcost.__all__]", *FRAMEWORKS) == ""


@pytest.mark.parametrize("package", ["kcost", "kcost.optimize", "kcost.search"])
def test_no_public_name_is_that_of_a_module(package: str) -> None:
    """Importing `kcost.bench.runner` puts the module `bench` into the package, over a function of that name."""
    public = importlib.import_module(package)
    folder = ROOT.joinpath(*package.split(".")[1:])
    modules = {p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert modules & set(public.__all__) == set()


def test_help_loads_no_framework() -> None:
    run = "from typer.testing import CliRunner; from kcost.cli import app; CliRunner().invoke(app, ['--help'])"
    assert loaded_by(run, *HEAVY) == ""


def test_a_heavy_import_is_found() -> None:
    assert loaded_by("import kcost, scipy", *HEAVY) == "scipy"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kcost.nothing  # noqa: B018
