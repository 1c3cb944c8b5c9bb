"""Waiting until this process is idle."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK_S = 0.005
MAX_LOOKS = 60
"""0.3 s: libgomp's threads spin for some milliseconds for more work before they sleep, Intel's OpenMP's for 200 ms."""
IDLE_SHARE = 0.1
"""Of a core, at most, in a process that is idle."""


def until_idle(
    process_time: Callable[[], float] = time.process_time, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Sleeps while threads of this process still spin, so that they take no core from the one whose turn is next.

    Telling OpenMP to let them sleep at once (OMP_WAIT_POLICY=PASSIVE) would make each parallel part of a step begin
    with waking them: PyTorch's steps of a short text took 2.4 times as long with two threads.

    Args:
        process_time: seconds of CPU time that all threads took so far.
        sleep: waits for so many seconds.
    """
    for _ in range(MAX_LOOKS):
        before = process_time()
        sleep(LOOK_S)
        if process_time() - before < IDLE_SHARE * LOOK_S:
            return
