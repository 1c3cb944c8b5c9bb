"""Figures of a way of running a model, from its own answers to a part of the test split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kcost.core.predictions import SplitPredictions
from kcost.risk.decide import Measured, decide
from kcost.risk.gates import parse_gates
from kcost.risk.other_answers import answered_otherwise, taken
from kcost.risk.report import Surroundings, assess
from tests.unit.risk.reports import EVIDENCE, predictions

LIMITS = parse_gates(
    "min_score = 0.8\nmax_score_drop = 0.02\nmax_calibration_error = 0.05\nmax_overfitting_gap = 0.1\n"
    "min_worst_slice_score = 0.6\nmax_loss_usd_per_million = 20000.0\n[loss]\nwrong_usd = 0.1",
    "gates.toml",
)


@pytest.mark.parametrize("kind", ["multiclass", "tags"])
def test_the_models_own_answers_give_the_models_own_figures(kind: str) -> None:
    model = predictions(kind)
    report = assess(model, EVIDENCE, Surroundings())
    same = answered_otherwise(report, model, model.splits["test"], {})
    assert same.flips is not None
    assert (same.flips.lost, same.flips.drop.value) == (0, 0)
    assert same.model_copy(update={"flips": None, "scores": ()}) == report.model_copy(update={"scores": ()})
    assert same.test_score == report.test_score


def test_gates_fall_on_what_a_way_answers_and_not_on_the_model() -> None:
    model = predictions(count=3000)
    test = model.splits["test"]
    columns = {"source": np.where(test.examples % 3 == 0, "web", "app")}
    report = assess(model, EVIDENCE, Surroundings(columns=columns), LIMITS)
    half = taken(test, test.examples[::2])
    lost = half.examples % 3 == 0  # of one slice every answer is another one
    worse = replace(
        half,
        predicted=np.where(lost, (half.predicted + 1) % 4, half.predicted),
        log_probabilities=np.where(lost[:, None], np.roll(half.log_probabilities, 1, axis=1), half.log_probabilities),
    )
    of_way = decide(answered_otherwise(report, model, worse, columns, LIMITS), LIMITS, Measured())
    answers = {v.gate: v.answer for v in of_way.verdicts}
    assert answers == dict.fromkeys(LIMITS.limits, "fail")
    worst = of_way.slices.worst
    assert worst is not None
    assert worst.name == "source=web"
    assert of_way.flips is not None
    assert of_way.flips.drop.value > 0.2
    before = {v.gate: v.answer for v in decide(report, LIMITS, Measured()).verdicts}
    assert before["min_score"] == "pass"
    assert before["max_score_drop"] == "can't tell"  # nothing was named to hold it against


def test_answers_to_what_the_model_did_not_answer_are_refused() -> None:
    test: SplitPredictions = predictions(count=100).splits["test"]
    with pytest.raises(ValueError, match="were answered"):
        taken(test, np.array([3, 200]))


def test_a_part_keeps_the_words_of_its_sentences() -> None:
    test = predictions("tags", count=50).splits["test"]
    part = taken(test, np.array([4, 9, 30]))
    assert part.rows.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert part.labels.tolist() == [test.labels[3 * i + j] for i in (4, 9, 30) for j in range(3)]
    assert part.entity_counts is not None
    assert test.entity_counts is not None
    assert np.array_equal(part.entity_counts, test.entity_counts[[4, 9, 30]])
