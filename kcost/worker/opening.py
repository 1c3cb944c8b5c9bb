"""Opens a model together with the data that it is scored on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import keras

from kcost import data
from kcost.core.artifact import Dataset, Model, open_model
from kcost.core.errors import InputError
from kcost.data import ImageSet, TagSet, TextSet
from kcost.models.loading import load_keras_file
from kcost.training.sequence_task import SequenceClassification
from kcost.training.tasks import ImageClassification, Task, TokenClassification


class Opened(NamedTuple):
    """A loaded model, and its task on a data set."""

    model: keras.Model
    task: Task
    dataset: Dataset


def open_with_data(path: Path, data_name: str | None, limit: int | None) -> Opened:
    """Loads a model, and the data set that is named or that the artifact names.

    Raises:
        InputError: no data set is known, or the model cannot be scored on it.
        ArtifactError: the model cannot be loaded safely.
    """
    model = open_model(path)
    found = data.load(data.chosen(model, data_name), limit=limit)
    task = _task(found, model)
    return Opened(load_keras_file(model.keras_file), task, found.record)


def _task(found: ImageSet | TagSet | TextSet, model: Model) -> Task:
    """The task as the model knows it: its own labels, and its own vocabulary for texts.

    Raises:
        InputError: the model cannot be scored on these data.
    """
    about = model.artifact
    if about is not None and about.task != found.task:
        raise InputError(
            "A model is scored on data of its own task.",
            received=f"{model.name} for {about.task}, {found.name} for {found.task}",
            remedy="Name other data with --data.",
        )
    if isinstance(found, ImageSet):
        if about is not None and about.label_names != found.label_names:
            raise _other_labels(about.label_names, found.label_names)
        return ImageClassification(found)
    if about is None:
        raise InputError(
            "A model of texts is scored with its own vocabulary, which its artifact folder holds.",
            received=f"the bare file {model.keras_file}",
            remedy="Give the artifact folder.",
        )
    if isinstance(found, TextSet):
        return SequenceClassification.of_artifact(found, model.keras_file.parent, about)
    unknown = set(found.tag_names) - set(about.label_names)
    if unknown:
        raise _other_labels(about.label_names, found.tag_names)
    return TokenClassification.of_artifact(found, model.keras_file.parent, about)


def _other_labels(known: tuple[str, ...], received: tuple[str, ...]) -> InputError:
    return InputError(
        f"The data have the labels that the model knows: {', '.join(known)}.",
        received=", ".join(received),
        remedy="Name the data that the model was trained for, or data with the same labels.",
    )
