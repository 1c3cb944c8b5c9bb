"""Entities in a tagger's answers: the one reading that training, evaluation, optimizing and rankings share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcost.core.scores import sentence_counts

UNSEEN_LABELS = "unseen_labels"
"""Name of the array, beside `labels`, that tells of the words without a position."""

OUTSIDE = "O"


def tags_of_words(
    labels: np.ndarray, predictions: np.ndarray, unseen_labels: Sequence[np.ndarray] | np.ndarray, names: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """The true tags of all words of each sentence, and the predicted ones.

    A word that the model did not see, as truncation cut it off or a tokenizer left nothing of it, is predicted "O": an
    entity with such a word is missed.

    Args:
        labels: tag numbers at the positions of words, below 0 elsewhere; shape (n, length), integers.
        predictions: tag numbers, of the same shape; only those at the positions of words are read.
        unseen_labels: for each sentence the tag number of each word without a position, at the word's place in the
            sentence, and numbers below 0 at the places of the others; integers. Places after its end are those of
            words with a position. An array of shape (n, words) is such a sequence.
        names: the tag of each number.

    Raises:
        ValueError: the arrays are not of the same sentences, or a number that is read has no name.
    """
    if predictions.shape != labels.shape or labels.ndim != 2 or len(unseen_labels) != len(labels):
        raise ValueError(
            "labels and predictions have one shape, (n, length), and n rows tell of words without a position. "
            f"Received: {labels.shape}, {predictions.shape} and {len(unseen_labels)} rows"
        )
    seen = labels >= 0
    read = np.concatenate([labels[seen], predictions[seen], *(row[row >= 0] for row in unseen_labels)])
    if read.size and not 0 <= read.min() <= read.max() < len(names):
        raise ValueError(f"Tag numbers lie in 0 to {len(names) - 1}. Received: {read.min()} to {read.max()}")
    true, predicted = [], []
    for here, label, answer, unseen in zip(seen, labels, predictions, unseen_labels, strict=True):
        tags = [names[i] for i in label[here].tolist()]
        answers = [names[i] for i in answer[here].tolist()]
        for place in np.flatnonzero(unseen >= 0).tolist():
            tags.insert(place, names[unseen[place]])
            answers.insert(place, OUTSIDE)
        true.append(tags)
        predicted.append(answers)
    return true, predicted


def entity_counts(
    labels: np.ndarray, predictions: np.ndarray, unseen_labels: Sequence[np.ndarray] | np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Entities found, wrongly found and missed in each sentence, shape (n, 3), int64.

    Arguments and errors are those of `tags_of_words`.
    """
    return sentence_counts(*tags_of_words(labels, predictions, unseen_labels, names))


def in_one_array(unseen_labels: Sequence[np.ndarray]) -> np.ndarray:
    """Such rows of any length as one array, shape (n, length of the longest), int32, filled up with -1."""
    rows = np.full((len(unseen_labels), max(map(len, unseen_labels), default=0)), -1, np.int32)
    for row, unseen in zip(rows, unseen_labels, strict=True):
        row[: len(unseen)] = unseen
    return rows
