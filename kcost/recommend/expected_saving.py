"""What an untried way is expected to save, from its bound and from how near the measured ways came to theirs."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

LEAST_SPREAD = 0.5
"""Least deviation of the logarithm of an efficiency: a few ways that happen to be alike don't make the next one so."""

SIBLING_SPREAD = 0.35
"""The same around the efficiency of a way of the same kind, such as one runtime in another precision: an assumption."""

KIN_SPREAD = 0.4
"""Deviation of the logarithm of what two programs of one graph take, each in its runtime: an assumption."""

QUANTILES = 40
"""Points that the expectation is taken over."""


class Efficiencies(NamedTuple):
    """How near measured ways came to their bounds: bound over cost, 0 to 1."""

    values: tuple[float, ...]
    slow: int
    """How many of them are of the slow kind, conversions and compilations, as the untried are."""
    most: float = 1.0
    """The highest that one may have: lower than 1 of a precision that fell short of its peak where it was measured."""
    sibling: float | None = None
    """That of the same program in another precision or with other threads; None where none was measured."""


def expected_saving(bound: float, seen: Efficiencies) -> float:
    """The expected saving over the best so far, as a part of its cost.

    The cost of an untried way is its bound over its efficiency. That is drawn from two distributions. One is the
    predictive distribution of those that were seen, in logarithms. The other knows nothing: even between the worst one
    seen and 1. It stands for a converter that may do better than all of Keras, and its weight falls as slow ways are
    measured. A way whose sibling was measured is drawn around that alone.

    Args:
        bound: of the way, over the cost of the best so far.
        seen: of the ways that were measured.

    Source: Gelman et al. (2013), Bayesian Data Analysis, 3rd edition, section 3.2, for the predictive distribution of a
    normal sample, with the normal in the place of Student's t.

    Examples:
        >>> seen = Efficiencies((0.3, 0.4, 0.5), slow=1)
        >>> round(expected_saving(0.3, seen), 2), round(expected_saving(0.8, seen), 2)
        (0.37, 0.02)
    """
    if bound >= 1:
        return 0.0

    def saving(drawn: list[float]) -> float:
        return sum(max(0.0, 1 - bound / e) for e in drawn) / QUANTILES

    points = _points()
    if seen.sibling is not None:
        return saving(_drawn(math.log(seen.sibling), SIBLING_SPREAD, seen.most, points))
    efficiencies = [min(1.0, e) for e in seen.values if e > 0]
    if not efficiencies:
        return 1 - bound
    unknown = 1 / (1 + seen.slow)
    least = min(seen.most, *efficiencies)
    even = [least + (seen.most - least) * p for p in points]
    logs = [math.log(e) for e in efficiencies]
    count, mean = len(logs), sum(logs) / len(logs)
    spread = math.sqrt(sum((v - mean) ** 2 for v in logs) / max(1, count - 1))
    spread = max(LEAST_SPREAD, spread) * math.sqrt(1 + 1 / count)
    return unknown * saving(even) + (1 - unknown) * saving(_drawn(mean, spread, seen.most, points))


def saving_of_kin(best_usd: float, kin_usd: float, floor_usd: float, bound_usd: float) -> float:
    """The expected saving over the best so far, as a part of its cost, of a way whose kin was measured.

    Kin is the same graph in another runtime. Of a bill what is above the smallest one goes with the time of a step, and
    that of the untried way is drawn around that of its kin.

    Args:
        kin_usd: what the kin costs.
        floor_usd: the smallest bill there is.
        bound_usd: the least that the untried way could cost.

    Examples:
        >>> round(saving_of_kin(100, 100, 20, 20), 2), round(saving_of_kin(100, 150, 20, 20), 2)
        (0.1, 0.01)
    """
    above_usd = max(0.0, kin_usd - floor_usd)
    drawn = [max(bound_usd, floor_usd + above_usd * e) for e in _drawn(0.0, KIN_SPREAD, math.inf, _points())]
    return sum(max(0.0, 1 - usd / best_usd) for usd in drawn) / QUANTILES


def _points() -> list[float]:
    """Quantiles in the middle of equal parts."""
    return [(i + 0.5) / QUANTILES for i in range(QUANTILES)]


def _drawn(mean: float, spread: float, most: float, points: list[float]) -> list[float]:
    """Values at some quantiles of a normal of their logarithms, none above the highest."""
    return [min(most, math.exp(mean + spread * NormalDist().inv_cdf(p))) for p in points]
