"""Entities with words that the model did not see are missed, whoever counts them."""

from __future__ import annotations

import numpy as np
import pytest

from kcost.core.entities import entity_counts, in_one_array, tags_of_words

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@pytest.mark.parametrize(
    ("labels", "predictions", "unseen", "counts"),
    [
        ([1, 2, -1], [1, 2, 4], [], (1, 0, 0)),
        ([1, 2, -1], [1, 2, 4], [-1, -1, 0, 3, 4], (1, 0, 1)),
        ([1, 2, -1], [1, 2, 4], [-1, -1, 2], (0, 1, 1)),
        ([1, -1, 2], [1, 4, 2], [-1, 2], (0, 1, 1)),
        ([1, -1, 0], [1, 4, 2], [-1, 0], (1, 0, 0)),
        ([-1, -1, -1], [1, 2, 2], [3, 4], (0, 0, 1)),
        ([0, -1, 0], [0, 0, 0], [-1, 0], (0, 0, 0)),
    ],
    ids=[
        "all seen",
        "an entity beyond the cut",
        "an entity that the cut parts",
        "a word inside an entity that a tokenizer leaves nothing of",
        "an answer that such a word parts",
        "nothing seen",
        "no entity",
    ],
)
def test_entities_of_one_sentence(labels, predictions, unseen, counts) -> None:
    given = np.array([labels]), np.array([predictions]), [np.array(unseen, np.int32)]
    assert entity_counts(*given, NAMES).tolist() == [list(counts)]


def test_rows_of_any_length_are_as_good_as_one_array() -> None:
    labels, predictions = np.array([[1, -1], [0, 1], [1, 2]]), np.array([[1, 0], [0, 1], [1, 0]])
    rows = [np.array([-1, 2, 0, 3]), np.array([], int), np.array([3])]
    together = in_one_array(rows)
    assert together.tolist() == [[-1, 2, 0, 3], [-1] * 4, [3, -1, -1, -1]]
    assert together.dtype == np.int32
    expected = tags_of_words(labels, predictions, rows, NAMES)
    assert tags_of_words(labels, predictions, together, NAMES) == expected
    assert expected == (
        [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-PER"], ["B-LOC", "B-PER", "I-PER"]],
        [["B-PER", "O", "O", "O"], ["O", "B-PER"], ["O", "B-PER", "O"]],
    )
    assert in_one_array([np.array([], int)] * 2).shape == (2, 0)
    assert in_one_array([]).shape == (0, 0)


@pytest.mark.parametrize(
    ("predictions", "unseen", "message"),
    [
        ([[0, 0, 0]], [[]], r"\(1, 2\), \(1, 3\) and 1 rows"),
        ([[0, 0]], [[], []], "2 rows"),
        ([[5, 0]], [[]], "0 to 4. Received: 0 to 5"),
        ([[-1, 0]], [[]], "Received: -1 to 0"),
        ([[0, 0]], [[-1, -1, 7]], "Received: 0 to 7"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(predictions, unseen, message) -> None:
    with pytest.raises(ValueError, match=message):
        entity_counts(np.array([[0, 0]]), np.array(predictions), [np.array(row, int) for row in unseen], NAMES)
