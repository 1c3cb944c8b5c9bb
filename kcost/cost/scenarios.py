"""What the scenarios of a run say: latencies, throughput, the rate that holds a bound, and dollars at each."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping

from pydantic import Field

from kcost.core.disturbance import disturbances_of
from kcost.core.result import CellResult, Environment, Run, ScenarioResult, Server, SingleStream, Watch
from kcost.core.scenario import TAIL, Outcome, rows, samples_per_s, search_outcome
from kcost.core.schema import Record
from kcost.core.stats import percentile
from kcost.cost.machine_match import Match
from kcost.cost.ranking import TailLatency

SINGLE_STREAM_TAILS = (0.90, TAIL)


class ScenarioRow(Record):
    """One cell in the scenarios that it was measured in, and under one latency bound where it was a server."""

    model: str
    cell_id: str
    label: str
    batch: int
    single_stream: bool = Field(description="whether there are queries of that scenario")
    single_stream_p90: TailLatency | None = Field(default=None, description="None under 64 queries")
    single_stream_p99: TailLatency | None = Field(default=None, description="None under 662 queries")
    offline_samples_per_s: float | None = None
    offline_usd_per_million: float | None = Field(default=None, description="None too where `invalid` says why")
    after_idle_ms: float | None = Field(default=None, description="median of the steps after idle time")
    latency_bound_ms: float | None = Field(default=None, description="of the server; None where it was not asked for")
    server_outcome: Outcome | None = None
    server_queries_per_s: float | None = Field(default=None, description="highest rate that held the bound")
    server_p99: TailLatency | None = Field(default=None, description="at that rate")
    server_usd_per_million: float | None = Field(default=None, description="None too where `invalid` says why")
    lowest_queries_per_s: float | None = Field(default=None, description="lowest rate tried, where none held the bound")
    failures: tuple[str, ...] = Field(default=(), description="a scenario and why it did not come to its end")
    invalid: str | None = Field(default=None, description="why these figures are not to be believed; no dollars then")


def scenario_rows(run: Run, prices: Mapping[str, Match]) -> tuple[ScenarioRow, ...]:
    """The cells that were measured in scenarios, by model and label.

    usd_per_million = usd_per_hour / 3600 s / rate * 1e6, for a machine that is never without work at that rate.

    Args:
        prices: environment_id -> price, as `kcost.cost.verdict.prices_for` gives them.
    """
    cells = sorted((c for c in run.measured() if c.scenarios), key=lambda c: (c.spec.model, c.spec.batch, c.spec.label))
    return tuple(itertools.chain.from_iterable(_rows_of(cell, run.environments, prices) for cell in cells))


def _rows_of(
    cell: CellResult, environments: Mapping[str, Environment], prices: Mapping[str, Match]
) -> Iterator[ScenarioRow]:
    for row in rows(cell):
        single, offline, idle, server = row
        results: list[ScenarioResult] = [r for r in row if r is not None]
        rate = None if offline is None else samples_per_s(offline, cell.spec.batch)
        invalid = _invalid(results, environments)
        known_prices = prices if invalid is None else None
        yield ScenarioRow(
            model=cell.spec.model,
            cell_id=cell.spec.cell_id,
            label=cell.spec.label,
            batch=cell.spec.batch,
            **_single_stream(single),
            offline_samples_per_s=rate,
            offline_usd_per_million=None if offline is None or rate is None else _usd(rate, known_prices, offline),
            after_idle_ms=None if idle is None or not idle.step_ns else statistics.median(idle.step_ns) / 1e6,
            **_server(server, known_prices),
            failures=tuple(f"{r.scenario}: {r.failure}" for r in results if r.failure is not None),
            invalid=invalid,
        )


def _single_stream(result: SingleStream | None) -> dict[str, object]:
    if result is None or not result.latency_ns:
        return {"single_stream": False}
    p90, p99 = (_tail(result.latency_ns, fraction) for fraction in SINGLE_STREAM_TAILS)
    return {"single_stream": True, "single_stream_p90": p90, "single_stream_p99": p99}


def _server(result: Server | None, prices: Mapping[str, Match] | None) -> dict[str, object]:
    if result is None:
        return {}
    outcome, trial = search_outcome(result)
    figures: dict[str, object] = {"latency_bound_ms": result.latency_bound_ms, "server_outcome": outcome}
    if trial is not None:
        figures["server_queries_per_s"] = trial.queries_per_s
        figures["server_p99"] = _tail(trial.latency_ns, TAIL)
        figures["server_usd_per_million"] = _usd(trial.queries_per_s, prices, result)
    elif outcome == "not held":
        figures["lowest_queries_per_s"] = min(t.queries_per_s for t in result.trials)
    return figures


def _tail(latency_ns: tuple[int, ...], fraction: float) -> TailLatency | None:
    interval = percentile(latency_ns, fraction)
    if interval is None:
        return None
    value, low, high = interval.scaled(1e-6)
    return TailLatency(name=f"p{round(100 * fraction)}", ms=value, low_ms=low, high_ms=high)


def _usd(per_s: float, prices: Mapping[str, Match] | None, result: ScenarioResult) -> float | None:
    """None without prices: of what is INVALID."""
    return None if prices is None else prices[result.environment_id].usd_per_hour / 3600 / per_s * 1e6


def _invalid(results: list[ScenarioResult], environments: Mapping[str, Environment]) -> str | None:
    """Why a row is not to be believed. A rate that did not hold beside other work counts like one that did."""
    reasons = []
    for result in results:
        watched = [t.watch for t in result.trials] if isinstance(result, Server) else [result.watch]
        known: list[Watch] = [w for w in watched if w is not None]
        beyond = [d.text for d in disturbances_of(known, environments[result.environment_id]) if d.invalid]
        reasons += [f"{result.scenario}: {text}" for text in beyond]
    return "; ".join(reasons) or None
