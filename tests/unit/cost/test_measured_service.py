"""Service times from cells: which steps count, and which do not."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kcost.core.result import AfterIdle, Run, Watch
from kcost.cost.measured_service import service_of
from kcost.cost.queue_simulation import AfterIdleSteps, ServiceTimes
from kcost.cost.serving_ways import after_idle_note
from tests.unit.cost.scenario_runs import MS, after_idle, cell_of, offline, run_with

ALONE = Watch(wall_s=10.0, worker_cpu_s=1.0, parent_cpu_s=0.0, machine_busy_s=1.0)
DISTURBED = dataclasses.replace(ALONE, machine_busy_s=15.0)


def service(run: Run) -> ServiceTimes:
    return service_of([cell_of(run, batch) for batch in (1, 32)], run.environments)


def test_the_steps_of_all_rounds_and_those_after_idle_time() -> None:
    run = run_with(offline(), after_idle(watch=ALONE))
    times = service(run)
    assert times.sizes == (1, 32)
    steps = [ns for r in cell_of(run, 32).rounds for ns in r.step_ns]
    np.testing.assert_allclose(times.samples_s[32], np.array(steps) / 1e9)
    assert list(times.after_idle) == [1], "the other size was not measured so"
    np.testing.assert_allclose(times.after_idle[1].gap_s, np.arange(1, 11) / 1e3)
    np.testing.assert_allclose(times.after_idle[1].step_s, 0.006)


def test_the_latest_counts() -> None:
    later = after_idle(seed=1, step_ns=(8 * MS,) * 10)
    np.testing.assert_allclose(service(run_with(after_idle(), later)).after_idle[1].step_s, 0.008)
    failed = after_idle(seed=1, gap_ns=(), step_ns=(), failure="crash: gone")
    np.testing.assert_allclose(service(run_with(after_idle(), failed)).after_idle[1].step_s, 0.006)


@pytest.mark.parametrize("result", [after_idle(watch=DISTURBED), after_idle(environment_id="elsewhere")])
def test_steps_beside_other_work_or_of_another_machine_do_not_count(result: AfterIdle) -> None:
    assert service(run_with(result)).after_idle == {}


def way(name: str, *idle_sizes: int) -> Any:
    """A way that was measured at batch 1, 8 and 32, and after idle time at some of these."""
    one = np.ones(1)
    times = ServiceTimes(dict.fromkeys((1, 8, 32), one), {size: AfterIdleSteps(one, one) for size in idle_sizes})
    return SimpleNamespace(name=name, service=times)


def test_the_note_on_steps_after_idle_time_names_the_batch_sizes_that_have_them() -> None:
    assert after_idle_note([way("a"), way("b")]) is None
    whole = after_idle_note([way("a", 1, 8, 32), way("b", 1, 8, 32)])
    assert whole is not None
    assert whole.endswith("measured so (after-idle).")
    part = after_idle_note([way("a", 1, 8, 32), way("b", 8, 1), way("c")])
    assert part is not None
    assert "(after-idle) for a, b at batch 1 and 8; for the others from steps back to back" in part
    assert "for a at batch 1; for the others" in str(after_idle_note([way("a", 1)]))
