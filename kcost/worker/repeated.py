"""A program that is run again and again, and timed: by its runs, or under a CPU quota with its pauses."""

from __future__ import annotations

import time
from collections.abc import Callable

STRETCHES = 4
"""About as many means `mean_ns` gives, so that their median holds no disturbance of one of them."""

STEADY_PERIODS = 2
"""Of a CPU quota: a process that waited has the whole quota of a period to begin with, and isn't stopped yet."""


def repeated_ns(program: Callable[[], None], seconds: float, most: int | None = None) -> tuple[int, ...]:
    """The duration of each run in nanoseconds; a first run, which may compile, is left out.

    Args:
        seconds: about how long it is repeated; it runs once at least.
        most: runs that are not exceeded.
    """
    program()
    durations_ns: list[int] = []
    while sum(durations_ns) < seconds * 1e9 and len(durations_ns) != most:
        start = time.perf_counter_ns()
        program()
        durations_ns.append(time.perf_counter_ns() - start)
    return tuple(durations_ns)


def cores_used(program: Callable[[], None], seconds: float) -> float:
    """CPU time of all threads of this process in a second of the program, run after run for so long."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    now_s = wall_s
    while now_s - wall_s < seconds:
        program()
        now_s = time.perf_counter()
    return (time.process_time() - cpu_s) / (now_s - wall_s)


def mean_ns(
    program: Callable[[], None],
    period_s: float,
    periods: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[int, ...]:
    """Mean durations of a run under a CPU quota, in nanoseconds, each over as many of its periods.

    A quota lets a program run for a part of each period and then stops it. A single run mostly has no pause in it, and
    now and then a long one: only the mean over whole periods, run after run, is what a run takes. How often that is
    follows from the time alone, however short a run is.

    Args:
        periods: of all stretches together. A program that takes longer than these runs once.
        clock: nanoseconds.
    """
    program()  # it may compile
    stretch_ns = max(1, periods // STRETCHES) * period_s * 1e9
    steady = clock() + STEADY_PERIODS * period_s * 1e9
    now = clock()
    while now < steady:
        program()
        now = clock()
    means: list[int] = []
    end = now + periods * period_s * 1e9
    while now < end:
        begin, runs = now, 0
        while now - begin < stretch_ns:
            program()
            now = clock()
            runs += 1
        means.append(max(1, round((now - begin) / runs)))
    return tuple(means)
