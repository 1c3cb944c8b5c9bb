"""Sizes of drift, the test that may be looked at any time, and drift in dollars: against other formulas and truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.spatial.distance import jensenshannon

from kcost.risk.drift import (
    embedding_distances,
    jensen_shannon,
    kolmogorov_smirnov,
    main_directions,
    population_stability,
    stability_by_chance,
    wasserstein,
)
from kcost.risk.drift_features import entity_counts, log_probabilities_of, tag_columns, token_columns, word_starts
from kcost.risk.drift_reference import (
    MOST_CATEGORIES,
    Pieces,
    Reading,
    Reference,
    category_reference,
    features_of,
    number_reference,
    vector_basis,
)
from kcost.risk.drift_test import DriftTest, conformal_p_values, corrected, log_capital
from kcost.risk.drift_usd import Band, band_counts, bands_of, drift_cost
from kcost.risk.drift_watch import DriftWatch

COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=12).filter(any).map(np.array)
PAIRS = st.integers(2, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 500), min_size=n, max_size=n).filter(any).map(np.array)] * 2)
)
NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50).map(np.array)


@given(PAIRS)
def test_sizes_of_histograms_are_symmetric_and_bounded(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = pair
    assert population_stability(p, q) == pytest.approx(population_stability(q, p), abs=1e-12)
    assert population_stability(p, q) >= -1e-12
    assert population_stability(p, p) == pytest.approx(0, abs=1e-12)
    assert 0 <= jensen_shannon(p, q) <= 1
    assert jensen_shannon(p, q) == pytest.approx(float(jensenshannon(p, q, base=2)), abs=1e-7)


@given(NUMBERS, NUMBERS, st.floats(-100, 100))
def test_sizes_of_numbers(a: np.ndarray, b: np.ndarray, shift: float) -> None:
    assert kolmogorov_smirnov(a, a) == 0
    assert 0 <= kolmogorov_smirnov(a, b) <= 1
    assert wasserstein(a, b) == pytest.approx(wasserstein(b, a))
    assert wasserstein(a, a + shift) == pytest.approx(abs(shift), abs=1e-6)


def test_the_stability_index_by_chance_is_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    shares = np.full(10, 0.1)
    pairs = [(rng.multinomial(2000, shares), rng.multinomial(500, shares)) for _ in range(2000)]
    mean = np.mean([population_stability(p, q) for p, q in pairs])
    assert mean == pytest.approx(stability_by_chance(*pairs[0]), rel=0.1)


def test_distances_of_vectors() -> None:
    rng = np.random.default_rng(1)
    plane = rng.normal(size=(4000, 2)) * [3, 1]
    vectors = np.concatenate([plane, np.zeros((4000, 3))], 1) + 5
    centre, components, spread = main_directions(vectors, 8)
    assert components.shape == (2, 5)  # there is nothing in the other three
    assert spread == pytest.approx([3, 1], rel=0.05)
    few = main_directions(rng.normal(size=(4, 9)), 8)  # more columns than rows
    assert few[1] @ few[1].T == pytest.approx(np.eye(3), abs=1e-9)
    along, off = embedding_distances(np.array([[5.0, 5, 5, 5, 5], [5, 5, 9, 5, 5]]), centre, components, spread)
    assert along == pytest.approx([0, 0], abs=0.1)
    assert off == pytest.approx([0, 4], abs=0.1)
    assert vector_basis(vectors).distances(vectors)[0].mean() == pytest.approx(1, abs=0.15)


@settings(max_examples=30, deadline=None)
@given(COUNTS, st.integers(0, 2**32 - 1))
def test_conformal_p_values_lie_in_the_unit_interval_and_follow_the_order(bag: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, uniforms = rng.integers(0, len(bag), 30), rng.random(30)
    p = conformal_p_values(bag, codes, uniforms)
    assert ((p >= 0) & (p < 1)).all()
    one_by_one = [
        conformal_p_values(bag + np.bincount(codes[:i], minlength=len(bag)), codes[i : i + 1], uniforms[i : i + 1])[0]
        for i in range(30)
    ]
    assert p == pytest.approx(one_by_one)


def test_conformal_p_values_are_uniform_however_small_the_reference() -> None:
    rng = np.random.default_rng(2)
    shares = np.array([0.7, 0.2, 0.1])
    p = np.concatenate(
        [
            conformal_p_values(rng.multinomial(5, shares), rng.choice(3, 20, p=shares), rng.random(20))
            for _ in range(500)
        ]
    )
    assert kolmogorov_smirnov(p, np.linspace(0, 1, 10_001)) < 1.63 / math.sqrt(len(p))  # 1% of Kolmogorov's


@given(st.lists(st.integers(0, 300), min_size=3, max_size=3))
def test_a_bettors_capital_is_a_martingale(counts: list[int]) -> None:
    """The mean over the next p-value's bin, each as likely as another, is the capital of before."""
    before = np.array(counts, np.float64)
    after = [log_capital(before + np.eye(3)[i]) for i in range(3)]
    assert np.mean(np.exp(np.array(after) - log_capital(before))) == pytest.approx(1, rel=1e-9)


