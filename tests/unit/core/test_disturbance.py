from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kcost.core.disturbance import LIMITS, disturbances, holds_pauses, invalid_cell, invalid_run
from kcost.core.result import CellResult, Watch
from kcost.cost.notices import measurement_notices
from testing.quotas import stopped_by_quota
from testing.runs import environment, plan, replaced, simulated_run

QUIET = {"wall_s": 0.15, "worker_cpu_s": 0.29, "parent_cpu_s": 0.001, "machine_busy_s": 0.30, "steal_s": 0.0}


def watched(*turns: dict[str, Any]) -> CellResult:
    run, _ = simulated_run(plan(batches=(1,), phases=("inference",)))
    cell = run.cells[0]
    rounds = tuple(replace(cell.rounds[0], watch=Watch(**{**QUIET, **t})) for t in turns)
    return cell.model_copy(update={"rounds": rounds})


def kinds_of(*turns: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(d.kind, d.invalid) for d in disturbances(watched(*turns), environment(cores=2))]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({}, []),
        ({"machine_busy_s": None}, []),
        ({"machine_busy_s": 0.33, "worker_cpu_s": 0.30}, [("other-work", False)]),
        ({"machine_busy_s": 0.30, "worker_cpu_s": 0.15}, [("other-work", True)]),
        ({"steal_s": 0.01}, [("steal", False)]),
        ({"steal_s": 0.06}, [("steal", True)]),
        ({"parent_cpu_s": 0.01}, [("busy-parent", False)]),
        ({"parent_cpu_s": 0.15, "worker_cpu_s": 0.15}, [("busy-parent", True)]),
        ({"throttles": 1}, [("throttled", True)]),
        ({"swapped_pages": 3}, [("swapping", True)]),
        ({"gpu_other_processes": 1}, [("gpu-shared", True)]),
        ({"gpu_other_processes": 0, "throttles": 0, "swapped_pages": 0, "cpu_mhz": 3000.0}, []),
    ],
)
def test_each_kind_has_a_limit_to_be_told_and_one_to_be_invalid(
    turn: dict[str, Any], expected: list[tuple[str, bool]]
) -> None:
    assert kinds_of(*[turn] * 4) == expected


def test_one_turn_in_five_is_told_and_not_invalid() -> None:
    assert kinds_of({"swapped_pages": 3}, *[{"swapped_pages": 0}] * 4) == [("swapping", False)]


def test_a_clock_that_moves() -> None:
    assert kinds_of({"cpu_mhz": 3000.0}, {"cpu_mhz": 2800.0}) == [("frequency", False)]
    assert kinds_of({"cpu_mhz": 3000.0}, {"cpu_mhz": 2000.0}) == [("frequency", True)]


@pytest.mark.parametrize(
    ("throttles", "expected"),
    [(0, []), (1, []), (4, [("quota", False)]), (20, [("quota", True)]), (None, [])],
)
def test_a_quota_that_stops_short_steps_is_told(throttles: int | None, expected: list[tuple[str, bool]]) -> None:
    held = {"quota_periods": 40, "quota_throttles": throttles}
    cell = watched(held, held)
    long_rounds = tuple(replace(r, step_ns=(1000,) * 41) for r in cell.rounds)
    of_quota = disturbances(cell.model_copy(update={"rounds": long_rounds}), environment(cores=2))
    assert [(d.kind, d.invalid) for d in of_quota] == expected
    assert all("no more threads than the quota" in d.remedy for d in of_quota)


@pytest.mark.parametrize(
    ("threads", "quota_cores", "text", "remedy"),
    [
        (2, 1.0, "fewer cores than threads", "no more threads than the quota"),
        (1, 1.0, "stopped the container", "Stop what else runs in the container"),
        (2, 2.5, "stopped the container", "Stop what else runs in the container"),
        (1, 0.5, "fewer cores than threads", "the time of one core at least"),
    ],
)
def test_what_is_said_of_a_quota_is_of_the_threads_that_the_cell_has(
    threads: int, quota_cores: float, text: str, remedy: str
) -> None:
    """The counters are of the whole container: where its own threads cannot use the quota up, fewer do not help."""
    machine = environment(cores=4, cpu_quota_cores=quota_cores)
    run, _ = simulated_run(plan(batches=(1,), phases=("inference",), threads=(threads,)), machine=machine)
    cell = stopped_by_quota(run).cells[0]
    (of_quota,) = disturbances(cell, machine)
    assert (of_quota.kind, of_quota.invalid) == ("quota", True)
    assert text in of_quota.text
    assert remedy in of_quota.remedy
    reason = invalid_cell(cell, machine)
    assert reason == of_quota.with_remedy
    assert remedy[1:] in str(reason)


def test_steps_hold_the_pauses_of_a_quota_that_are_longer_than_its_periods() -> None:
    machine = environment(cores=2, cpu_quota_cores=1.0)
    for threads, periods, expected in ((2, 8, True), (2, 7, False), (1, 8, False)):
        run, _ = simulated_run(plan(batches=(1,), phases=("inference",), threads=(threads,)), steps=8, machine=machine)
        assert holds_pauses(stopped_by_quota(run, periods=periods).cells[0], machine) == expected
        assert not holds_pauses(run.cells[0], machine)


def test_a_step_longer_than_a_period_of_a_quota_has_its_pauses_in_it() -> None:
    cell = watched({"quota_periods": 40, "quota_throttles": 40})
    rounds = tuple(replace(r, step_ns=(10**9,) * 4) for r in cell.rounds)
    assert disturbances(cell.model_copy(update={"rounds": rounds}), environment(cores=2)) == ()


def test_rounds_that_nobody_watched_say_nothing() -> None:
    run, _ = simulated_run(plan())
    assert disturbances(run.cells[0], environment()) == ()
    assert invalid_run(run) is None


def test_a_notice_carries_number_limit_and_remedy() -> None:
    import numpy as np

    cell = watched(*[{"machine_busy_s": 0.30, "worker_cpu_s": 0.0}] * 6)
    notices = {n.code: n for n in measurement_notices(cell, environment(cores=2), np.ones(6))}
    assert "high-load" not in notices
    notice = notices["invalid"]
    assert notice.text.startswith("INVALID: other processes took")
    assert (notice.limit, notice.number) == (LIMITS["other-work"].invalid, pytest.approx(0.997, abs=0.01))
    assert "nothing else runs" in notice.remedy
    assert invalid_cell(cell, environment(cores=2)) == (
        f"{notice.text.removeprefix('INVALID: ').removesuffix('.')}: measure again while nothing else runs"
    )


def test_a_run_is_invalid_when_more_than_a_quarter_of_its_cells_is() -> None:
    run, _ = simulated_run(plan(batches=(1,), phases=("inference",), backends=("jax", "torch")))
    busy = watched(*[{"machine_busy_s": 0.30, "worker_cpu_s": 0.0}] * 6).rounds
    assert len(run.cells) == 6
    one = replaced(run, run.cells[0].spec.cell_id, rounds=busy)
    assert invalid_run(one) is None
    two = replaced(one, run.cells[1].spec.cell_id, rounds=busy)
    assert "2 of 6 cells were disturbed beyond the limits: other processes took" in str(invalid_run(two))
