"""Quality figures of a model, from labels and predictions: each with its 95% interval and what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from kcost.core.artifact import Counts, Score
from kcost.core.stats import CONFIDENCE, proportion

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
    found = proportion(int((labels == predictions).sum()), len(labels))
    return Score(
        name="accuracy", split=split, value=found.value, low=found.low, high=found.high, count=len(labels), unit=unit
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
    found: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for true, predicted in _span_pairs(true_tags, predicted_tags):
        found.update(kind for kind, _, _ in true & predicted)
        wrong.update(kind for kind, _, _ in predicted - true)
        missed.update(kind for kind, _, _ in true - predicted)
    return {kind: _counts(found[kind], wrong[kind], missed[kind]) for kind in sorted({*found, *wrong, *missed})}


def sentence_counts(true_tags: Sequence[Sequence[str]], predicted_tags: Sequence[Sequence[str]]) -> np.ndarray:
    """Entities found, wrongly found and missed in each sentence, shape (sentences, 3), int64.

    Raises:
        ValueError: the two differ in sentences, or in the tags of one.
    """
    pairs = _span_pairs(true_tags, predicted_tags)
    return np.array([(len(t & p), len(p - t), len(t - p)) for t, p in pairs], np.int64).reshape(-1, 3)


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
    total = _counts(*counts.sum(axis=0))
    low, high = 0.0, 1.0
    if counts.any():
        low, high = _bootstrap_f1(counts)
    if low == high:
        found = proportion(total.true_positives, int(counts.sum()))
        low, high = (2 * share / (1 + share) for share in (found.low, found.high))
    return Score(
        name="entity_f1", split=split, value=total.f1, low=low, high=high, count=total.support, unit="entities"
    )


def _bootstrap_f1(counts: np.ndarray) -> tuple[float, float]:
    """Percentile interval of F1 over resampled sentences.

    Args:
        counts: true positives, false positives and false negatives of each sentence, shape (sentences, 3).
    """
    if len(counts) <= FEW_SENTENCES:
        found, wrong, missed = (_draws(len(counts)) @ counts.astype(np.float32)).reshape(-1, 3).T
    else:
        # Sentences with equal counts are drawn as one, with their share: the same distribution, a fraction of the work.
        kinds, times = np.unique(counts, axis=0, return_counts=True)
        draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(len(counts), times / len(counts), size=RESAMPLES)
        found, wrong, missed = (draws @ kinds).T
    f1 = 2 * found / np.maximum(2 * found + wrong + missed, 1)
    low, high = np.quantile(f1, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
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


def _counts(found: int, wrong: int, missed: int) -> Counts:
    return Counts(true_positives=int(found), false_positives=int(wrong), false_negatives=int(missed))
