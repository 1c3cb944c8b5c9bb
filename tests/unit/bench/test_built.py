"""Models that are built for a run, from the command's side; `tests/contract/test_factory.py` builds real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

import kcost
from kcost.core.errors import StorageError
from kcost.core.plan import Plan
from tests.unit.bench.plans import SETTINGS


def build(source: str, folder: Path, *, log: Path | None = None) -> Path:
    """What `kcost.ship.build.build` leaves, for the simulated backend."""
    folder.mkdir(parents=True)
    path = folder / f"{source.rpartition(':')[2]}.keras"
    path.write_text("{}")
    return path


PLAN = Plan.parse(
    {
        "models": ["some.module:make"],
        "backends": ["fake"],
        "phases": ["inference"],
        "methods": ["eager"],
        "batches": [1],
        "precisions": ["float32"],
        "settings": SETTINGS,
    }
)


def test_a_model_that_a_function_makes_is_built_into_a_new_run_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcost.ship.build.build", build)
    run = kcost.run_bench(PLAN, tmp_path / "run")
    assert [(c.spec.model, c.status) for c in run.cells] == [("make", "ok")]
    assert kcost.run_bench(PLAN, tmp_path / "run") == run, "neither built nor measured again"


def test_a_folder_with_other_things_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kcost.ship.build.build", build)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    with pytest.raises(StorageError, match="overwrites"):
        kcost.run_bench(PLAN, tmp_path / "run")
