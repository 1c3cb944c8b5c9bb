"""Opens a model together with the data that it is scored on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import keras

from kcost import data
from kcost.core.artifact import Dataset, Model, open_model
from kcost.core.errors import InputError
from kcost.core.pixels import PixelScale
from kcost.data import ImageSet, TagSet, TextSet
from kcost.data.known import SOURCES
from kcost.data.pixels import pixels_of, scaled
from kcost.models.loading import load_keras_file
from kcost.models.pixels import own_scaling
from kcost.training.sequence_task import SequenceClassification
from kcost.training.tasks import ImageClassification, Task, TokenClassification


class Opened(NamedTuple):
    """A loaded model, and its task on a data set."""

    model: keras.Model
    task: Task
    dataset: Dataset


def open_with_data(path: Path, data_name: str | None, limit: int | None, pixels: PixelScale | None = None) -> Opened:
    """Loads a model, and the data set that is named or that the artifact names.

    Args:
        pixels: the scale to feed images in; None takes what the artifact or the model's file says.

    Raises:
        InputError: no data set is known, or the model cannot be scored on it.
        ArtifactError: the model cannot be loaded safely.
    """
    model = open_model(path)
    about = model.artifact
    known = about.dataset if about else None
    # A set of the user's own is known by the path that it was read from.
    recorded = None if known is None else known.name if known.name in SOURCES else known.source
    name = data_name or recorded
    if name is None:
        raise InputError(
            "A bare .keras file is scored on data that you name.", received=str(path), remedy="Give --data."
        )
    found = data.load(name, limit=limit)
    loaded = load_keras_file(model.keras_file)
    if isinstance(found, ImageSet):
        found = _as_taken(found, model, loaded, pixels)
    elif pixels is not None:
        raise InputError("Pixels are of images.", f"--pixels {pixels} and {found.name}", "Leave --pixels out.")
    return Opened(loaded, _task(found, model), found.record)


def _as_taken(found: ImageSet, model: Model, loaded: keras.Model, asked: PixelScale | None) -> ImageSet:
    """The images in the scale that the model takes: as asked, else as its artifact remembers, else as its file says."""
    remembered = None if model.artifact is None else model.artifact.pixels
    if asked is not None:
        pixels = pixels_of(found, asked, "as --pixels says")
    elif remembered is not None and remembered.scale != "as-is":
        pixels = remembered.model_copy(update={"why": "as the artifact was made with"})
    elif remembered is not None:  # the number for white is that of these data
        pixels = pixels_of(found, "as-is", "as the artifact was made with")
    elif (own := own_scaling(model.keras_file)) is not None:
        pixels = pixels_of(found, own.scale, f"as the model scales them itself ({own.by} in the file)")
    else:
        pixels = pixels_of(found, "0-1", "as nothing in the model's file scales them")
    tensors = getattr(loaded, "inputs", None)
    return scaled(found, pixels, str(tensors[0].dtype) if tensors else "float32")


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
