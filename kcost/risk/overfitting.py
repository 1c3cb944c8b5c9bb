"""How much better a model is on what it has seen, and how much two models differ on the same examples."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record
from kcost.risk.figures import Figure, bootstrapped, share
from kcost.risk.scores import outcomes, score_name, score_of
from kcost.risk.slices import Columns, Search, search


def difference(name: str, a: Figure, b: Figure) -> Figure:
    """The first figure less the second, of different examples, with the interval that follows from both of theirs.

    Source: Newcombe (1998), Interval estimation for the difference between independent proportions, Statistics in
    Medicine 17, 873-890: method 10, with each figure's own interval in the place of Wilson's.
    """
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Figure(name=name, value=value, low=low, high=high, count=b.count, unit=b.unit)


class Flips(Record):
    """What became of each example from one model to another."""

    against: str
    answers_changed: Figure = Field(description="share of examples with another answer somewhere")
    lost: int = Field(description="examples that were right and are not now")
    gained: int
    drop: Figure = Field(description="of the main score, paired: positive where it is lower now")
    lost_on: Search = Field(description="slices on which lost examples fall")


def flips(before: SplitPredictions, after: SplitPredictions, against: str, columns: Columns, unit: str) -> Flips:
    """Which examples flip, whether they fall on a slice, and the paired drop with a bootstrap interval.

    Raises:
        ValueError: the two are not of the same examples.
    """
    if not (np.array_equal(before.examples, after.examples) and np.array_equal(before.labels, after.labels)):
        raise ValueError("Flips are between answers to the same examples")
    changed = np.zeros(len(after), bool)
    np.logical_or.at(changed, after.rows, before.predicted != after.predicted)
    was, now = _all_right(before), _all_right(after)
    return Flips(
        against=against,
        answers_changed=share("answers_changed", int(changed.sum()), len(after), unit),
        lost=int((was & ~now).sum()),
        gained=int((~was & now).sum()),
        drop=paired_drop(before, after, unit),
        lost_on=search(was & ~now, columns),
    )


def _all_right(answers: SplitPredictions) -> np.ndarray:
    right = np.ones(len(answers), bool)
    np.logical_and.at(right, answers.rows, answers.right)
    return right


def paired_drop(before: SplitPredictions, after: SplitPredictions, unit: str) -> Figure:
    """How far the main score falls from one set of answers to another, with a bootstrap over the examples of both.

    Positive where it is lower after. Labels may differ, as those of a sentence with other names in it do.

    Raises:
        ValueError: the two are not of the same examples.
    """
    if not np.array_equal(before.examples, after.examples):
        raise ValueError("A paired drop is between answers to the same examples")
    old, new = outcomes(before), outcomes(after)
    columns = old.shape[1]

    def drop(sums: np.ndarray) -> np.ndarray:
        lower: np.ndarray = score_of(sums[:, :columns]) - score_of(sums[:, columns:])
        return lower

    name = f"{score_name(after)}_drop"
    figure = bootstrapped(name, np.concatenate([old, new], 1), drop, unit, lowest=-1.0, highest=1.0)
    if figure.low < figure.high:
        return figure
    # All resamples agree, as where nothing changed: what may still change is bounded as for no event in as many.
    most = share(name, 0, len(old), unit).high
    return figure.model_copy(update={"low": max(-1.0, figure.value - most), "high": min(1.0, figure.value + most)})
