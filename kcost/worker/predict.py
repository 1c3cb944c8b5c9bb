"""Stores what a model answers on each split of a data set, with labels and probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kcost.backends.base import as_host_array
from kcost.core.answer_scores import decided, predictions_of
from kcost.core.artifact import open_model
from kcost.core.entities import tags_of_words
from kcost.core.errors import InputError
from kcost.core.predictions import (
    PredictionsHeader,
    SplitPredictions,
    log_probabilities_of,
    write_predictions,
)
from kcost.core.request import PredictAnswer, PredictRequest
from kcost.core.scores import typed_sentence_counts
from kcost.data.sets import SPLITS
from kcost.training.tasks import Task, TokenClassification, refuse_not_finite
from kcost.worker.model_and_data import open_with_data
from kcost.worker.progress import counted

OutputsOf = Callable[[Any, np.ndarray, int], Any]
"""A batch's inputs, its labels and its place among the batches -> what the model answers."""

ORDER_SEED = 0
"""Of the order in which training examples are taken, where not all are."""


def run(request: PredictRequest) -> PredictAnswer:
    """Predicts every split, and writes the file that the request names.

    Raises:
        InputError: the model answers with no classes, or the data have no labels for it.
        GateError: an answer is NaN or infinite.
    """
    opened = open_with_data(request.model, request.data, request.limit, request.answer, request.pixels)
    task, about = opened.task, open_model(request.model)
    refuse_unlabelled(task)
    splits, types = {}, entity_types(task)
    most = {split: len(task.labels(split)) for split in SPLITS}
    most["train"] = min(most["train"], request.train_examples)
    with counted(sum(most.values()), task.unit) as of_pass:
        for split in SPLITS:
            count = of_pass(f"predicting {split}")
            splits[split] = answered(plainly(opened.model), task, split, request.batch_size, most[split], types, count)
    header = PredictionsHeader(
        model=about.name,
        model_sha256=about.sha256,
        backend=os.environ["KERAS_BACKEND"],
        dataset=opened.dataset,
        label_names=class_names(task.label_names, splits["test"].log_probabilities.shape[1]),
        entity_types=types,
        kind=task.answers.main.kind,
        answer=task.answers.main,
        place=task.answers.main_place,
        unit=task.unit,
        limit=request.limit,
        train_examples=request.train_examples,
        choice=request.answer,
        pixels=request.pixels,
    )
    write_predictions(request.file, header, splits)
    return PredictAnswer(dataset=opened.dataset, answers=task.answers)


def refuse_unlabelled(task: Task) -> None:
    """Raises InputError where the data have no labels of what the model answers."""
    if task.answers.scored is None:
        raise InputError(
            "Risk is taken from answers with labels.",
            received=f"{task.record.name}: {task.answers.unscored_because}",
            remedy="Name the output that labels are of with --output, or its kind with --task.",
        )


def plainly(model: keras.Model) -> OutputsOf:
    """The model's answers to inputs as they are."""
    return lambda inputs, labels, place: model.predict_on_batch(inputs)


def answered(
    outputs_of: OutputsOf,
    task: Task,
    split: str,
    batch_size: int,
    most: int | None,
    types: tuple[str, ...],
    count: Callable[[int], None],
) -> SplitPredictions:
    """The answers on a split, or on at most about `most` of its examples, whole batches of a seeded order.

    Args:
        count: told after each batch how many more examples are done.

    Raises:
        InputError: the answers are of no classes, or no label counts.
        GateError: an answer is NaN or infinite.
    """
    labels, answer = task.labels(split), task.answers.main
    sampled = most is not None and most < len(labels)
    batches = task.batches(split, batch_size, seed=ORDER_SEED if sampled else None)
    taken = np.zeros(len(labels), bool)
    predicted = np.zeros(labels.shape, np.int64)
    logs: np.ndarray | None = None
    for i in range(len(batches)):
        if most is not None and taken.sum() >= most:
            break
        inputs, known_labels = batches[i]
        rows, length = batches.rows(i)
        outputs = keras.tree.flatten(outputs_of(inputs, known_labels, i))
        numbers = as_host_array(np.asarray(outputs[task.answers.main_place]))
        refuse_not_finite([answer.output], [numbers], split)
        log_probabilities = log_probabilities_of(answer, numbers)
        if logs is None:
            logs = np.zeros((*labels.shape, log_probabilities.shape[-1]), np.float32)
        place = rows if labels.ndim == 1 else (rows, slice(length))
        logs[place], taken[rows] = log_probabilities, True
        predicted[place] = decided(answer, predictions_of(answer, numbers))
        count(len(rows))
    assert logs is not None, "a split holds one example at least"
    examples = np.flatnonzero(taken)
    counts = _entity_counts(task, split, predicted, examples, types) if isinstance(task, TokenClassification) else None
    labels, predicted, logs = labels[examples], predicted[examples], logs[examples]
    known = labels >= 0
    if not known.any():
        raise InputError(
            "Each split holds a label that counts.",
            received=f"{len(labels):,} examples of {split} in {task.record.name}, with labels below 0 alone",
            remedy="Give other data with --data, or another --limit.",
        )
    return SplitPredictions(
        labels=labels[known].astype(np.int64),
        predicted=predicted[known],
        log_probabilities=logs[known],
        rows=np.nonzero(known)[0].astype(np.int64),
        examples=examples.astype(np.int64),
        entity_counts=counts,
    )


def entity_types(task: Task) -> tuple[str, ...]:
    """The types of entities that a tagger knows, in alphabetical order; none of a classifier."""
    if not isinstance(task, TokenClassification):
        return ()
    return tuple(sorted({name[2:] for name in task.label_names if name[:2] == "B-"}))


def _entity_counts(
    task: TokenClassification, split: str, predicted: np.ndarray, examples: np.ndarray, types: tuple[str, ...]
) -> np.ndarray:
    encoded = task.encoded(split)
    unseen = [encoded.unseen_labels[i] for i in examples]
    tags = tags_of_words(encoded.labels[examples], predicted[examples], unseen, task.label_names)
    return typed_sentence_counts(*tags, types)


def class_names(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """A name for each of `count` classes: its own, else its number."""
    return (*names[:count], *(str(i) for i in range(len(names), count)))
