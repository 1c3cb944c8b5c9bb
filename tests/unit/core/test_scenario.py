"""What is due, when queries arrive, what holds and which rate is next: decisions, without a worker."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import PlanError
from kcost.core.plan import CellSpec, Plan, Scenario, Settings
from kcost.core.result import AfterIdle, CellResult, Offline, Server, SingleStream, Trial
from kcost.core.scenario import (
    LONGEST_GAP_S,
    LOWEST_RATE,
    MOST_QUERIES,
    MOST_TRIALS,
    RATE_WITHIN,
    SHORTEST_GAP_S,
    arrivals_ns,
    ask_after_idle,
    ask_trial,
    complete,
    holds,
    idle_gaps_ns,
    missing,
    next_rate,
    rows,
    samples_per_s,
    scenarios_of,
    search_outcome,
    with_result,
)
from kcost.core.stats import most_above, percentile, samples_for_tail, tail

HERE = "here"
MEASURED = {"environment_id": HERE, "seed": 0, "scenario_s": 3.0, "scenario_max_s": 120.0}
ALL = Settings(scenarios=("server", "single-stream"), latency_bound_ms=50)


def spec(**changes: object) -> CellSpec:
    fields = {"model": "m", "model_sha256": "0" * 64, "backend": "fake", "device": "cpu", "precision": "float32"}
    return CellSpec.model_validate(
        {**fields, "batch": 1, "phase": "inference", "method": "eager", "threads": 0, **changes}
    )


def cell(**changes: object) -> CellResult:
    return CellResult(spec=spec(**changes), environment_id=HERE, status="ok")


def server(**changes: object) -> Server:
    return Server.model_validate({**MEASURED, "latency_bound_ms": 50, "capacity_per_s": 1000.0, **changes})


def trial(rate: float, late: int, queries: int = 662) -> Trial:
    return Trial(queries_per_s=rate, queries=queries, latency_ns=(60_000_000,) * late + (1_000_000,) * (queries - late))


def searched(server: Server, highest_that_holds: float) -> Server:
    """A search in which every rate up to a certain one holds."""
    while (rate := next_rate(server)) is not None:
        made = trial(rate, late=0 if rate <= highest_that_holds else 10)
        server = server.model_copy(update={"trials": (*server.trials, made)})
    return server


# What is due


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("single-stream", "offline", "server")),
        ({"batch": 32}, ("offline", "server")),
        ({"phase": "training", "method": "train_on_batch"}, ()),
    ],
)
def test_a_server_brings_offline_along_and_a_single_stream_is_for_batch_1(
    changes: dict[str, object], expected: tuple[Scenario, ...]
) -> None:
    assert scenarios_of(spec(**changes), ALL) == expected


def test_what_is_complete_with_the_same_settings_is_not_due_again() -> None:
    held = cell()
    assert missing(held, ALL, HERE) == ("single-stream", "offline", "server")
    held = with_result(held, SingleStream(**MEASURED, latency_ns=(1,)))
    held = with_result(held, Offline(**MEASURED, step_ns=(1,)))
    assert missing(held, ALL, HERE) == ("server",)
    assert missing(held, ALL.model_copy(update={"seed": 1}), HERE) == ("single-stream", "offline", "server")
    assert missing(held, ALL, "elsewhere") == ("offline", "server"), "a capacity of another machine is none of this one"
    begun = with_result(held, server(trials=(trial(500, 0),)))
    assert missing(begun, ALL, HERE) == ("server",)
    done = with_result(held, searched(server(), 700))
    assert missing(done, ALL, HERE) == ()
    assert missing(done, ALL.model_copy(update={"latency_bound_ms": 20.0}), HERE) == ("server",)
    failed = with_result(done, Offline(**MEASURED, failure="crash: gone"))
    assert missing(failed, ALL, HERE) == ("offline",)


def test_a_result_takes_the_place_of_its_own_kind_alone_and_each_bound_has_a_row() -> None:
    held = with_result(cell(), SingleStream(**MEASURED, latency_ns=(1,)))
    held = with_result(held, server(latency_bound_ms=50))
    held = with_result(held, server(latency_bound_ms=20))
    held = with_result(held, SingleStream(**MEASURED, latency_ns=(2,)))
    assert len(held.scenarios) == 3
    assert [
        (r.single_stream.latency_ns, r.server.latency_bound_ms) for r in rows(held) if r.single_stream and r.server
    ] == [
        ((2,), 20),
        ((2,), 50),
    ]
    idle = AfterIdle(**MEASURED, gap_ns=(5,), step_ns=(7,))
    (row,) = rows(with_result(cell(), idle))
    assert row == (None, None, idle, None)
    assert list(rows(cell())) == []


def test_a_cell_of_an_older_folder_has_no_scenarios() -> None:
    document = cell().model_dump(by_alias=True)
    del document["scenarios"]
    assert CellResult.model_validate(document).scenarios == ()
    again = CellResult.model_validate_json(with_result(cell(), searched(server(), 700)).model_dump_json())
    assert again.scenarios == (searched(server(), 700),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scenarios": ["offlin"]}, "'single-stream', 'offline', 'after-idle' or 'server'"),
        ({"scenarios": ["server"]}, "come together"),
        ({"latency_bound_ms": 50}, "come together"),
        ({"scenarios": ["server"], "latency_bound_ms": -1}, "greater than 0"),
        ({"scenarios": ["server"], "latency_bound_ms": float("inf")}, "finite"),
        ({"scenarios": ["offline", "offline"]}, "each value once"),
        ({"scenarios": ["offline"], "scenario_s": 10, "scenario_max_s": 5}, "at least scenario_s"),
    ],
)
def test_settings_that_cannot_be_measured(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.parse({"models": ["m"], "settings": settings})


def test_scenarios_that_no_cell_of_the_plan_has() -> None:
    with pytest.raises(PlanError, match="not among the batches"):
        Plan.parse({"models": ["m"], "batches": [8], "settings": {"scenarios": ["single-stream"]}})
    with pytest.raises(PlanError, match="phase inference"):
        Plan.parse({"models": ["m"], "phases": ["training"], "settings": {"scenarios": ["offline"]}})


# How long a model has nothing to do


def test_gaps_are_spread_over_two_decades_and_are_the_same_again() -> None:
    gaps_ns = idle_gaps_ns(20_000, seed=3)
    assert SHORTEST_GAP_S * 1e9 <= gaps_ns.min() < gaps_ns.max() <= LONGEST_GAP_S * 1e9
    assert np.median(gaps_ns) / 1e9 == pytest.approx(math.sqrt(SHORTEST_GAP_S * LONGEST_GAP_S), rel=0.05)
    np.testing.assert_array_equal(idle_gaps_ns(20_000, seed=3), gaps_ns)
    assert (idle_gaps_ns(20_000, seed=4) != gaps_ns).any()


def test_steps_after_idle_time_are_enough_for_a_p99_or_for_the_time_that_is_asked() -> None:
    idle = Settings(scenarios=("after-idle",))
    ask = ask_after_idle(idle)
    assert (len(ask.gaps_ns), ask.most_s) == (samples_for_tail(0.99), 120.0)
    longer = ask_after_idle(idle.model_copy(update={"scenario_s": 20.0}))
    assert sum(longer.gaps_ns) / 1e9 == pytest.approx(20.0, rel=0.1)
    assert scenarios_of(spec(batch=8), idle) == ("after-idle",)
    done = with_result(cell(), AfterIdle(**MEASURED, gap_ns=(5,), step_ns=(7,)))
    assert (missing(cell(), idle, HERE), missing(done, idle, HERE)) == (("after-idle",), ())


# When queries arrive


@given(st.floats(0.1, 1e5), st.integers(1, 3000), st.integers(-5, 2**40))
def test_one_seed_gives_one_sequence_which_a_higher_rate_presses_together(rate: float, count: int, seed: int) -> None:
    arrivals = arrivals_ns(rate, count, seed)
    assert arrivals.shape == (count,)
    assert (np.diff(arrivals) >= 0).all()
    assert (arrivals == arrivals_ns(rate, count, seed)).all()
    assert (arrivals[: count // 2] == arrivals_ns(rate, count // 2, seed)).all()
    assert np.allclose(arrivals, 2 * arrivals_ns(2 * rate, count, seed), atol=2)


def test_gaps_are_exponential_with_the_mean_of_the_rate() -> None:
    gaps = np.diff(arrivals_ns(200.0, 20_000, seed=3))
    assert gaps.mean() == pytest.approx(5e6, rel=0.02)
    assert gaps.std() == pytest.approx(5e6, rel=0.03)
    assert (gaps > 5e6 * np.log(2)).mean() == pytest.approx(0.5, abs=0.01)
    assert (arrivals_ns(200.0, 50, seed=4) != arrivals_ns(200.0, 50, seed=3)).any()


# What holds


@given(st.sampled_from([0.90, 0.95, 0.99]), st.integers(0, 3000))
def test_most_above_is_the_largest_number_that_convinces(fraction: float, more: int) -> None:
    from scipy.stats import binom

    count = samples_for_tail(fraction) + more
    most = most_above(count, fraction)
    assert most >= 1
    assert binom.cdf(most, count, 1 - fraction) <= 0.01 + 1e-12 < binom.cdf(most + 1, count, 1 - fraction)


def test_the_least_numbers_of_samples_allow_one_above() -> None:
    assert [most_above(662, 0.99), most_above(64, 0.90)] == [1, 1]
    with pytest.raises(ValueError, match="at least 662"):
        most_above(661, 0.99)


def test_a_percentile_is_that_of_the_tail() -> None:
    samples = list(range(700))
    shown = tail(samples)
    assert shown is not None
    assert percentile(samples, 0.99) == shown.interval
    assert percentile(samples, 0.90) is not None
    assert percentile(samples[:661], 0.99) is None


def test_a_rate_holds_with_one_late_query_of_662_and_not_with_two_or_when_given_up() -> None:
    assert holds(trial(100, late=1), 50)
    assert not holds(trial(100, late=2), 50)
    given_up = trial(100, late=0).model_copy(update={"queries": 1000})
    assert not holds(given_up, 50)
    assert holds(trial(100, late=0), 1.0), "exactly the bound is within it"


def test_a_trial_has_enough_queries_and_not_too_many() -> None:
    assert [ask_trial(server(), rate).queries for rate in (1.0, 1000.0, 1e6)] == [662, 3000, MOST_QUERIES]


# Which rate is next


@given(st.floats(1.0, 1e6), st.floats(0.0, 1.2))
def test_bisection_finds_the_highest_rate_within_a_few_percent(capacity: float, share: float) -> None:
    limit = share * capacity
    done = searched(server(capacity_per_s=capacity, scenario_max_s=1e6), limit)
    outcome, best = search_outcome(done)
    assert complete(done)
    assert len(done.trials) < MOST_TRIALS
    assert all(0 < t.queries_per_s < capacity for t in done.trials)
    if limit < capacity * LOWEST_RATE:
        assert outcome == "not held"
        return
    assert best is not None
    assert best.queries_per_s <= limit
    failed = [t.queries_per_s for t in done.trials if not holds(t, 50)]
    next_up = min([*failed, capacity])
    assert next_up > limit or next_up == capacity
    assert next_up - best.queries_per_s <= RATE_WITHIN * next_up


def test_a_search_goes_on_from_any_of_its_trials() -> None:
    whole = searched(server(), 700)
    for count in range(len(whole.trials)):
        begun = whole.model_copy(update={"trials": whole.trials[:count]})
        assert search_outcome(begun).outcome == "unfinished"
        assert searched(begun, 700) == whole


def test_a_rate_that_fails_once_and_then_holds_is_not_given_up() -> None:
    stalled = server(trials=(trial(500.0, late=10),))
    assert next_rate(stalled) == 500.0
    assert next_rate(server(trials=(trial(500.0, late=10), trial(500.0, late=0)))) == 750.0
    assert next_rate(server(trials=(trial(500.0, late=10), trial(500.0, late=10)))) == 250.0


def test_a_rate_at_which_662_queries_take_too_long_is_not_tried() -> None:
    slow = searched(server(capacity_per_s=8.0), 100)
    assert min(t.queries_per_s for t in slow.trials) == pytest.approx(662 / 120)
    assert search_outcome(slow).outcome == "held"
    assert search_outcome(server(capacity_per_s=5.0)) == ("not tried", None)
    assert search_outcome(server(capacity_per_s=None, failure="no capacity")).outcome == "unfinished"


def test_throughput_is_all_samples_over_all_time() -> None:
    assert samples_per_s(Offline(**MEASURED, step_ns=(10_000_000, 30_000_000)), 8) == pytest.approx(400)
    assert samples_per_s(Offline(**MEASURED), 8) is None
