"""The main score of stored predictions, of all of them or of some examples, with its interval."""

from __future__ import annotations

import numpy as np

from kcost.core.predictions import SplitPredictions
from kcost.core.scores import f1_of
from kcost.risk.figures import Figure, bootstrapped, share


def outcomes(answers: SplitPredictions) -> np.ndarray:
    """What each example adds to the main score, shape (n, columns), int64.

    Of a classifier right answers and answers; of a tagger entities found, wrongly found and missed.
    """
    if answers.entity_counts is not None:
        return np.asarray(answers.entity_counts.sum(1), np.int64)
    both = np.stack([answers.right, np.ones(len(answers.right), bool)], 1).astype(np.int64)
    sums = np.zeros((len(answers), 2), np.int64)
    np.add.at(sums, answers.rows, both)
    return sums


def score_name(answers: SplitPredictions) -> str:
    """entity_f1 of a tagger, accuracy of what answers a class."""
    return "accuracy" if answers.entity_counts is None else "entity_f1"


def score_of(sums: np.ndarray) -> np.ndarray:
    """The main score from column sums of `outcomes`, shape (k, 2) or (k, 3): shape (k,)."""
    if sums.shape[1] == 3:
        return f1_of(sums)
    accuracy: np.ndarray = sums[:, 0] / np.maximum(sums[:, 1], 1)
    return accuracy


def main_score(answers: SplitPredictions, unit: str, chosen: np.ndarray | None = None) -> Figure:
    """The score of a split, or of chosen examples: accuracy with its exact interval, entity F1 with a bootstrap's.

    Args:
        chosen: which examples, shape (n,), bool; None for all. With no example among them the figure is 0, 0 to 1.
    """
    sums = outcomes(answers) if chosen is None else outcomes(answers)[chosen]
    name = score_name(answers)
    if name == "accuracy" and bool((sums[:, 1] <= 1).all()):
        return share(name, int(sums[:, 0].sum()), int(sums[:, 1].sum()), unit)
    if not sums.sum():
        return Figure(name=name, value=0.0, low=0.0, high=1.0, count=len(sums), unit=unit)
    figure = bootstrapped(name, sums, score_of, unit, lowest=0.0, highest=1.0)
    if figure.low < figure.high:
        return figure
    # All resamples agree, which says nothing of what was not drawn: the exact interval of examples without an error.
    exact = share(name, len(sums) if figure.value == 1 else 0, len(sums), unit)
    return figure.model_copy(update={"low": min(figure.value, exact.low), "high": max(figure.value, exact.high)})
