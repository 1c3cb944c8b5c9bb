"""Trains one of kcost's models and writes the artifact folder."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kcost import data
from kcost.core import schema
from kcost.core.artifact import (
    INDEX_FILE,
    MODEL_FILE,
    SAMPLES_FILE,
    Artifact,
    Step,
    TensorSpec,
    new_folder,
    refuse_existing,
    sha256_of,
)
from kcost.core.errors import DataError
from kcost.core.process import version_of
from kcost.core.request import TrainRequest
from kcost.training.fit import EVALUATION_BATCH, fit
from kcost.training.tasks import ImageClassification, Task, TokenClassification

SCRATCH_LEARNING_RATE = {"cnn": 1e-3, "bert": 5e-4}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Trains as a TrainRequest says; answers with the artifact and the training history."""
    asked = TrainRequest.model_validate(request)
    refuse_existing(asked.out)  # before minutes of training, not after
    keras.utils.set_random_seed(asked.seed)
    task = make_task(asked.family, asked.data, asked)
    model = _build(asked, task)
    learning_rate = asked.learning_rate or SCRATCH_LEARNING_RATE[asked.family]
    told = fit(model, task, asked, learning_rate)
    backend = os.environ["KERAS_BACKEND"]
    settings = asked.model_dump(mode="json", exclude={"out"}) | {"learning_rate": learning_rate, "epochs": told["epochs"]}
    step = Step(
        kind="train",
        backend=backend,
        backend_version=version_of(backend) or "unknown",
        settings=settings,
        wall_s=told["wall_s"],
    )
    artifact = write_artifact(asked.out, asked.name, asked.family, model, task, (step,))
    return {"artifact": artifact.model_dump(mode="json"), "history": told["history"]}


def make_task(family: str, name_or_path: str, request: TrainRequest) -> Task:
    """The task that a family of models learns from a data set.

    Raises:
        DataError: the data are not of the family's kind.
    """
    found = data.load(name_or_path, seed=request.seed, limit=request.limit)
    if family == "cnn" and isinstance(found, data.ImageSet):
        return ImageClassification(found)
    if family == "bert" and isinstance(found, data.TagSet):
        return TokenClassification.with_own_vocabulary(found, request.vocabulary_size, request.max_length)
    wanted = {"cnn": "images", "bert": "tagged sentences"}[family]
    raise DataError(
        f"A {family} learns from {wanted}.",
        received=f"{found.name}, for {found.task}",
        remedy="`kcost data list` names the data sets of each kind.",
    )


def _build(request: TrainRequest, task: Task) -> keras.Model:
    if isinstance(task, ImageClassification):
        from kcost.models.cnn import cnn

        return cnn(task.data.image_shape, len(task.label_names), request.size or "seed")
    from kcost.models.bert import backbone, token_classifier

    assert isinstance(task, TokenClassification)
    encoder = backbone(len(task.pieces.vocab), request.size or "tiny")
    return token_classifier(encoder, len(task.label_names))


def write_artifact(
    out: Path, name: str, family: str, model: keras.Model, task: Task, steps: tuple[Step, ...]
) -> Artifact:
    """Scores a model on the test split and writes its artifact folder, whole or not at all."""
    with new_folder(out) as folder:
        model.save(folder / MODEL_FILE)
        np.savez_compressed(folder / SAMPLES_FILE, **task.samples())  # type: ignore[arg-type]  # arrays by name
        task.save_files(folder)
        artifact = Artifact(
            name=name,
            task=task.name,  # type: ignore[arg-type]  # every Task names one of the tasks
            family=family,
            model_sha256=sha256_of(folder / MODEL_FILE),
            parameters=model.count_params(),
            inputs=_specs(model.inputs),
            outputs=_specs(model.outputs),
            label_names=task.label_names,
            dataset=task.record,
            scores=task.scores(model, "test", EVALUATION_BATCH),
            steps=steps,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        schema.write(folder / INDEX_FILE, artifact)
    return artifact


def _specs(tensors: list[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=t.name, shape=tuple(t.shape), dtype=str(t.dtype)) for t in tensors)
