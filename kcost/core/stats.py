"""Statistics over raw samples, with numpy arrays in and plain numbers out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
DECISION_CONFIDENCE = 0.99
"""How sure it must be that two cells differ before one is called the faster. At 95%, one pair of equals in twenty would
have a winner, and a ranking holds many pairs."""

TAIL_CONFIDENCE = 0.99
"""How sure a tail percentile must be: the figure of the MLPerf inference rules."""

SETTLED_WINDOWS = 3
SETTLED_WITHIN = 0.05
"""Warm-up has settled when the medians of its last three windows, a quarter of its steps each, differ by at most 5%."""


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
    return np.array([_median(sorted(r)) for r in rounds], dtype=np.float64)


def _median(ordered: list[int]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def location(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Geometric mean of positive values with a Student-t interval on their logarithms.

    One value has no spread to take an interval from: its interval reaches from 0 to infinity.

    Source: the textbook t interval (for example Jain, The Art of Computer Systems Performance Analysis,
    1991, chapter 13), on logarithms because times and ratios of times are skewed to the right.
    """
    logs = [math.log(v) for v in np.asarray(values, dtype=np.float64).ravel().tolist()]
    mean, deviation = _mean_and_deviation(logs)
    centre = math.exp(mean)
    if len(logs) < 2:
        return Interval(centre, 0.0, math.inf)
    half = _student_t(len(logs) - 1, confidence) * deviation / math.sqrt(len(logs))
    return Interval(centre, centre * math.exp(-half), centre * math.exp(half))


def mean_interval(values: ArrayLike, centre: float | None = None, confidence: float = CONFIDENCE) -> Interval:
    """Mean of values with a Student-t interval.

    One value has no spread to take an interval from: its interval is unbounded.

    Args:
        centre: put in the place of the mean, where the values are the influence that each row has on a figure.
    """
    numbers = np.asarray(values, dtype=np.float64).ravel()
    value = float(numbers.mean()) if centre is None else centre
    if len(numbers) < 2:
        return Interval(value, -math.inf, math.inf)
    half = _student_t(len(numbers) - 1, confidence) * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    return Interval(value, value - half, value + half)


def relative_spread(values: ArrayLike) -> float:
    """Standard deviation of positive values over their mean, as a fraction; 0 for a single value."""
    mean, deviation = _mean_and_deviation(np.asarray(values, dtype=np.float64).ravel().tolist())
    return deviation / mean


