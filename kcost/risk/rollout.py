"""Whether a new version may take over: how it answered requests that the old one answered, too, how fast, how dear.

Two figures go with each gate. The probability that it holds is for a reader: of the share of rows that are answered
otherwise and of the share of requests that fail by Jeffreys' posterior, of latency and cost by the mean of paired
differences, as normal. All gates hold with a probability of at least 1 - the sum of what each lacks (Boole's
inequality). The other one decides, as a rollout is looked at again and again: an e-value against "the gate does not
hold" and one against "it does". However often one looks, a version at its limit is promoted at most 5% of the time, and
one that holds all gates is rolled back at most 5% of the time.

The rows of one request are taken for as many observations as they are worth where all of them go the same way: Kish's
effective number. E-values of means are of normal ones, and are not believed before 30 pairs.

Sources: Brown, L., Cai, T. and DasGupta, A. (2001), Interval estimation for a binomial proportion, for Jeffreys'
interval; Boole (1854) for the bound; Ville (1939) for tests that may be looked at any time; Robbins, H. (1970),
Statistical methods related to the law of the iterated logarithm, for mixtures of likelihood ratios; Waudby-Smith, I. et
al. (2021), Time-uniform central limit theory and asymptotic confidence sequences, for means; Kish, L. (1965), Survey
Sampling, for clusters.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pydantic import Field

from kcost.core.schema import Record
from kcost.core.stats import exact_proportion
from kcost.risk.figures import Figure, share

SURE = 0.95
WRONG = 0.05
"""How often a version at its limit is promoted at most, and how often one that holds all gates is rolled back."""

LEAST_PAIRS = 30
_MIXTURE_VARIANCE = 0.08
"""Of the mixture over effects, in standard deviations of a pair: sharpest at about 100 pairs (Waudby-Smith et al.)."""

_LARGEST_LOG = 700.0
_FAR = 30.0

Decision = Literal["promote", "roll back", "can't tell"]


class RolloutLimits(Record):
    """What a new version has to hold."""

    max_disagreement: float = Field(default=0.02, gt=0, lt=1, description="share of rows that are answered otherwise")
    max_failed: float = Field(default=0.01, gt=0, lt=1, description="share of requests that are not answered")
    max_slower: float = Field(default=1.2, gt=0, description="latency over that of the old version, geometric mean")
    max_dearer: float = Field(default=1.2, gt=0, description="machine time a request over that of the old version")


class RolloutCounts(Record):
    """What was seen of a new version. Pairs are requests that both versions answered."""

    requests: int = Field(default=0, description="that the new version was asked, and it or the old one answered")
    failed: int = Field(default=0, description="of these, not answered by the new one")
    rows: int = Field(default=0, description="that both answered")
    row_squares: float = Field(default=0.0, description="sum over requests of the square of their rows")
    otherwise: int = Field(default=0, description="rows with another answer than the old version's")
    pairs: int = 0
    log_ratio_sum: float = Field(default=0.0, description="of latencies, new over old")
    log_ratio_squares: float = 0.0
    new_s: float = Field(default=0.0, description="machine time, as the invoice shares it out")
    old_s: float = 0.0
    new_squares: float = 0.0
    old_squares: float = 0.0
    products: float = Field(default=0.0, description="sum of the machine times of both, multiplied")

    def plus(self, other: RolloutCounts) -> RolloutCounts:
        """Both together, where each counted something else or at another time."""
        mine = self.model_dump()
        return RolloutCounts(**{name: value + mine[name] for name, value in other.model_dump().items()})


class Rollout(Record):
    """The gates of a new version, and what follows from them."""

    decision: Decision
    probability: float = Field(description="that all gates hold, at least")
    wrong_promotion: float = Field(
        description="promoting now does so to versions that break a gate at most this often, however often one looks"
    )
    wrong_roll_back: float = Field(description="the same of rolling back versions that hold all gates")
    counts: RolloutCounts
    disagreement: Figure
    failed: Figure
    slower: float | None = Field(description="geometric mean of latency ratios; None before one was answered")
    dearer: float | None = Field(description="machine time, new over old; None before one was answered")
    holds: dict[str, float] = Field(description="gate -> probability that it holds")

    @property
    def weakest_first(self) -> tuple[str, ...]:
        """The gates, the one that is least likely to hold first."""
        return tuple(sorted(self.holds, key=lambda name: self.holds[name]))


class _Gate(NamedTuple):
    """One gate: the probability that it holds, and logarithms of e-values."""

    holds: float
    against_breaking: float
    against_holding: float


def judge_rollout(counts: RolloutCounts, limits: RolloutLimits) -> Rollout:
    """Judges a new version.

    Examples:
        >>> counts = RolloutCounts(requests=900, rows=900, row_squares=900, otherwise=1, pairs=900, log_ratio_sum=9.0)
        >>> counts = counts.model_copy(update={"log_ratio_squares": 20.0, "new_s": 1.0, "old_s": 1.0})
        >>> judge_rollout(counts, RolloutLimits()).decision
        'promote'
        >>> judge_rollout(counts.model_copy(update={"otherwise": 90}), RolloutLimits()).decision
        'roll back'
    """
    effective = counts.rows**2 / counts.row_squares if counts.row_squares else 0.0
    part = counts.otherwise / counts.rows if counts.rows else 0.0
    gates = {
        "disagreement": _share_gate(part * effective, effective, limits.max_disagreement),
        "failed": _share_gate(counts.failed, counts.requests, limits.max_failed),
        "latency": _mean_gate(
            counts.pairs,
            counts.log_ratio_sum - counts.pairs * math.log(limits.max_slower),
            _squares_about(counts, math.log(limits.max_slower)),
        ),
        "cost": _mean_gate(
            counts.pairs,
            counts.new_s - limits.max_dearer * counts.old_s,
            counts.new_squares - 2 * limits.max_dearer * counts.products + limits.max_dearer**2 * counts.old_squares,
        ),
    }
    holds = {name: gate.holds for name, gate in gates.items()}
    probability = max(0.0, 1 - sum(1 - p for p in holds.values()))
    # A promotion is wrong where one gate breaks: each has to be shown to hold. A roll-back is wrong where all hold, and
    # is made where one is shown to break: the chances of each add up.
    wrong_promotion = min(1.0, math.exp(-min(g.against_breaking for g in gates.values())))
    wrong_roll_back = min(1.0, len(gates) * math.exp(-max(g.against_holding for g in gates.values())))
    decision: Decision = "can't tell"
    if wrong_promotion <= WRONG and probability >= SURE:
        decision = "promote"
    elif wrong_roll_back <= WRONG:
        decision = "roll back"
    return Rollout(
        decision=decision,
        probability=probability,
        wrong_promotion=wrong_promotion,
        wrong_roll_back=wrong_roll_back,
        counts=counts,
        disagreement=_disagreement(counts, part, effective),
        failed=share("failed", counts.failed, counts.requests, "requests"),
        slower=math.exp(counts.log_ratio_sum / counts.pairs) if counts.pairs else None,
        dearer=counts.new_s / counts.old_s if counts.old_s else None,
        holds=holds,
    )


def _disagreement(counts: RolloutCounts, part: float, effective: float) -> Figure:
    interval = exact_proportion(part * effective, effective)
    return Figure(
        name="disagreement",
        value=part,
        low=min(interval.low, part),
        high=max(interval.high, part),
        count=counts.rows,
        unit="rows",
    )


def _squares_about(counts: RolloutCounts, place: float) -> float:
    """Sum of the squares of the logarithms of the latency ratios less `place`."""
    return counts.log_ratio_squares - 2 * place * counts.log_ratio_sum + counts.pairs * place**2


def _share_gate(hits: float, count: float, limit: float) -> _Gate:
    """A share that is to be at most `limit`: Jeffreys' posterior, and its mixtures over either side of the limit.

    For each share on the one side, the likelihood ratio to `limit` is at most 1 in expectation under any share on the
    other; so is a mixture of them.
    """
    from scipy.special import betainc, betaln

    a, b = hits + 0.5, max(0.0, count - hits) + 0.5
    below = float(betainc(a, b, limit))
    above = float(betainc(b, a, 1 - limit))
    at_limit = hits * math.log(limit) + max(0.0, count - hits) * math.log1p(-limit)
    whole = float(betaln(a, b) - betaln(0.5, 0.5)) - at_limit
    against_breaking = whole + _log(below) - math.log(float(betainc(0.5, 0.5, limit)))
    against_holding = whole + _log(above) - math.log(float(betainc(0.5, 0.5, 1 - limit)))
    # Beyond the limit no share on this side is likelier than the limit itself; there a tail may be too small to tell.
    if hits >= count * limit:
        against_breaking = min(0.0, against_breaking)
    if hits <= count * limit:
        against_holding = min(0.0, against_holding)
    return _Gate(below, _within(against_breaking), _within(against_holding))


def _mean_gate(count: int, total: float, squares: float) -> _Gate:
    """A mean that is to be at most 0.

    Args:
        count: of the numbers.
        total, squares: their sum, and that of their squares.
    """
    if count < 2:
        return _Gate(0.5, 0.0, 0.0)
    mean = total / count
    variance = max(0.0, squares / count - mean**2) * count / (count - 1)
    # A spread of nothing is rounding's: numbers that are all alike are sure, not a division by 0.
    deviation = max(math.sqrt(variance), 1e-9 * abs(mean))
    if deviation == 0:
        return _Gate(0.5, 0.0, 0.0)
    score = total / deviation
    holds = 0.5 * math.erfc(score / math.sqrt(count) / math.sqrt(2))
    if count < LEAST_PAIRS:
        return _Gate(holds, 0.0, 0.0)
    return _Gate(holds, _log_mixture(-score, count), _log_mixture(score, count))


def _log_mixture(score: float, count: int) -> float:
    """Logarithm of Robbins' one-sided normal mixture, for a sum of `count` numbers in standard deviations."""
    spread = 1 + _MIXTURE_VARIANCE * count
    scaled = math.sqrt(_MIXTURE_VARIANCE) * score / math.sqrt(spread)
    if scaled < -_FAR:  # a normal tail there is its density over the distance, and too small for a float
        tail = -math.log(-scaled * math.sqrt(2 * math.pi))
    else:
        tail = 0.5 * scaled**2 + math.log(0.5 * math.erfc(-scaled / math.sqrt(2)))
    return _within(math.log(2) - 0.5 * math.log(spread) + tail)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -_LARGEST_LOG


def _within(log: float) -> float:
    """A logarithm whose number is a float."""
    return min(_LARGEST_LOG, max(-_LARGEST_LOG, log))
