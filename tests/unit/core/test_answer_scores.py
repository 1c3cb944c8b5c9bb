"""Scores, agreement and drops of each kind of answer, held against scikit-learn and against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics

from kcost.core.answer import Answer, Kind
from kcost.core.answer_scores import agreement, decided, not_finite, outcomes_of, predictions_of, score_answers
from kcost.core.errors import InputError
from kcost.core.score_drop import score_drop

RNG = np.random.default_rng(0)


def answer(kind: Kind, threshold: float | None = None) -> Answer:
    return Answer(output="y", kind=kind, threshold=threshold, because="a test")


def values(kind: Kind, outputs: np.ndarray, labels: np.ndarray, threshold: float | None = None) -> dict[str, float]:
    one = answer(kind, threshold)
    measured = score_answers(one, predictions_of(one, outputs), labels, "test", auroc=kind == "binary")
    assert all(score.low <= score.value <= score.high and score.count == len(labels) for score in measured)
    return {score.name: score.value for score in measured}


def test_binary_scores() -> None:
    labels = RNG.integers(0, 2, 200)
    outputs = np.clip(labels * 0.3 + RNG.uniform(0, 0.7, 200), 0, 1).astype("float32")[:, None]
    score = values("binary", outputs, labels, 0.5)
    assert score["accuracy"] == pytest.approx(metrics.accuracy_score(labels, outputs[:, 0] > 0.5))
    assert score["auroc"] == pytest.approx(metrics.roc_auc_score(labels, outputs[:, 0]))


def test_two_units_of_a_binary_output_answer_as_their_larger_one() -> None:
    outputs = RNG.normal(size=(50, 2)).astype("float32")
    predictions = predictions_of(answer("binary"), outputs)
    np.testing.assert_array_equal(decided(answer("binary"), predictions), outputs.argmax(1))


def test_the_area_under_the_curve_counts_ties_half() -> None:
    outputs = np.array([[0.1], [0.5], [0.5], [0.9]], "float32")
    assert values("binary", outputs, np.array([0, 0, 1, 1]), 0.5)["auroc"] == 0.875


def test_multilabel_scores() -> None:
    labels = RNG.integers(0, 2, (120, 3))
    outputs = np.clip(labels * 0.4 + RNG.uniform(0, 0.6, labels.shape), 0, 1).astype("float32")
    said = outputs > 0.5
    score = values("multilabel", outputs, labels, 0.5)
    assert score["f1_micro"] == pytest.approx(metrics.f1_score(labels, said, average="micro"))
    assert score["f1_macro"] == pytest.approx(metrics.f1_score(labels, said, average="macro"))
    assert score["binary_accuracy"] == pytest.approx((labels == said).mean())


@pytest.mark.parametrize("columns", [1, 3])
def test_regression_scores(columns: int) -> None:
    labels = RNG.normal(size=(150, columns)) * 5
    outputs = (labels + RNG.normal(size=labels.shape)).astype("float32")
    score = values("regression", outputs, labels)
    assert score["r2"] == pytest.approx(metrics.r2_score(labels, outputs))
    assert score["mae"] == pytest.approx(metrics.mean_absolute_error(labels, outputs))
    assert score["rmse"] == pytest.approx(np.sqrt(np.square(labels - outputs).mean()))


def test_equal_labels_have_no_r2() -> None:
    assert "r2" not in values("regression", np.ones((5, 1)), np.full((5, 1), 2.0))
    with pytest.raises(InputError, match="equal labels"):
        outcomes_of(answer("regression"), np.ones((5, 1)), np.full((5, 1), 2.0))


def test_an_interval_of_r2_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for _ in range(200):
        labels = RNG.normal(size=(100, 1))
        outputs = labels + RNG.normal(size=labels.shape) * 0.5  # an R2 of 0.75 in truth
        (r2, *_) = score_answers(answer("regression"), outputs, labels, "test")
        held += r2.low <= 0.75 <= r2.high
    assert 170 <= held <= 200


def test_positions_that_do_not_count_are_left_out() -> None:
    outputs = np.eye(3)[np.array([[0, 1], [2, 2]])]
    (accuracy,) = score_answers(
        answer("tags"), predictions_of(answer("tags"), outputs), np.array([[0, -1], [1, 2]]), "test"
    )
    assert (accuracy.value, accuracy.count) == (pytest.approx(2 / 3), 3)


def test_numbers_agree_within_a_part_of_their_spread() -> None:
    theirs = RNG.normal(size=(100, 1)) * 10 + 1000
    spread = theirs.std()
    same = agreement(answer("regression"), theirs + 0.009 * spread, theirs, None)
    other = agreement(answer("regression"), theirs + 0.011 * spread, theirs, None)
    assert same is not None
    assert same.share == 1
    assert other is not None
    assert other.share == 0
    assert same.rank_correlation == pytest.approx(1)


def test_a_reversed_order_shows_in_the_rank_correlation() -> None:
    theirs = RNG.normal(size=(50, 1))
    agreed = agreement(answer("regression"), -theirs, theirs, None)
    assert agreed is not None
    assert agreed.rank_correlation == pytest.approx(-1)


def test_embeddings_agree_by_their_distance() -> None:
    theirs = RNG.normal(size=(50, 8)).astype("float32")
    near = agreement(answer("embedding"), theirs * 1.001, theirs, None)
    far = agreement(answer("embedding"), theirs[::-1], theirs, None)
    assert near is not None
    assert near.share == 1
    assert far is not None
    assert far.share < 0.1


def test_elements_agree_only_all_together() -> None:
    theirs = np.array([[0.9, 0.1], [0.9, 0.1]], "float32")
    mine = np.array([[0.8, 0.2], [0.9, 0.7]], "float32")
    agreed = agreement(answer("multilabel", 0.5), mine, theirs, None)
    assert agreed is not None
    assert (agreed.share, agreed.examples) == (0.5, 2)


def test_a_drop_of_r2_is_that_of_the_scores() -> None:
    labels = RNG.normal(size=(300, 2))
    before, after = labels + RNG.normal(size=labels.shape) * 0.2, labels + RNG.normal(size=labels.shape) * 0.5
    one = answer("regression")
    drop = score_drop(outcomes_of(one, before, labels), outcomes_of(one, after, labels), "examples")
    assert drop.score == "r2"
    assert drop.before == pytest.approx(metrics.r2_score(labels, before))
    assert drop.after == pytest.approx(metrics.r2_score(labels, after))
    assert drop.value == pytest.approx(drop.before - drop.after)
    assert drop.bound > drop.value > 0


def test_a_drop_of_several_labels_an_example_is_of_micro_f1() -> None:
    labels = RNG.integers(0, 2, (100, 3))
    one = answer("multilabel", 0.5)
    worse = np.where(RNG.uniform(size=labels.shape) < 0.2, 1 - labels, labels).astype("float32")
    drop = score_drop(
        outcomes_of(one, labels.astype("float32"), labels), outcomes_of(one, worse, labels), "examples", "f1_micro"
    )
    assert (drop.score, drop.before) == ("f1_micro", 1.0)
    assert drop.after == pytest.approx(metrics.f1_score(labels, worse, average="micro"))


def test_numbers_that_are_none_are_counted_by_output() -> None:
    offenders = not_finite(["a", "b"], [np.array([1.0, np.nan, np.inf]), np.array([1, 2])])
    assert offenders == "2 of 3 numbers of the output 'a' are NaN or infinite"
    assert not_finite(["b"], [np.array([1, 2])]) is None


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(2, 20), st.integers(1, 4)), elements=st.floats(-1e3, 1e3, width=32)
    ),
    st.sampled_from(["regression", "multilabel", "embedding"]),
)
def test_a_model_agrees_with_itself(outputs: np.ndarray, kind: Kind) -> None:
    one = answer(kind, 0.5 if kind == "multilabel" else None)
    predictions = predictions_of(one, outputs)
    agreed = agreement(one, predictions, predictions, None)
    assert agreed is not None
    assert agreed.share == 1
