"""A figure with its interval, and how intervals of figures over examples are taken."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.core.stats import CONFIDENCE, exact_proportion, normal_quantile

RESAMPLES = 1000
SEED = 0
"""Fixed, so that the same predictions always give the same interval."""

MOST_DRAWN = 500
"""Up to as many different rows are drawn one by one. Sums over more are taken as normal: what a bootstrap of sums of
so many rows tends to, in a hundredth of the time."""


class Figure(Record):
    """One figure with its 95% interval, and what it rests on."""

    name: str
    value: float
    low: float = Field(description="lower end of the 95% interval")
    high: float = Field(description="upper end of the 95% interval")
    count: int = Field(ge=0, description="examples that it rests on: those that more labels would add to")
    unit: str = Field(description="what `count` counts")

    @property
    def standard_error(self) -> float:
        """About a quarter of the interval's width: half of it over the normal quantile of 95%."""
        return (self.high - self.low) / (2 * normal_quantile(0.5 + CONFIDENCE / 2))


def sums_by_row(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Values summed by the example they are of: shape (count, columns), float64.

    Args:
        values: shape (m, columns) or (m,), numbers.
        rows: the example of each, shape (m,), integers in 0 to count - 1.
    """
    columns = values.reshape(len(values), -1).astype(np.float64)
    sums = np.zeros((count, columns.shape[1]))
    np.add.at(sums, rows, columns)
    return sums


def resampled_sums(sums: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Column sums over resamples of the rows, drawn with replacement: shape (resamples, columns), float64.

    Rows are examples, so that the words of one sentence are drawn together.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 6 and 8.

    Args:
        sums: shape (n, columns), numbers.
    """
    rng = np.random.default_rng(seed)
    kinds, times = np.unique(sums, axis=0, return_counts=True)
    if len(kinds) <= MOST_DRAWN:
        # Equal rows are drawn as one, with their share: the same distribution, less work.
        drawn: np.ndarray = rng.multinomial(len(sums), times / len(sums), size=resamples).astype(np.float64) @ kinds
        return drawn
    covariance = len(sums) * np.cov(sums, rowvar=False, bias=True).reshape(sums.shape[1], -1)
    around: np.ndarray = sums.sum(0) + correlated_noise(covariance, resamples, rng)
    return around


def correlated_noise(covariance: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Normal noise around 0, shape (count, columns), float64.

    It is made with the symmetric root of the covariance, which is the only one: roots by other ways depend on signs
    that libraries of linear algebra choose differently, and figures would differ between machines.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    noise: np.ndarray = rng.standard_normal((count, len(covariance))) @ root
    return noise


def bootstrapped(
    name: str,
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    unit: str,
    *,
    lowest: float = -math.inf,
    highest: float = math.inf,
    seed: int = SEED,
) -> Figure:
    """A statistic of column sums with the percentile interval of a bootstrap over examples.

    Args:
        sums: shape (n, columns): what each example adds.
        statistic: (k, columns) column sums -> (k,) values.
        lowest, highest: what the figure can be at all.
    """
    value = float(statistic(sums.sum(0, keepdims=True))[0])
    draws = statistic(resampled_sums(sums, seed=seed))
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Figure(
        name=name,
        value=value,
        low=max(lowest, min(float(low), value)),
        high=min(highest, max(float(high), value)),
        count=len(sums),
        unit=unit,
    )


def share(name: str, right: int, count: int, unit: str) -> Figure:
    """A share with its exact binomial interval; no example gives 0 with 0 to 1."""
    exact = exact_proportion(right, count)
    return Figure(name=name, value=exact.value, low=exact.low, high=exact.high, count=count, unit=unit)


def mean_by_row(
    name: str, values: np.ndarray, rows: np.ndarray, count: int, unit: str, highest: float = math.inf
) -> Figure:
    """The mean of values of at least 0 over all labels, with an interval that keeps those of one example together."""
    both = np.stack([values.astype(np.float64), np.ones(len(values))], 1)
    return bootstrapped(name, sums_by_row(both, rows, count), _ratio, unit, lowest=0.0, highest=highest)


def _ratio(sums: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = sums[:, 0] / np.maximum(sums[:, 1], 1)
    return ratio
