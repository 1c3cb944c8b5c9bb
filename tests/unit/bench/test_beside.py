"""Cells that are got ready while models are converted for others, and what a stop in the middle of that costs."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kcost.bench.conversions import Converted
from kcost.bench.plan_models import open_models, request_for, specs_of
from kcost.bench.pool import Pool, Prepared
from kcost.bench.runner import measure
from kcost.bench.store import open_run
from kcost.core.artifact import Model
from kcost.core.conversion import Runtime, RuntimePrecision
from kcost.core.errors import StorageError, UnavailableError, WorkerError
from kcost.core.jobs import MEASURE
from kcost.core.measuring import MeasureOperation, PrepareRequest
from kcost.core.plan import Plan
from kcost.core.process import Worker, run_job
from kcost.core.request import MeasureRequest
from kcost.core.result import CellResult
from tests.unit.bench.simulated_runtimes import SimulatedRuntimes, converted, onnx_plan, without_torch


def up_to(rounds: int) -> Callable[[list[CellResult]], list[CellResult]]:
    return lambda cells: [c for c in cells if len(c.rounds) < rounds]


def of_keras(plan: Plan) -> frozenset[str]:
    return frozenset(s.cell_id for s in specs_of(plan, open_models(plan)) if s.runtime is None)


def test_what_is_measured_already_is_got_ready_before_anything_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its preparation is stored again: what importing, loading and warming up takes, and an idle machine's watts."""
    without_torch(monkeypatch)
    plan, out = onnx_plan(tmp_path), tmp_path / "run"
    measure(plan, out, only=of_keras(plan))
    order: list[str] = []
    prepare = Pool.prepare

    def recorded(pool: Pool, request: MeasureRequest) -> Prepared:
        order.append("prepare")
        return prepare(pool, request)

    def fails(model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path) -> Path:
        order.append("convert")
        raise UnavailableError("No such operation.", "Erfc")

    monkeypatch.setattr(Pool, "prepare", recorded)
    monkeypatch.setattr("kcost.bench.pool.idle_watts", lambda counter: order.append("idle watts"))
    measure(plan, out, converted=fails, choose=up_to(4), at_once=2)
    assert order == ["idle watts", "prepare", "prepare", "convert"]


def test_after_a_time_no_cell_of_a_runtime_is_got_ready_where_cells_of_keras_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch(monkeypatch)
    plan, out = onnx_plan(tmp_path), tmp_path / "run"
    prepared: list[str] = []

    class Counted(SimulatedRuntimes):
        def prepare(self, request: MeasureRequest) -> Prepared:
            prepared.append(request.spec.method)
            return super().prepare(request)

    with Counted(out / "logs", plan.settings) as pool:
        late = {"ready_by": time.monotonic(), "choose": up_to(3), "at_once": 2, "pool": pool, "converted": converted}
        run = measure(plan, out, **late)
        assert prepared == ["eager"]
        assert [(c.spec.method, c.spec.batch) for c in run.cells if c.rounds] == [("eager", 1)]
        run = measure(plan, out, even_late=of_keras(plan), **late)
        assert prepared == ["eager", "eager"]
        assert sorted((c.spec.method, c.spec.batch) for c in run.cells if c.rounds) == [("eager", 1), ("eager", 2)]
        run = measure(plan, out, **{**late, "ready_by": time.monotonic() + 600})
        assert sorted((c.spec.method, len(c.rounds)) for c in run.cells) == [("eager", 3)] * 2 + [("onnx", 3)] * 2


def hanging(plan: Plan, folder: Path, causes: list[str | None]) -> Converted:
    """A conversion whose worker does not answer; what ends it is written down."""
    folder.mkdir()
    file = folder / "hangs.keras"
    file.write_text(json.dumps({"hang": ["any"], "healthy_calls": 0}))
    models = open_models(plan)
    spec = next(s for s in specs_of(plan, models) if s.runtime is None)
    request = request_for(spec, models[spec.model], plan.settings, folder).model_copy(update={"keras_file": file})

    def hangs(model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path) -> Path:
        try:
            run_job(MEASURE, "fake", PrepareRequest(request=request), timeout_s=120)
        except WorkerError as error:
            causes.append(error.cause)
            raise
        raise AssertionError("it does not hang")

    return hangs


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, StorageError])
def test_a_stop_ends_the_conversions_that_run_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_by: type[BaseException]
) -> None:
    """A signal to the parent alone, or a full disk: a conversion has no time limit, and is not waited for."""
    without_torch(monkeypatch)
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
    plan, out = onnx_plan(tmp_path / "plan"), tmp_path / "run"
    plan = plan.model_copy(update={"methods": (*(plan.methods or ()), "openvino")})
    before = measure(plan, out, only=of_keras(plan))
    causes: list[str | None] = []
    hangs, runs = hanging(plan, tmp_path / "hanging", causes), threading.Event()
    ask = Worker.ask

    def asks(worker: Worker, request: MeasureOperation, timeout_s: float | None = None) -> object:
        if isinstance(request, PrepareRequest) and request.request.keras_file.name == "hangs.keras":
            runs.set()
        return ask(worker, request, timeout_s)

    def one_hangs(model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path) -> Path:
        if runtime == "openvino":
            assert runs.wait(60)
            if stopped_by is StorageError:
                raise StorageError("It can be written to.", "a full disk")
            os.kill(os.getpid(), signal.SIGINT)
        return hangs(model, runtime, precision, cache)

    monkeypatch.setattr(Worker, "ask", asks)
    with pytest.raises(stopped_by):
        measure(plan, out, converted=one_hangs, choose=up_to(4), at_once=2)
    assert set(causes) == {"killed"}
    assert {c.spec.cell_id: c.rounds for c in open_run(out).cells} == {c.spec.cell_id: c.rounds for c in before.cells}

    with SimulatedRuntimes(out / "logs", plan.settings) as pool:
        after = measure(plan, out, converted=converted, choose=up_to(4), at_once=2, pool=pool)
    assert sorted((c.spec.method, c.status, len(c.rounds)) for c in after.cells) == [
        *[("eager", "ok", 4)] * 2,
        *[("onnx", "ok", 4)] * 2,
        *[("openvino", "ok", 4)] * 2,
    ]
    rounds = {c.spec.cell_id: c.rounds for c in after.cells}
    assert all(rounds[c.spec.cell_id][:3] == c.rounds for c in before.cells)
