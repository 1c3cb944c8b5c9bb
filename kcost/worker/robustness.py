"""Scores a model on test examples that an attacker changed who knows its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from kcost.core.answer_scores import predictions_of
from kcost.core.request import AttackRequest
from kcost.training.adversarial import PerturbedModel
from kcost.training.attacks import fgsm, pgd
from kcost.training.tasks import Task
from kcost.worker.model_and_data import open_with_data

STEP_FRACTION = 2.5
"""Times epsilon over the number of steps is the size of a PGD step, so that it can reach and follow the ball's edge."""


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Scores as an AttackRequest says. Sizes are of a change of images in [0, 1], whatever scale the model takes.

    Returns:
        `results`: for each epsilon from 0 up, `epsilon` and `scores`. `norm`: how the size of a change is measured,
        `linf` for images in [0, 1], `l2` for the embedded tokens of a text. `mean_length`: for `l2` the mean
        Euclidean length of what is changed, to set epsilon against; else None. `dataset`: its record.

    Raises:
        UnavailableError: the model has no place where it can be attacked.
    """
    asked = AttackRequest.model_validate(request)
    opened = open_with_data(asked.model, asked.data, asked.limit, pixels=asked.pixels)
    perturbed = PerturbedModel(opened.model, opened.task.answers.main, opened.task.is_text, opened.task.pixels)
    results = []
    for epsilon in sorted({0.0, *asked.epsilons}):
        found = opened.task.score(_predictions(perturbed, opened.task, asked, epsilon), "test")
        results.append({"epsilon": epsilon, "scores": [s.model_dump() for s in found]})
    return {
        "attack": asked.attack,
        "norm": perturbed.norm,
        "mean_length": _mean_length(perturbed, opened.task, asked.batch_size) if perturbed.norm == "l2" else None,
        "results": results,
        "dataset": opened.dataset.model_dump(),
    }


def _predictions(perturbed: PerturbedModel, task: Task, asked: AttackRequest, epsilon: float) -> np.ndarray:
    """Class numbers on the test split under attack, in the shape of its labels."""
    batches = task.batches("test", asked.batch_size, seed=None)
    kept = np.float32 if task.answers.main.kind == "binary" else np.int32
    predictions = np.zeros(task.labels("test").shape, kept)
    for i in range(len(batches)):
        inputs, labels = batches[i]
        point = perturbed.points(inputs)
        if epsilon:
            point = _attacked(perturbed, point, inputs, labels, asked, epsilon, np.random.default_rng((asked.seed, i)))
        rows, length = batches.rows(i)
        place = rows if predictions.ndim == 1 else (rows, slice(length))
        predictions[place] = predictions_of(task.answers.main, perturbed.predict(point, inputs))
    return predictions


def _attacked(
    perturbed: PerturbedModel,
    point: np.ndarray,
    inputs: Any,
    labels: np.ndarray,
    asked: AttackRequest,
    epsilon: float,
    rng: np.random.Generator,
) -> np.ndarray:
    gradient_fn = perturbed.gradient_fn(inputs)
    epsilon *= perturbed.unit
    if asked.attack == "fgsm":
        return fgsm(gradient_fn, point, labels, epsilon, clip=perturbed.clip, norm=perturbed.norm)
    return pgd(
        gradient_fn,
        point,
        labels,
        epsilon,
        steps=asked.steps,
        step_size=STEP_FRACTION * epsilon / asked.steps,
        rng=rng,
        clip=perturbed.clip,
        norm=perturbed.norm,
        where=_real(inputs) if perturbed.is_text else None,
    )


def _mean_length(perturbed: PerturbedModel, task: Task, batch_size: int) -> float:
    """Mean Euclidean length of the embedded tokens of an example, padding left out."""
    batches = task.batches("test", batch_size, seed=None)
    inputs = [batches[i][0] for i in range(len(batches))]
    squares = [np.square(perturbed.points(x) * _real(x)).sum(axis=(1, 2)) for x in inputs]
    return float(np.sqrt(np.concatenate(squares)).mean())


def _real(inputs: Any) -> np.ndarray:
    """1 on tokens, 0 on padding, shape (batch, length, 1)."""
    mask: np.ndarray = inputs["padding_mask"][..., None]
    return mask
