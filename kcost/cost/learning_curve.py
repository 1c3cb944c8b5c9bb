"""What more labels would bring: a power law with saturation through scores at several sizes and seeds, with its
interval.

    error(n) = floor + scale * n^-exponent

floor is what no number of labels takes away. For a given exponent the other two are a linear regression, so the
exponent is gone through on a grid, each weighted by how well it explains the errors.

Source: Hestness, J. et al. (2017), Deep Learning Scaling is Predictable, Empirically, arXiv:1712.00409, for the form;
Gelman et al. (2013), Bayesian Data Analysis, 14.2, for the regression.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import Record

EXPONENTS = np.linspace(0.05, 1.5, 59)
"""Those of real tasks lie between 0.07 and 0.5 in the source; steeper ones are those of easy tasks at small sizes."""

FEWEST_SIZES = 3
DRAWS = 4_000
MOST_TRIES = 50
TAIL = 0.05


class Forecast(Record):
    """The score that a size would give, with its 90% interval."""

    labels: float
    score: float = Field(description="median of the draws")
    low: float
    high: float


class LearningCurve(NamedTuple):
    """Curves that explain the scores, drawn as often as they are probable."""

    floor: np.ndarray
    """Error that remains with any number of labels, shape (draws,)."""
    scale: np.ndarray
    exponent: np.ndarray
    noise: np.ndarray
    """Scatter of a score by seed, as a part of its error, shape (draws,)."""
    normal: np.ndarray
    """Standard normal numbers, shape (draws,): by which a new score is off its curve."""

    def errors(self, labels: float) -> np.ndarray:
        """Mean error at a number of labels, shape (draws,)."""
        return self.floor + self.scale * labels**-self.exponent

    def at(self, labels: float, seeds: int = 1) -> Forecast:
        """The mean score of some seeds that were trained with so many labels.

        Raises:
            InputError: no label, or no seed.
        """
        if not labels > 0 or seeds < 1:
            raise InputError("A forecast is for a positive number of labels and a seed.", received=(labels, seeds))
        errors = self.errors(labels)
        scores = 1 - errors * (1 + self.noise * self.normal / math.sqrt(seeds))
        low, middle, high = np.quantile(scores, [TAIL, 0.5, 1 - TAIL])
        return Forecast(labels=labels, score=float(middle), low=float(low), high=float(high))

    def labels_for_gain(self, labels: float, gain: float) -> np.ndarray:
        """Labels at which each curve is `gain` above where it is at `labels`, shape (draws,); infinite where it never
        gets there."""
        return self.labels_for(1 - self.errors(labels) + gain)

    def labels_for(self, score: float | np.ndarray) -> np.ndarray:
        """Labels at which the mean of each curve is at a score, shape (draws,); infinite where it never gets there.

        Args:
            score: one for all curves, or one for each, shape (draws,).
        """
        reach = 1 - score - self.floor
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            needed: np.ndarray = np.where(reach > 0, (self.scale / reach) ** (1 / self.exponent), math.inf)
        return needed


def fit_curve(scores: Mapping[float, Sequence[float]], seed: int = 0) -> LearningCurve:
    """Fits the scores of several sizes.

    A score's scatter is taken to be a part of its error, the same at all sizes.

    Args:
        scores: number of labels -> the scores of some seeds, each at least 0 and less than 1.
        seed: of the draws.

    Raises:
        InputError: fewer than three sizes or four scores, or a score out of its range.
    """
    labels = np.array([n for n, values in scores.items() for _ in values], dtype=np.float64)
    errors = 1 - np.array([v for values in scores.values() for v in values], dtype=np.float64)
    sizes = len(np.unique(labels))
    if sizes < FEWEST_SIZES or len(errors) <= FEWEST_SIZES:
        raise InputError(
            "A learning curve is fitted to three sizes and four scores at least.",
            received=f"{_counted(sizes, 'size')}, {_counted(len(errors), 'score')}",
            remedy="Train at more sizes, or with more seeds.",
        )
    if not (np.all(np.isfinite(errors) & (errors > 0) & (errors <= 1)) and np.all(labels > 0)):
        raise InputError(
            "A score is at least 0 and less than 1, at a positive number of labels.", received=dict(scores)
        )
    levels = np.array([errors[labels == n].mean() for n in labels])  # a part of the error, so weights are its inverse
    weights, means, roots, squares = [], [], [], []
    degrees = len(errors) - 2
    for exponent in EXPONENTS:
        design = np.stack([np.ones_like(labels), (labels / labels.max()) ** -exponent], axis=1) / levels[:, None]
        target = errors / levels
        inverse = np.linalg.pinv(design.T @ design)
        mean = inverse @ design.T @ target
        rest = max(float(((target - design @ mean) ** 2).sum()), 1e-12)
        sign, log_determinant = np.linalg.slogdet(inverse)
        weights.append((log_determinant if sign > 0 else -math.inf) / 2 - degrees / 2 * math.log(rest))
        means.append(mean)
        roots.append(np.linalg.cholesky(inverse + 1e-15 * np.eye(2)))
        squares.append(rest)
    return _drawn(np.array(weights), means, roots, squares, degrees, float(labels.max()), seed)


def _drawn(
    weights: np.ndarray,
    means: Sequence[np.ndarray],
    roots: Sequence[np.ndarray],
    squares: Sequence[float],
    degrees: int,
    largest: float,
    seed: int,
) -> LearningCurve:
    """Draws exponents by weight and the rest given them; a curve with a negative floor or scale is drawn again."""
    generator = np.random.default_rng(seed)
    probability = np.exp(weights - weights.max())
    probability /= probability.sum()
    kept: list[np.ndarray] = []
    count = 0
    for _ in range(MOST_TRIES):
        chosen = generator.choice(len(weights), DRAWS, p=probability)
        noise = np.sqrt(np.array(squares)[chosen] / generator.chisquare(degrees, DRAWS))
        normal = generator.standard_normal((DRAWS, 2))
        line = np.array(means)[chosen] + noise[:, None] * np.einsum("dij,dj->di", np.array(roots)[chosen], normal)
        good = (line[:, 0] >= 0) & (line[:, 1] >= 0)
        exponent = EXPONENTS[chosen]
        kept.append(np.stack([line[:, 0], line[:, 1] * largest**exponent, exponent, noise], axis=1)[good])
        count += int(good.sum())
        if count >= DRAWS:
            break
    if count == 0:
        raise InputError(
            "Scores grow with the number of labels.",
            received="scores through which no curve with growing scores goes",
            remedy="Train at sizes that lie further apart, or with more seeds.",
        )
    drawn = np.concatenate(kept)[:DRAWS]
    floor, scale, exponents, noises = drawn.T
    return LearningCurve(floor, scale, exponents, noises, generator.standard_normal(len(drawn)))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _ordered_at(ordered: np.ndarray, fraction: float) -> float:
    return float(ordered[round((len(ordered) - 1) * fraction)])


class LabelPoint(Record):
    """What raising a score by more labels costs."""

    from_labels: float
    to_labels: float | None = Field(description="None where half of the curves never get there")
    low_labels: float | None
    high_labels: float | None = Field(description="None where more than 5% of the curves never get there")
    usd: float | None
    low_usd: float | None
    high_usd: float | None


def price_of_score(curve: LearningCurve, labels: float, gain: float, usd_per_label: float) -> LabelPoint:
    """What it costs by more labels to raise the score at `labels` by `gain`.

    Args:
        gain: as a part of 1, such as 0.01 for a point.

    Raises:
        InputError: a gain or a price that is not positive.
    """
    if not (gain > 0 and usd_per_label > 0):
        raise InputError("A gain and the price of a label are positive.", received=(gain, usd_per_label))
    ordered = np.sort(curve.labels_for_gain(labels, gain))  # quantiles of what may be infinite are of its members
    reached = [n if math.isfinite(n) else None for n in (_ordered_at(ordered, f) for f in (0.5, TAIL, 1 - TAIL))]
    dollars = [None if n is None else max(0.0, n - labels) * usd_per_label for n in reached]
    return LabelPoint(
        from_labels=labels,
        to_labels=reached[0],
        low_labels=reached[1],
        high_labels=reached[2],
        usd=dollars[0],
        low_usd=dollars[1],
        high_usd=dollars[2],
    )
