"""Threads that wait for jobs: a stop ends what they wait for."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from kcost.core.job_threads import JobThreads, killed_at_a_stop


def test_leaving_the_threads_waits_for_them() -> None:
    with JobThreads(1) as threads:
        first, second = threads.submit(lambda: 1), threads.submit(int, "2")
    assert (first.done(), first.result(), second.result()) == (True, 1, 2)


def test_a_stop_kills_what_runs_and_what_would_begin_after_it() -> None:
    begun, killed, kills = threading.Event(), threading.Event(), []

    def two_jobs() -> None:
        with killed_at_a_stop(killed.set):
            begun.set()
            assert killed.wait(60)
        with killed_at_a_stop(lambda: kills.append("the second job")):
            kills.append("it ran into its end")

    futures: list[Future[None]] = []

    def stopped() -> None:
        with JobThreads(1) as threads:
            futures.extend(threads.submit(two_jobs) for _ in range(2))
            assert begun.wait(60)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert futures[0].result() is None
    assert futures[1].cancelled()
    assert kills == ["the second job", "it ran into its end"]


def test_a_job_of_another_thread_is_not_killed() -> None:
    kills: list[str] = []
    with pytest.raises(KeyboardInterrupt), JobThreads(1), killed_at_a_stop(lambda: kills.append("mine")):
        raise KeyboardInterrupt
    assert not kills
