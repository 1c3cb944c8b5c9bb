"""Quality figures against seqeval and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.artifact import Counts
from kcost.core.scores import (
    accuracy,
    confusion_matrix,
    entity_f1,
    entity_report,
    entity_spans,
    per_class_report,
)
from kcost.core.stats import proportion

TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
TAG_PAIRS = st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=12), min_size=1, max_size=8)
INDEX_PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60)


def _columns(pairs: list[list[tuple[str, str]]]) -> tuple[list[list[str]], list[list[str]]]:
    return [[t for t, _ in rows] for rows in pairs], [[p for _, p in rows] for rows in pairs]


@given(TAG_PAIRS)
def test_spans_are_those_of_seqeval_strict(pairs):
    from seqeval.scheme import IOB2, Entities

    for tags in _columns(pairs)[0]:
        expected = [(e.tag, e.start, e.end) for e in Entities([tags], IOB2).entities[0]]
        assert entity_spans(tags) == expected


@given(TAG_PAIRS)
@settings(deadline=None)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scores_are_those_of_seqeval_strict(pairs):
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2

    true, predicted = _columns(pairs)
    options = {"scheme": IOB2, "zero_division": 0}
    score = entity_f1(true, predicted, "test")
    expected = precision_recall_fscore_support(true, predicted, average="micro", **options)
    assert score.value == pytest.approx(float(expected[2]))
    assert score.count == int(expected[3])
    report = entity_report(true, predicted)
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, average=None, **options)
    assert [c.precision for c in report.values()] == pytest.approx(list(precision))
    assert [c.recall for c in report.values()] == pytest.approx(list(recall))
    assert [c.f1 for c in report.values()] == pytest.approx(list(f1))
    assert [c.support for c in report.values()] == list(support)


def test_nervaluate_reads_a_stray_i_otherwise():
    """Why the spans are kcost's own: nervaluate lets an I that continues nothing start an entity."""
    from nervaluate.utils import collect_named_entities

    assert len(collect_named_entities(["O", "I-PER"])) == 1
    assert entity_spans(["O", "I-PER"]) == []


@given(TAG_PAIRS)
def test_the_interval_lies_in_0_to_1_and_is_repeatable(pairs):
    true, predicted = _columns(pairs)
    score = entity_f1(true, predicted, "test")
    assert 0 <= score.low <= score.high <= 1
    assert entity_f1(true, predicted, "test") == score


def _drawn(sentences: int, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Sentences of two words where each entity is found with probability 0.7 and invented with 0.1."""
    rng = np.random.default_rng(seed)
    hits, invented = rng.random(sentences) < 0.7, rng.random(sentences) < 0.1
    true = [["B-PER", "O"]] * sentences
    return true, [["B-PER" if f else "O", "B-PER" if i else "O"] for f, i in zip(hits, invented, strict=True)]


def test_the_interval_covers_the_truth_and_narrows_with_more_sentences():
    truth = 2 * 0.7 / (2 * 0.7 + 0.1 + 0.3)
    scores = [entity_f1(*_drawn(300, seed), "test") for seed in range(60)]
    covered = sum(score.low <= truth <= score.high for score in scores)
    assert 50 <= covered <= 60
    wide, narrow = entity_f1(*_drawn(100, 0), "test"), entity_f1(*_drawn(6400, 0), "test")
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(8, rel=0.35)


def test_the_fast_bootstrap_draws_as_the_plain_one(monkeypatch):
    monkeypatch.setattr("kcost.core.scores.RESAMPLES", 20_000)
    true, predicted = _drawn(200, 3)
    score = entity_f1(true, predicted, "test")
    hits = np.array([t[0] == p[0] for t, p in zip(true, predicted, strict=True)])
    wrong = np.array([p[1] != "O" for p in predicted])
    rows = np.random.default_rng(99).integers(0, 200, (20_000, 200))
    tp, fp = hits[rows].sum(axis=1), wrong[rows].sum(axis=1)
    values = 2 * tp / (2 * tp + fp + 200 - tp)
    assert (score.low, score.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.002)


def test_perfect_wrong_and_empty():
    perfect = entity_f1([["B-PER", "I-PER"]], [["B-PER", "I-PER"]], "test")
    assert (perfect.value, perfect.high, perfect.count, perfect.unit) == (1, 1, 1, "entities")
    one_of_one = proportion(1, 1).low
    assert perfect.low == pytest.approx(2 * one_of_one / (1 + one_of_one))
    assert 0.3 < perfect.low < 0.4, "one entity says little"
    assert entity_f1([["B-PER"]] * 400, [["B-PER"]] * 400, "test").low > 0.99
    missed = entity_f1([["B-PER"]] * 20, [["O"]] * 20, "test")
    assert (missed.value, missed.low, missed.count) == (0, 0, 20)
    assert 0.2 < missed.high < 0.35
    shifted = entity_f1([["B-PER", "I-PER"]], [["B-PER", "O"]], "test")
    assert (shifted.value, shifted.count) == (0, 1)
    nothing = entity_f1([["O"]], [["O"]], "test")
    assert (nothing.value, nothing.low, nothing.high, nothing.count) == (0, 0, 1, 0)
    assert entity_f1([], [], "test").count == 0
    assert entity_report([["B-PER", "O"]], [["O", "B-LOC"]]) == {
        "LOC": Counts(true_positives=0, false_positives=1, false_negatives=0),
        "PER": Counts(true_positives=0, false_positives=0, false_negatives=1),
    }


def test_sentences_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="1 and 2"):
        entity_f1([["O"]], [["O"], ["O"]], "test")
    with pytest.raises(ValueError, match="in sentence 1"):
        entity_report([["O"], ["O", "O"]], [["O"], ["O"]])


@given(INDEX_PAIRS)
@settings(deadline=None)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_class_figures_are_those_of_scikit_learn(pairs):
    from sklearn import metrics

    labels, predictions = np.array(pairs, np.int32).reshape(-1, 2).T
    names = ("a", "b", "c", "d")
    score = accuracy(labels, predictions, "validation")
    assert (score.count, score.split, score.unit) == (len(pairs), "validation", "examples")
    if not pairs:
        assert (score.value, score.low, score.high) == (0, 0, 1)
        assert confusion_matrix(labels, predictions, 4).sum() == 0
        return
    assert score.value == pytest.approx(metrics.accuracy_score(labels, predictions))
    matrix = confusion_matrix(labels, predictions, 4)
    assert np.array_equal(matrix, metrics.confusion_matrix(labels, predictions, labels=range(4)))
    expected = metrics.precision_recall_fscore_support(labels, predictions, labels=range(4), zero_division=0)
    report = per_class_report(labels, predictions, names)
    assert tuple(report) == names
    for figures, attribute in zip(expected, ("precision", "recall", "f1", "support"), strict=True):
        assert [getattr(counts, attribute) for counts in report.values()] == pytest.approx(list(figures))


def test_accuracy_has_the_wilson_interval():
    labels = np.zeros(100, np.int32)
    predictions = (np.arange(100) >= 93).astype(np.int32)
    score = accuracy(labels, predictions, "test", unit="tokens")
    assert (score.value, score.low, score.high) == proportion(93, 100)
    assert (score.name, score.unit) == ("accuracy", "tokens")


def test_indices_of_another_shape_or_range_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\) and \(3, 2\)"):
        accuracy(np.zeros(3, int), np.zeros((3, 2)), "test")
    with pytest.raises(ValueError, match="0 to 1"):
        confusion_matrix(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="0 to 1"):
        per_class_report(np.array([0, 1]), np.array([-1, 1]), ("a", "b"))
