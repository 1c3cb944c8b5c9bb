"""A program that is run again and again, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable


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
