"""Quality figures of a model, from labels and predictions: each with its 95% interval and what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from kcost.core.artifact import Counts, Score
from kcost.core.stats import CONFIDENCE, mean_interval, proportion

RESAMPLES = 1000
"""Bootstrap resamples of the F1 interval."""

BOOTSTRAP_SEED = 0
"""Fixed, so that the same predictions always give the same interval."""

FEW_SENTENCES = 1024
"""Up to as many, the draws of the bootstrap are kept: the cells of a run are scored on the same number of sentences."""

Span = tuple[str, int, int]
"""An entity: its type, its first word and the word after its last."""


def accuracy(labels: np.ndarray, predictions: np.ndarray, split: str, unit: str = "examples") -> Score:
    """Share of predictions that equal their label, with the Wilson interval.

    Args:
        labels, predictions: class indices, shape (n,), integers.
        split: the split that they are of, for the record.
        unit: what one of them is, for the record.

    Raises:
        ValueError: the two differ in shape, or are not of shape (n,).
    """
    _check_indices(labels, predictions)
    share = proportion(int((labels == predictions).sum()), len(labels))
    return Score(
        name="accuracy", split=split, value=share.value, low=share.low, high=share.high, count=len(labels), unit=unit
    )


def auroc(labels: np.ndarray, margins: np.ndarray, split: str, unit: str = "examples") -> Score:
    """Area under the ROC curve: how often a yes has a larger margin than a no, ties counted half.

    Source of the interval: DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44, 837-845.

    Args:
        labels: 0 and 1, both among them, shape (n,), integers.
        margins: the larger, the surer of a yes; shape (n,), floats.
    """
    from scipy.stats import rankdata

    yes, no = margins[labels == 1].astype(np.float64), margins[labels == 0].astype(np.float64)
    among_all = rankdata(np.concatenate([yes, no]))
    above_no = (among_all[: len(yes)] - rankdata(yes)) / len(no)
    below_yes = 1 - (among_all[len(yes) :] - rankdata(no)) / len(yes)
    value = float(above_no.mean())
    variance = sum(float(part.var(ddof=1)) / len(part) for part in (above_no, below_yes) if len(part) > 1)
    half = 1.959963984540054 * variance**0.5
    return Score(
        name="auroc",
        split=split,
        value=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        count=len(labels),
        unit=unit,
    )


def element_counts(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Elements that are rightly a yes, wrongly a yes and wrongly a no in each row: shape (n, 3), int64.

    Args:
        labels, answers: 0 and 1, shape (n, elements).
    """
    true, said = labels.astype(bool), answers.astype(bool)
    return np.stack([(true & said).sum(1), (~true & said).sum(1), (true & ~said).sum(1)], axis=1).astype(np.int64)


def multilabel(labels: np.ndarray, answers: np.ndarray, split: str, unit: str = "examples") -> tuple[Score, ...]:
    """Micro F1 over all elements, macro F1 (the mean over columns), and the share of right elements.

    The intervals draw rows, as the elements of one row are right or wrong together: a bootstrap for F1, Student t for
    the share. A column without any yes, in truth or answered, counts 0 in the macro F1, as in Keras's F1Score.

    Args:
        labels, answers: 0 and 1, shape (n, elements).
    """
    counts = element_counts(labels, answers)
    micro = _f1_score("f1_micro", counts, split, unit, len(labels))
    columns = np.stack([(labels & answers), ((1 - labels) & answers), (labels & (1 - answers))], axis=-1)
    right = mean_interval((labels == answers).mean(1))
    return (
        micro,
        _macro_f1(columns, split, unit),
        Score(
            name="binary_accuracy",
            split=split,
            value=right.value,
            low=max(0.0, right.low),
            high=min(1.0, right.high),
            count=len(labels),
            unit=unit,
        ),
    )


