"""Calibration against closed forms, and against models that are known to be calibrated or not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from kcost.core.predictions import SplitPredictions
from kcost.report.risk_terminal import limits
from kcost.risk.abstention import abstention, by_example, risk_coverage
from kcost.risk.calibration import at_temperature, bins_of, calibration, fit_temperature

from .answers import classifier, sure_of, tagger
from .reports import report


def test_equal_answers_are_off_by_what_they_are_off_by() -> None:
    """One bin: |0.9 - 0.75| exactly, and Brier and log loss by hand."""
    figures = calibration(sure_of(0.9, [True, True, True, False] * 100), "examples")
    assert figures.error_uncorrected == pytest.approx(0.15, abs=1e-6)
    assert figures.error.value == pytest.approx(0.15, abs=0.005)
    assert figures.error.low < 0.15 < figures.error.high
    assert figures.brier.value == pytest.approx(0.75 * 2 * 0.1**2 + 0.25 * 2 * 0.9**2, abs=1e-6)
    assert figures.log_loss.value == pytest.approx(-0.75 * np.log(0.9) - 0.25 * np.log(0.1), abs=1e-6)
    assert [b.count for b in figures.bins] == [400]


def test_log_loss_is_that_of_scikit_learn() -> None:
    answers = classifier(500, 0)
    expected = log_loss(answers.labels, np.exp(answers.log_probabilities.astype(np.float64)), labels=range(4))
    assert calibration(answers, "examples").log_loss.value == pytest.approx(expected, abs=1e-5)


def test_the_noise_of_the_bins_is_taken_out() -> None:
    """A calibrated model has no error: what the bins show of it is noise, and most of that is subtracted."""
    figures = [calibration(classifier(1000, seed), "examples") for seed in range(20)]
    plain = np.mean([t.error_uncorrected for t in figures])
    corrected = np.mean([t.error.value for t in figures])
    assert plain > 0.025
    assert corrected < plain / 2


def test_the_interval_holds_the_error_of_an_overconfident_model() -> None:
    truth = calibration(classifier(100_000, 99, temperature=2), "examples").error.value
    hits = [
        figure.low <= truth <= figure.high
        for figure in (calibration(classifier(1500, seed, temperature=2), "examples").error for seed in range(40))
    ]
    assert np.mean(hits) >= 0.88


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_that_was_put_in_is_the_one_that_comes_out(temperature: float) -> None:
    fitted = fit_temperature(classifier(20_000, 1, temperature=temperature))
    assert fitted.value == pytest.approx(temperature, rel=0.05)
    assert fitted.log_loss_after <= fitted.log_loss_before
    assert not fitted.no_optimum


def test_a_temperature_mends_an_overconfident_model_and_changes_no_answer() -> None:
    answers = classifier(5000, 2, temperature=2)
    mended = at_temperature(answers, fit_temperature(classifier(5000, 3, temperature=2)).value)
    assert np.array_equal(mended.predicted, answers.predicted)
    before, after = (calibration(a, "examples").error.value for a in (answers, mended))
    assert after <= max(before / 2, 0.02)


def test_a_model_that_is_never_wrong_wants_no_temperature_at_all() -> None:
    temperature = fit_temperature(sure_of(0.9, [True] * 50))
    assert temperature.no_optimum
    assert temperature.value == 1


def test_words_of_one_sentence_are_drawn_together() -> None:
    """Sentences that are all right or all wrong say less than as many single words."""
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(200) < 0.7, 10)
    words = sure_of(0.9, right.tolist())
    grouped = SplitPredictions(
        words.labels, words.predicted, words.log_probabilities, np.repeat(np.arange(200), 10), np.arange(200)
    )
    alone, together = calibration(words, "words").error, calibration(grouped, "sentences").error
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert together.count == 200


def test_bins_hold_equal_counts_and_few_answers_make_few_bins() -> None:
    rng = np.random.default_rng(0)
    assert np.bincount(bins_of(rng.random(1500))).tolist() == [100] * 15
    assert bins_of(rng.random(50)).max() == 1
    assert set(bins_of(np.full(100, 0.5)).tolist()) == {0}


def test_nothing_is_no_calibration() -> None:
    empty = SplitPredictions(*(np.zeros(s) for s in (0, 0, (0, 2), 0, 0)))
    with pytest.raises(ValueError, match="none"):
        calibration(empty, "examples")
    with pytest.raises(ValueError, match="none"):
        fit_temperature(empty)


def test_the_curve_of_a_model_that_knows_its_errors() -> None:
    answers = sure_of(0.9, [True] * 8 + [False] * 2)
    logs = answers.log_probabilities.copy()
    logs[8:] = np.log([[0.6, 0.4]])
    curve = risk_coverage(SplitPredictions(answers.labels, answers.predicted, logs, answers.rows, answers.examples))
    # The two wrong ones are answered together, and their error spread: 1/9 and 2/10.
    assert curve.area == pytest.approx((1 / 9 + 2 / 10) / 10)
    assert curve.area == pytest.approx(curve.least_area)
    assert curve.points[-1].coverage == 1
    assert curve.points[-1].error == pytest.approx(0.2)


def test_a_sentence_is_as_sure_as_its_least_sure_word() -> None:
    answers = tagger(50, 0)
    confidence, wrong = by_example(answers)
    assert confidence == pytest.approx(np.full(50, 0.8))
    assert wrong.tolist() == [not answers.right[answers.rows == i].all() for i in range(50)]


def test_the_threshold_keeps_the_error_below_its_target() -> None:
    """The bound holds at 95% of validation sets: of 60, the true error is above the target in few."""
    truth = classifier(100_000, 1000)
    confidence, wrong = by_example(truth)
    above = 0
    for seed in range(60):
        abstaining = abstention(classifier(1000, seed), classifier(500, seed + 500), 0.2, "examples")
        assert abstaining.threshold is not None
        assert abstaining.coverage is not None
        assert 0 < abstaining.coverage.value < 1
        above += wrong[confidence >= abstaining.threshold].mean() > 0.2
    assert above <= 6


def test_no_threshold_meets_what_cannot_be_met() -> None:
    abstaining = abstention(classifier(100, 0), classifier(100, 1), 0.001, "examples")
    assert abstaining.threshold is None
    assert abstaining.error is None


def test_a_model_that_is_sure_by_chance_has_no_temperature_and_says_why() -> None:
    rng = np.random.default_rng(0)
    labels, logs = rng.integers(0, 4, 400), rng.normal(0, 5, (400, 4)).astype(np.float32)
    places = np.arange(400)
    answers = SplitPredictions(labels, logs.argmax(1), logs, places, places)
    fitted = fit_temperature(answers)
    assert (fitted.value, fitted.no_optimum) == (1.0, True)
    (limit,) = (line for line in limits(report().model_copy(update={"temperature": fitted})) if "temperature" in line)
    assert "none better than chance" in limit
