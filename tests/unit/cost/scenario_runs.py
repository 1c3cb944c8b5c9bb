"""Stored scenarios."""

from __future__ import annotations

from kcost.core.result import AfterIdle, CellResult, Offline, Run, ScenarioResult, Server, SingleStream, Trial, Watch
from testing.runs import plan, replaced, simulated_run

MS = 1_000_000


def run_with(*results: ScenarioResult, batch: int = 1) -> Run:
    """A run of which the jax/jit float32 cell of one batch size holds these results."""
    run, _ = simulated_run(plan(phases=("inference",)))
    return replaced(run, cell_of(run, batch).spec.cell_id, scenarios=results)


def cell_of(run: Run, batch: int) -> CellResult:
    return next(c for c in run.cells if (c.spec.method, c.spec.precision, c.spec.batch) == ("jit", "float32", batch))


def conditions() -> dict[str, object]:
    run, _ = simulated_run(plan(phases=("inference",)))
    return {"environment_id": run.cells[0].environment_id, "seed": 0, "scenario_s": 3.0, "scenario_max_s": 120.0}


def single(count: int) -> SingleStream:
    return SingleStream.model_validate({**conditions(), "latency_ns": tuple(MS + i for i in range(count))})


def offline(**changes: object) -> Offline:
    return Offline.model_validate({**conditions(), "step_ns": (4 * MS,) * 10, **changes})


def after_idle(**changes: object) -> AfterIdle:
    """Ten steps of 6 ms, after gaps of 1 to 10 ms."""
    steps = {"gap_ns": tuple(i * MS for i in range(1, 11)), "step_ns": (6 * MS,) * 10}
    return AfterIdle.model_validate({**conditions(), **steps, **changes})


def server(*trials: Trial, **changes: object) -> Server:
    fields = {**conditions(), "latency_bound_ms": 50, "capacity_per_s": 250.0, "trials": trials}
    return Server.model_validate({**fields, **changes})


def trial(rate: float, ms: int, queries: int = 662, watch: Watch | None = None) -> Trial:
    return Trial(queries_per_s=rate, queries=queries, latency_ns=(ms * MS,) * queries, watch=watch)
