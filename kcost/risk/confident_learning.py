"""Labels that look wrong to cleanlab, which is an extra: another way to the same question as `label_noise`."""

from __future__ import annotations

import importlib.metadata

import numpy as np
from pydantic import Field

from kcost.core.errors import UnavailableError
from kcost.core.predictions import SplitPredictions
from kcost.core.schema import Record

TOLD = 20


class LabelIssue(Record):
    """An example whose label confident learning takes for wrong."""

    example: int = Field(description="place in the split")
    label: str
    answer: str
    self_confidence: float = Field(description="probability that the model gives the label")


class ConfidentLearning(Record):
    """Labels that look wrong by confident learning."""

    version: str = Field(description="of cleanlab")
    issues: int = Field(description="labels that look wrong")
    examples: int
    first: tuple[LabelIssue, ...] = Field(description="those with the least self confidence")


def confident_learning(answers: SplitPredictions, names: tuple[str, ...]) -> ConfidentLearning:
    """Labels of a classifier's split that cleanlab would look at, by its own defaults.

    Source: Northcutt, Jiang and Chuang (2021), Confident Learning: Estimating Uncertainty in Dataset Labels, Journal of
    Artificial Intelligence Research 70.

    Args:
        answers: of examples that the model was not trained on, one label each.
        names: of the classes.

    Raises:
        UnavailableError: cleanlab is not installed.
        ValueError: an example has several labels.
    """
    if len(answers.labels) != len(answers):
        raise ValueError("Confident learning is of one label an example. Received: several")
    try:
        from cleanlab.filter import find_label_issues
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "Confident learning is done by cleanlab.",
            received="not installed",
            remedy="pip install 'kcost[label-noise]', or leave --cleanlab out: kcost has a way of its own.",
        ) from error
    probabilities = np.exp(answers.log_probabilities.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)  # those below the least that is kept made them more than 1
    places = find_label_issues(
        labels=answers.labels, pred_probs=probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return ConfidentLearning(
        version=importlib.metadata.version("cleanlab"),
        issues=len(places),
        examples=len(answers),
        first=tuple(
            LabelIssue(
                example=int(answers.examples[answers.rows[i]]),
                label=names[answers.labels[i]],
                answer=names[answers.predicted[i]],
                self_confidence=float(probabilities[i, answers.labels[i]]),
            )
            for i in places[:TOLD]
        ),
    )
