"""Statistics over raw samples, with numpy arrays in and plain numbers out."""

from __future__ import annotations

import math
import statistics
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A figure with its two-sided interval, all in the same unit."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """The interval of `factor` times the figure; `factor` is positive."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def median_per_round(rounds: list[tuple[int, ...]]) -> np.ndarray:
    """Median of each round's samples: shape (rounds,), float64, the unit of the samples."""
    # A round has some ten samples: building an array of them would take longer than sorting them.
    return np.array([statistics.median(r) for r in rounds], dtype=np.float64)


def location(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Geometric mean of positive values with a Student-t interval on their logarithms.

    One value has no spread to take an interval from: its interval reaches from 0 to infinity.

    Source: the textbook t interval (for example Jain, The Art of Computer Systems Performance Analysis,
    1991, chapter 13), on logarithms because times and ratios of times are skewed to the right.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    centre = float(np.exp(logs.mean()))
    if logs.size < 2:
        return Interval(centre, 0.0, math.inf)
    half = _student_t(logs.size - 1, confidence) * logs.std(ddof=1) / math.sqrt(logs.size)
    return Interval(centre, centre * math.exp(-half), centre * math.exp(half))


@cache
def _student_t(degrees: int, confidence: float) -> float:
    from scipy.special import stdtrit  # half a second to import: only where an interval is asked for

    return float(stdtrit(degrees, 0.5 + confidence / 2))


def paired_ratio(numerators: ArrayLike, denominators: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Ratio of two cells measured in the same rounds: drift that hits both alike cancels.

    Args:
        numerators, denominators: one positive value a round, shape (rounds,), in the same order.

    Raises:
        ValueError: the two differ in length, or are empty.
    """
    a, b = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"paired_ratio wants two non-empty arrays of one length. Received: {a.shape} and {b.shape}")
    return location(a / b, confidence)


def proportion(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Share of successes with its Wilson score interval; no trials give 0 with the interval 0 to 1.

    Source: Wilson, E. B. (1927), Journal of the American Statistical Association 22, 209-212.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"0 <= successes <= trials. Received: {successes} of {trials}")
    if trials == 0:
        return Interval(0.0, 0.0, 1.0)
    from scipy import stats

    found = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(successes / trials, float(found.low), float(found.high))
