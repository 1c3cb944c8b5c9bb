"""The parent's side of scenarios: has a prepared cell answer queries, and gives each result as soon as it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kcost.bench.pool import CellFailure, Pool
from kcost.core.plan import Scenario, Settings
from kcost.core.request import MeasureRequest
from kcost.core.result import AfterIdle, CellResult, Offline, ScenarioResult, Server, SingleStream, Trial
from kcost.core.scenario import (
    AskOffline,
    ask_after_idle,
    ask_single_stream,
    ask_trial,
    next_rate,
    result_of,
    samples_per_s,
)

OnTrial = Callable[[str], None]
"""Told in words what is measured next."""


def measured(
    scenario: Scenario,
    cell: CellResult,
    pool: Pool,
    request: MeasureRequest,
    environment_id: str,
    on_trial: OnTrial,
) -> Iterator[ScenarioResult]:
    """Measures a cell in one scenario. What comes later takes the place of what came before.

    A search of the server scenario goes on from the trials that the cell holds. A failure is a result, too: the cell
    keeps its status, and everything else that was measured of it.

    Args:
        cell: with its earlier results; for `server` the one of `offline` among them.
        environment_id: of this machine.
        on_trial: told before each piece of work.
    """
    settings = request.settings
    begun = _begun(scenario, cell, settings, environment_id)
    if isinstance(begun, Server):
        yield from _server(begun, pool, request, on_trial)
        return
    on_trial(scenario)
    try:
        if isinstance(begun, SingleStream):
            latencies, watch = pool.scenario(request, ask_single_stream(settings), settings.scenario_max_s)
            yield begun.model_copy(update={"latency_ns": latencies, "watch": watch})
        elif isinstance(begun, AfterIdle):
            ask = ask_after_idle(settings)
            durations, watch = pool.scenario(request, ask, settings.scenario_max_s)
            gaps = ask.gaps_ns[: len(durations)]
            yield begun.model_copy(update={"gap_ns": gaps, "step_ns": durations, "watch": watch})
        else:
            durations, watch = pool.scenario(request, AskOffline(least_s=settings.scenario_s), settings.scenario_s)
            yield begun.model_copy(update={"step_ns": durations, "watch": watch})
    except CellFailure as failure:
        yield begun.model_copy(update={"failure": str(failure)})


def failed(
    scenario: Scenario, cell: CellResult, settings: Settings, environment_id: str, failure: CellFailure
) -> ScenarioResult:
    """The result of a scenario that could not be begun; a search keeps the trials that the cell holds."""
    return _begun(scenario, cell, settings, environment_id).model_copy(update={"failure": str(failure)})


def _begun(scenario: Scenario, cell: CellResult, settings: Settings, environment_id: str) -> ScenarioResult:
    """A result without figures; of server the search that the cell holds, or a new one below its offline capacity."""
    common = {
        "environment_id": environment_id,
        "seed": settings.seed,
        "scenario_s": settings.scenario_s,
        "scenario_max_s": settings.scenario_max_s,
    }
    if scenario == "single-stream":
        return SingleStream.model_validate(common)
    if scenario == "offline":
        return Offline.model_validate(common)
    if scenario == "after-idle":
        return AfterIdle.model_validate(common)
    held = result_of(cell, "server", settings)
    if isinstance(held, Server) and held.trials and held.environment_id == environment_id:
        return held.model_copy(update={"failure": None})
    offline = result_of(cell, "offline", settings)
    capacity = samples_per_s(offline, cell.spec.batch) if isinstance(offline, Offline) else None
    return Server.model_validate(
        {**common, "latency_bound_ms": settings.latency_bound_ms, "capacity_per_s": capacity},
    )


def _server(server: Server, pool: Pool, request: MeasureRequest, on_trial: OnTrial) -> Iterator[Server]:
    if server.capacity_per_s is None:
        yield server.model_copy(update={"failure": "the scenario offline gave no capacity to search below"})
        return
    rate = next_rate(server)
    if rate is None:  # too slow for any trial
        yield server
    while rate is not None:
        on_trial(f"server at {rate:.4g} queries/s")
        ask = ask_trial(server, rate)
        try:
            # Queries arrive for queries / rate on the average; those that then wait are answered faster than they came.
            latencies, watch = pool.scenario(request, ask, 2 * ask.queries / rate)
        except CellFailure as failure:
            yield server.model_copy(update={"failure": str(failure)})
            return
        trial = Trial(queries_per_s=rate, queries=ask.queries, latency_ns=latencies, watch=watch)
        server = server.model_copy(update={"trials": (*server.trials, trial)})
        yield server
        rate = next_rate(server)
