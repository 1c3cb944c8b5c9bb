"""What the scenarios of a run say, in dollars and in milliseconds."""

from __future__ import annotations

import pytest

from kcost.core.result import Run, Watch
from kcost.cost.pricebook import PriceBook
from kcost.cost.scenarios import ScenarioRow, scenario_rows
from kcost.cost.verdict import prices_for
from testing.runs import plan, simulated_run
from tests.unit.cost.scenario_runs import after_idle, offline, run_with, server, single, trial


def rows_of(run: Run) -> tuple[ScenarioRow, ...]:
    return scenario_rows(run, prices_for(run, PriceBook.read()))


def test_a_run_without_scenarios_has_no_rows() -> None:
    run, _ = simulated_run(plan())
    assert rows_of(run) == ()


def test_dollars_are_the_hour_s_price_over_the_rate() -> None:
    held = server(trial(243, 20))
    run = run_with(single(700), offline(), held)
    (row,) = rows_of(run)
    match = next(iter(prices_for(run, PriceBook.read()).values()))
    usd_per_hour = match.price.on_demand_usd_per_hour * match.share
    assert row.offline_samples_per_s == pytest.approx(250)
    assert row.offline_usd_per_million == pytest.approx(usd_per_hour / (250 * 3600) * 1e6)
    assert row.server_outcome == "held"
    assert row.server_queries_per_s == 243
    assert row.server_usd_per_million == pytest.approx(usd_per_hour / (243 * 3600) * 1e6)
    assert row.server_p99 is not None
    assert row.server_p99.ms == 20
    assert row.single_stream_p90 is not None
    assert row.single_stream_p99 is not None
    assert row.single_stream_p90.ms < row.single_stream_p99.ms
    assert row.single_stream_p99.low_ms <= row.single_stream_p99.ms <= row.single_stream_p99.high_ms


@pytest.mark.parametrize(("queries", "p90", "p99"), [(63, False, False), (64, True, False), (662, True, True)])
def test_few_queries_show_no_tail(queries: int, p90: bool, p99: bool) -> None:
    (row,) = rows_of(run_with(single(queries)))
    assert row.single_stream
    assert (row.single_stream_p90 is not None, row.single_stream_p99 is not None) == (p90, p99)


def test_a_bound_that_no_rate_holds_and_a_cell_too_slow_to_try_one() -> None:
    fails = [trial(rate, 60) for rate in (125.0, 125.0, 62.5, 62.5, 31.25, 31.25, 15.625, 15.625, 7.8125, 7.8125)]
    (row,) = rows_of(run_with(offline(), server(*fails)))
    assert (row.server_outcome, row.server_queries_per_s) == ("not held", None)
    assert row.lowest_queries_per_s == 7.8125
    assert row.server_usd_per_million is None
    (row,) = rows_of(run_with(offline(), server(capacity_per_s=5.0)))
    assert (row.server_outcome, row.lowest_queries_per_s) == ("not tried", None)


def test_a_search_that_was_cut_short_gives_no_rate() -> None:
    (row,) = rows_of(run_with(offline(), server(trial(125, 20), failure="crash: gone")))
    assert (row.server_outcome, row.server_queries_per_s) == ("unfinished", None)
    assert row.failures == ("server: crash: gone",)


def test_each_latency_bound_has_a_row() -> None:
    rows = rows_of(run_with(offline(), server(trial(243, 20)), server(trial(243, 5), latency_bound_ms=10)))
    assert [r.latency_bound_ms for r in rows] == [10, 50]


def test_steps_after_idle_time_have_a_median_and_failures_are_told() -> None:
    (row,) = rows_of(run_with(after_idle()))
    assert (row.after_idle_ms, row.failures, row.offline_samples_per_s) == (6.0, (), None)
    (row,) = rows_of(run_with(after_idle(gap_ns=(), step_ns=(), failure="crash: gone")))
    assert (row.after_idle_ms, row.failures) == (None, ("after-idle: crash: gone",))


def test_other_work_beside_a_trial_is_told() -> None:
    busy = Watch(wall_s=10.0, worker_cpu_s=1.0, parent_cpu_s=0.0, machine_busy_s=15.0)
    (row,) = rows_of(run_with(offline(), server(trial(243, 20, watch=busy))))
    assert row.invalid is not None
    assert row.invalid.startswith("server: other processes took 70.0%")
    assert (row.offline_samples_per_s, row.server_queries_per_s) == (250, 243), "what was measured stays"
    assert (row.offline_usd_per_million, row.server_usd_per_million) == (None, None)
