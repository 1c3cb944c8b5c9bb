"""Which examples are labelled first, and how many labels that saves where the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import InputError
from kcost.core.predictions import SplitPredictions
from kcost.cost.label_order import ORDERS, Order, doubt_of, label_order, labels_saved


def predicted(probabilities: list[list[float]], rows: list[int] | None = None) -> SplitPredictions:
    logs = np.log(np.array(probabilities, np.float32))
    count = len(probabilities)
    at = np.arange(count) if rows is None else np.array(rows)
    examples = 100 + np.arange(at.max() + 1)
    return SplitPredictions(np.zeros(count, np.int64), logs.argmax(-1), logs, at, examples)


def test_doubt_by_hand() -> None:
    """Least confidence looks at the largest alone; entropy sees that the rest is spread over more classes."""
    one, two = [0.6, 0.4 - 2e-7, 1e-7, 1e-7], [0.62, 0.13, 0.13, 0.12]
    split = predicted([one, two])
    assert doubt_of(split, "least confidence") == pytest.approx([0.4, 0.38], abs=1e-6)
    assert doubt_of(split, "entropy") == pytest.approx([-(0.6 * math.log(0.6) + 0.4 * math.log(0.4)), 1.081], abs=1e-3)
    assert label_order(split, "least confidence").tolist() == [100, 101]
    assert label_order(split, "entropy").tolist() == [101, 100]


def test_a_sentence_is_as_unsure_as_its_mean_word() -> None:
    """A long sentence of sure words stays behind a short one of unsure words."""
    sure, unsure = [0.9, 0.1], [0.5, 0.5]
    split = predicted([sure] * 8 + [unsure] * 2, rows=[0] * 8 + [1] * 2)
    assert doubt_of(split, "least confidence") == pytest.approx([0.1, 0.5], abs=1e-6)
    assert label_order(split, "entropy").tolist() == [101, 100]


@given(
    st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=30),
    st.sampled_from(ORDERS),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_an_order_holds_each_example_once(numbers: list[list[float]], order: Order, seed: int) -> None:
    split = predicted([[v / sum(row) for v in row] for row in numbers])
    places = label_order(split, order, seed)
    assert sorted(places.tolist()) == split.examples.tolist()
    if order != "random":
        doubts = doubt_of(split, order)[places - 100]
        assert (np.diff(doubts) <= 0).all()


def curve_of(scale: float, seed: int, sizes: tuple[int, ...]) -> dict[float, list[float]]:
    """Scores 0.95 less scale x n^-0.5, with 3% of the error as scatter; five seeds."""
    generator = np.random.default_rng(seed)
    return {
        float(n): [1 - (0.05 + scale * n**-0.5) * (1 + 0.03 * generator.standard_normal()) for _ in range(5)]
        for n in sizes
    }


def test_labels_saved_hold_the_truth() -> None:
    """An order whose error falls by the same law with 0.8 of the scale takes 0.64 of the labels: 36% are saved."""
    held = 0
    for seed in range(60):
        random, ordered = curve_of(4, seed, (200, 400, 800, 1600)), curve_of(3.2, 1000 + seed, (800,))
        (row,) = labels_saved(random, ordered, seed)
        truth = 800 / 0.64
        held += row.low is not None and row.low <= truth <= (math.inf if row.high is None else row.high)
        assert row.saved is not None
        assert 0.1 < row.saved < 0.6
        assert row.saves
    assert 48 <= held <= 60  # 54 of 60, within 2.5 standard deviations


def test_an_order_that_is_worse_saves_nothing() -> None:
    (row,) = labels_saved(curve_of(4, 0, (200, 400, 800, 1600)), curve_of(5, 1, (800,)))
    assert row.saved is not None
    assert row.saved < 0
    assert not row.saves


def test_a_score_that_random_labels_never_give() -> None:
    (row,) = labels_saved(curve_of(4, 0, (200, 400, 800, 1600)), {800.0: [0.999, 0.999]})
    assert (row.random_labels, row.saved, row.high) == (None, None, None)


def test_what_cannot_be_ordered_is_refused() -> None:
    with pytest.raises(InputError, match="An order is one of"):
        label_order(predicted([[0.5, 0.5]]), "loudest")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Doubt is"):
        doubt_of(predicted([[0.5, 0.5]]), "random")
    with pytest.raises(InputError, match="judged by its scores"):
        labels_saved(curve_of(4, 0, (200, 400, 800)), {})
