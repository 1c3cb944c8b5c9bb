"""Queries on a simulated clock, where no step takes real time; then the harness, driven by the simulated backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.bench.pool import CellFailure, Pool
from kcost.bench.runner import measure
from kcost.bench.self_test import Form, self_test
from kcost.bench.store import RunStore
from kcost.core.request import MeasureRequest
from kcost.core.result import AfterIdle, CellResult, Offline, Server, SingleStream, Trial
from kcost.core.scenario import (
    RATE_WITHIN,
    AskAfterIdle,
    AskOffline,
    AskSingleStream,
    AskTrial,
    arrivals_ns,
    ask_trial,
    holds,
    next_rate,
    search_outcome,
)
from kcost.cost.measured_service import service_of
from kcost.worker.inputs import Samples
from kcost.worker.scenarios import Queries, SystemClock, after_idle, offline, serve, single_stream
from tests.unit.bench.scenario_plans import scenario_plan

MS = 1_000_000


class SimulatedServer:
    """A clock that only steps and waiting move; a step takes `service_ns`, and one of them `stall_ns` longer."""

    def __init__(self, service_ns: int, stall_at: int = -1, stall_ns: int = 0) -> None:
        self.time_ns = 17
        self.service_ns, self.stall_at, self.stall_ns = service_ns, stall_at, stall_ns
        self.steps: list[tuple[int, int]] = []
        self.began_ns: list[int] = []

    def now_ns(self) -> int:
        return self.time_ns

    def sleep_until_ns(self, moment_ns: int) -> None:
        self.time_ns = max(self.time_ns, moment_ns)

    def idle_ns(self, gap_ns: int) -> None:
        self.time_ns += gap_ns

    def answer(self, first: int, count: int) -> None:
        self.began_ns.append(self.time_ns)
        self.time_ns += self.service_ns + (self.stall_ns if len(self.steps) == self.stall_at else 0)
        self.steps.append((first, count))


def trial_of(rate: float, queries: int, bound_ms: float = 1e9, seed: int = 0, late_allowed: int = 10**9) -> AskTrial:
    return AskTrial(
        queries_per_s=rate, queries=queries, seed=seed, latency_bound_ms=bound_ms, late_allowed=late_allowed
    )


def served(simulated: SimulatedServer, batch: int, ask: AskTrial) -> list[int]:
    return serve(simulated.answer, batch, ask, simulated)


# One rate


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.85])
def test_the_mean_wait_is_that_of_queueing_theory(load: float) -> None:
    """Poisson arrivals, a fixed service time and one server (M/D/1): Pollaczek-Khinchine, load / (2 (1 - load))."""
    waits = []
    for seed in range(10):
        latencies = served(SimulatedServer(MS), 1, trial_of(load * 1000, 20_000, seed=seed))
        waits.append(np.mean(latencies) / MS - 1)
    assert np.mean(waits) == pytest.approx(load / (2 * (1 - load)), rel=0.03)


@given(st.floats(10, 5000), st.integers(1, 16), st.integers(0, 99))
@settings(max_examples=50)
def test_each_query_is_answered_once_in_order_by_steps_with_room_for_it(rate: float, batch: int, seed: int) -> None:
    simulated = SimulatedServer(MS)
    ask = trial_of(rate, 700, seed=seed)
    latencies = served(simulated, batch, ask)
    assert len(latencies) == 700
    assert min(latencies) >= MS
    firsts = [first for first, _ in simulated.steps]
    counts = [count for _, count in simulated.steps]
    assert firsts == [0, *np.cumsum(counts)[:-1].tolist()]
    assert all(1 <= count <= batch for count in counts)
    due = 17 + arrivals_ns(rate, 700, seed)
    for (first, count), began in zip(simulated.steps, simulated.began_ns, strict=True):
        assert (due[first : first + count] <= began).all(), "nothing is answered before it came"
        waiting = int((due <= began).sum()) - first
        assert count == min(batch, waiting), "and nothing is left waiting that there is room for"


def test_a_latency_counts_from_the_scheduled_arrival() -> None:
    """Whoever comes while the server stalls has waited; a clock that is started late would not see it."""
    stall_ns = 1000 * MS
    ask = trial_of(100, 700)
    latencies = served(SimulatedServer(MS, stall_at=100, stall_ns=stall_ns), 1, ask)
    due = arrivals_ns(100, 700, 0)
    stalled_from = due[100]
    came_meanwhile = int(((due > stalled_from) & (due < stalled_from + 0.9 * stall_ns)).sum())
    assert came_meanwhile > 50
    assert sum(ns > 100 * MS for ns in latencies) >= came_meanwhile
    smooth = served(SimulatedServer(MS), 1, ask)
    assert max(smooth) < 20 * MS
    assert latencies[:100] == smooth[:100], "the same seed gives the same arrivals"


def test_a_trial_is_given_up_as_soon_as_it_cannot_hold() -> None:
    overloaded = SimulatedServer(10 * MS)
    ask = trial_of(1000, 20_000, bound_ms=25, late_allowed=1)
    latencies = served(overloaded, 1, ask)
    assert len(latencies) < 5
    assert not holds(Trial(queries_per_s=1000, queries=20_000, latency_ns=tuple(latencies)), 25)
    assert overloaded.time_ns < 60 * MS


# The search


def searched(service_ns: int, batch: int, bound_ms: float) -> Server:
    capacity = batch / (service_ns / 1e9)
    server = Server(
        environment_id="e",
        seed=0,
        scenario_s=1.0,
        scenario_max_s=1e5,
        latency_bound_ms=bound_ms,
        capacity_per_s=capacity,
    )
    while (rate := next_rate(server)) is not None:
        trial = tried(server, rate, service_ns, batch)
        server = server.model_copy(update={"trials": (*server.trials, trial)})
    return server


def tried(server: Server, rate: float, service_ns: int, batch: int) -> Trial:
    ask = ask_trial(server, rate)
    latencies = served(SimulatedServer(service_ns), batch, ask)
    return Trial(queries_per_s=rate, queries=ask.queries, latency_ns=tuple(latencies))


@given(st.integers(MS // 5, 50 * MS), st.sampled_from([1, 2, 8, 32]), st.floats(2.1, 50))
@settings(max_examples=25)
def test_the_rate_that_is_found_holds_and_the_next_step_up_does_not(service_ns: int, batch: int, steps: float) -> None:
    bound_ms = steps * service_ns / MS
    server = searched(service_ns, batch, bound_ms)
    outcome, best = search_outcome(server)
    assert outcome == "held"
    assert best is not None
    assert holds(tried(server, best.queries_per_s, service_ns, batch), bound_ms)
    failed = [t.queries_per_s for t in server.trials if not holds(t, bound_ms)]
    assert server.capacity_per_s is not None
    next_up = min([*failed, server.capacity_per_s])
    assert next_up * (1 - RATE_WITHIN) <= best.queries_per_s < next_up
    if failed:
        assert not holds(tried(server, next_up, service_ns, batch), bound_ms)


def test_a_looser_bound_carries_a_higher_rate_up_to_the_capacity() -> None:
    rates = [
        best.queries_per_s for ms in (2.1, 4, 8, 100) if (best := search_outcome(searched(MS, 1, ms)).trial) is not None
    ]
    assert rates == sorted(rates)
    assert rates[0] < 400
    assert 950 < rates[-1] < 1000


def test_a_bound_below_the_time_of_a_step_is_not_held_and_costs_few_queries() -> None:
    server = searched(10 * MS, 8, bound_ms=9.0)
    assert search_outcome(server) == ("not held", None)
    assert sum(len(t.latency_ns) for t in server.trials) < 400


# One at a time, and all at once


def test_single_queries_follow_each_other_until_there_are_enough_for_long_enough() -> None:
    ask = AskSingleStream(queries=662, most_queries=2000, least_s=1.0, most_s=60)
    for service_ns, count in ((MS, 1000), (10 * MS, 662), (200 * MS, 300), (MS // 10, 2000)):
        simulated = SimulatedServer(service_ns)
        assert single_stream(simulated.answer, ask, simulated) == [service_ns] * count


def test_offline_runs_whole_steps_back_to_back() -> None:
    simulated = SimulatedServer(30 * MS)
    assert offline(simulated.answer, 8, AskOffline(least_s=0.1), simulated) == [30 * MS] * 4
    assert simulated.steps == [(0, 8), (8, 8), (16, 8), (24, 8)]


def test_steps_after_idle_time_begin_after_each_gap_and_end_in_time() -> None:
    ask = AskAfterIdle(gaps_ns=(MS, 20 * MS, 5 * MS), most_s=1.0)
    simulated = SimulatedServer(3 * MS)
    assert after_idle(simulated.answer, 8, ask, simulated) == [3 * MS] * 3
    assert np.diff(simulated.began_ns).tolist() == [23 * MS, 8 * MS]
    assert simulated.steps == [(0, 8), (8, 8), (16, 8)]
    slow = SimulatedServer(600 * MS)
    assert after_idle(slow.answer, 1, ask, slow) == [600 * MS] * 2
    slower = SimulatedServer(60_000 * MS)
    assert after_idle(slower.answer, 1, ask, slower) == [60_000 * MS], "one at least"


def test_a_step_with_few_queries_is_filled_up_to_the_shape_that_was_compiled() -> None:
    seen: list[list[int]] = []
    samples = Samples({"x": np.arange(5, dtype=np.float32)[:, None]}, None)
    queries = Queries(lambda inputs: seen.append(inputs["x"][:, 0].astype(int).tolist()), samples, batch=4)
    queries.answer(0, 1)
    queries.answer(3, 3)
    queries.answer(6, 4)
    assert seen == [[0, 0, 0, 0], [3, 4, 0, 0], [1, 2, 3, 4]]


def test_the_system_clock_never_wakes_up_early() -> None:
    clock = SystemClock()
    for wait_ns in (0, 50_000, 2 * MS):
        moment = clock.now_ns() + wait_ns
        clock.sleep_until_ns(moment)
        assert clock.now_ns() >= moment
        before = clock.now_ns()
        clock.idle_ns(wait_ns)
        assert clock.now_ns() >= before + wait_ns


# The harness


def by_batch(cells: tuple[CellResult, ...]) -> dict[int, dict[str, SingleStream | Offline | Server]]:
    return {c.spec.batch: {r.scenario: r for r in c.scenarios} for c in cells}


def test_a_run_holds_the_scenarios_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out, progress = tmp_path / "run", []
    plan = scenario_plan(tmp_path)
    first = measure(plan, out, lambda done, total, text: progress.append((done, total)))
    assert progress[-1][0] == progress[-1][1], "progress ends at its end"
    results = by_batch(first.cells)
    assert {batch: list(r) for batch, r in results.items()} == {
        1: ["single-stream", "offline", "server"],
        8: ["offline", "server"],
    }
    single, server = results[1]["single-stream"], results[8]["server"]
    assert isinstance(single, SingleStream)
    assert len(single.latency_ns) >= 662
    assert single.watch is not None
    assert isinstance(server, Server)
    assert search_outcome(server).outcome == "held"
    assert all(t.watch is not None for t in server.trials)

    # Killed in the middle of a search: the trials that it lacks, and nothing else, are made.
    store = RunStore(out)
    cell = next(c for c in first.cells if c.spec.batch == 8)
    cut = server.model_copy(update={"trials": server.trials[:2]})
    store.write_cell(cell.model_copy(update={"scenarios": (*cell.scenarios[:-1], cut)}))
    second = measure(plan, out)
    again = by_batch(second.cells)
    assert again[1] == results[1]
    assert again[8]["offline"] == results[8]["offline"]
    resumed = again[8]["server"]
    assert isinstance(resumed, Server)
    assert resumed.trials[:2] == server.trials[:2]
    assert search_outcome(resumed).outcome == "held"
    assert [c.rounds for c in second.cells] == [c.rounds for c in first.cells]

    # Nothing is missing: no worker is started, no file written.
    before = {p: p.stat().st_mtime_ns for p in (out / "cells").iterdir()}
    measure(plan, out)
    assert {p: p.stat().st_mtime_ns for p in (out / "cells").iterdir()} == before


def test_a_worker_that_dies_in_a_scenario_costs_that_scenario_alone(tmp_path: Path) -> None:
    # Getting ready takes about 100 calls at batch 1: the rounds pass, 662 queries do not, nor a search.
    script = {"crash": ["float32/1"], "healthy_calls": 200}
    plan = scenario_plan(tmp_path, script)
    run = measure(plan, tmp_path / "run")
    assert {(c.status, c.reason, len(c.rounds)) for c in run.cells} == {("ok", None, 2)}
    broken, whole = by_batch(run.cells)[1], by_batch(run.cells)[8]
    for scenario in ("single-stream", "server"):
        assert "SIGKILL" in str(broken[scenario].failure)
    assert broken["offline"].failure is None
    assert {r.failure for r in whole.values()} == {None}
    again = by_batch(measure(plan, tmp_path / "run").cells)
    assert again[8] == whole
    assert again[1]["offline"] == broken["offline"]
    assert "SIGKILL" in str(again[1]["single-stream"].failure), "it was tried once more"


def test_a_measured_cell_that_cannot_be_got_ready_again_keeps_what_it_has(tmp_path: Path) -> None:
    out = tmp_path / "run"
    plan = scenario_plan(tmp_path, scenarios=[], latency_bound_ms=None)
    before = {c.spec.batch: c for c in measure(plan, out).cells}
    with_offline = scenario_plan(tmp_path, scenarios=["offline"], latency_bound_ms=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pool, "prepare", _fails_at_batch_1(Pool.prepare))
        after = {c.spec.batch: c for c in measure(with_offline, out).cells}
    assert after[1].model_copy(update={"scenarios": ()}) == before[1]
    assert [(r.scenario, r.failure) for r in after[1].scenarios] == [("offline", "crash: not today")]
    assert [(r.scenario, r.failure) for r in after[8].scenarios] == [("offline", None)]
    assert after[8].preparation == before[8].preparation, "that of its rounds"
    assert by_batch(measure(with_offline, out).cells)[1]["offline"].failure is None


def _fails_at_batch_1(prepare: Callable[[Pool, MeasureRequest], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def failing(pool: Pool, request: MeasureRequest) -> dict[str, Any]:
        if request.spec.batch == 1:
            raise CellFailure("crash", "not today")
        return prepare(pool, request)

    return failing


def test_an_offline_scenario_that_fails_leaves_no_capacity_to_search_below(tmp_path: Path) -> None:
    plan = scenario_plan(tmp_path, {"hang": ["float32/8"], "healthy_calls": 60}, timeout_s=2, scenarios=["server"])
    results = by_batch(measure(plan, tmp_path / "run").cells)
    assert "timeout" in str(results[8]["offline"].failure)
    assert "no capacity" in str(results[8]["server"].failure)
    assert results[1]["server"].failure is None


def test_asking_for_scenarios_later_adds_them_to_a_run_without(tmp_path: Path) -> None:
    without = measure(scenario_plan(tmp_path, scenarios=[], latency_bound_ms=None), tmp_path / "run")
    assert {c.scenarios for c in without.cells} == {()}
    with_offline = measure(scenario_plan(tmp_path, scenarios=["offline"], latency_bound_ms=None), tmp_path / "run")
    assert [c.rounds for c in with_offline.cells] == [c.rounds for c in without.cells]
    assert {tuple(r.scenario for r in c.scenarios) for c in with_offline.cells} == {("offline",)}


def test_steps_after_idle_time_are_stored_with_the_gaps_before_them(tmp_path: Path) -> None:
    plan = scenario_plan(tmp_path, scenarios=["after-idle"], latency_bound_ms=None, scenario_max_s=1.0)
    run = measure(plan, tmp_path / "run")
    for cell in run.cells:
        (result,) = cell.scenarios
        assert isinstance(result, AfterIdle)
        assert 0 < len(result.step_ns) == len(result.gap_ns) <= 662
        assert result.watch is not None
        assert sum(result.gap_ns) + sum(result.step_ns) <= result.watch.wall_s * 1e9
        assert service_of([cell], run.environments).sizes == (cell.spec.batch,)
    assert [c.scenarios for c in measure(plan, tmp_path / "run").cells] == [c.scenarios for c in run.cells]


def test_a_self_test_leaves_scenarios_out(tmp_path: Path) -> None:
    lines: list[str] = []
    self_test(scenario_plan(tmp_path), form=Form(pairs=2, rounds=2), on_progress=lambda *a: lines.append(str(a[2])))
    assert not [t for t in lines if "server" in t or "single-stream" in t]
