"""Stores how sure a model is of its own test examples, and of examples of other data that it was not made for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from kcost import data
from kcost.backends.base import as_host_array
from kcost.core.answer_scores import decided, predictions_of
from kcost.core.artifact import Model, open_model
from kcost.core.errors import InputError
from kcost.core.ood_scores import OodScores, OodScoresHeader, write_ood_scores
from kcost.core.predictions import log_probabilities_of
from kcost.core.request import OodAnswer, OodRequest
from kcost.data import Arrays, DataSet, Images, ImageSet, Sentence, TagSet, Texts, TextSet
from kcost.models.loading import load_keras_file
from kcost.models.logits import before_softmax
from kcost.training.tasks import Task, refuse_not_finite
from kcost.worker.model_and_data import on_data
from kcost.worker.predict import refuse_unlabelled
from kcost.worker.progress import counted

SAME_PROBABILITY = 1e-3
"""Logits are those of a softmax where they give its probabilities within this."""


def run(request: OodRequest) -> OodAnswer:
    """Predicts both test splits, and writes the file that the request names.

    Raises:
        InputError: the other data are of another kind or shape, or the model answers with no classes.
        GateError: an answer is NaN or infinite.
    """
    about = open_model(request.model)
    read = data.load(data.chosen(about, request.data), limit=request.limit)
    named = data.load(request.other, limit=request.limit)
    model = load_keras_file(about.keras_file)
    own = on_data(about, model, read, request.answer, request.pixels).task
    refuse_unlabelled(own)
    other = on_data(about, model, unlabelled(named, read), request.answer, request.pixels).task
    logits, no_energy_because = _logits(about, model, own, request.batch_size)
    header = OodScoresHeader(
        model=about.name,
        model_sha256=about.sha256,
        backend=os.environ["KERAS_BACKEND"],
        dataset=read.record,
        other=named.record,
        unit=own.unit,
        choice=request.answer,
        pixels=request.pixels,
        no_energy_because=no_energy_because,
    )
    with counted(len(own.labels("test")) + len(other.labels("test")), own.unit) as of_pass:
        own_scores, other_scores = (
            _scores(model, logits, task, request.batch_size, of_pass(f"predicting {name}"))
            for task, name in ((own, read.name), (other, named.name))
        )
    write_ood_scores(request.file, header, own_scores, other_scores)
    return OodAnswer(dataset=read.record, other=named.record)


def unlabelled(other: DataSet, read: DataSet) -> DataSet:
    """The test examples of other data in the place of a data set's own, whose labels then mean nothing.

    Raises:
        InputError: they are of another kind, or images of another shape.
    """
    rule = "Other data are of the kind that the model takes."
    remedy = "Name other data with --ood."
    if other.task != read.task:
        raise InputError(rule, f"{other.name} for {other.task}, {read.name} for {read.task}", remedy)
    test: Any = other.splits["test"]
    part: object
    if isinstance(read, ImageSet):
        assert isinstance(test, Images)
        if test.x.shape[1:] != read.image_shape:
            raise InputError(
                rule, f"{other.name} with images of {test.x.shape[1:]}, {read.name} of {read.image_shape}", remedy
            )
        part = Images(test.x, np.zeros(len(test), np.int32))
    elif isinstance(read, TextSet):
        part = Texts(test.texts, np.zeros(len(test), np.int32))
    elif isinstance(read, TagSet):
        part = tuple(Sentence(s.tokens, ("O",) * len(s.tokens)) for s in test)
    else:
        own = read.splits["test"]
        assert isinstance(own, Arrays)
        part = Arrays(test.x, {name: np.repeat(y[:1], len(test), 0) for name, y in own.y.items()})
    return replace(read, splits={**read.splits, "test": part})  # type: ignore[arg-type]  # of the same kind


def _logits(about: Model, model: keras.Model, task: Task, batch_size: int) -> tuple[keras.Model | None, str | None]:
    """The model that gives logits, or why there is none."""
    answer, place = task.answers.main, task.answers.main_place
    if answer.kind == "binary":
        return None, "a yes or no has no energy: a sure no would have little of it"
    if answer.logits:
        return model, None
    inputs, _ = task.batches("test", batch_size, seed=None)[0]
    probabilities = _numbers(model, inputs, place)
    cut = before_softmax(model, place)
    if cut is None:
        return None, f"the output of {about.name} ends in no softmax that can be seen"
    logits = _numbers(cut, inputs, 0)
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    if abs(shifted / shifted.sum(-1, keepdims=True) - probabilities).max() > SAME_PROBABILITY:
        return None, f"what stands before the last softmax of {about.name} does not give its probabilities"
    return cut, None


def _numbers(model: keras.Model, inputs: Any, place: int) -> np.ndarray:
    outputs = keras.tree.flatten(model.predict_on_batch(inputs))
    numbers: np.ndarray = as_host_array(np.asarray(outputs[place])).astype(np.float64)
    return numbers


def _scores(
    model: keras.Model, logits: keras.Model | None, task: Task, batch_size: int, count: Callable[[int], None]
) -> OodScores:
    """Confidence and energy of each test example; `count` is told after each batch how many more are done."""
    answer, labels = task.answers.main, task.labels("test")
    batches = task.batches("test", batch_size, seed=None)
    cut = logits is not None and logits is not model
    source, place = (logits, 0) if cut else (model, task.answers.main_place)
    # Of the logits themselves, whatever the model's own output was.
    said = answer.model_copy(update={"logits": True}) if cut else answer
    confidence, energy = np.ones(len(labels)), np.zeros(len(labels))
    for i in range(len(batches)):
        inputs, known = batches[i]
        numbers = _numbers(source, inputs, place)
        refuse_not_finite([answer.output], [numbers], "test")
        logs = log_probabilities_of(said, numbers).astype(np.float64)
        classes = np.asarray(decided(said, predictions_of(said, numbers)), np.int64)
        sure = np.exp(np.take_along_axis(logs, classes[..., None], -1)[..., 0])
        rows, _ = batches.rows(i)
        if labels.ndim == 1:
            confidence[rows] = sure
        else:  # a sentence is as sure as its least sure word
            confidence[rows] = np.where(known >= 0, sure, 1.0).min(-1)
        if logits is not None:
            top = numbers.max(-1)
            each = top + np.log(np.exp(numbers - top[..., None]).sum(-1))
            words = np.maximum((known >= 0).sum(-1), 1) if labels.ndim > 1 else None
            energy[rows] = each if words is None else np.where(known >= 0, each, 0).sum(-1) / words
        count(len(rows))
    return OodScores(confidence, energy if logits is not None else None)
