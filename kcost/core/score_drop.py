"""What a change cost a model in quality: a paired test, as both models answered the same examples."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.core.scores import f1_of
from kcost.core.stats import NORMAL_95

ONE_SIDED = 0.95
"""Confidence of the bound: the true drop is at most this in 95 of 100 such samples."""

RESAMPLES = 2000
BOOTSTRAP_SEED = 0


class ScoreDrop(Record):
    """How much lower a score is than before, both as fractions of 1; negative where it rose."""

    score: str = Field(description="name of the score that dropped")
    before: float
    after: float
    value: float = Field(description="before minus after")
    bound: float = Field(description="one-sided 95% upper bound of the true drop")
    p_value: float | None = Field(description="of McNemar's exact test that nothing changed; None for F1")
    method: str
    count: int
    unit: str


def accuracy_drop(before: np.ndarray, after: np.ndarray, unit: str = "examples") -> ScoreDrop:
    """The drop of an accuracy.

    Sources: McNemar (1947), Psychometrika 12, 153-157, in its exact form, for the p-value; Agresti and Min (2005),
    Statistics in Medicine 24, 729-740, for the bound (half an example is added to each of the four cells).

    Args:
        before, after: 1 where the model was right, 0 where not, on the same examples; shape (n,), integers.

    Raises:
        ValueError: the two differ in shape, or are empty.
    """
    _check(before, after, 1)
    count = len(before)
    lost = int(((before == 1) & (after == 0)).sum())
    gained = int(((before == 0) & (after == 1)).sum())
    from scipy import stats

    p_value = float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
    total, b, c = count + 2, lost + 0.5, gained + 0.5
    centre = (b - c) / total
    spread = math.sqrt((b + c) / total - centre**2) / math.sqrt(total)
    return ScoreDrop(
        score="accuracy",
        before=float(before.mean()),
        after=float(after.mean()),
        value=(lost - gained) / count,
        bound=min(1.0, centre + NORMAL_95 * spread),
        p_value=p_value,
        method="McNemar's exact test; Agresti and Min's bound",
        count=count,
        unit=unit,
    )


def f1_drop(before: np.ndarray, after: np.ndarray, unit: str = "sentences", score: str = "entity_f1") -> ScoreDrop:
    """The drop of a micro F1, by a paired bootstrap over examples.

    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13: the percentile bound.

    Args:
        before, after: what was found, wrongly found and missed in each example, shape (n, 3), integers.

    Raises:
        ValueError: the two differ in shape, or are empty.
    """
    _check(before, after, 2)
    # Examples with equal counts are drawn as one, with their share: the same distribution, a fraction of the work.
    kinds, times = np.unique(np.concatenate([before, after], axis=1), axis=0, return_counts=True)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    draws = rng.multinomial(len(before), times / len(before), size=RESAMPLES) @ kinds
    drops = f1_of(draws[:, :3]) - f1_of(draws[:, 3:])
    old, new = float(f1_of(before.sum(axis=0))), float(f1_of(after.sum(axis=0)))
    return ScoreDrop(
        score=score,
        before=old,
        after=new,
        value=old - new,
        bound=float(np.quantile(drops, ONE_SIDED)),
        p_value=None,
        method=f"paired bootstrap, {RESAMPLES} resamples of {unit}",
        count=len(before),
        unit=unit,
    )


def r2_drop(before: np.ndarray, after: np.ndarray, unit: str = "examples") -> ScoreDrop:
    """The drop of an R2, by the influence that each example has on it.

    Source: the delta method, as Efron and Tibshirani (1993), chapter 22, have it; one-sided Student t.

    Args:
        before, after: squared errors and squared distances of the labels from their mean in the same unit, shape
            (n, 2), floats, as `answer_scores.outcomes_of` gives them. The second column, of the labels, is equal in
            both.

    Raises:
        ValueError: the two differ in shape, or are empty.
    """
    _check(before, after, 2)
    errors, changed, deviations = before[:, 0], after[:, 0] - before[:, 0], before[:, 1]
    variance = float(deviations.mean())
    value = float(changed.mean()) / variance
    influence = (changed - value * deviations) / variance
    bound = math.inf
    if len(before) > 1:
        from scipy import stats

        limit = float(stats.t.ppf(ONE_SIDED, len(before) - 1))
        bound = value + limit * float(influence.std(ddof=1)) / math.sqrt(len(before))
    return ScoreDrop(
        score="r2",
        before=1 - float(errors.mean()) / variance,
        after=1 - float(after[:, 0].mean()) / variance,
        value=value,
        bound=bound,
        p_value=None,
        method="delta method on paired squared errors, one-sided Student t",
        count=len(before),
        unit=unit,
    )


def score_drop(before: np.ndarray, after: np.ndarray, unit: str, score: str | None = None) -> ScoreDrop:
    """The drop of a task's main score from the outcomes of two models: see `Task.outcomes`.

    Args:
        score: its name, where it is an F1 of other things than entities.
    """
    columns = before.shape[1]
    if columns == 1:
        return accuracy_drop(before[:, 0], after[:, 0], unit)
    return r2_drop(before, after, unit) if columns == 2 else f1_drop(before, after, unit, score or "entity_f1")


def _check(before: np.ndarray, after: np.ndarray, axes: int) -> None:
    if before.shape != after.shape or before.ndim != axes or not len(before):
        raise ValueError(f"Outcomes of the same examples, {axes} axes. Received: {before.shape} and {after.shape}")
