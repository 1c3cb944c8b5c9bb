"""Cells of runtimes, as the parent sees them: what is converted, and what a conversion that fails costs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kcost.bench.conversions import Conversions, Converted
from kcost.bench.plan_models import open_models, request_for, specs_of
from kcost.bench.pool import Pool, Prepared
from kcost.bench.runner import measure
from kcost.core.artifact import Model
from kcost.core.conversion import PRECISIONS, RUNTIMES
from kcost.core.errors import KcostError, UnavailableError, WorkerError
from kcost.core.plan import KERAS_PRECISIONS, Plan, expand
from kcost.core.request import MeasureRequest
from tests.unit.bench.plans import by_label
from tests.unit.bench.simulated_runtimes import AXES, onnx_plan, without_torch

EVERY_PRECISION = ["float32", "bfloat16", "saved", "int8", "int8_dynamic"]


def test_a_runtime_is_a_method_of_the_backend_that_converts_to_it() -> None:
    plan = Plan.parse({**AXES, "methods": [*RUNTIMES, "jit"], "precisions": EVERY_PRECISION})
    cells = expand(plan, {"m": "0" * 64}, None, {"m": "mixed_float16"})
    runtimes = {(c.runtime, c.precision) for c in cells if c.runtime}
    assert runtimes == {(r, p) for r in RUNTIMES for p in PRECISIONS[r]}
    assert {c.precision for c in cells if c.runtime is None} == KERAS_PRECISIONS
    assert "inference torch/onnx int8 cpu batch 1" in {c.label for c in cells}


def test_a_plan_measures_runtimes_only_when_it_names_them() -> None:
    cells = expand(Plan.parse({**AXES, "phases": ["inference", "training"], "precisions": EVERY_PRECISION}), {"m": "0"})
    assert {c.runtime for c in cells} == {None}
    assert {c.precision for c in cells} == KERAS_PRECISIONS - {"saved"}


@pytest.mark.parametrize(
    ("error", "status"),
    [(UnavailableError("No such operation.", "Erfc"), "unsupported"), (WorkerError("It ends.", "SIGSEGV"), "crash")],
)
def test_a_conversion_that_fails_is_tried_once_and_costs_its_own_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: KcostError, status: str
) -> None:
    without_torch(monkeypatch)
    conversions: list[tuple[str, str]] = []

    def fails(model: Model, runtime: str, precision: str, cache: Path) -> Path:
        conversions.append((runtime, precision))
        raise error

    converted: Converted = fails
    cells = by_label(measure(onnx_plan(tmp_path), tmp_path / "run", converted=converted))
    assert conversions == [("onnx", "float32")]
    onnx = [c for c in cells.values() if c.spec.runtime == "onnx"]
    assert [(c.status, str(error.received) in str(c.reason)) for c in onnx] == [(status, True)] * 2
    assert {c.status for c in cells.values() if c.spec.runtime is None} == {"ok"}


def test_models_are_converted_while_other_cells_are_got_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    prepared, converting = threading.Event(), threading.Event()
    original = Pool.prepare

    def prepare(pool: Pool, request: MeasureRequest) -> Prepared:
        assert converting.wait(60)
        answer = original(pool, request)
        prepared.set()
        return answer

    def converts(model: Model, runtime: str, precision: str, cache: Path) -> Path:
        converting.set()
        assert prepared.wait(60)
        raise UnavailableError("No such operation.", "Erfc")

    monkeypatch.setattr(Pool, "prepare", prepare)
    converted: Converted = converts
    cells = by_label(measure(onnx_plan(tmp_path), tmp_path / "run", converted=converted, at_once=2))
    assert {c.status for c in cells.values() if c.spec.runtime is None} == {"ok"}
    assert {c.status for c in cells.values() if c.spec.runtime == "onnx"} == {"unsupported"}


def test_without_anything_that_converts_a_runtime_is_unsupported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch(monkeypatch)
    cells = by_label(measure(onnx_plan(tmp_path), tmp_path / "run"))
    onnx = [c for c in cells.values() if c.spec.runtime == "onnx"]
    assert {(c.status, "nothing that converts" in str(c.reason)) for c in onnx} == {("unsupported", True)}


def test_a_bare_model_is_measured_on_the_samples_of_its_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch(monkeypatch)
    plan = onnx_plan(tmp_path)
    models = open_models(plan)
    made: list[tuple[str, str, str, Path]] = []
    told_steps: list[str] = []

    def converts(model: Model, runtime: str, precision: str, cache: Path) -> Path:
        made.append((model.name, runtime, precision, cache))
        return tmp_path / "onnx"

    converted: Converted = converts
    conversions = Conversions(models, tmp_path / "converted", converted, told_steps.append)
    for spec in specs_of(plan, models):
        plain = request_for(spec, models[spec.model], plan.settings, tmp_path)
        request = conversions.applied_to(plain)
        if spec.runtime is None:
            assert request == plain
        else:
            assert (request.keras_file, request.samples_file) == (tmp_path / "onnx", tmp_path / "onnx" / "samples.npz")
    assert made == [("fake", "onnx", "float32", tmp_path / "converted")], "once for both batch sizes"
    assert told_steps == ["converting fake for onnx in float32"]
