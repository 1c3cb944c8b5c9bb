"""How a server puts requests together, chosen from step times that are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import InputError
from kcost.core.result import Run
from kcost.core.serving import Batching
from kcost.cost.capacity import CHECKED_STEPS, serve_at
from kcost.cost.queue_simulation import ServiceTimes
from kcost.cost.server_batching import SEED, choose_batching
from testing.runs import plan, replaced, simulated_run
from tests.unit.cost.scenario_runs import after_idle

MS = 1_000_000

SAVED = plan(
    backends=("tensorflow",),
    methods=("saved_model",),
    batches=(1, 4, 16),
    phases=("inference",),
    precisions=("float32",),
    threads=(2,),
)


def run_of(step_ms: dict[int, float]) -> Run:
    """A run whose steps take exactly so long at each batch size."""
    run, _ = simulated_run(SAVED)
    for cell in run.cells:
        step_ns = round(step_ms[cell.spec.batch] * MS)
        rounds = tuple(dataclasses.replace(r, step_ns=(step_ns,) * len(r.step_ns)) for r in cell.rounds)
        run = replaced(run, cell.spec.cell_id, rounds=rounds)
    return run


def chosen(step_ms: dict[int, float], queries_per_s: float, p99_ms: float) -> Batching:
    run = run_of(step_ms)
    return choose_batching(run, run.cells[0].spec.model_sha256, queries_per_s, p99_ms)


def test_little_traffic_needs_neither_batches_nor_waiting() -> None:
    batching = chosen({1: 2.0, 4: 4.0, 16: 8.0}, queries_per_s=5, p99_ms=50)
    assert batching.timeout_us == 0
    assert (batching.replicas, batching.threads) == (1, 2)
    assert batching.p99_ms == pytest.approx(2.0, rel=0.5)
    assert batching.max_enqueued_batches >= 50 // 8


def test_more_traffic_than_single_rows_allow_is_put_together() -> None:
    """One row at a time makes 500 a second; sixteen together make 2,000."""
    batching = chosen({1: 2.0, 4: 4.0, 16: 8.0}, queries_per_s=1000, p99_ms=50)
    assert batching.allowed_batch_sizes[-1] > 1
    assert batching.replicas == 1
    assert batching.p99_ms <= 50


def test_batches_that_save_nothing_are_not_made() -> None:
    batching = chosen({1: 2.0, 4: 8.0, 16: 32.0}, queries_per_s=200, p99_ms=100)
    assert batching.allowed_batch_sizes == (1,)
    assert batching.timeout_us == 0


def test_more_than_a_replica_answers_takes_more_of_them() -> None:
    one = chosen({1: 2.0, 4: 4.0, 16: 8.0}, queries_per_s=1000, p99_ms=50)
    many = chosen({1: 2.0, 4: 4.0, 16: 8.0}, queries_per_s=10_000, p99_ms=50)
    assert many.replicas >= 10_000 / 2000
    assert many.replicas > one.replicas
    assert many.p99_ms <= 50


@settings(max_examples=5, deadline=None)
@given(st.floats(50, 1500), st.floats(20, 200))
def test_no_other_measured_setting_without_waiting_has_a_lower_p99(queries_per_s: float, p99_ms: float) -> None:
    steps = {1: 2.0, 4: 4.0, 16: 8.0}
    batching = chosen(steps, queries_per_s, p99_ms)
    service = ServiceTimes({size: np.array([ms / 1e3]) for size, ms in steps.items()})
    rate = queries_per_s / batching.replicas
    for limit in steps:
        if rate < service.up_to(limit).capacity_per_s:
            other = serve_at(rate, service, limit, 0.0, CHECKED_STEPS, SEED).percentile_s(0.99)
            assert batching.p99_ms <= other * 1e3 + 1e-6


def test_what_it_was_chosen_from_is_said() -> None:
    why = chosen({1: 2.0, 4: 4.0, 16: 8.0}, queries_per_s=100, p99_ms=50).why
    assert why.startswith("For 100 requests a second on 1 replica(s) and a p99 of 50 ms:")
    assert "simulated from made-up steps of tensorflow/saved_model at batch 1, 4, 16" in why


def test_steps_after_idle_time_are_said_with_their_batch_sizes() -> None:
    run = run_of({1: 2.0, 4: 4.0, 16: 8.0})
    for cell in run.cells:
        if cell.spec.batch in (1, 16):
            run = replaced(run, cell.spec.cell_id, scenarios=(after_idle(environment_id=cell.environment_id),))
    batching = choose_batching(run, run.cells[0].spec.model_sha256, 5, 50)
    assert batching.why.endswith("at batch 1, 4, 16, and after idle time at batch 1, 16.")
    assert batching.p99_ms > 5, "a request that finds the server idle takes 6 ms, not 2"


def test_a_run_without_such_cells_is_refused() -> None:
    run, _ = simulated_run(plan(phases=("inference",)))
    with pytest.raises(InputError, match="--methods saved_model"):
        choose_batching(run, run.cells[0].spec.model_sha256, 100, 50)
    with pytest.raises(InputError, match="without one"):
        choose_batching(run_of({1: 2.0, 4: 4.0, 16: 8.0}), "another model", 100, 50)


def test_a_p99_that_no_rate_holds_is_refused() -> None:
    with pytest.raises(InputError, match=r"has a p99 of 2\.2"):
        chosen({1: 2.0, 4: 4.0, 16: 8.0}, queries_per_s=100, p99_ms=1)


@pytest.mark.parametrize(("rate", "p99_ms"), [(0, 50), (-1, 50), (float("nan"), 50), (100, 0), (float("inf"), 50)])
def test_rates_and_limits_are_above_0(rate: float, p99_ms: float) -> None:
    with pytest.raises(InputError, match="above 0"):
        chosen({1: 2.0, 4: 4.0, 16: 8.0}, rate, p99_ms)
