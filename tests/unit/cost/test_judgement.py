"""What goes wrong with the answers of one cell stays with that cell."""

from typing import Any

import numpy as np
import pytest

from kcost.core.errors import SchemaError
from kcost.core.plan import CellSpec
from kcost.core.result import CellResult, Run
from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import Verdict, conclude, prices_for
from testing.runs import Outputs, plan, preparation, replaced, simulated_run

SMALL = plan(batches=(32,), phases=("inference",), precisions=("float32",))
GRAPH = "inference tensorflow/graph float32 cpu batch 32"
XLA = "inference tensorflow/xla float32 cpu batch 32"
JIT = "inference jax/jit float32 cpu batch 32"


def spec_of(run: Run, label: str) -> CellSpec:
    (matching,) = (c.spec for c in run.cells if c.spec.label == label)
    return matching


def verdict_of(run: Run, outputs: Outputs, unreadable: str | None = None) -> Verdict:
    def read(cell: CellResult) -> dict[str, np.ndarray] | None:
        if cell.spec.label == unreadable:
            raise SchemaError("The outputs of a cell are an npz file beside it.", "cut short")
        return outputs.get(cell.spec.cell_id)

    return conclude(run, prices_for(run, PriceBook.read()), read)


def standings(verdict: Verdict) -> dict[str, str]:
    return {c.label: c.standing for c in verdict.rankings[0].cells}


def test_answers_that_cannot_be_read_cost_their_own_cell_only() -> None:
    run, outputs = simulated_run(SMALL)
    verdict = verdict_of(run, outputs, unreadable=JIT)
    standing_of = standings(verdict)
    assert standing_of.pop(JIT) == "not judged"
    assert set(standing_of.values()) == {"ranked"}
    (notice,) = (n for n in verdict.notices if n.code == "not-judged")
    assert notice.cell == JIT
    assert "The outputs of a cell are an npz file beside it." in notice.text


def test_a_reference_that_cannot_be_read_leaves_its_place_to_the_next_cell() -> None:
    run, outputs = simulated_run(SMALL)
    assert verdict_of(run, outputs).rankings[0].reference == GRAPH
    verdict = verdict_of(run, outputs, unreadable=GRAPH)
    assert verdict.rankings[0].reference == XLA
    standing_of = standings(verdict)
    assert standing_of.pop(GRAPH) == "not judged"
    assert set(standing_of.values()) == {"ranked"}


@pytest.mark.parametrize(
    "array",
    [
        np.array([["a", "b"]] * 8),
        np.ones((8, 2), np.complex64),
        np.array([[object()] * 2] * 8),
    ],
    ids=["texts", "complex", "objects"],
)
@pytest.mark.parametrize("name", ["outputs", "predictions", "labels"])
@pytest.mark.parametrize("label", [GRAPH, JIT], ids=["reference", "other"])
def test_arrays_without_real_numbers_cost_their_own_cell_only(array: np.ndarray, name: str, label: str) -> None:
    run, outputs = simulated_run(SMALL)
    cell_id = spec_of(run, label).cell_id
    outputs[cell_id] = {**outputs[cell_id], name: array}
    standing_of = standings(verdict_of(run, outputs))
    assert standing_of.pop(label) == "not judged"
    assert set(standing_of.values()) == {"ranked"}


@pytest.mark.parametrize("shape", [(), (1,), (3, 2, 2), (400, 1), (0,)])
@pytest.mark.parametrize("name", ["outputs", "predictions", "labels"])
def test_arrays_of_any_shape_leave_a_run_that_can_be_read(name: str, shape: tuple[int, ...]) -> None:
    run, outputs = simulated_run(SMALL)
    for label in (JIT, GRAPH):
        cell_id = spec_of(run, label).cell_id
        changed = {**outputs, cell_id: {**outputs[cell_id], name: np.ones(shape, np.int64)}}
        standing_of = standings(verdict_of(run, changed))
        others = {standing for other, standing in standing_of.items() if other != label}
        assert others == {"ranked"}, (label, standing_of)


def test_a_cell_whose_answers_could_not_be_kept_says_why() -> None:
    run, outputs = simulated_run(SMALL)
    spec = spec_of(run, JIT)
    del outputs[spec.cell_id]
    run = replaced(run, spec.cell_id, preparation=preparation(spec, not_scored="TypeError: no argmax"))
    verdict = verdict_of(run, outputs)
    assert standings(verdict)[JIT] == "not judged"
    assert "TypeError: no argmax" in next(n.text for n in verdict.notices if n.code == "not-judged")


