"""Scenarios after those of MLPerf Inference: which are due, when queries arrive, what holds, which rate is next.

single-stream: one query of one sample at a time. offline: all samples are there at once. server: queries of one sample
arrive as a Poisson process, and what is looked for is the highest rate whose p99 latency holds a bound. after-idle,
which MLPerf has not: each step begins after the model had nothing to do for a while, as steps do at little traffic.
Everything here is pure: the same records always give the same decision, so that a search that was cut short goes on
where it stopped.

Source: Reddi, V. J. et al. (2020), MLPerf Inference Benchmark, ISCA; times, and numbers of queries, are shorter here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from kcost.core.plan import CellSpec, Scenario, Settings
from kcost.core.result import AfterIdle, CellResult, Offline, ScenarioResult, Server, SingleStream, Trial
from kcost.core.schema import Record
from kcost.core.stats import most_above, samples_for_tail

TAIL = 0.99
"""The percentile that the bound of the server scenario is held against."""

MOST_QUERIES = 20_000
"""Most queries of a trial: their latencies are stored, each of them."""

RATE_WITHIN = 0.03
"""The search ends when the rate that holds and the one that does not lie this close, as a part of the latter."""

LOWEST_RATE = 1 / 32
"""Part of the offline capacity below which no rate is tried."""

MOST_TRIALS = 28
"""About twice as many as a search takes at most."""

NS_PER_S = 10**9

SHORTEST_GAP_S, LONGEST_GAP_S = 0.0002, 0.05
"""Of idle time before a step. Shorter ones are hardly longer than a timer is late; after longer ones hardly anything
changes."""

FIRST: tuple[Scenario, ...] = ("single-stream", "offline", "after-idle", "server")
"""The order in which a cell is measured: the server scenario needs the capacity that offline finds."""

Outcome = Literal["held", "not held", "not tried", "unfinished"]
"""held: some rate holds the bound. not held: not even the lowest that was tried. not tried: the cell is so slow that no
trial ends in time. unfinished: the search goes on when the plan is run again."""


class SearchOutcome(NamedTuple):
    """What the trials of a server scenario say."""

    outcome: Outcome
    trial: Trial | None = None
    """The one with the highest rate that held; for `held` alone."""


class ScenariosOfCell(NamedTuple):
    """The latest result of each scenario that a cell was measured in; None for the others."""

    single_stream: SingleStream | None = None
    offline: Offline | None = None
    after_idle: AfterIdle | None = None
    server: Server | None = None


class AskSingleStream(Record):
    """What a worker does for the scenario single-stream: as many queries, and as long, as this says."""

    scenario: Literal["single-stream"] = "single-stream"
    queries: int = Field(description="fewest; fewer only where these take longer than most_s")
    most_queries: int
    least_s: float
    most_s: float


class AskOffline(Record):
    """What a worker does for the scenario offline."""

    scenario: Literal["offline"] = "offline"
    least_s: float


class AskAfterIdle(Record):
    """What a worker does for the scenario after-idle: a step after each of these gaps, as many as `most_s` allows."""

    scenario: Literal["after-idle"] = "after-idle"
    gaps_ns: tuple[int, ...]
    most_s: float


class AskTrial(Record):
    """What a worker does for one rate of the scenario server."""

    scenario: Literal["server"] = "server"
    queries_per_s: float
    queries: int
    seed: int
    latency_bound_ms: float
    late_allowed: int = Field(description="most latencies above the bound with which the rate still holds")


Ask = Annotated[AskSingleStream | AskOffline | AskAfterIdle | AskTrial, Field(discriminator="scenario")]


def scenarios_of(spec: CellSpec, settings: Settings) -> tuple[Scenario, ...]:
    """The scenarios that a cell is measured in, in order: none in training, single-stream at batch 1 alone."""
    if spec.phase != "inference":
        return ()
    wanted = set(settings.scenarios) | ({"offline"} if "server" in settings.scenarios else set())
    if spec.batch != 1:
        wanted -= {"single-stream"}
    return tuple(s for s in FIRST if s in wanted)


def missing(cell: CellResult, settings: Settings, environment_id: str) -> tuple[Scenario, ...]:
    """Those of the asked scenarios that the cell does not hold yet, measured to their end with the same settings.

    What was measured to its end elsewhere is kept. A search of the server scenario wants the capacity of the machine
    that it runs on, which is `environment_id`.
    """
    lacking = {
        s for s in scenarios_of(cell.spec, settings) if (r := result_of(cell, s, settings)) is None or not complete(r)
    }
    offline = result_of(cell, "offline", settings)
    if "server" in lacking and (offline is None or offline.environment_id != environment_id):
        lacking.add("offline")
    return tuple(s for s in FIRST if s in lacking)


def result_of(cell: CellResult, scenario: Scenario, settings: Settings) -> ScenarioResult | None:
    """What a cell holds of a scenario with these settings, complete or not."""
    return next((r for r in cell.scenarios if r.scenario == scenario and _same_settings(r, settings)), None)


def _same_settings(result: ScenarioResult, settings: Settings) -> bool:
    bound = result.latency_bound_ms if isinstance(result, Server) else settings.latency_bound_ms
    mine = (result.seed, result.scenario_s, result.scenario_max_s, bound)
    return mine == (settings.seed, settings.scenario_s, settings.scenario_max_s, settings.latency_bound_ms)


def complete(result: ScenarioResult) -> bool:
    """Whether there is nothing left to measure of it."""
    if result.failure is not None:
        return False
    return next_rate(result) is None if isinstance(result, Server) else True


def with_result(cell: CellResult, result: ScenarioResult) -> CellResult:
    """The cell with a result in the place of an earlier one of the same scenario and settings."""

    def key(r: ScenarioResult) -> tuple[object, ...]:
        return (r.scenario, r.seed, r.scenario_s, r.scenario_max_s, r.latency_bound_ms if isinstance(r, Server) else 0)

    others = tuple(r for r in cell.scenarios if key(r) != key(result))
    return cell.model_copy(update={"scenarios": (*others, result)})


def rows(cell: CellResult) -> Iterator[ScenariosOfCell]:
    """The results of a cell as rows: the latest of each scenario, and one row more for each further bound."""
    row = ScenariosOfCell()
    servers: dict[float, Server] = {}
    for result in cell.scenarios:
        match result:
            case SingleStream():
                row = row._replace(single_stream=result)
            case Offline():
                row = row._replace(offline=result)
            case AfterIdle():
                row = row._replace(after_idle=result)
            case Server():
                servers[result.latency_bound_ms] = result
    for bound in sorted(servers):
        yield row._replace(server=servers[bound])
    if cell.scenarios and not servers:
        yield row


def ask_single_stream(settings: Settings) -> AskSingleStream:
    """662 queries, the fewest that show a p99, and more of them for `scenario_s`."""
    return AskSingleStream(
        queries=samples_for_tail(TAIL),
        most_queries=MOST_QUERIES,
        least_s=settings.scenario_s,
        most_s=settings.scenario_max_s,
    )


def ask_after_idle(settings: Settings) -> AskAfterIdle:
    """A step after each of 662 gaps, the fewest that show a p99, or after as many as make `scenario_s`."""
    mean_s = (LONGEST_GAP_S - SHORTEST_GAP_S) / math.log(LONGEST_GAP_S / SHORTEST_GAP_S)
    count = max(samples_for_tail(TAIL), min(math.ceil(settings.scenario_s / mean_s), MOST_QUERIES))
    gaps = idle_gaps_ns(count, settings.seed)
    return AskAfterIdle(gaps_ns=tuple(gaps.tolist()), most_s=settings.scenario_max_s)


def idle_gaps_ns(count: int, seed: int) -> np.ndarray:
    """Gaps of which each size between the shortest and the longest is as common as its half: int64, shape (count,)."""
    logs = np.random.default_rng(seed % 2**64).uniform(math.log(SHORTEST_GAP_S), math.log(LONGEST_GAP_S), count)
    return np.round(np.exp(logs) * NS_PER_S).astype(np.int64)


def ask_trial(server: Server, queries_per_s: float) -> AskTrial:
    """A trial of one rate: queries for `scenario_s`, at least 662 and at most MOST_QUERIES."""
    wanted = min(math.ceil(queries_per_s * server.scenario_s), MOST_QUERIES)
    queries = max(samples_for_tail(TAIL), wanted)
    return AskTrial(
        queries_per_s=queries_per_s,
        queries=queries,
        seed=server.seed,
        latency_bound_ms=server.latency_bound_ms,
        late_allowed=most_above(queries, TAIL),
    )


def arrivals_ns(queries_per_s: float, queries: int, seed: int) -> np.ndarray:
    """Arrival times of a Poisson process, nanoseconds from its beginning: int64, shape (queries,), ascending.

    One seed gives one sequence, which a higher rate only presses together: what differs between two trials is the rate.
    """
    gaps = np.random.default_rng(seed % 2**64).exponential(NS_PER_S / queries_per_s, queries)
    return np.cumsum(gaps).astype(np.int64)


def samples_per_s(offline: Offline, batch: int) -> float | None:
    """The throughput of the offline scenario; None where it was not measured."""
    return batch * len(offline.step_ns) / (sum(offline.step_ns) / NS_PER_S) if offline.step_ns else None


def holds(trial: Trial, latency_bound_ms: float) -> bool:
    """Whether the p99 latency of a trial is within the bound, with the confidence that `core.stats` asks of a tail."""
    if len(trial.latency_ns) < trial.queries:
        return False
    late = sum(ns > latency_bound_ms * 1e6 for ns in trial.latency_ns)
    return late <= most_above(trial.queries, TAIL)


def lowest_rate(server: Server, capacity_per_s: float) -> float:
    """The lowest rate that is tried: a part of the capacity, and such that 662 queries arrive in `scenario_max_s`."""
    return max(capacity_per_s * LOWEST_RATE, samples_for_tail(TAIL) / server.scenario_max_s)


def next_rate(server: Server) -> float | None:
    """The rate of the next trial, queries a second, by bisection below the offline capacity; None at its end.

    It relies on nothing but the trials that were made, and on latencies that grow with the rate. A rate is given up
    when it fails twice in a row: one short stall of the machine would else send the whole search below it.
    """
    if server.capacity_per_s is None or len(server.trials) >= MOST_TRIALS:
        return None
    low, high, doubted = _bracket(server, server.capacity_per_s)
    if doubted is not None:
        return doubted
    if low == 0:
        lowest = lowest_rate(server, server.capacity_per_s)
        return None if high <= lowest else max(high / 2, lowest)
    return None if high - low <= RATE_WITHIN * high else (low + high) / 2


class _Bracket(NamedTuple):
    """Where a search stands, in queries a second."""

    low: float
    """The highest rate that held; 0 for none."""
    high: float
    """The lowest that did not, twice; the capacity for none."""
    doubted: float | None
    """The rate of the last trial, where that was its first and did not hold."""


def _bracket(server: Server, capacity_per_s: float) -> _Bracket:
    low, high, doubted = 0.0, capacity_per_s, None
    for trial in server.trials:
        rate = trial.queries_per_s
        if holds(trial, server.latency_bound_ms):
            low, doubted = rate, None
        elif rate == doubted:
            high, doubted = rate, None
        else:
            doubted = rate
    return _Bracket(low, high, doubted)


def search_outcome(server: Server) -> SearchOutcome:
    """What the search has come to."""
    if server.failure is not None or next_rate(server) is not None:
        return SearchOutcome("unfinished")
    held = [t for t in server.trials if holds(t, server.latency_bound_ms)]
    if held:
        return SearchOutcome("held", max(held, key=lambda t: t.queries_per_s))
    return SearchOutcome("not held" if server.trials else "not tried")
