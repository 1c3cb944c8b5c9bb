"""What a model gets right where it is let off its least sure answers, and from which confidence on to let it answer."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record
from kcost.core.stats import exact_proportion
from kcost.risk.figures import Figure, share

POINTS = 20
SURE = 0.95


class CoveragePoint(Record):
    """The error of the surest answers."""

    coverage: float = Field(description="share of the examples that are answered, the surest first")
    error: float = Field(description="share of these that are wrong")
    threshold: float = Field(description="confidence of the least sure of them")


class Abstention(Record):
    """A confidence below which a person answers instead, so that the rest meets a target."""

    target_error: float
    threshold: float | None = Field(description="least confidence to answer at; None where none meets the target")
    bound: float | None = Field(description="upper bound of the error at it on validation, at 95%")
    coverage: Figure | None = Field(description="share of test examples that are answered")
    error: Figure | None = Field(description="share of these that are wrong")


class RiskCoverage(Record):
    """Error against coverage on the test split. Of a tagger an example is a sentence: wrong where any word is, and as
    sure as its least sure word."""

    area: float = Field(description="mean error over all coverages; the least is that of a model that knows its errors")
    least_area: float
    points: tuple[CoveragePoint, ...]
    abstention: Abstention | None = None


def by_example(answers: SplitPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and whether it is wrong, of each example with a label: the least sure and any error of its labels."""
    confidence = np.full(len(answers), np.inf)
    np.minimum.at(confidence, answers.rows, answers.confidence)
    wrong = np.zeros(len(answers), bool)
    np.logical_or.at(wrong, answers.rows, ~answers.right)
    known = np.isfinite(confidence)
    return confidence[known], wrong[known]


def risk_coverage(test: SplitPredictions) -> RiskCoverage:
    """The curve of a split.

    Source: El-Yaniv and Wiener (2010), On the Foundations of Noise-free Selective Classification, JMLR 11; the area as
    Geifman, Uziel and El-Yaniv (2019), Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, have it.
    Examples of equal confidence are answered together: their errors are spread evenly among them.
    """
    confidence, wrong = by_example(test)
    order = np.argsort(-confidence, kind="stable")
    sure, ordered = confidence[order], wrong[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, sure[1:] < sure[:-1]])
    sizes = np.diff(np.r_[starts, len(sure)])
    even = np.repeat(np.add.reduceat(ordered, starts) / sizes, sizes)
    counts = np.arange(1, len(sure) + 1)
    errors = np.cumsum(even) / counts
    least = np.cumsum(np.sort(ordered)) / counts
    at = np.unique(np.maximum(1, np.round(len(sure) * np.arange(1, POINTS + 1) / POINTS)).astype(int)) - 1
    points = tuple(
        CoveragePoint(coverage=(i + 1) / len(sure), error=float(errors[i]), threshold=float(sure[i])) for i in at
    )
    return RiskCoverage(area=float(errors.mean()), least_area=float(least.mean()), points=points)


def abstention(validation: SplitPredictions, test: SplitPredictions, target_error: float, unit: str) -> Abstention:
    """The threshold with the most coverage whose error is at most the target, at 95%, and what it does on test.

    It is looked for on validation by bisection; each step tests one threshold by the exact binomial bound, at a level
    shared among the steps, so that the bound holds for the one that is chosen.

    Source: Geifman and El-Yaniv (2017), Selective Classification for Deep Neural Networks, NeurIPS: algorithm 1.
    """
    confidence, wrong = by_example(validation)
    order = np.argsort(-confidence, kind="stable")
    sure, errors = confidence[order], np.cumsum(wrong[order])
    steps = max(1, math.ceil(math.log2(len(sure) + 1)))
    # exact_proportion is two-sided: 1 - 2 x the one-sided level.
    level = 1 - 2 * (1 - SURE) / steps
    low, high = 0, len(sure)
    threshold: float | None = None
    bound_there: float | None = None
    while low < high:
        middle = (low + high + 1) // 2
        taken = int(np.searchsorted(-sure, -sure[middle - 1], side="right"))  # with all of equal confidence
        bound = exact_proportion(int(errors[taken - 1]), taken, level).high
        if bound <= target_error:
            low, threshold, bound_there = middle, float(sure[middle - 1]), bound
        else:
            high = middle - 1
    if threshold is None:
        return Abstention(target_error=target_error, threshold=None, bound=None, coverage=None, error=None)
    sure_of_test, wrong_of_test = by_example(test)
    answered = sure_of_test >= threshold
    return Abstention(
        target_error=target_error,
        threshold=threshold,
        bound=bound_there,
        coverage=share("coverage", int(answered.sum()), len(answered), unit),
        error=share("error_of_answered", int(wrong_of_test[answered].sum()), int(answered.sum()), unit),
    )
