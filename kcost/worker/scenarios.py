"""Queries to one prepared cell: one after the other, all at once, after idle time, or arriving by a clock of their own.

Time is whatever the clock that is passed in says, so that tests run on simulated time.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kcost.backends.base import Inputs
from kcost.core.garbage_collection import collector_paused
from kcost.core.scenario import NS_PER_S, Ask, AskAfterIdle, AskOffline, AskSingleStream, AskTrial, arrivals_ns
from kcost.worker.inputs import Samples

SPIN_NS = 200_000
"""The last part of a wait that is spent awake: a sleep ends up to a tenth of a millisecond late."""

UNTIMED_STEPS = 3
"""Steps before the first query: whichever cell had the turn before has filled the caches with its own."""


class Clock(Protocol):
    """What tells the time, and waits."""

    def now_ns(self) -> int:
        """Nanoseconds since some moment."""

    def sleep_until_ns(self, moment_ns: int) -> None:
        """Returns when `now_ns` is `moment_ns` or later; at once where it is already."""

    def idle_ns(self, gap_ns: int) -> None:
        """Leaves the core alone for that long, and returns a little late rather than awake."""


class SystemClock:
    """The monotonic clock of the system."""

    def now_ns(self) -> int:
        """As `time.perf_counter_ns`."""
        return time.perf_counter_ns()

    def sleep_until_ns(self, moment_ns: int) -> None:
        """Sleeps, and is awake for the last SPIN_NS, so as not to begin late."""
        while (left := moment_ns - time.perf_counter_ns()) > SPIN_NS:
            time.sleep((left - SPIN_NS) / NS_PER_S)
        while time.perf_counter_ns() < moment_ns:
            pass

    def idle_ns(self, gap_ns: int) -> None:
        """Sleeps all of it: a core that is kept awake is none that was idle."""
        time.sleep(gap_ns / NS_PER_S)


@dataclass(frozen=True)
class Queries:
    """Single samples as queries to a cell, which answers them in steps of its own batch size.

    Args:
        forward: runs a step on inputs of `batch` rows to its end, with the outputs on the host.
        samples: query i is about sample i; after the last one they begin again.
        batch: rows of a step.
    """

    forward: Callable[[Inputs], object]
    samples: Samples
    batch: int

    def answer(self, first: int, count: int) -> None:
        """Answers `count` queries from number `first` on in one step; `count` is at least 1 and at most `batch`.

        A step with fewer queries is filled up with the last one's sample: a compiled step has one shape. Putting the
        rows together is part of the answer, as it is on a server.
        """
        numbers = np.minimum(np.arange(first, first + self.batch), first + count - 1) % len(self.samples)
        self.forward({name: values[numbers] for name, values in self.samples.inputs.items()})


Answer = Callable[[int, int], None]
"""Answers queries, as `Queries.answer` does."""


def run(ask: Ask, queries: Queries, clock: Clock) -> list[int]:
    """What a worker was asked to measure: latencies, or for offline durations of steps, in nanoseconds."""
    for _ in range(UNTIMED_STEPS):
        queries.answer(0, queries.batch)
    with collector_paused():
        if isinstance(ask, AskSingleStream):
            return single_stream(queries.answer, ask, clock)
        if isinstance(ask, AskOffline):
            return offline(queries.answer, queries.batch, ask, clock)
        if isinstance(ask, AskAfterIdle):
            return after_idle(queries.answer, queries.batch, ask, clock)
        return serve(queries.answer, queries.batch, ask, clock)


def single_stream(answer: Answer, ask: AskSingleStream, clock: Clock) -> list[int]:
    """Latencies in nanoseconds of queries of which each is issued when the one before has its answer."""
    latencies: list[int] = []
    start = before = clock.now_ns()
    while len(latencies) < ask.most_queries:
        spent_s = (before - start) / NS_PER_S
        if latencies and (spent_s >= ask.most_s or (spent_s >= ask.least_s and len(latencies) >= ask.queries)):
            break
        answer(len(latencies), 1)
        after = clock.now_ns()
        latencies.append(after - before)
        before = after
    return latencies


def offline(answer: Answer, batch: int, ask: AskOffline, clock: Clock) -> list[int]:
    """Durations in nanoseconds of whole steps back to back, for at least `least_s`."""
    durations: list[int] = []
    before = clock.now_ns()
    end = before + round(ask.least_s * NS_PER_S)
    while before < end or not durations:
        answer(len(durations) * batch, batch)
        after = clock.now_ns()
        durations.append(after - before)
        before = after
    return durations


def after_idle(answer: Answer, batch: int, ask: AskAfterIdle, clock: Clock) -> list[int]:
    """Durations in nanoseconds of whole steps, one after each gap: fewer where these take longer than `most_s`."""
    durations: list[int] = []
    end = clock.now_ns() + round(ask.most_s * NS_PER_S)
    for gap_ns in ask.gaps_ns:
        clock.idle_ns(gap_ns)
        before = clock.now_ns()
        if durations and before >= end:
            break
        answer(len(durations) * batch, batch)
        durations.append(clock.now_ns() - before)
    return durations


def serve(answer: Answer, batch: int, ask: AskTrial, clock: Clock) -> list[int]:
    """Latencies in nanoseconds of queries that arrive by themselves, in order of arrival.

    Whenever it is free the server takes as many waiting queries as a step has room for, and never waits for more.
    A latency begins at the scheduled arrival, not when the server gets to the query: else a server that falls behind
    would hide how long its queries waited (what Gil Tene calls coordinated omission).

    Returns:
        One latency a query; fewer where it was given up, as more than `late_allowed` were late or bound to be.
    """
    begin = clock.now_ns()
    due = [begin + int(ns) for ns in arrivals_ns(ask.queries_per_s, ask.queries, ask.seed)]
    bound_ns = ask.latency_bound_ms * 1e6
    latencies: list[int] = []
    late = 0
    while (first := len(latencies)) < len(due):
        clock.sleep_until_ns(due[first])
        now = clock.now_ns()
        overdue = bisect.bisect_left(due, now - bound_ns, lo=first) - first
        if late + overdue > ask.late_allowed:
            break
        count = min(batch, bisect.bisect_right(due, now, lo=first) - first)
        answer(first, count)
        end = clock.now_ns()
        answered = [end - moment for moment in due[first : first + count]]
        late += sum(ns > bound_ns for ns in answered)
        latencies += answered
    return latencies
