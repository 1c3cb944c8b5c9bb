"""Figures of the test split from other answers than those of the model that was reported: a way of running it."""

from __future__ import annotations

import numpy as np

from kcost.core.predictions import Predictions, SplitPredictions
from kcost.risk.calibration import at_temperature, calibration
from kcost.risk.expected_loss import expected_loss
from kcost.risk.gates import Gates
from kcost.risk.overfitting import difference, flips
from kcost.risk.report import RiskReport, SplitScore
from kcost.risk.scores import main_score
from kcost.risk.slices import Columns, slices_of

FROM_ANSWERS = (
    "min_score",
    "max_score_drop",
    "max_calibration_error",
    "max_overfitting_gap",
    "min_worst_slice_score",
    "max_loss_usd_per_million",
)
"""The limits on figures that answers on the test split alone decide. Others rest on attacks, changes, other data, the
data themselves, or on what was measured."""


def answered_otherwise(
    report: RiskReport,
    model: Predictions,
    answers: SplitPredictions,
    columns: Columns,
    gates: Gates | None = None,
    against: str = "float32",
) -> RiskReport:
    """The report with the figures of other answers to test examples; the drop is below the model's own answers.

    The temperature stays that of the model, which is what is exported; the score on train is the model's.

    Args:
        model: predictions that the report is of.
        answers: of the test split or a part of it; `examples` are places in the split.
        columns: of the whole test split, as the report's slices are made of.
        gates: their prices of errors are used.
        against: what the model's own answers are called.

    Raises:
        ValueError: answers to examples that the model did not answer, or with other labels.
    """
    header, unit = model.header, report.unit
    own = taken(model.splits["test"], answers.examples)
    prices = None if gates is None else gates.loss
    score = main_score(answers, unit)
    scores = tuple(s for s in report.scores if s.split != "test")
    train = next(s.score for s in scores if s.split == "train")
    at_these = {name: values[answers.examples] for name, values in columns.items()}
    return report.model_copy(
        update={
            "scores": (*scores, SplitScore(split="test", score=score, examples=len(answers))),
            "gap": difference("overfitting_gap", train, score),
            "calibration": calibration(answers, unit),
            "calibration_at_temperature": calibration(at_temperature(answers, report.temperature.value), unit),
            "slices": slices_of(answers, at_these, unit, header.entity_types),
            "flips": flips(own, answers, against, at_these, unit),
            "loss": None
            if prices is None
            else expected_loss(answers, prices, header.label_names, header.entity_types, unit),
        }
    )


def taken(answers: SplitPredictions, examples: np.ndarray) -> SplitPredictions:
    """Answers to chosen examples of a split alone.

    Args:
        examples: places in the split, ascending, shape (n,), integers.

    Raises:
        ValueError: one of them was not answered.
    """
    places = np.searchsorted(answers.examples, examples)
    if len(examples) and (places.max() >= len(answers) or not np.array_equal(answers.examples[places], examples)):
        raise ValueError("Answers are taken of examples that were answered")
    row_of = np.full(len(answers), -1)
    row_of[places] = np.arange(len(places))
    kept = row_of[answers.rows] >= 0
    return SplitPredictions(
        labels=answers.labels[kept],
        predicted=answers.predicted[kept],
        log_probabilities=answers.log_probabilities[kept],
        rows=row_of[answers.rows][kept],
        examples=answers.examples[places],
        entity_counts=None if answers.entity_counts is None else answers.entity_counts[places],
    )