def test_all_capital_is_given_out_once() -> None:
    """p-values spread evenly leave less than 1; nothing that came before makes it more."""
    test = DriftTest(np.array([10**9]))
    for _ in range(64):
        test.add(np.zeros(200, int), (np.arange(200) + 0.5) / 200)
        assert test.log_wealth < 0
    assert test.p_value == 1


def test_looking_after_every_window_gives_no_more_false_alarms_than_promised() -> None:
    """150 streams of 40 windows with a small reference: at most one in twenty may alarm."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(150):
        shares = rng.dirichlet(np.ones(6))
        test = DriftTest(rng.multinomial(300, shares))
        for _ in range(40):
            test.add(rng.choice(6, 50, p=shares), rng.random(50))
        alarms += test.p_value <= 0.05
    assert alarms <= 7


@pytest.mark.parametrize("quiet", [0, 300])
def test_a_change_is_found_early_and_late(quiet: int) -> None:
    rng = np.random.default_rng(4)
    test = DriftTest(np.full(10, 500))
    for _ in range(quiet):
        test.add(rng.integers(0, 10, 100), rng.random(100))
    assert test.p_value > 0.01
    for _ in range(2):
        test.add(rng.integers(0, 5, 100), rng.random(100))
    assert corrected(test.p_value, 20) < 0.01


def test_a_mean_shift_that_no_single_window_shows_is_found_in_the_end() -> None:
    rng = np.random.default_rng(5)
    reference = number_reference("x", "input", rng.normal(size=10_000))
    test = DriftTest(np.array(reference.counts))
    for _ in range(60):
        test.add(reference.codes(rng.normal(0.2, 1, 100)), rng.random(100))
    assert test.p_value < 1e-3


def test_references_know_what_never_came_before() -> None:
    reference = number_reference("x", "input", np.array([1.0, 2, 2, 3, np.nan]))
    codes = reference.codes(np.array([0.5, 1, 3, 3.1, np.inf, np.nan]))
    counts = np.array(reference.counts)
    assert counts.sum() == 5
    assert [counts[c] for c in codes] == [0, 1, 1, 0, 1, 1]
    assert number_reference("x", "input", np.array([np.nan])).counts == (0, 1)
    numbers = np.random.default_rng(9).normal(size=5000)
    whole = number_reference("x", "input", numbers)
    shaken = whole.codes(numbers * (1 + 1e-7))  # as another backend computes it
    assert (shaken != whole.codes(numbers)).mean() < 1e-3
    assert number_reference("x", "input", np.full(9, 0.1 + 0.2)).codes(np.array([0.3])) == 1
    names = category_reference("c", "output", np.array([str(i) for i in range(300)] + ["7"]))
    assert len(names.names) == MOST_CATEGORIES
    assert names.names[0] == "7"
    assert names.counts[-1] == 100
    assert names.codes(np.array(["7", "unheard"])).tolist() == [0, 200]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 400))
def test_bands_hold_every_row_once(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.choice([0.1, 0.5, 0.99, 1.0], count)
    right = rng.random(count) < confidence
    bands = bands_of(confidence, right)
    assert sum(b.rows for b in bands) == count
    assert sum(b.wrong for b in bands) == (~right).sum()
    assert band_counts(bands, confidence).tolist() == [b.rows for b in bands]


def test_dollars_of_no_drift_are_about_nothing_and_those_of_drift_hold_the_truth() -> None:
    rng = np.random.default_rng(6)
    holds = 0
    for _ in range(100):
        confidence = rng.choice([0.6, 0.99], 4000, p=[0.1, 0.9])
        bands = bands_of(confidence, rng.random(4000) < confidence)
        live = band_counts(bands, rng.choice([0.6, 0.99], 500, p=[0.5, 0.5]))
        cost = drift_cost(bands, live, 1e6, 2.0)
        truth = (0.5 - 0.1) * (0.99 - 0.6) * 1e6 * 2
        holds += cost.usd_per_month.low <= truth <= cost.usd_per_month.high
    assert 90 <= holds <= 99
    same = drift_cost((Band(low=0, rows=500, wrong=50), Band(low=0.9, rows=500, wrong=5)), np.array([500, 500]), 1, 1)
    assert same.usd_per_month.low < 0 < same.usd_per_month.high


def made_reference(rng: np.random.Generator, rows: int = 3000) -> Reference:
    confidence = rng.beta(8, 2, rows)
    columns = {"confidence": confidence, "class": rng.choice(["a", "b"], rows)}
    return Reference(
        model="m",
        model_sha256="0",
        dataset="d",
        split="test",
        rows=rows,
        unit="rows",
        label_names=("a", "b"),
        reading=Reading(kind="multiclass", logits=False, form="arrays"),
        features=features_of({"output": columns}),
        bands=bands_of(confidence, rng.random(rows) < confidence),
    )


def test_a_watch_says_what_drifted_how_surely_and_what_it_costs() -> None:
    rng = np.random.default_rng(7)
    watch = DriftWatch(made_reference(rng), 100, 0.01)
    for _ in range(13):  # 13 x 23 rows: 2 windows, and rows that wait for the third
        made = watch.add({"confidence": rng.beta(8, 2, 23), "class": rng.choice(["a", "b"], 23), "more": np.zeros(23)})
        assert made in (0, 1)
    calm = watch.report(1e6, 0.1)
    assert (calm.rows, calm.windows, calm.drifted) == (299, 2, ())
    assert calm.cost is not None
    assert calm.cost.usd_per_month.low < 0 < calm.cost.usd_per_month.high
    watch.add({"confidence": rng.beta(3, 3, 250), "class": rng.choice(["a", "b"], 250)})
    drift = watch.report(1e6, 0.1)
    assert [f.name for f in drift.drifted] == ["confidence"]
    assert drift.features[0].false_alarm_probability < 0.01
    assert drift.features[0].since_window in (3, 4)
    assert drift.cost is not None
    assert 0.2 < drift.cost.error_now.value < 0.6
    assert drift.cost.usd_per_month.low > 10_000
    # It goes back: what was found stays told, and it is not called drifted any more.
    watch.add({"confidence": rng.beta(8, 2, 300), "class": rng.choice(["a", "b"], 300)})
    back = watch.report(1e6, 0.1)
    assert back.drifted == ()
    assert next(f for f in back.features if f.name == "confidence").since_window in (3, 4)


def test_rows_that_are_no_numbers_are_seen() -> None:
    rng = np.random.default_rng(8)
    watch = DriftWatch(made_reference(rng), 50, 0.01)
    watch.add({"confidence": np.full(50, np.nan), "class": np.full(50, "c")})
    drift = watch.report(1.0, 0.0)
    assert {f.name for f in drift.drifted} == {"confidence", "class"}
    assert Reference.model_validate_json(watch.reference.model_dump_json()) == watch.reference


PIECES = Pieces(unknown=1, special=(0, 2, 3), continuation=((10, 19),), punctuation=((4, 5), (8, 8)))


def test_words_begin_where_they_begin_for_sure() -> None:
    #               [CLS] can   '   t  ##x  word  ##y  [UNK] [SEP] [PAD]
    ids = np.array([[2, 30, 4, 31, 12, 32, 11, 1, 3, 0]])
    mask = np.array([[1] * 9 + [0]])
    assert np.flatnonzero(word_starts(ids, mask, PIECES)[0]).tolist() == [1, 5, 7]
    columns = token_columns(ids, mask, PIECES)
    assert columns["length"].tolist() == [7]
    assert columns["unknown words"] == pytest.approx([1 / 7])
    assert columns["word pieces"] == pytest.approx([2 / 7])


def test_features_of_a_taggers_answers() -> None:
    logs = np.log(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]))
    columns = tag_columns(logs, np.array([0, 1, 1]), np.array([0, 0, 2]), 3, ("O", "B-X"), np.array([0.9, 0.9, 0.9]))
    assert columns["confidence"][[0, 2]] == pytest.approx([0.6, 0.8])
    assert np.isnan(columns["confidence"][1])
    assert columns["mean confidence"][0] == pytest.approx(0.75)
    assert columns["entities"].tolist() == [1, 0, 1]
    assert columns["tag"].tolist() == ["B-X", "(no word)", "B-X"]
    empty = tag_columns(np.zeros((0, 2)), np.zeros(0, int), np.zeros(0, int), 2, ("O", "B-X"), np.zeros(2))
    assert empty["tag"].tolist() == ["(no word)"] * 2


def test_live_answers_are_read_as_stored_ones() -> None:
    logits = np.array([[1.0, 2.0], [np.log(3), 0.0]])
    logs, predicted = log_probabilities_of(logits, Reading(kind="multiclass", logits=True, form="arrays"))
    assert np.exp(logs[1]) == pytest.approx([0.75, 0.25])
    assert predicted.tolist() == [1, 0]
    logs, predicted = log_probabilities_of(
        np.array([0.2, 0.7]), Reading(kind="binary", logits=False, threshold=0.1, form="arrays")
    )
    assert np.exp(logs) == pytest.approx(np.array([[0.8, 0.2], [0.3, 0.7]]))
    assert predicted.tolist() == [1, 1]
    labels = np.array([[0, 1, 2, -1], [1, -1, 0, 0]])
    answered = np.array([[0, 1, 2, 1], [0, 1, 0, 1]])
    assert entity_counts(labels, answered, ("O", "B-X", "I-X")).tolist() == [[1, 0, 0], [0, 1, 1]]