def _macro_f1(columns: np.ndarray, split: str, unit: str) -> Score:
    """The mean F1 of columns, from counts of shape (n, elements, 3), with a bootstrap over rows."""
    rows = len(columns)
    flat = columns.reshape(rows, -1)
    kinds, times = np.unique(flat, axis=0, return_counts=True)
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(rows, times / rows, size=RESAMPLES) @ kinds
    drawn = f1_of(draws.reshape(RESAMPLES, -1, 3)).mean(-1)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(f1_of(flat.sum(0).reshape(-1, 3)).mean())
    return Score(name="f1_macro", split=split, value=value, low=float(low), high=float(high), count=rows, unit=unit)


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (2 TP + FP + FN); 0 where there is nothing to find and nothing is answered.

    Args:
        counts: true positives, false positives and false negatives in the last axis, shape (..., 3).

    Examples:
        >>> f1_of(np.array([[3, 1, 1], [0, 0, 0]])).tolist()
        [0.75, 0.0]
    """
    right, wrong, missed = np.moveaxis(counts, -1, 0)
    f1: np.ndarray = 2 * right / np.maximum(2 * right + wrong + missed, 1)
    return f1


def regression(labels: np.ndarray, answers: np.ndarray, split: str, unit: str = "examples") -> tuple[Score, ...]:
    """R2 (where labels differ), mean absolute error and root mean squared error, in the unit of the labels.

    R2 is the mean over columns, as Keras's R2Score has it. Its interval, and that of the RMSE, are of the influence
    that each row has (the delta method: Efron and Tibshirani 1993, chapter 22), with Student t; the MAE's is Student
    t.

    Args:
        labels, answers: shape (n, numbers), floats.
    """
    labels, answers = labels.astype(np.float64), answers.astype(np.float64)
    errors = answers - labels
    deviations = np.square(labels - labels.mean(0))
    intervals = []
    if len(labels) > 1 and (deviations.mean(0) > 0).all():
        ratios = np.square(errors).mean(0) / deviations.mean(0)
        influence = ((ratios * deviations - np.square(errors)) / deviations.mean(0)).mean(1)
        intervals.append(("r2", mean_interval(influence, centre=float((1 - ratios).mean()))))
    intervals.append(("mae", mean_interval(np.abs(errors).mean(1))))
    squares = np.square(errors).mean(1)
    rmse = float(np.sqrt(squares.mean()))
    intervals.append(("rmse", mean_interval((squares - squares.mean()) / (2 * rmse or 1.0), centre=rmse)))
    return tuple(
        Score(
            name=name,
            split=split,
            value=interval.value,
            low=interval.low if name == "r2" else max(0.0, interval.low),
            high=min(1.0, interval.high) if name == "r2" else interval.high,
            count=len(labels),
            unit=unit,
        )
        for name, interval in intervals
    )


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """How often each class was taken for each: shape (classes, classes), int64, [label, prediction].

    Raises:
        ValueError: the two differ in shape, or an index is not in 0 to classes - 1.
    """
    _check_indices(labels, predictions)
    both = np.concatenate([labels, predictions]).astype(np.int64)
    if both.size and not 0 <= both.min() <= both.max() < classes:
        raise ValueError(f"Indices lie in 0 to {classes - 1}. Received: {both.min()} to {both.max()}")
    pairs = labels.astype(np.int64) * classes + predictions.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def per_class_report(labels: np.ndarray, predictions: np.ndarray, label_names: Sequence[str]) -> dict[str, Counts]:
    """Right and wrong answers for each class by name.

    Raises:
        ValueError: the two differ in shape, or an index names no class.
    """
    matrix = confusion_matrix(labels, predictions, len(label_names))
    right, predicted, true = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return {name: _counts(right[i], predicted[i] - right[i], true[i] - right[i]) for i, name in enumerate(label_names)}


def entity_spans(tags: Sequence[str]) -> list[Span]:
    """The entities of one BIO sequence, read strictly: each starts with B, and I of the same type continues it.

    An I that continues nothing is no entity and ends the one before it: the reading of seqeval with mode
    "strict" and scheme IOB2. (conlleval, and nervaluate with it, would start an entity there, hence own code.)
    """
    spans: list[Span] = []
    kind, start = "", 0
    for i, tag in enumerate(tags):
        if kind and tag != f"I-{kind}":
            spans.append((kind, start, i))
            kind = ""
        if tag[0] == "B":
            kind, start = tag[2:], i
    if kind:
        spans.append((kind, start, len(tags)))
    return spans


def entity_report(true_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]]) -> dict[str, Counts]:
    """Entities found, wrongly found and missed for each type, types in alphabetical order.

    An entity is found where type, start and end are all equal.

    Args:
        true_tags, predicted_tags: for each sentence its BIO tags, as many in both.

    Raises:
        ValueError: the two differ in sentences, or in the tags of one.
    """
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for true, predicted in _span_pairs(true_tags, predicted_tags):
        right.update(kind for kind, _, _ in true & predicted)
        wrong.update(kind for kind, _, _ in predicted - true)
        missed.update(kind for kind, _, _ in true - predicted)
    return {kind: _counts(right[kind], wrong[kind], missed[kind]) for kind in sorted({*right, *wrong, *missed})}


def sentence_counts(true_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]]) -> np.ndarray:
    """Entities found, wrongly found and missed in each sentence, shape (sentences, 3), int64.

    Raises:
        ValueError: the two differ in sentences, or in the tags of one.
    """
    pairs = _span_pairs(true_tags, predicted_tags)
    return np.array([(len(t & p), len(p - t), len(t - p)) for t, p in pairs], np.int64).reshape(-1, 3)


def typed_sentence_counts(
    true_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]], types: Sequence[str]
) -> np.ndarray:
    """Entities found, wrongly found and missed in each sentence by type, shape (sentences, types, 3), int64.

    Args:
        types: every entity type that either holds.

    Raises:
        ValueError: the two differ in sentences, or in the tags of one.
    """
    place = {kind: i for i, kind in enumerate(types)}
    pairs = _span_pairs(true_tags, predicted_tags)
    counts = np.zeros((len(pairs), len(types), 3), np.int64)
    for row, (true, predicted) in zip(counts, pairs, strict=True):
        for column, spans in enumerate((true & predicted, predicted - true, true - predicted)):
            for kind, _, _ in spans:
                row[place[kind], column] += 1
    return counts


def entity_f1(true_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]], split: str) -> Score:
    """Micro F1 over entities of all types, strict, with a bootstrap interval over sentences.

    The value is that of seqeval's `f1_score(mode="strict", scheme=IOB2)`. The interval holds the middle 95% of
    `RESAMPLES` resamples: sentences, not entities, are drawn, as the entities of one sentence are right or wrong
    together. Where all resamples agree, as with no error at all, they know nothing of what was not drawn: the interval
    is then Wilson's for the share J of entities found in those found, wrong or missed, with F1 = 2 J / (1 + J). With
    no entity in truth nor predicted the value is 0 and the interval 0 to 1.

    Source of the interval: Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.

    Args:
        true_tags, predicted_tags: for each sentence its BIO tags, as many in both.
        split: the split that they are of, for the record.

    Raises:
        ValueError: the two differ in sentences, or in the tags of one.
    """
    return entity_f1_of(sentence_counts(true_tags, predicted_tags), split)


def entity_f1_of(counts: np.ndarray, split: str) -> Score:
    """As `entity_f1`, from the counts of `sentence_counts`, shape (sentences, 3)."""
    return _f1_score("entity_f1", counts, split, "entities", _counts(*counts.sum(axis=0)).support)


def _f1_score(name: str, counts: np.ndarray, split: str, unit: str, count: int) -> Score:
    """A micro F1 from counts a row, shape (n, 3), with the interval that `entity_f1` describes."""
    total = _counts(*counts.sum(axis=0))
    low, high = 0.0, 1.0
    if counts.any():
        low, high = _bootstrap_f1(counts)
    if low == high:
        right_share = proportion(total.true_positives, int(counts.sum()))
        low, high = (2 * share / (1 + share) for share in (right_share.low, right_share.high))
    return Score(name=name, split=split, value=total.f1, low=low, high=high, count=count, unit=unit)


def _bootstrap_f1(counts: np.ndarray) -> tuple[float, float]:
    """Percentile interval of F1 over resampled sentences.

    Args:
        counts: true positives, false positives and false negatives of each sentence, shape (sentences, 3).
    """
    if len(counts) <= FEW_SENTENCES:
        drawn = (_draws(len(counts)) @ counts.astype(np.float32)).reshape(-1, 3)
    else:
        # Sentences with equal counts are drawn as one, with their share: the same distribution, a fraction of the work.
        kinds, times = np.unique(counts, axis=0, return_counts=True)
        draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(len(counts), times / len(counts), size=RESAMPLES)
        drawn = draws @ kinds
    low, high = np.quantile(f1_of(drawn), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(sentences: int) -> np.ndarray:
    """How often each resample holds each sentence, shape (blocks, resamples of one, sentences), float32.

    Sums of so few whole numbers are exact in float32, whose products numpy hands to a BLAS, as it does no integer's.
    The blocks are so small that the BLAS wakes no threads for them, which would take longer than the product.
    """
    shares = np.full(sentences, 1 / sentences)
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(sentences, shares, size=RESAMPLES)
    return draws.astype(np.float32).reshape(RESAMPLES // 50, 50, sentences)


def _span_pairs(
    true_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]]
) -> list[tuple[frozenset[Span], frozenset[Span]]]:
    if len(true_tags) != len(predicted_tags):
        raise ValueError(f"As many sentences in both. Received: {len(true_tags)} and {len(predicted_tags)}")
    for i, (true, predicted) in enumerate(zip(true_tags, predicted_tags, strict=True)):
        if len(true) != len(predicted):
            raise ValueError(f"As many tags in both. Received: {len(true)} and {len(predicted)} in sentence {i}")
    both = zip(true_tags, predicted_tags, strict=True)
    return [(frozenset(entity_spans(true)), frozenset(entity_spans(predicted))) for true, predicted in both]


def _check_indices(labels: np.ndarray, predictions: np.ndarray) -> None:
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(f"Class indices of one shape (n,). Received: {labels.shape} and {predictions.shape}")


def _counts(right: int, wrong: int, missed: int) -> Counts:
    return Counts(true_positives=int(right), false_positives=int(wrong), false_negatives=int(missed))
