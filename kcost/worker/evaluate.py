"""Scores a model on the test split of a data set."""

from __future__ import annotations

from typing import Any

from kcost.core.request import EvaluateRequest
from kcost.worker.opening import open_with_data


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Scores as an EvaluateRequest says; answers with the scores."""
    asked = EvaluateRequest.model_validate(request)
    opened = open_with_data(asked.model, asked.data, asked.limit)
    scores = opened.task.scores(opened.model, "test", asked.batch_size)
    return {"scores": [s.model_dump() for s in scores], "dataset": opened.dataset.model_dump()}