def _mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation, with n - 1 below the fraction line; that of a single value is 0."""
    # A run has thousands of these, of ten values each: over so few, numpy takes several times as long.
    mean = math.fsum(values) / len(values)
    squares = math.fsum([(v - mean) ** 2 for v in values])
    return mean, math.sqrt(squares / max(1, len(values) - 1))


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


def surely_differs(ratio: Interval, rounds: int) -> bool:
    """Whether a ratio differs from 1 by DECISION_CONFIDENCE.

    Args:
        ratio: with its interval at CONFIDENCE, as `location` and `paired_ratio` give it.
        rounds: how many values it comes from.
    """
    if rounds < 2 or not math.isfinite(ratio.high):
        return False
    wider = _student_t(rounds - 1, DECISION_CONFIDENCE) / _student_t(rounds - 1, CONFIDENCE)
    return abs(math.log(ratio.value)) > wider * math.log(ratio.high / ratio.value)


def proportion(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Share of successes with its Wilson score interval; no trials give 0 with the interval 0 to 1.

    Source: Wilson, E. B. (1927), Journal of the American Statistical Association 22, 209-212.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"0 <= successes <= trials. Received: {successes} of {trials}")
    if trials == 0:
        return Interval(0.0, 0.0, 1.0)
    z, share = normal_quantile(0.5 + confidence / 2), successes / trials
    shrunk = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / shrunk
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2) / shrunk
    # Rounding must not put an end beyond what is possible, or the share outside of its own interval.
    low = 0.0 if successes == 0 else min(centre - half, share)
    high = 1.0 if successes == trials else max(centre + half, share)
    return Interval(share, low, high)


NORMAL_95 = 1.6448536269514722
"""`normal_quantile(0.95)`, for modules that load no scipy: one end of a bound of 95%, or of an interval of 90%."""


@cache
def normal_quantile(probability: float) -> float:
    """The standard normal quantile."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def exact_proportion(successes: float, trials: float, confidence: float = CONFIDENCE) -> Interval:
    """Share of successes with its exact binomial interval; no trials give 0 with the interval 0 to 1.

    Numbers that are no whole ones stand for observations that hang together: an effective number of them.

    Source: Clopper, C. J. and Pearson, E. S. (1934), Biometrika 26, 404-413.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"0 <= successes <= trials. Received: {successes} of {trials}")
    if trials == 0:
        return Interval(0.0, 0.0, 1.0)
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return Interval(successes / trials, low, high)


def ratio_probability(log_ratios: ArrayLike) -> float:
    """Probability that the true ratio is below 1, given logarithms of ratios: a t distribution around their mean.

    This is the one-sided p-value of the paired t test, read as a belief with a flat prior. One ratio gives 0.5.
    """
    logs = np.asarray(log_ratios, dtype=np.float64)
    if logs.size < 2:
        return 0.5
    error = float(logs.std(ddof=1)) / math.sqrt(logs.size)
    return _below(float(logs.mean()), error, logs.size - 1)


def _below(mean: float, error: float, degrees: float) -> float:
    """Probability of a value below 0 around `mean`."""
    if error == 0:
        return 0.5 if mean == 0 else float(mean < 0)
    from scipy.special import stdtr

    return float(stdtr(degrees, -mean / error))


class IndependentRatio(NamedTuple):
    """A ratio of two cells that were not measured side by side."""

    ratio: Interval
    probability_below_1: float


def independent_ratio(
    numerators: ArrayLike, denominators: ArrayLike, confidence: float = CONFIDENCE
) -> IndependentRatio:
    """Ratio of the geometric means of two sets of positive values, each of any length of at least 1.

    The interval is Welch's, on logarithms. It knows nothing of what changed on the machine between the two sets. With
    one value on a side it reaches from 0 to infinity.

    Source: Welch, B. L. (1947), Biometrika 34, 28-35.

    Raises:
        ValueError: one of the two is empty.
    """
    a, b = (np.log(np.asarray(v, dtype=np.float64)) for v in (numerators, denominators))
    if a.size == 0 or b.size == 0:
        raise ValueError(f"independent_ratio wants two non-empty arrays. Received: {a.size} and {b.size} values")
    mean = float(a.mean() - b.mean())
    if min(a.size, b.size) < 2:
        return IndependentRatio(Interval(math.exp(mean), 0.0, math.inf), 0.5)
    parts = [float(v.var(ddof=1)) / v.size for v in (a, b)]
    error = math.sqrt(sum(parts))
    if error == 0:
        centre = math.exp(mean)
        return IndependentRatio(Interval(centre, centre, centre), _below(mean, 0.0, 1))
    degrees = sum(parts) ** 2 / sum(p**2 / (v.size - 1) for p, v in zip(parts, (a, b), strict=True))
    from scipy.special import stdtrit

    half = float(stdtrit(degrees, 0.5 + confidence / 2)) * error
    interval = Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
    return IndependentRatio(interval, _below(mean, error, degrees))


def samples_for_tail(fraction: float, confidence: float = TAIL_CONFIDENCE) -> int:
    """Fewest samples after which the second largest lies above the `fraction` percentile with this confidence.

    662 for the p99 and 64 for the p90 at 99%, the numbers of the MLPerf inference rules: the least n for which at most
    one of n samples falls above the percentile with probability fraction^n + n (1 - fraction) fraction^(n - 1) <= 1%.

    Source: order statistics, Wilks, S. S. (1941), Annals of Mathematical Statistics 12, 91-96.
    """
    n = 2
    while fraction**n + n * (1 - fraction) * fraction ** (n - 1) > 1 - confidence:
        n += 1
    return n


@cache
def most_above(count: int, fraction: float, confidence: float = TAIL_CONFIDENCE) -> int:
    """Most of `count` samples that may lie above a limit, if the `fraction` percentile is to lie below it.

    1 of 662 for the p99, and 1 of 64 for the p90, at 99%: the largest k for which a percentile above the limit would
    leave at most k samples there with probability 1 - confidence or less.

    Args:
        count: independent samples, at least `samples_for_tail(fraction, confidence)`.

    Raises:
        ValueError: fewer.

    Source: the exact binomial test of a quantile (Conover, Practical Nonparametric Statistics, 1999, 3.2).
    """
    if count < (least := samples_for_tail(fraction, confidence)):
        raise ValueError(f"p{round(100 * fraction)} wants at least {least} samples. Received: {count}")
    from scipy.special import bdtr

    # Of `count` samples: the probability that at most k lie above the percentile, for every k
    at_most = bdtr(np.arange(count), count, 1 - fraction)
    return int(np.searchsorted(at_most, 1 - confidence, side="right")) - 1


class Tail(NamedTuple):
    """The highest percentile that a number of samples shows."""

    fraction: float
    interval: Interval

    @property
    def name(self) -> str:
        """Such as `p99`."""
        return f"p{round(self.fraction * 100)}"


TAILS = (0.99, 0.97, 0.95, 0.90)


def tail(samples: Sequence[int], confidence: float = CONFIDENCE) -> Tail | None:
    """The highest of p99, p97, p95 and p90 that the number of samples allows, in their unit; None under 64.

    The interval runs between two order statistics, found by the exact binomial distribution, and holds for any
    distribution of the samples, so long as they are independent. Its upper end is at most the largest sample, which is
    why `samples_for_tail` is asked for.

    Source: the textbook interval for a quantile (David, H. A. and Nagaraja, H. N. (2003), Order Statistics, 7.1).
    """
    count = len(samples)
    fraction = next((f for f in TAILS if count >= _needed(f)), None)
    if fraction is None:
        return None
    return Tail(fraction, _percentile(samples, fraction, confidence))


def percentile(samples: Sequence[int], fraction: float, confidence: float = CONFIDENCE) -> Interval | None:
    """One percentile with its interval, as `tail` gives it; None under `samples_for_tail(fraction)` samples."""
    return _percentile(samples, fraction, confidence) if len(samples) >= _needed(fraction) else None


def _percentile(samples: Sequence[int], fraction: float, confidence: float) -> Interval:
    count, ordered = len(samples), sorted(samples)
    low, high = _tail_places(count, fraction, confidence)
    place = (count - 1) * fraction
    below = int(place)
    above = min(below + 1, count - 1)
    value = ordered[below] + (ordered[above] - ordered[below]) * (place - below)
    return Interval(float(value), float(ordered[low]), float(ordered[high]))


@cache
def _tail_places(count: int, fraction: float, confidence: float) -> tuple[int, int]:
    """Places of the two order statistics between which a percentile lies."""
    from scipy.special import bdtr

    # Of `count` samples: the probability that at most k lie below the percentile, for every k
    at_most = bdtr(np.arange(count), count, fraction)
    alpha = 1 - confidence
    low = int(np.searchsorted(at_most, alpha / 2, side="right"))
    high = int(np.searchsorted(at_most, 1 - alpha / 2, side="left"))
    return max(low - 1, 0), min(high, count - 1)


@cache
def _needed(fraction: float) -> int:
    return samples_for_tail(fraction)


def window_spread(step_ns: Sequence[int]) -> float | None:
    """How far the medians of the last three windows of a warm-up lie apart, as a fraction; None under 3 steps.

    A window is a quarter of all steps, so that it grows with the warm-up and its beginning is forgotten.
    """
    size = max(1, len(step_ns) // (SETTLED_WINDOWS + 1))
    if len(step_ns) < SETTLED_WINDOWS * size:
        return None
    ends = [len(step_ns) - size * i for i in range(SETTLED_WINDOWS)]
    medians = [statistics.median(step_ns[end - size : end]) for end in ends]
    return max(medians) / min(medians) - 1


def has_settled(step_ns: Sequence[int]) -> bool:
    """Whether a warm-up of these steps has settled; see SETTLED_WITHIN."""
    spread = window_spread(step_ns)
    return spread is not None and spread <= SETTLED_WITHIN
