"""Which rate a search tries next, from the trials that were made: pure, so that the same trials give the same search.

A rate holds when its p99 is within the bound with 99% confidence and no request failed. A rate is given up when it
fails twice in a row: one stall of the machine would else send the whole search below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from kcost.core.schema import Record
from kcost.core.stats import most_above, samples_for_tail
from kcost.serving.load_report import first_said

TAIL = 0.99
WITHIN = 0.05
"""The search ends when the rate that holds and the one that does not lie this close, as a part of the latter."""
MOST_TRIALS = 40


class RateTrial(Record):
    """One rate that was tried."""

    rate_per_s: float
    requests: int
    late: int = Field(description="requests above the bound")
    failed: int
    first_failure: str | None = Field(default=None, description="what is known of the first that failed")
    p99_ms: float
    client_late: bool = Field(description="whether the client's own delay was more than half the bound at its p99")

    @property
    def holds(self) -> bool:
        """Whether the rate holds the bound. False for fewer than 662 requests."""
        enough = self.requests >= samples_for_tail(TAIL)
        return enough and not self.failed and self.late <= most_above(self.requests, TAIL)


class RateReport(Record):
    """The highest rate that holds a bound on the p99."""

    url: str
    bound_ms: float
    rate_per_s: float | None = Field(description="None where not even the lowest that was tried holds")
    outcome: Literal["held", "not held", "client too slow"]
    trials: tuple[RateTrial, ...]
    limits: tuple[str, ...]


def requests_of_trial(rate_per_s: float, least_s: float) -> int:
    """How many requests a trial has: as many as are due in `least_s`, and at least the 662 that show a p99."""
    return max(samples_for_tail(TAIL), round(rate_per_s * least_s))


def next_rate(trials: Sequence[RateTrial], first_per_s: float) -> float | None:
    """The rate of the next trial; None at the end of the search.

    It doubles while rates hold, or halves while none does, and then bisects. Where not one request was answered, it
    ends: a wrong body is as wrong at each rate.

    Examples:
        >>> next_rate((), 100.0)
        100.0
    """
    if len(trials) >= MOST_TRIALS or (trials and trials[-1].client_late and not trials[-1].holds):
        return None
    low, high, doubted = bracket(trials)
    if low == 0 and trials and trials[-1].failed == trials[-1].requests:
        return None
    if doubted is not None:
        return doubted
    if high is None:
        return first_per_s if low == 0 else 2 * low
    if low == 0:
        return high / 2 if high > first_per_s / 64 else None
    return None if high - low <= WITHIN * high else (low + high) / 2


def bracket(trials: Sequence[RateTrial]) -> tuple[float, float | None, float | None]:
    """The highest rate that held (0 for none), the lowest that failed twice, and one that has failed once, last."""
    low, high, doubted = 0.0, None, None
    for trial in trials:
        if trial.holds:
            low, doubted = trial.rate_per_s, None
        elif trial.rate_per_s == doubted:
            high, doubted = trial.rate_per_s, None
        else:
            doubted = trial.rate_per_s
    return low, high, doubted


def conclude(url: str, bound_ms: float, trials: Sequence[RateTrial]) -> RateReport:
    """What the search has come to."""
    held = [trial.rate_per_s for trial in trials if trial.holds]
    limits = []
    outcome: Literal["held", "not held", "client too slow"] = "held" if held else "not held"
    if trials and trials[-1].client_late and not trials[-1].holds:
        outcome = "client too slow"
        limits.append(
            f"At {trials[-1].rate_per_s:.4g} requests/s the client itself was late: the server may hold more than this."
        )
    failed = [trial for trial in trials if trial.failed]
    if failed and not held:
        last = failed[-1]
        counted = f"{last.failed} of {last.requests} requests failed at {last.rate_per_s:.4g} requests/s."
        limits.append(f"{counted} {first_said(last.first_failure)}")
    if len(trials) >= MOST_TRIALS:
        limits.append(f"The search ended after {MOST_TRIALS} trials: the speed here changes from one to the next.")
    limits.append("Client and server share this machine where both run on it; alone, the server would hold more.")
    return RateReport(
        url=url,
        bound_ms=bound_ms,
        rate_per_s=max(held) if held else None,
        outcome=outcome,
        trials=tuple(trials),
        limits=tuple(limits),
    )
