"""Scores a model on the test split of a data set."""

from __future__ import annotations

from kcost.core.request import EvaluateRequest, Evaluation
from kcost.training.tasks import refuse_nan_weights
from kcost.worker.model_and_data import open_with_data
from kcost.worker.progress import counted


def run(request: EvaluateRequest) -> Evaluation:
    """Scores as the request says."""
    opened = open_with_data(request.model, request.data, request.limit, request.answer, request.pixels)
    refuse_nan_weights(opened.model)
    if request.auroc:
        opened.task.ask_auroc()
    tasks = (opened.task, *opened.others)
    with counted(sum(len(task.labels("test")) for task in tasks), opened.task.unit) as of_pass:
        count = of_pass("scoring")
        predictions, *others = (task.predict(opened.model, "test", request.batch_size, count) for task in tasks)
    scores = list(opened.task.score(predictions, "test"))
    for task, answers in zip(opened.others, others, strict=True):
        scores += task.score(answers, "test")
    return Evaluation(
        scores=tuple(scores),
        report=opened.task.report(predictions, "test"),
        dataset=opened.dataset,
        answers=opened.task.answers,
    )
