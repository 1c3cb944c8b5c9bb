"""Runtimes that are simulated: conversions are made at once, and cells sleep in the fake backend's worker."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.bench import plan_models
from kcost.bench.pool import Pool, Prepared
from kcost.core.artifact import SAMPLES_FILE, Model
from kcost.core.conversion import Runtime, RuntimePrecision
from kcost.core.plan import CellSpec, Plan
from kcost.core.request import MeasureRequest
from kcost.core.result import Round
from tests.unit.bench.plans import SETTINGS

AXES = {"models": ["x"], "phases": ["inference"], "batches": [1]}
FILE = "simulated.keras"


def onnx_plan(folder: Path) -> Plan:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fake.keras").write_text("{}")
    np.savez(folder / "samples.npz", x=np.zeros((8, 2), np.float32), labels=np.zeros(8, np.int32))
    return Plan.parse(
        {
            **AXES,
            "models": [str(folder / "fake.keras")],
            "backends": ["fake", "torch"],
            "methods": ["eager", "onnx"],
            "precisions": ["float32"],
            "batches": [1, 2],
            "settings": SETTINGS,
        }
    )


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No framework is started: the cells of torch itself are taken out, and of onnx only converting is asked for."""
    monkeypatch.setattr(plan_models, "require", lambda backend: backend)
    monkeypatch.setattr(Model, "output_facts", lambda model: ())  # the fake backend's file is no .keras file
    whole = plan_models.expand

    def only_converted(*args: Any) -> tuple[Any, ...]:
        return tuple(c for c in whole(*args) if c.backend == "fake" or c.runtime)

    monkeypatch.setattr(plan_models, "expand", only_converted)


def converted(model: Model, runtime: Runtime, precision: RuntimePrecision, cache: Path) -> Path:
    """The folder of a conversion that is a copy of the fake model."""
    folder = cache / f"{model.name}-{runtime}-{precision}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(model.keras_file.read_text())
    np.savez(folder / SAMPLES_FILE, x=np.zeros((64, 2), np.float32), labels=np.zeros(64, np.int32))
    return folder


class SimulatedRuntimes(Pool):
    """A pool whose cells of runtimes are cells of the fake backend, of a model with another name."""

    def holds(self, spec: CellSpec) -> bool:
        return super().holds(_simulated(spec))

    def start(self, specs: Iterable[CellSpec]) -> None:
        super().start([_simulated(spec) for spec in specs])

    def prepare(self, request: MeasureRequest) -> Prepared:
        return super().prepare(_of_simulated(request))

    def measure(self, request: MeasureRequest, session: str, number: int) -> Round:
        return super().measure(_of_simulated(request), session, number)


def _simulated(spec: CellSpec) -> CellSpec:
    if spec.runtime is None:
        return spec
    return spec.model_copy(update={"backend": "fake", "method": "eager", "model": f"{spec.model} in {spec.runtime}"})


def _of_simulated(request: MeasureRequest) -> MeasureRequest:
    spec = request.spec
    if spec.runtime is None:
        return request
    return request.model_copy(update={"spec": _simulated(spec), "keras_file": request.keras_file / FILE})
