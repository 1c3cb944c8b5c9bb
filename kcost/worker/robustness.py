"""Scores a model on test examples that an attacker changed who knows its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kcost.core.answer_scores import predictions_of
from kcost.core.request import AttackedScores, AttackReport, AttackRequest
from kcost.training.adversarial import PerturbedModel
from kcost.training.attacks import fgsm, pgd
from kcost.training.tasks import Task
from kcost.worker.model_and_data import open_with_data
from kcost.worker.progress import counted

STEP_FRACTION = 2.5
"""Times epsilon over the number of steps is the size of a PGD step, so that it can reach and follow the ball's edge."""


def run(request: AttackRequest) -> AttackReport:
    """Scores for each epsilon from 0 up. Sizes are of a change of images in [0, 1], whatever scale the model takes.

    The size is the largest change of a value for images (`linf`), and the Euclidean length of the change for the
    embedded tokens of a text (`l2`).

    Raises:
        UnavailableError: the model has no place where it can be attacked.
    """
    opened = open_with_data(request.model, request.data, request.limit, pixels=request.pixels)
    perturbed = PerturbedModel(opened.model, opened.task.answers.main, opened.task.is_text, opened.task.pixels)
    results, sizes = [], sorted({0.0, *request.epsilons})
    with counted(len(sizes) * len(opened.task.labels("test")), opened.task.unit) as of_pass:
        for epsilon in sizes:
            count = of_pass(f"attacking by {epsilon:g}")
            scores = opened.task.score(_predictions(perturbed, opened.task, request, epsilon, count), "test")
            results.append(AttackedScores(epsilon=epsilon, scores=tuple(scores)))
    return AttackReport(
        attack=request.attack,
        norm=perturbed.norm,
        mean_length=mean_length(perturbed, opened.task, request.batch_size) if perturbed.norm == "l2" else None,
        results=tuple(results),
        dataset=opened.dataset,
    )


def _predictions(
    perturbed: PerturbedModel, task: Task, request: AttackRequest, epsilon: float, count: Callable[[int], None]
) -> np.ndarray:
    """Class numbers on the test split under attack, in the shape of its labels.

    Args:
        count: told after each batch how many more examples are done.
    """
    batches = task.batches("test", request.batch_size, seed=None)
    kept = np.float32 if task.answers.main.kind == "binary" else np.int32
    predictions = np.zeros(task.labels("test").shape, kept)
    for i in range(len(batches)):
        inputs, labels = batches[i]
        point = perturbed.points(inputs)
        if epsilon:
            rng = np.random.default_rng((request.seed, i))
            point = attacked_point(perturbed, point, inputs, labels, request, epsilon, rng)
        rows, length = batches.rows(i)
        place = rows if predictions.ndim == 1 else (rows, slice(length))
        predictions[place] = predictions_of(task.answers.main, perturbed.predict(point, inputs))
        count(len(rows))
    return predictions


def attacked_point(
    perturbed: PerturbedModel,
    point: np.ndarray,
    inputs: Any,
    labels: np.ndarray,
    request: AttackRequest,
    epsilon: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """A batch's points as an attack of that size, in the unit of `run`, changes them."""
    gradient_fn = perturbed.gradient_fn(inputs)
    epsilon *= perturbed.unit
    if request.attack == "fgsm":
        return fgsm(gradient_fn, point, labels, epsilon, clip=perturbed.clip, norm=perturbed.norm)
    return pgd(
        gradient_fn,
        point,
        labels,
        epsilon,
        steps=request.steps,
        step_size=STEP_FRACTION * epsilon / request.steps,
        rng=rng,
        clip=perturbed.clip,
        norm=perturbed.norm,
        where=_real(inputs) if perturbed.is_text else None,
    )


def mean_length(perturbed: PerturbedModel, task: Task, batch_size: int) -> float:
    """Mean Euclidean length of the embedded tokens of an example, padding left out."""
    batches = task.batches("test", batch_size, seed=None)
    inputs = [batches[i][0] for i in range(len(batches))]
    squares = [np.square(perturbed.points(x) * _real(x)).sum(axis=(1, 2)) for x in inputs]
    return float(np.sqrt(np.concatenate(squares)).mean())


def _real(inputs: Any) -> np.ndarray:
    """1 on tokens, 0 on padding, shape (batch, length, 1)."""
    mask: np.ndarray = inputs["padding_mask"][..., None]
    return mask
