"""Whether a new version may take over: how it answered requests that the old one answered, too, and how fast.

Each gate has the probability that it holds: of the share of rows that are answered otherwise and of the share of
requests that fail by Jeffreys' posterior, of the latency by the mean of the logarithms of paired ratios, as normal.
All gates hold with a probability of at least 1 - the sum of what each lacks (Boole's inequality).

Sources: Brown, L., Cai, T. and DasGupta, A. (2001), Interval estimation for a binomial proportion, for Jeffreys'
interval; Boole (1854) for the bound.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from kcost.core.schema import Record
from kcost.risk.figures import Figure, share

PROMOTE = 0.95
ROLL_BACK = 0.05

Decision = Literal["promote", "roll back", "can't tell"]


class RolloutLimits(Record):
    """What a new version has to hold."""

    max_disagreement: float = Field(default=0.02, gt=0, lt=1, description="share of rows that are answered otherwise")
    max_failed: float = Field(default=0.01, gt=0, lt=1, description="share of requests that are not answered")
    max_slower: float = Field(default=1.2, gt=0, description="latency over that of the old version, geometric mean")


class RolloutCounts(Record):
    """What was seen of a new version."""

    requests: int = 0
    failed: int = 0
    rows: int = 0
    otherwise: int = Field(default=0, description="rows with another answer than the old version's")
    log_ratio_sum: float = Field(default=0.0, description="of the latencies of answered requests, new over old")
    log_ratio_squares: float = 0.0


class Rollout(Record):
    """The gates of a new version, and what follows from them."""

    decision: Decision
    probability: float = Field(description="that all gates hold, at least")
    counts: RolloutCounts
    disagreement: Figure
    failed: Figure
    slower: float | None = Field(description="geometric mean of latency ratios; None before one was answered")
    holds: dict[str, float] = Field(description="gate -> probability that it holds")


def judge_rollout(counts: RolloutCounts, limits: RolloutLimits) -> Rollout:
    """Judges a new version.

    Examples:
        >>> counts = RolloutCounts(requests=500, rows=500, otherwise=1, log_ratio_sum=5.0, log_ratio_squares=20.0)
        >>> judge_rollout(counts, RolloutLimits()).decision
        'promote'
        >>> judge_rollout(counts.model_copy(update={"otherwise": 50}), RolloutLimits()).decision
        'roll back'
    """
    answered = counts.requests - counts.failed
    slower = math.exp(counts.log_ratio_sum / answered) if answered else None
    holds = {
        "disagreement": _below(counts.otherwise, counts.rows, limits.max_disagreement),
        "failed": _below(counts.failed, counts.requests, limits.max_failed),
        "latency": _faster(counts, answered, limits.max_slower),
    }
    probability = max(0.0, 1 - sum(1 - p for p in holds.values()))
    decision: Decision = "can't tell"
    if probability >= PROMOTE:
        decision = "promote"
    elif min(holds.values()) <= ROLL_BACK:
        decision = "roll back"
    return Rollout(
        decision=decision,
        probability=probability,
        counts=counts,
        disagreement=share("disagreement", counts.otherwise, counts.rows, "rows"),
        failed=share("failed", counts.failed, counts.requests, "requests"),
        slower=slower,
        holds=holds,
    )


def _below(hits: int, count: int, limit: float) -> float:
    """Posterior probability that a share is at most `limit`."""
    from scipy.special import betainc

    return float(betainc(hits + 0.5, count - hits + 0.5, limit))


def _faster(counts: RolloutCounts, answered: int, limit: float) -> float:
    """Probability that the mean logarithm of the ratios is at most that of `limit`; a half where nothing is known."""
    if answered < 2:
        return 0.5
    mean = counts.log_ratio_sum / answered
    variance = max(0.0, counts.log_ratio_squares / answered - mean**2) * answered / (answered - 1)
    error = math.sqrt(variance / answered)
    if not error:
        return float(mean <= math.log(limit))
    return 0.5 * math.erfc(-(math.log(limit) - mean) / error / math.sqrt(2))
