"""The service times of a queue's simulation, from the cells of one way of running a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from kcost.core.disturbance import disturbances_of
from kcost.core.result import AfterIdle, CellResult, Environment
from kcost.cost.queue_simulation import AfterIdleSteps, ServiceTimes


def service_of(cells: Iterable[CellResult], environments: Mapping[str, Environment]) -> ServiceTimes:
    """The steps of cells that differ in batch size alone: those of their rounds, and those after idle time of cells
    that were measured in the scenario after-idle.

    Args:
        environments: of the run, by id.
    """
    cells = list(cells)
    idle = {cell.spec.batch: steps for cell in cells if (steps := _after_idle(cell, environments)) is not None}
    return ServiceTimes({cell.spec.batch: _samples_s(cell) for cell in cells}, idle)


def _samples_s(cell: CellResult) -> np.ndarray:
    return np.concatenate([np.asarray(r.step_ns, dtype=np.float64) for r in cell.rounds]) / 1e9


def _after_idle(cell: CellResult, environments: Mapping[str, Environment]) -> AfterIdleSteps | None:
    """Those of the machine that the rounds were measured on; None where there are none, or none to be believed."""
    for result in reversed(cell.scenarios):
        if isinstance(result, AfterIdle) and result.step_ns and result.environment_id == cell.environment_id:
            watched = [] if result.watch is None else [result.watch]
            if any(d.invalid for d in disturbances_of(watched, environments[result.environment_id])):
                return None
            return AfterIdleSteps(np.asarray(result.gap_ns) / 1e9, np.asarray(result.step_ns) / 1e9)
    return None
