"""Slices: scores, searches that find what is there and little else, flips, losses in dollars."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from kcost.core.errors import InputError
from kcost.core.predictions import SplitPredictions
from kcost.risk.expected_loss import LossTable, cost_matrix, expected_loss
from kcost.risk.figures import share
from kcost.risk.overfitting import difference, flips
from kcost.risk.scores import main_score
from kcost.risk.slices import quartiles, search, slices_of

from .answers import classifier, sure_of, tagger


def columns_of(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.choice(list("abcde"), count) for name in ("source", "length", "device")}


def test_each_slice_has_its_own_score() -> None:
    answers = sure_of(0.9, [True] * 60 + [False] * 40)
    slices = slices_of(answers, {"part": np.array(["x"] * 50 + ["y"] * 50)}, "examples")
    assert [(s.name, s.score.value, s.share) for s in slices.table] == [("part=y", 0.2, 0.5), ("part=x", 1.0, 0.5)]
    assert slices.worst == slices.table[0]
    assert [s.name for s in slices.search.slices] == ["part=y"]


def test_small_slices_and_columns_of_too_many_values_are_told_and_left_out() -> None:
    answers = sure_of(0.9, [True] * 100)
    slices = slices_of(answers, {"a": np.array(["x"] * 95 + ["y"] * 5), "id": np.arange(100).astype(str)}, "examples")
    assert [s.name for s in slices.table] == ["a=x"]
    assert slices.skipped == ("a=y: 5 examples, and 30 are needed", "id: 100 different values; slices have 2 to 50")


def test_entity_types_are_slices_of_a_tagger() -> None:
    slices = slices_of(tagger(300, 0), {}, "sentences", ("LOC", "PER"))
    assert {s.name for s in slices.table} == {"type=LOC", "type=PER"}


def test_a_search_is_fishers_test() -> None:
    happens = np.array([True] * 25 + [False] * 75)
    column = np.array(["x"] * 50 + ["y"] * 50)
    searched = search(happens, {"c": column})
    plain = fisher_exact([[25, 25], [0, 50]], "greater").pvalue
    assert searched.looked_at == 2
    assert searched.slices[0].p_value == pytest.approx(2 * plain)
    assert searched.slices[0].rate == 0.5
    assert searched.slices[0].rate_elsewhere == 0


def test_a_search_finds_nothing_where_nothing_is() -> None:
    rng = np.random.default_rng(0)
    finds = [bool(search(rng.random(1000) < 0.1, columns_of(1000, seed)).slices) for seed in range(100)]
    assert np.mean(finds) <= 0.08


def test_a_search_finds_a_corrupted_combination() -> None:
    """Two columns of five values: a slice of 4%, in which a third of the answers is wrong instead of a tenth."""
    rng = np.random.default_rng(0)
    finds = 0
    for seed in range(20):
        columns = columns_of(3000, seed)
        bad = (columns["source"] == "a") & (columns["length"] == "b")
        happens = rng.random(3000) < np.where(bad, 0.4, 0.1)
        finds += "source=a and length=b" in [s.name for s in search(happens, columns).slices]
    assert finds >= 19


def test_quartiles_are_named_after_their_ends() -> None:
    assert set(quartiles("length", np.arange(1, 101)).tolist()) == {"1 to 25", "26 to 50", "51 to 75", "76 to 100"}
    assert set(quartiles("length", np.full(10, 3)).tolist()) == {"3 to 3"}


def test_scores_of_nothing_and_of_no_error_have_honest_intervals() -> None:
    answers = tagger(40, 0, missed_share=0.0)
    score = main_score(answers, "sentences")
    assert score.value == 1
    assert 0.85 < score.low < 1
    nothing = main_score(answers, "sentences", np.zeros(40, bool))
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 1)


def test_a_difference_of_two_shares_is_newcombes() -> None:
    gap = difference("gap", share("a", 90, 100, "x"), share("a", 70, 100, "x"))
    assert gap.value == pytest.approx(0.2)
    assert 0.08 < gap.low < 0.12
    assert 0.28 < gap.high < 0.32


def changed(answers: SplitPredictions, where: np.ndarray) -> SplitPredictions:
    """The same with other answers there."""
    predicted = np.where(where, (answers.predicted + 1) % 4, answers.predicted)
    return SplitPredictions(answers.labels, predicted, answers.log_probabilities, answers.rows, answers.examples)


def test_flips_are_counted_and_fall_on_their_slice() -> None:
    before = classifier(2000, 0)
    columns = columns_of(2000, 0)
    after = changed(before, (columns["source"] == "a") & (np.random.default_rng(0).random(2000) < 0.2))
    flipped = flips(before, after, "float32", columns, "examples")
    assert flipped.lost > flipped.gained
    assert flipped.drop.value == pytest.approx((flipped.lost - flipped.gained) / 2000)
    assert flipped.drop.low < flipped.drop.value < flipped.drop.high
    assert flipped.lost_on.slices[0].name == "source=a"


def test_no_flip_is_no_drop_but_no_certainty() -> None:
    answers = classifier(100, 0)
    flipped = flips(answers, answers, "itself", {}, "examples")
    assert flipped.drop.value == 0
    assert flipped.drop.low < 0 < flipped.drop.high
    with pytest.raises(ValueError, match="same examples"):
        flips(answers, classifier(50, 0), "other", {}, "examples")


def test_a_loss_is_prices_times_errors() -> None:
    answers = sure_of(0.9, [True] * 90 + [False] * 10)  # label 1 taken for 0, ten times
    table = LossTable(wrong_usd=0.5, pairs={"b -> a": 2.0})
    loss = expected_loss(answers, table, ("a", "b"), (), "examples")
    assert loss.value == pytest.approx(1e6 * 0.1 * 2.0)
    assert loss.low < loss.value < loss.high
    assert cost_matrix(table, ("a", "b")).tolist() == [[0, 0.5], [2.0, 0]]


def test_a_taggers_loss_is_by_type() -> None:
    answers = tagger(400, 0)
    assert answers.entity_counts is not None
    missed = int(answers.entity_counts[:, 1, 2].sum())
    loss = expected_loss(answers, LossTable(missed_usd={"PER": 1.0}), ("O", "B"), ("LOC", "PER"), "sentences")
    assert loss.value == pytest.approx(1e6 * missed / 400)


@pytest.mark.parametrize("pair", ["a - b", "a -> z", "a -> a", "->"])
def test_a_pair_that_is_none_is_told(pair: str) -> None:
    with pytest.raises(InputError, match="two different classes"):
        cost_matrix(LossTable(pairs={pair: 1.0}), ("a", "b"))


def test_a_type_that_is_none_is_told() -> None:
    with pytest.raises(InputError, match="types that the model knows"):
        expected_loss(tagger(50, 0), LossTable(false_usd={"ORG": 1.0}), ("O", "B"), ("LOC", "PER"), "sentences")
