"""Trains one of kcost's models and writes the artifact folder."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kcost import data
from kcost.core import environment, schema
from kcost.core.artifact import (
    INDEX_FILE,
    MODEL_FILE,
    SAMPLES_FILE,
    Artifact,
    RunCost,
    Step,
    TensorSpec,
    new_folder,
    refuse_existing,
    refuse_unwritable,
    sha256_of,
)
from kcost.core.errors import DataError, GateError, InputError
from kcost.core.process import version_of
from kcost.core.request import TrainAnswer, TrainRequest
from kcost.core.run_cost import Meter, run_cost
from kcost.models.comparing import ROWS, DifferentError, check_copy
from kcost.models.loading import load_keras_file
from kcost.models.precision import with_precision
from kcost.training.checkpoint import Checkpoint
from kcost.training.distillation import soft_targets
from kcost.training.fit import EVALUATION_BATCH, TrainingReport, fit
from kcost.training.sequence_task import SequenceClassification
from kcost.training.tasks import ImageClassification, Task, TokenClassification
from kcost.training.transfer import copy_weights
from kcost.worker.teacher import Teacher, open_teacher

HISTORY_FILE = "history.json"
SCRATCH_LEARNING_RATE = {"cnn": 1e-3, "bert": 5e-4}
BERT_DROPOUT = 0.1
"""As Devlin et al. (2019), appendix A.2, trained it."""

PRETRAINED_LEARNING_RATE = 5e-5
"""The largest of the rates that Devlin et al. (2019), appendix A.3, found to work for fine-tuning."""


def run(request: TrainRequest) -> TrainAnswer:
    """Trains as the request says; answers with the artifact, the history and the validation scores."""
    refuse_existing(request.out)  # before minutes of training, not after
    refuse_unwritable(request.out)
    keras.utils.set_random_seed(request.seed)
    machine = environment.collect()
    meter = Meter(machine.cores, len(machine.accelerators))
    teacher = None if request.teacher is None else open_teacher(request.teacher)
    task, plain = make(request, teacher)
    model = with_precision(plain, request.precision)
    learning_rate = request.learning_rate or (
        PRETRAINED_LEARNING_RATE if request.init else SCRATCH_LEARNING_RATE[request.family]
    )
    checkpoint = Checkpoint(request.out.parent / f".{request.out.name}.training", request)
    soft = None if teacher is None else soft_targets(teacher.loaded, task, EVALUATION_BATCH)
    reading_s = meter.wall_s()
    report = fit(model, task, request, learning_rate, checkpoint, soft_targets=soft)
    # The artifact is the model as it was built: without optimizer, low-rank updates, frozen layers or precision.
    plain = copy_weights(model, plain)
    labelled = sum(task.record.splits[split].count for split in ("train", "validation"))
    parts_s = {"reading": reading_s, **report.parts_s}
    cost = run_cost(meter, labelled, request.usd_per_hour, request.usd_basis, parts_s)
    step = _step(request, learning_rate, report, teacher, cost)
    predictions = task.predict(plain, "test", EVALUATION_BATCH)
    artifact = write_artifact(
        request.out, request.name, request.family, plain, task, (step,), report.history, predictions
    )
    validation = task.scores(plain, "validation", EVALUATION_BATCH)
    checkpoint.remove()
    return TrainAnswer(
        artifact=artifact,
        history=tuple(report.history),
        validation_scores=tuple(validation),
        pruned=report.pruned,
    )


def _step(
    request: TrainRequest, learning_rate: float, report: TrainingReport, teacher: Teacher | None, cost: RunCost
) -> Step:
    backend = os.environ["KERAS_BACKEND"]
    settings = request.model_dump(mode="json", exclude={"out", "usd_per_hour", "usd_basis"})
    if request.family == "bert":
        settings["dropout"] = _dropout(request)
    changed = report.changed
    if report.resumed_at_epoch is not None:
        changed = (*changed, f"resumed after epoch {report.resumed_at_epoch}; the cost is that of the last part alone")
    return Step(
        kind="train",
        backend=backend,
        backend_version=version_of(backend) or "unknown",
        settings={
            **settings,
            "learning_rate": learning_rate,
            "epochs": len(report.history),
            "most_epochs": request.epochs,
            **({} if teacher is None else teacher.record()),
        },
        changed=changed,
        warnings=tuple(report.warnings),
        cost=cost,
    )


def make(request: TrainRequest, teacher: Teacher | None = None) -> tuple[Task, keras.Model]:
    """The task and the model that a request asks for.

    Args:
        teacher: where there is one, texts are read with its vocabulary.

    Raises:
        DataError: the data are not of the family's kind, or hold fewer labels than are asked for.
        InputError: an option that the family has not.
    """
    data_set = data.load(request.data, seed=request.seed, limit=request.limit, repair=request.repair)
    if request.labels is not None:
        data_set = data.fewer_labels(data_set, request.labels, request.seed)
    if teacher is not None:
        teacher.refuse_other_data(data_set)
    if request.family == "cnn" and isinstance(data_set, data.ImageSet):
        if request.init is not None:
            raise InputError("A cnn starts from random weights.", received="--init", remedy="Leave --init out.")
        from kcost.models.cnn import cnn

        images = ImageClassification(data_set)
        return images, cnn(data_set.image_shape, len(data_set.label_names), request.size or "seed", request.dropout)
    if request.family == "bert" and isinstance(data_set, data.TagSet | data.TextSet):
        return _make_bert(request, data_set, teacher)
    wanted = {"cnn": "images", "bert": "tagged sentences or labelled texts"}[request.family]
    raise DataError(
        f"A {request.family} learns from {wanted}.",
        received=f"{data_set.name}, which holds {data_set.task}",
        remedy="`kcost data list` names the data sets of each kind.",
    )


def _make_bert(
    request: TrainRequest, data_set: data.TagSet | data.TextSet, teacher: Teacher | None
) -> tuple[Task, keras.Model]:
    """A task on texts and an encoder with its head: pretrained where `init` names a folder, else from scratch."""
    from kcost.models.bert import backbone, sequence_classifier, token_classifier
    from kcost.training.pretrained import from_checkpoint

    dropout = _dropout(request)
    tags = isinstance(data_set, data.TagSet)
    wanted = data_set.tag_names if isinstance(data_set, data.TagSet) else data_set.label_names
    task: TokenClassification | SequenceClassification
    if request.init is None:
        make = TokenClassification if tags else SequenceClassification
        if teacher is None:
            task = make.with_own_vocabulary(data_set, request.vocabulary_size, request.max_length)  # type: ignore[arg-type]
        else:
            task = make(data_set, wanted, teacher.pieces(), request.max_length)  # type: ignore[arg-type]
        encoder = backbone(len(task.pieces.vocab), request.size or "tiny", dropout=dropout)
        head = token_classifier if tags else sequence_classifier
        return task, head(encoder, len(wanted), dropout=dropout)
    if request.size is not None:
        given = f"--size {request.size}"
        raise InputError("A checkpoint has its own size.", received=given, remedy="Leave --size out.")
    pretrained = from_checkpoint(request.init, request.max_length, dropout=dropout)
    if teacher is not None and teacher.pieces().vocab != pretrained.pieces.vocab:
        raise InputError(
            "A teacher and its student read texts with one vocabulary.",
            received=f"{teacher.name} and {request.init}, whose word pieces differ",
            remedy="Train the teacher from the same checkpoint, or leave --init out.",
        )
    names = pretrained.label_names(data_set.task, wanted)
    if isinstance(data_set, data.TagSet):
        task = TokenClassification(data_set, names, pretrained.pieces, request.max_length)
    else:
        task = SequenceClassification(data_set, names, pretrained.pieces, request.max_length)
    return task, pretrained.model(data_set.task, wanted, dropout=dropout)


def _dropout(request: TrainRequest) -> float:
    """Of a bert."""
    return BERT_DROPOUT if request.dropout is None else request.dropout


def write_artifact(
    out: Path,
    name: str,
    family: str,
    model: keras.Model,
    task: Task,
    steps: tuple[Step, ...],
    history: list[dict[str, float]],
    predictions: np.ndarray,
) -> Artifact:
    """Writes an artifact folder with a model and its scores, whole or not at all.

    Args:
        predictions: what the model answers on the test split, as `task.predict` gives it.

    Raises:
        GateError: the file, loaded again, gives other outputs than the model.
    """
    with new_folder(out) as folder:
        model.save(folder / MODEL_FILE)
        _refuse_other_outputs(model, folder / MODEL_FILE, task)
        np.savez_compressed(folder / SAMPLES_FILE, **task.samples())  # type: ignore[arg-type]  # arrays by name
        (folder / HISTORY_FILE).write_text(json.dumps(history, indent=1) + "\n")
        task.save_files(folder)
        artifact = Artifact(
            name=name,
            task=task.name,
            family=family,
            model_sha256=sha256_of(folder / MODEL_FILE),
            parameters=model.count_params(),
            inputs=_specs(model.inputs),
            outputs=_specs(model.outputs),
            answers=task.answers,
            label_names=task.label_names,
            dataset=task.record,
            pixels=task.pixels,
            scores=task.score(predictions, "test"),
            report=task.report(predictions, "test"),
            steps=steps,
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        schema.write(folder / INDEX_FILE, artifact)
    return artifact


def _refuse_other_outputs(model: keras.Model, file: Path, task: Task) -> None:
    try:
        check_copy(model, load_keras_file(file), task.inputs("test", ROWS))
    except DifferentError as error:
        raise GateError(
            "A file that is written gives the model's outputs when it is loaded.",
            received=f"{model.name!r}: {error}",
            remedy="Give the layer's class a config, save_own_variables and load_own_variables that hold all of it.",
        ) from error


def _specs(tensors: list[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=t.name, shape=tuple(t.shape), dtype=str(t.dtype)) for t in tensors)
