"""What is taken of each row that a model is given and answers: the same for the reference and for live traffic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcost.core.entities import tags_of_words
from kcost.core.predictions import LEAST_PROBABILITY
from kcost.core.scores import typed_sentence_counts
from kcost.risk.drift_reference import Pieces, Reading, VectorBasis

MOST_COLUMNS = 20
"""Rows of at most so many numbers have a feature for each; longer ones are told by their mean, spread and distance."""

CONFIDENCE = "confidence"


def vector_columns(vectors: np.ndarray, basis: VectorBasis | None) -> dict[str, np.ndarray]:
    """Features of rows of numbers, such as pixels.

    Args:
        vectors: shape (n, d), numbers.
        basis: of the reference; None leaves distances out.

    Returns:
        Feature -> shape (n,), float64.
    """
    numbers = vectors.astype(np.float64)
    if numbers.shape[1] <= MOST_COLUMNS:
        columns = {f"value {i}": numbers[:, i] for i in range(numbers.shape[1])}
    else:
        columns = {"mean": numbers.mean(1), "deviation": numbers.std(1)}
    if basis is not None:
        columns["distance"], columns["residual distance"] = basis.distances(numbers)
    return columns


def token_columns(ids: np.ndarray, mask: np.ndarray, pieces: Pieces) -> dict[str, np.ndarray]:
    """Features of rows of token ids: how long they are, and which share is unknown or no whole word.

    Args:
        ids: shape (n, length), integers. mask: of the same shape, not 0 where a token is.
    """
    is_token = (mask != 0) & ~np.isin(ids, pieces.special)
    length = is_token.sum(1)
    least = np.maximum(length, 1)
    return {
        "length": length.astype(np.float64),
        "unknown words": (is_token & (ids == pieces.unknown)).sum(1) / least,
        "word pieces": (is_token & _within(ids, pieces.continuation)).sum(1) / least,
    }


def word_starts(ids: np.ndarray, mask: np.ndarray, pieces: Pieces) -> np.ndarray:
    """Where a word begins, shape (n, length), bool: a piece that goes on with nothing and follows no punctuation.

    What counts as a word in labelled data is not known from token ids. These positions are first pieces of words in
    either, so that live answers and those of the reference are of the same kind.
    """
    plain = (mask != 0) & ~np.isin(ids, pieces.special) & ~_within(ids, pieces.continuation)
    point = _within(ids, pieces.punctuation)
    after = np.zeros_like(plain)
    after[:, 1:] = point[:, :-1]
    starts: np.ndarray = plain & ~point & ~after
    return starts


def class_columns(log_probabilities: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Features of a classifier's answers.

    Args:
        log_probabilities: shape (n, classes). predicted: class numbers, shape (n,).
    """
    logs = log_probabilities.astype(np.float64)
    confidence = np.exp(np.take_along_axis(logs, predicted[:, None], 1)[:, 0])
    return {CONFIDENCE: confidence, "class": np.array(names)[predicted]}


def tag_columns(
    log_probabilities: np.ndarray,
    predicted: np.ndarray,
    rows: np.ndarray,
    count: int,
    names: Sequence[str],
    uniforms: np.ndarray,
) -> dict[str, np.ndarray]:
    """Features of a tagger's answers, a row a sentence; one without a word has NaN for its confidence.

    The tag of a sentence is that of one of its words, drawn by chance: the words of one sentence depend on each other,
    and a test that took each would count the same evidence many times.

    Args:
        log_probabilities: of each word, shape (m, classes). predicted: shape (m,).
        rows: the sentence of each word, shape (m,), ascending, in 0 to count - 1.
        uniforms: of [0, 1), shape (count,).
    """
    logs = log_probabilities.astype(np.float64)
    sure = np.exp(np.take_along_axis(logs, predicted[:, None], 1)[:, 0]) if len(predicted) else np.zeros(0)
    lowest, total = np.full(count, np.inf), np.zeros(count)
    np.minimum.at(lowest, rows, sure)
    np.add.at(total, rows, sure)
    words = np.bincount(rows, minlength=count)
    some = words > 0
    tags = np.full(count, "(no word)", dtype=object)
    if len(predicted):
        first = np.searchsorted(rows, np.arange(count))
        drawn = first + (uniforms * np.maximum(words, 1)).astype(np.int64)
        tags[some] = np.array(names)[predicted[drawn[some]]]
    begins = np.array([name.startswith("B-") for name in names])
    entities = np.bincount(rows, weights=begins[predicted], minlength=count) if len(predicted) else np.zeros(count)
    return {
        CONFIDENCE: np.where(some, lowest, np.nan),
        "mean confidence": np.where(some, total / np.maximum(words, 1), np.nan),
        "entities": entities.astype(np.float64),
        "tag": tags.astype(str),
    }


def log_probabilities_of(numbers: np.ndarray, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Natural logarithms of the probabilities of live answers, shape (..., classes), and the class decided for.

    Live answers are not refused where they sum to something else: that, too, is what was answered.

    Args:
        numbers: shape (n, units) or (n, length, units); of a binary output (n,), (n, 1) or (n, 2).
    """
    wide = numbers.astype(np.float64)
    if reading.kind == "binary" and wide.size == len(wide):
        one = wide.reshape(-1, 1)
        limit = reading.threshold if reading.threshold is not None else 0.0 if reading.logits else 0.5
        predicted = (one[:, 0] > limit).astype(np.int64)
        wide = np.concatenate([np.zeros_like(one) if reading.logits else 1 - one, one], 1)
    else:
        predicted = wide.argmax(-1)
    if reading.logits:
        shifted = wide - wide.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    else:
        logs = np.log(np.maximum(wide, LEAST_PROBABILITY))
    return np.maximum(logs, np.log(LEAST_PROBABILITY)), predicted


def entity_counts(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Entities found, wrongly found and missed in each sentence, shape (n, 3), int64.

    Args:
        labels: tag numbers, below 0 where none is known, shape (n, length). predicted: of the same shape.
    """
    types = sorted({name[2:] for name in names if name[:2] in ("B-", "I-")})
    tags = tags_of_words(labels, predicted, [np.zeros(0, np.int64)] * len(labels), tuple(names))
    counts: np.ndarray = typed_sentence_counts(*tags, types).sum(1)
    return counts


def _within(ids: np.ndarray, runs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Whether each id lies in one of the runs, which are ascending."""
    if not runs:
        return np.zeros(ids.shape, bool)
    first, last = np.array(runs).T
    place = np.searchsorted(first, ids, side="right") - 1
    within: np.ndarray = (place >= 0) & (ids <= last[np.maximum(place, 0)])
    return within
