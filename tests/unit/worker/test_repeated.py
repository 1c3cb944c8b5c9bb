"""How often a program is repeated."""

from __future__ import annotations

from kcost.worker.repeated import repeated_ns


def test_the_first_run_is_left_out_and_one_is_timed_at_least() -> None:
    runs: list[None] = []
    assert len(repeated_ns(lambda: runs.append(None), seconds=1e-12)) == 1
    assert len(runs) == 2


def test_no_more_runs_than_wanted() -> None:
    durations_ns = repeated_ns(lambda: None, seconds=3600, most=7)
    assert len(durations_ns) == 7
    assert min(durations_ns) >= 0