BAD = "3 of 400 numbers of the output 'y' are NaN or infinite"


def test_a_cell_with_answers_that_are_not_finite_is_told_first_and_never_ranked() -> None:
    run, outputs = simulated_run(SMALL)
    spec = spec_of(run, JIT)
    run = replaced(run, spec.cell_id, preparation=preparation(spec, not_finite=BAD))
    verdict = verdict_of(run, outputs)
    standing_of = standings(verdict)
    assert standing_of.pop(JIT) == "not finite"
    assert set(standing_of.values()) == {"ranked"}
    first = verdict.notices[0]
    assert (first.code, first.cell) == ("not-finite", JIT)
    assert BAD in first.text


def test_where_the_reference_is_not_finite_nothing_of_the_model_is_ranked() -> None:
    run, outputs = simulated_run(plan(models=("simulated-cnn", "simulated-bert"), batches=(32,)))
    spec = next(c.spec for c in run.cells if c.spec.label == GRAPH and c.spec.model == "simulated-cnn")
    run = replaced(run, spec.cell_id, preparation=preparation(spec, not_finite=BAD))
    verdict = verdict_of(run, outputs)
    ranked = {(r.model, r.phase): any(c.rank for c in r.cells) for r in verdict.rankings}
    assert ranked == {
        ("simulated-cnn", "inference"): False,
        ("simulated-cnn", "training"): False,
        ("simulated-bert", "inference"): True,
        ("simulated-bert", "training"): True,
    }
    (notice,) = (n for n in verdict.notices if n.code == "not-finite")
    assert verdict.notices[0] == notice
    assert (notice.model, notice.cell) == ("simulated-cnn", None)
    assert verdict.conclusions[0].outcome == "nothing ranked"
    assert BAD in verdict.conclusions[0].sentence


def computing(run: Run, outputs: Outputs, spec: CellSpec, dtype: str, off_by: float) -> Any:
    """The standing of a cell that computes in a dtype, and whose outputs are off by this much."""
    changed = {**outputs, spec.cell_id: {**outputs[spec.cell_id]}}
    changed[spec.cell_id]["outputs"] = changed[spec.cell_id]["outputs"] + np.float32(off_by)
    run = replaced(run, spec.cell_id, preparation=preparation(spec, computed_dtype=dtype))
    return verdict_of(run, changed).rankings[0].cell(spec.cell_id)


def test_tolerances_follow_what_a_cell_computes_in_not_what_it_was_asked_for() -> None:
    run, outputs = simulated_run(SMALL)
    spec = spec_of(run, JIT)
    assert computing(run, outputs, spec, "float32", 1e-3).standing == "outputs differ"
    half = computing(run, outputs, spec, "bfloat16 and float32", 1e-3)
    assert (half.standing, half.dtype) == ("ranked", "bfloat16 and float32")


def test_a_model_as_it_was_saved_is_never_the_reference_and_never_called_float32() -> None:
    only = {"backends": ("tensorflow",), "methods": ("graph",), "precisions": ("float32",)}
    run, outputs = simulated_run(plan(batches=(32,), phases=("inference",), **only))
    spec = run.cells[0].spec
    saved = spec.model_copy(update={"precision": "saved", "saved_policy": "mixed_float16"})
    cell = run.cells[0].model_copy(
        update={"spec": saved, "preparation": preparation(saved, computed_dtype="float16 and float32")}
    )
    alone = run.model_copy(update={"cells": (cell,)})
    (ranking,) = verdict_of(alone, {saved.cell_id: outputs[spec.cell_id]}).rankings
    assert (ranking.reference, ranking.baseline) == (None, None)
    assert ranking.cells[0].standing == "score not known"
    assert ranking.cells[0].name == "tensorflow/graph as saved: mixed_float16 at batch 32"
    assert saved.label == "inference tensorflow/graph as saved: mixed_float16 cpu batch 32"
    beside = run.model_copy(update={"cells": (run.cells[0], cell)})
    (ranking,) = verdict_of(beside, {**outputs, saved.cell_id: outputs[spec.cell_id]}).rankings
    assert ranking.reference == spec.label
    assert {c.standing for c in ranking.cells} == {"ranked"}
