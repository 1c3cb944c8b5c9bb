"""A load test from a URL to its report: one rate, a recorded log, or the search for the highest rate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.serving import rate_search
from kcost.serving.arrivals import LONGEST_S, Schedule, poisson, read_log
from kcost.serving.http_client import Target, read_url
from kcost.serving.load import SPIN_S, LoadGenerator, Observed
from kcost.serving.load_report import LoadReport, report
from kcost.serving.made_up import MADE_UP, made_up_body
from kcost.serving.rate_search import RateReport, RateTrial

MOST_BODY_BYTES = 256 << 20
CLIENT_PART = 0.5


class LoadSettings(Record):
    """How a load test is run."""

    rate_per_s: float = 50.0
    duration_s: float = 10.0
    log: Path | None = None
    body: Path | None = None
    bound_ms: float = 50.0
    seed: int = 0
    connections: int = 256
    timeout_s: float = 30.0
    spin_s: float = SPIN_S
    remote: bool = False


async def run_load(url: str, settings: LoadSettings) -> LoadReport:
    """Runs one test.

    Raises:
        InputError: the URL, the rate, a file or a bound cannot be used, or the server accepts no connection.
    """
    target = read_url(url, remote=settings.remote)
    bodies, source = await _bodies(target, settings)
    if settings.log is not None:
        schedule = read_log(settings.log, bodies)
        span_s = float(max(schedule.due_s[-1], 1e-3))
    else:
        schedule = poisson(settings.rate_per_s, settings.duration_s, bodies, settings.seed)
        span_s = settings.duration_s
    if not len(schedule.due_s):
        raise InputError(
            "A load test has at least one request.",
            received=f"{settings.rate_per_s:g} requests/s for {settings.duration_s:g} s, of which none is due",
        )
    observed = await _observe(target, schedule, settings)
    return report(url, schedule.source, source, span_s, observed)


async def find_rate(url: str, settings: LoadSettings, on_trial: Callable[[RateTrial], None]) -> RateReport:
    """Looks for the highest rate whose p99 is within the bound.

    Args:
        settings: its rate is the first that is tried, its duration the least of each trial.
        on_trial: told of each trial.

    Raises:
        InputError: as of `run_load`.
    """
    if settings.log is not None:
        raise InputError("A rate is found with Poisson arrivals.", received="a recorded log")
    target = read_url(url, remote=settings.remote)
    bodies, _ = await _bodies(target, settings)
    trials: list[RateTrial] = []
    while (rate := rate_search.next_rate(trials, settings.rate_per_s)) is not None:
        count = rate_search.requests_of_trial(rate, settings.duration_s)
        if count / rate > LONGEST_S:
            break
        schedule = poisson(rate, count / rate, bodies, settings.seed, count=count)
        trials.append(_trial(rate, settings.bound_ms, await _observe(target, schedule, settings)))
        on_trial(trials[-1])
    return rate_search.conclude(url, settings.bound_ms, trials)


def _trial(rate_per_s: float, bound_ms: float, observed: Observed) -> RateTrial:
    latency_ms = (observed.done_ns - observed.due_ns) / 1e6
    # Without the wait for a free connection: that is the server's doing, and no reason to end a search.
    own_ms = (observed.reached_ns - observed.due_ns) / 1e6
    return RateTrial(
        rate_per_s=rate_per_s,
        requests=len(latency_ms),
        late=int((latency_ms > bound_ms).sum()),
        failed=int((observed.status != 200).sum()),
        first_failure=observed.first_failure,
        p99_ms=float(np.quantile(latency_ms, 0.99)),
        client_late=float(np.quantile(own_ms, 0.99)) > CLIENT_PART * bound_ms,
    )


async def _observe(target: Target, schedule: Schedule, settings: LoadSettings) -> Observed:
    generator = LoadGenerator(*(target, schedule, settings.connections, settings.timeout_s), spin_s=settings.spin_s)
    return await generator.run()


async def _bodies(target: Target, settings: LoadSettings) -> tuple[list[bytes], str]:
    if settings.body is None:
        if settings.log is not None and _log_has_bodies(settings.log):
            return [], f"from {settings.log.name}"
        return [await made_up_body(target, settings.seed)], MADE_UP
    return read_bodies(settings.body), f"from {settings.body.name}"


def _log_has_bodies(log: Path) -> bool:
    """Whether the first line of a log has a body of its own; what is wrong with it is told when it is read."""
    try:
        with log.open(encoding="utf-8") as file:
            return '"body"' in file.readline()
    except (OSError, UnicodeDecodeError):
        return True


def read_bodies(path: Path) -> list[bytes]:
    """The bodies of a file: one JSON document, or one a line, which take turns.

    Raises:
        InputError: the file is not there, too large, empty, or holds something else.
    """
    rule = "A body is a JSON document; a file holds one, or one a line."
    try:
        if path.stat().st_size > MOST_BODY_BYTES:
            raise InputError(rule, received=f"{path} of more than {MOST_BODY_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(rule, received=f"{path}: {error}") from error
    if _is_json(content):
        return [content.strip()]
    numbered = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    wrong = next((number for number, line in numbered if not _is_json(line)), None)
    if wrong is not None or not numbered:
        raise InputError(
            rule, received=f"{path}, {'which is empty' if not numbered else f'whose line {wrong} is none'}"
        )
    return [line for _, line in numbered]


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
