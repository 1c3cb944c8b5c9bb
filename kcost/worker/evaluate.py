"""Scores a model on the test split of a data set."""

from __future__ import annotations

from typing import Any

from kcost.core.request import EvaluateRequest, Evaluation
from kcost.worker.model_and_data import open_with_data


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Scores as an EvaluateRequest says; answers with an Evaluation."""
    asked = EvaluateRequest.model_validate(request)
    opened = open_with_data(asked.model, asked.data, asked.limit, asked.answer, asked.pixels)
    if asked.auroc:
        opened.task.ask_auroc()
    predictions = opened.task.predict(opened.model, "test", asked.batch_size)
    scores = list(opened.task.score(predictions, "test"))
    for task in opened.others:
        scores += task.score(task.predict(opened.model, "test", asked.batch_size), "test")
    return Evaluation(
        scores=tuple(scores),
        report=opened.task.report(predictions, "test"),
        dataset=opened.dataset,
        answers=opened.task.answers,
    ).model_dump(mode="json")
