"""One failure costs one cell: loading, scoring and reading fail by themselves, with a status and a reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcost
from kcost.bench.runner import measure
from kcost.core.errors import ArtifactError, UnavailableError
from tests.unit.bench.plans import by_label, fake_plan

SAVED = "eager as saved: mixed_float16 cpu batch 1"


def test_a_model_that_cannot_be_loaded_costs_the_cells_that_load_it_so(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {"load_error": ["bfloat16/0"]}, methods=["eager"])
    cells = by_label(measure(plan, tmp_path / "run"))
    outcomes = {label: (c.status, "told not to load" in str(c.reason)) for label, c in cells.items()}
    assert outcomes == {
        "eager float32 cpu batch 1": ("ok", False),
        "eager float32 cpu batch 32": ("ok", False),
        "eager bfloat16 cpu batch 1": ("unsupported", True),
        "eager bfloat16 cpu batch 32": ("unsupported", True),
    }


def test_one_model_that_cannot_be_loaded_leaves_the_others(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {"load_error": ["any"]}, methods=["eager"], batches=[1])
    other = tmp_path / "other.keras"
    other.write_text("{}")
    plan = plan.model_copy(update={"models": (*plan.models, str(other))})
    run = measure(plan, tmp_path / "run")
    assert {(c.spec.model, c.status) for c in run.cells} == {("fake", "unsupported"), ("other", "ok")}


def test_where_every_cell_is_refused_for_one_reason_that_is_the_error(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path, {"load_error": ["any"]}, methods=["eager"], precisions=["float32"])
    with pytest.raises(ArtifactError, match="told not to load"):
        measure(plan, tmp_path / "run")
    with pytest.raises(UnavailableError, match=r"(?s)No cell could be measured.*told not to load"):
        measure(plan, tmp_path / "run")  # nothing is tried again, and the reason still told


@pytest.mark.parametrize(
    ("outputs", "dtype", "reason"), [([["a", "b"]], "str", "<U1"), ([[{}, {}]], "object", "dtype object")]
)
def test_answers_that_cannot_be_scored_leave_the_times(
    tmp_path: Path, outputs: list[Any], dtype: str, reason: str
) -> None:
    out = tmp_path / "run"
    plan = fake_plan(tmp_path, {"outputs": outputs, "dtype": dtype}, methods=["eager"], precisions=["float32"])
    run = measure(plan, out)
    assert {(c.status, len(c.rounds)) for c in run.cells} == {("ok", 3)}
    assert all(reason in str(c.preparation and c.preparation.not_scored) for c in run.cells)
    verdict = kcost.estimate_cost(out)
    assert {c.standing for c in verdict.rankings[0].cells} == {"not judged"}


@pytest.mark.parametrize("damage", ["missing", "cut", "texts"])
def test_a_run_with_damaged_answers_of_one_cell_can_be_read(tmp_path: Path, damage: str) -> None:
    out = tmp_path / "run"
    run = measure(fake_plan(tmp_path, {}, methods=["eager"], precisions=["float32"]), out)
    path = out / "cells" / f"{run.cells[0].spec.cell_id}.npz"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        np.savez(path, outputs=np.array([["a"]]), predictions=np.array(["a"]), labels=np.array(["b"]))
    standings = {c.cell_id: c.standing for c in kcost.estimate_cost(out).rankings[0].cells}
    assert standings.pop(run.cells[0].spec.cell_id) == "not judged"
    assert set(standings.values()) == {"ranked"}
    kcost.make_report(out, html=tmp_path / "page.html")
    kcost.compare_runs(out, out)


def test_answers_that_are_not_finite_are_counted_and_never_ranked(tmp_path: Path) -> None:
    out = tmp_path / "run"
    plan = fake_plan(tmp_path, {"outputs": [[float("nan"), 0.1]]}, methods=["eager"])
    done = measure(plan, out).cells[0].preparation
    assert done is not None
    assert done.not_finite == "64 of 128 numbers of the output 'output' are NaN or infinite"
    verdict = kcost.estimate_cost(out)
    assert {c.standing for c in verdict.rankings[0].cells} == {"not finite"}
    assert verdict.notices[0].code == "not-finite"


def test_a_model_saved_under_another_policy_has_a_cell_as_saved_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcost.bench.plan_models.saved_policy", lambda path: "mixed_float16")
    script = {"computed_dtype": {"saved": "float16 and float32"}}
    plan = fake_plan(tmp_path, script, methods=["eager"], batches=[1])
    cells = by_label(measure(plan, tmp_path / "run"))
    computed = {label: c.preparation.computed_dtype for label, c in cells.items() if c.preparation is not None}
    assert computed == {
        "eager float32 cpu batch 1": "float32",
        "eager bfloat16 cpu batch 1": "bfloat16",
        SAVED: "float16 and float32",
    }


def test_cells_of_an_older_run_that_called_a_saved_policy_float32_are_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    plan = fake_plan(tmp_path, {}, methods=["eager"], batches=[1], precisions=["float32"])
    (cell,) = measure(plan, out).cells
    path = out / "cells" / f"{cell.spec.cell_id}.json"
    document = json.loads(path.read_text())
    del document["preparation"]["computed_dtype"]
    path.write_text(json.dumps({**document, "schema": 2}))
    assert measure(plan, out).cells[0].rounds == cell.rounds, "a model in float32 was measured in float32"
    monkeypatch.setattr("kcost.bench.plan_models.saved_policy", lambda path: "mixed_float16")
    assert measure(plan, out).cells[0].rounds[0].session != cell.rounds[0].session


@pytest.mark.parametrize(
    ("content", "message"), [(b"PK\x03\x04 cut short", "not a whole zip archive"), (None, "which is not there")]
)
def test_a_model_that_cannot_be_opened_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    monkeypatch.setattr("kcost.bench.plan_models.require", lambda backend: backend)
    monkeypatch.setattr("kcost.core.process.Worker.__init__", lambda *a, **k: pytest.fail("a worker was started"))
    path = tmp_path / "bad.keras"
    if content is not None:
        path.write_bytes(content)
    plan = fake_plan(tmp_path, {}, backends=["jax"]).model_copy(update={"models": (str(path),)})
    with pytest.raises(ArtifactError, match=message):
        measure(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()
