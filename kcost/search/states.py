"""What optuna's trials are to a search: their states, and which of them count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kcost.search.result import State

COUNTED: frozenset[State] = frozenset({"complete", "pruned", "failed", "running", "waiting"})
"""A trial that was stopped is not counted: another one takes its place."""

FINISHED: frozenset[State] = frozenset({"complete", "pruned", "failed"})


def state_of(trial: Any) -> State | None:
    """The state of one of optuna's trials, None for one that two processes began when only one was wanted."""
    if "superfluous" in trial.user_attrs:
        return None
    states: dict[str, State] = {
        "COMPLETE": "complete",
        "PRUNED": "pruned",
        "RUNNING": "running",
        "WAITING": "waiting",
        # What fails says why; what does not was cut off.
        "FAIL": "failed" if "reason" in trial.user_attrs else "stopped",
    }
    return states[trial.state.name]


def count(trials: Iterable[Any], states: frozenset[State]) -> int:
    """How many trials are in one of these states."""
    return sum(state_of(t) in states for t in trials)


def is_superfluous(number: int, trials: Iterable[Any], wanted: int) -> bool:
    """Whether enough trials that count began before this one.

    Processes that share a study look at it and begin a trial in two steps, so that more may begin than are wanted.
    The numbers, which the database gives out, decide which of them go on.
    """
    return count((t for t in trials if t.number < number), COUNTED) >= wanted
