"""Opens a model together with the data that it is scored on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from kcost import data
from kcost.backends.base import arrange
from kcost.core.answer import AnswerChoice, Labels, fitted_labels, resolve
from kcost.core.artifact import Dataset, Model, open_model
from kcost.core.errors import InputError
from kcost.core.pixels import PixelScale
from kcost.data import Arrays, ArraySet, DataSet, ImageSet, TextSet
from kcost.data.pixels import pixels_of, scaled
from kcost.models.loading import load_keras_file
from kcost.models.pixels import own_scaling
from kcost.training.sequence_task import SequenceClassification
from kcost.training.tasks import ArrayTask, ImageClassification, Task, TokenClassification


class Opened(NamedTuple):
    """A loaded model, and its task on a data set."""

    model: keras.Model
    task: Task
    dataset: Dataset
    others: tuple[Task, ...] = ()
    """The same for further outputs that the data have labels of."""


def open_with_data(
    path: Path,
    data_name: str | None,
    limit: int | None,
    choice: AnswerChoice | None = None,
    pixels: PixelScale | None = None,
) -> Opened:
    """Loads a model, and the data set that is named or that the artifact names.

    Args:
        choice: what the user says of the model's answers.
        pixels: the scale to feed images in; None takes what the artifact or the model's file says.

    Raises:
        InputError: no data set is known, or the model cannot be scored on it.
        ArtifactError: the model cannot be loaded safely.
    """
    model = open_model(path)
    read = data.load(data.chosen(model, data_name), limit=limit)
    return on_data(model, load_keras_file(model.keras_file), read, choice, pixels)


def on_data(
    model: Model,
    loaded: keras.Model,
    read: DataSet,
    choice: AnswerChoice | None = None,
    pixels: PixelScale | None = None,
) -> Opened:
    """A model that is loaded, with a data set that is read; arguments and errors are those of `open_with_data`."""
    if isinstance(read, ImageSet):
        read = _as_taken(read, model, loaded, pixels)
    elif pixels is not None:
        raise InputError("Pixels are of images.", f"--pixels {pixels} and {read.name}", "Leave --pixels out.")
    choice = choice or AnswerChoice()
    labelled = list(read.splits["test"].y) if isinstance(read, ArraySet) and choice.output is None else []
    if len(labelled) < 2:
        return Opened(loaded, _task(read, model, loaded, choice), read.record)
    each = [_task(read, model, loaded, choice.model_copy(update={"output": name})) for name in labelled]
    return Opened(loaded, each[0], read.record, tuple(each[1:]))


def _as_taken(images: ImageSet, model: Model, loaded: keras.Model, scale: PixelScale | None) -> ImageSet:
    """The images in the scale that the model takes: as asked, else as its artifact remembers, else as its file says."""
    remembered = None if model.artifact is None else model.artifact.pixels
    if scale is not None:
        pixels = pixels_of(images, scale, "as --pixels says")
    elif remembered is not None and remembered.scale != "as-is":
        pixels = remembered.model_copy(update={"why": "as the artifact was made with"})
    elif remembered is not None:  # the number for white is that of these data
        pixels = pixels_of(images, "as-is", "as the artifact was made with")
    elif (own := own_scaling(model.keras_file)) is not None:
        pixels = pixels_of(images, own.scale, f"as the model scales them itself ({own.by} in the file)")
    else:
        pixels = pixels_of(images, "0-1", "as nothing in the model's file scales them")
    tensors = getattr(loaded, "inputs", None)
    return scaled(images, pixels, str(tensors[0].dtype) if tensors else "float32")


def _task(read: DataSet, model: Model, loaded: keras.Model, choice: AnswerChoice) -> Task:
    """The task as the model knows it: its own labels, and its own vocabulary for texts.

    Raises:
        InputError: the model cannot be scored on these data.
    """
    about = model.artifact
    if about is not None and about.task != read.task and not (about.task == "arrays" and _is_arrays(read)):
        raise InputError(
            "A model is scored on data of its own task.",
            received=f"{model.name} for {about.task}, {read.name} for {read.task}",
            remedy="Name other data with --data.",
        )
    if isinstance(read, ImageSet):
        if about is not None and about.task == "image-classification" and about.label_names != read.label_names:
            raise _other_labels(about.label_names, read.label_names)
        if about is not None and about.family != "unknown" and choice == AnswerChoice():
            return ImageClassification(read)
        task = _array_task(_as_arrays(read, loaded), model, loaded, choice)
        task.pixels = read.pixels
        return task
    if isinstance(read, ArraySet):
        return _array_task(read, model, loaded, choice)
    if about is None:
        raise InputError(
            "A model of texts is scored with its own vocabulary, which its artifact folder holds.",
            received=f"the bare file {model.keras_file}",
            remedy="Give the artifact folder.",
        )
    if isinstance(read, TextSet):
        return SequenceClassification.of_artifact(read, model.keras_file.parent, about)
    unknown = set(read.tag_names) - set(about.label_names)
    if unknown:
        raise _other_labels(about.label_names, read.tag_names)
    return TokenClassification.of_artifact(read, model.keras_file.parent, about)


def _is_arrays(read: DataSet) -> bool:
    return isinstance(read, ArraySet | ImageSet)


def _as_arrays(read: ImageSet, model: keras.Model) -> ArraySet:
    """Images for a model that kcost did not make: classes as its units have them, a channel axis where it has one."""
    shapes = [tuple(t.shape) for t in getattr(model, "inputs", None) or ()]
    without_channel = len(shapes) == 1 and len(shapes[0]) == 3 and read.image_shape[-1] == 1
    numbers = _class_numbers(read.label_names, model)
    splits = {
        split: Arrays({"": images.x[..., 0] if without_channel else images.x}, {"": numbers[images.y]})
        for split, images in read.splits.items()
    }
    names = read.label_names
    if len(numbers) and int(numbers.max()) >= len(names):  # classes that the data lack keep their place
        by_number = {int(n): name for n, name in zip(numbers, names, strict=True)}
        names = tuple(by_number.get(i, str(i)) for i in range(int(numbers.max()) + 1))
    return ArraySet(read.name, names, splits, read.record)


def _class_numbers(names: tuple[str, ...], model: keras.Model) -> np.ndarray:
    """The unit of the model that each class of the data is: its own number where labels are numbers, else its place."""
    places = np.arange(len(names))
    if not all(name.isdecimal() and str(int(name)) == name for name in names):
        return places
    numbers = np.array([int(name) for name in names])
    units = max((t.shape[-1] or 0 for t in getattr(model, "outputs", None) or () if len(t.shape) > 1), default=0)
    return numbers if numbers.max() < max(units, 2) else places


def _array_task(read: ArraySet, model: Model, loaded: keras.Model, choice: AnswerChoice) -> ArrayTask:
    """What a model answers on arrays, with the labels of all splits looked at together."""
    outputs = getattr(loaded, "outputs", None)
    if not outputs:
        raise InputError(
            "A model that is scored names its inputs and outputs.",
            received=f"{model.keras_file}, a {type(loaded).__name__} without a signature",
            remedy="Call the model on data once before saving it, or build it with the functional API.",
        )
    shapes = [tuple(t.shape) for t in outputs]
    facts = model.output_facts()
    together = {key: np.concatenate([part.y[key] for part in read.splits.values()]) for key in read.splits["test"].y}
    labels: Labels = together[""] if set(together) == {""} else together
    answers = resolve(facts, shapes, labels, choice).answers
    fitted = {}
    for split, part in read.splits.items():
        own = part.y.get("", part.y.get(answers.scored or "", next(iter(part.y.values()))))
        scored = answers.scored is not None
        fitted[split] = fitted_labels(answers.main, shapes[answers.main_place], own) if scored else own
    inputs = {split: _inputs(loaded, part, read.name) for split, part in read.splits.items()}
    task = ArrayTask(read.record, inputs, fitted, answers, read.label_names)
    names = [t.name for t in loaded.inputs]
    if len(names) == 1:
        task.input_name = names[0]
    about = model.artifact
    if about is not None and about.label_names and not read.label_names:
        task.label_names = about.label_names
    binary = answers.scored is not None and answers.main.kind == "binary"
    if binary and any("auc" in one.metrics for one in facts if one.name == answers.scored):
        task.ask_auroc()
    return task


def _inputs(model: keras.Model, part: Arrays, name: str) -> np.ndarray | dict[str, np.ndarray]:
    """The features as the model takes them: one array, or one by the name of each input."""
    tensors = {t.name: t for t in model.inputs}
    if len(tensors) == len(part.x) == 1:
        (tensor,), (array,) = tensors.values(), part.x.values()
        return _fitting(array, tuple(tensor.shape), name)
    if set(part.x) != set(tensors):
        raise InputError(
            "Data hold an array for each input of the model, by its name.",
            received=f"{name} with {', '.join(n or 'x' for n in part.x)}, and the inputs {', '.join(tensors)}",
            remedy="Save them as x_train/NAME and x_test/NAME with numpy.savez.",
        )
    fitted = {n: _fitting(a, tuple(tensors[n].shape), name) for n, a in part.x.items()}
    arranged = arrange(model, fitted)
    return fitted if isinstance(arranged, list) else arranged


def _fitting(array: np.ndarray, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    """An array of the shape of its input, with a last axis of one added or taken away where that alone differs."""
    if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    elif array.ndim == len(shape) - 1 and shape[-1] == 1:
        array = array[..., None]
    fits = array.ndim == len(shape) and all(w in (None, s) for w, s in zip(shape[1:], array.shape[1:], strict=True))
    if not fits:
        raise InputError(
            "Data have the shape of the model's input, but for the number of rows.",
            received=f"{name} of shape {array.shape}, and an input of shape {shape}",
            remedy="Give data of that shape, or resize these.",
        )
    return array


def _other_labels(known: tuple[str, ...], received: tuple[str, ...]) -> InputError:
    return InputError(
        f"The data have the labels that the model knows: {', '.join(known)}.",
        received=", ".join(received),
        remedy="Name the data that the model was trained for, or data with the same labels.",
    )
