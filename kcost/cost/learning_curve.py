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
from scipy.special import log_ndtr, ndtri_exp, stdtr

from kcost.core.errors import InputError
from kcost.core.schema import Record

EXPONENTS = np.linspace(0.05, 1.5, 59)
"""Those of real tasks lie between 0.07 and 0.5 in the source; steeper ones are those of easy tasks at small sizes."""

FEWEST_SIZES = 3
DRAWS = 4_000
DRAWS_PER_EXPONENT = 1_000
TAIL = 0.05
LEAST_GROWTH_PROBABILITY = 1e-4
"""Of scores that grow with the labels: below it they are refused."""


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
    fits = [_fit(float(exponent), errors, labels / labels.max(), levels) for exponent in EXPONENTS]
    return _drawn(fits, len(errors) - 2, float(labels.max()), np.random.default_rng(seed))


class _Fit(NamedTuple):
    """The regression at one exponent, of errors on the part of the largest size."""

    log_weight: float
    """How well it explains the errors."""
    floor: float
    scale: float
    root: np.ndarray
    """Cholesky root of the covariance of floor and scale without the scatter, shape (2, 2)."""
    squares: float
    """Sum of the squared parts by which errors are off."""


def _fit(exponent: float, errors: np.ndarray, sizes: np.ndarray, levels: np.ndarray) -> _Fit:
    design = np.stack([np.ones_like(sizes), sizes**-exponent], axis=1) / levels[:, None]
    target = errors / levels
    inverse = np.linalg.pinv(design.T @ design)
    mean = inverse @ design.T @ target
    squares = max(float(((target - design @ mean) ** 2).sum()), 1e-12)
    sign, log_determinant = np.linalg.slogdet(inverse)
    log_weight = (log_determinant if sign > 0 else -math.inf) / 2 - (len(errors) - 2) / 2 * math.log(squares)
    root = np.linalg.cholesky(inverse + 1e-15 * np.eye(2))
    return _Fit(log_weight, float(mean[0]), float(mean[1]), root, squares)


def _drawn(fits: Sequence[_Fit], degrees: int, largest: float, generator: np.random.Generator) -> LearningCurve:
    """Curves whose floor and scale are not negative, as often as they are probable.

    Scores that rise ever faster are explained best by a floor below zero, and then next to no free draw is such a
    curve. So floor and scale are drawn from the half of their distribution that is allowed, and a curve is kept by the
    probability of that half.
    """
    shape = (len(fits), DRAWS_PER_EXPONENT)
    log_weight, floor, scale, squares = (
        np.array([getattr(fit, name) for fit in fits])[:, None] for name in ("log_weight", "floor", "scale", "squares")
    )
    roots = np.stack([fit.root for fit in fits])[:, :, :, None]
    spreads = np.sqrt(squares[:, 0] / degrees) * np.hypot(*roots[:, 1, :, 0].T)
    _refuse_falling(log_weight[:, 0], scale[:, 0], spreads, degrees)
    noise = np.sqrt(squares / generator.chisquare(degrees, shape))
    floor_z, log_floor_allowed = _normal_above(-floor / (noise * roots[:, 0, 0]), generator)
    scale_z, log_scale_allowed = _normal_above(-(scale / noise + roots[:, 1, 0] * floor_z) / roots[:, 1, 1], generator)
    floors = np.maximum(floor + noise * roots[:, 0, 0] * floor_z, 0)  # rounding ends a hair below zero
    scales = np.maximum(scale + noise * (roots[:, 1, 0] * floor_z + roots[:, 1, 1] * scale_z), 0)
    log_weights = (log_weight + log_floor_allowed + log_scale_allowed).ravel()
    weights = np.exp(log_weights - log_weights.max())
    kept = generator.choice(weights.size, DRAWS, p=weights / weights.sum())
    exponents = np.broadcast_to(EXPONENTS[:, None], shape).ravel()[kept]
    return LearningCurve(
        floor=floors.ravel()[kept],
        scale=scales.ravel()[kept] * largest**exponents,
        exponent=exponents,
        noise=noise.ravel()[kept],
        normal=generator.standard_normal(DRAWS),
    )


def _refuse_falling(log_weights: np.ndarray, scales: np.ndarray, spreads: np.ndarray, degrees: int) -> None:
    """Raises InputError where it is next to certain that scores fall with more labels.

    The scatter is estimated from the same scores: at each exponent the scale has Student's t distribution.
    """
    weights = np.exp(log_weights - log_weights.max())
    grows = float((weights * stdtr(degrees, scales / spreads)).sum() / weights.sum())
    if grows < LEAST_GROWTH_PROBABILITY:
        raise InputError(
            "Scores grow with the number of labels.",
            received="scores through which no curve with growing scores goes",
            remedy="Train at sizes that lie further apart, or with more seeds.",
        )


def _normal_above(least: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal numbers that are at least `least`, and the logarithm of the probability of such; its shape."""
    log_allowed = log_ndtr(-least)
    return -ndtri_exp(np.log1p(-generator.random(least.shape)) + log_allowed), log_allowed


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
