"""What answers are worth, by their kind: scores with intervals, agreement of two models, outcomes for paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kcost.core import scores
from kcost.core.answer import EMBEDDED_WITHIN, IGNORED_LABEL, SAME_WITHIN, Answer
from kcost.core.artifact import Counts, QualityReport, Score
from kcost.core.errors import InputError

LARGEST_KEPT = 1 << 20
"""Numbers of an embedding that are kept of a model's answers, for comparing two models."""


class Agreement(NamedTuple):
    """How far two models answer the same."""

    share: float
    """Of the examples, or positions, that both answer the same."""
    examples: int
    rank_correlation: float | None
    """Spearman's, of numbers; the lowest of an example's numbers. None where all are equal, and for other kinds."""


def predictions_of(answer: Answer, outputs: np.ndarray) -> np.ndarray:
    """What is kept of an output: enough for scores, agreement and another threshold.

    Args:
        outputs: of one output, shape (n, ...), as the model gave them.

    Returns:
        multiclass (n,) and tags (n, ...): class numbers, int32. binary (n,): the unit, or the second less the first,
        float32. multilabel (n, elements), regression (n, numbers), embedding (n, numbers): float32; of an embedding
        only as many rows as have LARGEST_KEPT numbers.
    """
    if answer.kind in ("multiclass", "tags"):
        return np.asarray(outputs.argmax(-1), np.int32)
    rows: np.ndarray = outputs.reshape(len(outputs), -1).astype(np.float32)
    if answer.kind == "binary":
        return rows[:, 0] if rows.shape[1] == 1 else rows[:, 1] - rows[:, 0]
    if answer.kind == "embedding":
        return rows[: max(1, LARGEST_KEPT // max(1, rows.shape[1]))]
    return rows


def decided(answer: Answer, predictions: np.ndarray) -> np.ndarray:
    """Class numbers of multiclass and tags, 0 and 1 of binary and multilabel; numbers as they are."""
    if answer.kind in ("binary", "multilabel"):
        # In float32, as the model's numbers are: a threshold such as 0.3 is no number of theirs otherwise.
        return (predictions > np.float32(answer.threshold or 0.0)).astype(np.int64)
    return predictions


def score_answers(
    answer: Answer, predictions: np.ndarray, labels: np.ndarray, split: str, unit: str = "examples", auroc: bool = False
) -> tuple[Score, ...]:
    """The scores of an output, the one that decides first; none of an embedding.

    multiclass, tags, binary: accuracy, and the area under the ROC curve of a binary one where `auroc` asks for it.
    multilabel: micro and macro F1 and the share of right elements. regression: R2 (where labels differ), mean absolute
    error, root mean squared error. Each equals Keras's own metric on the same rows.

    Args:
        predictions: of `predictions_of`.
        labels: of `kcost.core.answer.fitted_labels`, for the same examples.
        split, unit: for the record.
    """
    answers = decided(answer, predictions)
    if answer.kind in ("multiclass", "tags", "binary"):
        known = labels != IGNORED_LABEL if answer.kind == "multiclass" else labels >= 0
        unit = "positions" if answer.kind == "tags" and unit == "examples" else unit
        if not known.any():
            return ()
        measured = [scores.accuracy(labels[known], answers[known].astype(labels.dtype), split, unit)]
        if auroc and answer.kind == "binary" and 0 < labels[known].mean() < 1:
            measured.append(scores.auroc(labels[known], predictions[known], split, unit))
        return tuple(measured)
    if answer.kind == "multilabel":
        return scores.multilabel(labels, answers, split, unit)
    return scores.regression(labels, predictions, split, unit) if answer.kind == "regression" else ()


def agreement(answer: Answer, mine: np.ndarray, theirs: np.ndarray, labels: np.ndarray | None) -> Agreement | None:
    """How far two models answer the same examples alike; None where nothing can be compared.

    multiclass, tags, binary: the same class. multilabel: the same for each element of an example. regression: each
    number within SAME_WITHIN of the spread that it has over the reference's answers. embedding: the distance of the two
    within EMBEDDED_WITHIN of the root mean square distance of the reference's answers from their mean.

    Args:
        mine, theirs: of `predictions_of`; the reference's are `theirs`. Of a longer one the first are taken.
        labels: positions of tags below 0 are left out.
    """
    if mine.shape[1:] != theirs.shape[1:]:
        return None
    shared = min(len(mine), len(theirs))
    mine, theirs = mine[:shared], theirs[:shared]
    if answer.kind in ("regression", "embedding"):
        return _agreement_of_numbers(answer, mine.astype(np.float64), theirs.astype(np.float64))
    same = decided(answer, mine) == decided(answer, theirs)
    if answer.kind == "multilabel":
        same = same.all(axis=-1)
    elif labels is not None and labels.shape[1:] == same.shape[1:] and len(labels) >= shared:
        same = same[labels[:shared] >= 0]  # what stands on padding is no answer
    return Agreement(float(same.mean()), int(same.size), None) if same.size else None


def _agreement_of_numbers(answer: Answer, mine: np.ndarray, theirs: np.ndarray) -> Agreement | None:
    if not mine.size or not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        return None
    if answer.kind == "embedding":
        spread = float(np.sqrt(np.square(theirs - theirs.mean(0)).sum(1).mean()))
        limit = np.full(len(theirs), spread) if spread else np.linalg.norm(theirs, axis=1)
        same = np.linalg.norm(mine - theirs, axis=1) <= EMBEDDED_WITHIN * limit
        return Agreement(float(same.mean()), len(same), None)
    mine, theirs = mine.reshape(len(mine), -1), theirs.reshape(len(theirs), -1)
    spreads = theirs.std(0)
    limits = np.where(spreads > 0, spreads, np.abs(theirs[0]))
    same = (np.abs(mine - theirs) <= SAME_WITHIN * limits).all(1)
    return Agreement(float(same.mean()), len(same), _rank_correlation(mine, theirs))


def _rank_correlation(mine: np.ndarray, theirs: np.ndarray) -> float | None:
    """Spearman's rank correlation, the lowest over the columns in which both differ from row to row."""
    from scipy.stats import rankdata

    lowest = None
    for a, b in zip(mine.T, theirs.T, strict=True):
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            continue
        correlation = float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
        lowest = correlation if lowest is None else min(lowest, correlation)
    return lowest


def outcomes_of(answer: Answer, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What is right and wrong in each example, for a paired test of two models (`core.score_drop`).

    multiclass, binary: (n, 1), 1 where right. tags: the same a position. multilabel: (n, 3), elements that are rightly
    a yes, wrongly a yes and wrongly a no; int64. regression: (n, 2) float64, squared error and squared distance of the
    label from the mean of all labels, each divided by the variance of its column and averaged over the columns.
    """
    answers = decided(answer, predictions)
    if answer.kind == "regression":
        deviations = np.square(labels - labels.mean(0))
        varying = deviations.mean(0) > 0
        if not varying.any():
            raise InputError(
                "R2 tells how much of what labels differ by a model answers.",
                received=f"{len(labels):,} examples with equal labels",
                remedy="Give data whose labels differ.",
            )
        weights = np.where(varying, 1 / np.where(varying, deviations.mean(0), 1), 0) / max(1, int(varying.sum()))
        return np.stack([np.square(answers - labels) @ weights, deviations @ weights], axis=1)
    if answer.kind == "multilabel":
        return scores.element_counts(labels, answers)
    known = labels != IGNORED_LABEL if answer.kind == "multiclass" else labels >= 0
    right: np.ndarray = labels[known] == answers[known]
    return right.astype(np.int64).reshape(-1, 1)


def report_of(
    answer: Answer, predictions: np.ndarray, labels: np.ndarray, names: Sequence[str], split: str, unit: str
) -> QualityReport | None:
    """Answers by class, where there are classes.

    Args:
        names: of the classes; classes beyond them are called by their numbers.
    """
    answers = decided(answer, predictions)
    if answer.kind in ("regression", "embedding"):
        return None
    if answer.kind == "multilabel":
        named = _names(names, labels.shape[1])
        counts = {
            name: Counts(
                true_positives=int((true & said).sum()),
                false_positives=int((~true & said).sum()),
                false_negatives=int((true & ~said).sum()),
            )
            for name, true, said in zip(named, labels.T.astype(bool), answers.T.astype(bool), strict=True)
        }
        return QualityReport(split=split, unit=unit, classes=counts)
    known = labels >= 0
    labels, answers = labels[known].ravel().astype(np.int64), answers[known].ravel().astype(np.int64)
    if not labels.size:
        return None
    named = _names(names, 1 + max(int(labels.max()), int(answers.max()), len(names) - 1))
    matrix = scores.confusion_matrix(labels, answers, len(named))
    return QualityReport(
        split=split,
        unit=unit,
        classes=scores.per_class_report(labels, answers, named),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
    )


def _names(names: Sequence[str], count: int) -> list[str]:
    return [*names[:count], *(str(i) for i in range(len(names), count))]


def not_finite(names: Sequence[str], outputs: Sequence[np.ndarray]) -> str | None:
    """Which outputs hold numbers that are none, and how many; None where all are finite."""
    offenders = [
        f"{bad:,} of {values.size:,} numbers of the output {name!r} are NaN or infinite"
        for name, values in zip(names, outputs, strict=True)
        if values.dtype.kind == "f" and (bad := int(values.size - np.isfinite(values).sum()))
    ]
    return "; ".join(offenders) or None
