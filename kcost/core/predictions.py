"""What a model answered, stored: labels and probabilities of each split, from which all figures of risk are taken."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from kcost.core.answer import Answer, AnswerChoice
from kcost.core.artifact import Dataset, sha256_of
from kcost.core.errors import InputError, SchemaError
from kcost.core.npz_record import write_npz
from kcost.core.pixels import PixelScale
from kcost.core.schema import VERSIONS, Record, describe_validation

LEAST_PROBABILITY = 1e-7
"""Probabilities are kept at least as large: Keras's epsilon, at which its cross-entropies clip as well."""

WITHIN = 1e-3
"""Probabilities of one answer sum to 1 within this: a sum of rounded bfloat16 numbers is no nearer."""


class PredictionsHeader(Record):
    """What stored predictions are of."""

    schema_: int = Field(default=VERSIONS["predictions"], alias="schema")
    model: str
    model_sha256: str
    backend: str
    dataset: Dataset
    label_names: tuple[str, ...] = Field(description="a name for each column of the probabilities")
    entity_types: tuple[str, ...] = Field(default=(), description="of a tagger, in the order of the counts")
    kind: str = Field(description="multiclass, binary or tags")
    answer: Answer | None = Field(default=None, description="what the output was taken as; None in files of before")
    place: int = Field(default=0, description="of that output among the model's outputs")
    unit: str = Field(description="what one example is")
    limit: int | None = Field(default=None, description="most examples of each split that were read")
    train_examples: int = Field(description="most training examples that were predicted")
    choice: AnswerChoice = Field(default=AnswerChoice(), description="what the user said of the answers")
    pixels: PixelScale | None = Field(default=None, description="of images, as the user said")
    notes: tuple[str, ...] = Field(default=(), description="what could not be predicted, and why")


@dataclass(frozen=True, eq=False)
class SplitPredictions:
    """The answers of a model on one split. An example has one label, a sentence one for each word that was seen.

    Attributes:
        labels: class numbers, shape (m,), int64.
        predicted: class numbers that the model decided for, shape (m,), int64.
        log_probabilities: natural logarithms, shape (m, classes), float32, none below that of LEAST_PROBABILITY.
        rows: the example that each label is of, shape (m,), int64, ascending, from 0 on.
        examples: the place of each example in its split, shape (n,), int64.
        entity_counts: entities found, wrongly found and missed, by example and type: shape (n, types, 3), int64; None
            for classifiers.
    """

    labels: np.ndarray
    predicted: np.ndarray
    log_probabilities: np.ndarray
    rows: np.ndarray
    examples: np.ndarray
    entity_counts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the class that was decided for, shape (m,), float64."""
        chosen = np.take_along_axis(self.log_probabilities, self.predicted[:, None], 1)[:, 0]
        probability: np.ndarray = np.exp(chosen.astype(np.float64))
        return probability

    @property
    def right(self) -> np.ndarray:
        """Whether each answer is its label, shape (m,), bool."""
        same: np.ndarray = self.predicted == self.labels
        return same


@dataclass(frozen=True, eq=False)
class Predictions:
    """Stored predictions: what they are of, and each split. `sha256` is that of the file, None before it is written."""

    header: PredictionsHeader
    splits: dict[str, SplitPredictions]
    sha256: str | None = None


def log_probabilities_of(answer: Answer, outputs: np.ndarray) -> np.ndarray:
    """Natural logarithms of the probability of each class, shape (..., classes), float32.

    Args:
        answer: what the output says: multiclass, tags, or binary, for which there are two classes.
        outputs: shape (..., units); of a binary one (n,), (n, 1) or (n, 2).

    Raises:
        InputError: the output is of another kind, or holds no probabilities where it should.
    """
    if answer.kind not in ("multiclass", "tags", "binary"):
        raise InputError(
            "Risk is taken from the probability of each class.",
            received=str(answer),
            remedy="Give a classifier or a tagger, or name the output with --output and its kind with --task.",
        )
    numbers = outputs.astype(np.float64)
    if answer.kind == "binary" and numbers.size == len(numbers):
        numbers = numbers.reshape(-1, 1)
        if answer.logits:
            numbers = np.concatenate([np.zeros_like(numbers), numbers], 1)
        else:
            _refuse_no_probabilities(answer, bool((numbers >= 0).all() and (numbers <= 1).all()), numbers)
            numbers = np.concatenate([1 - numbers, numbers], 1)
    elif not answer.logits:
        sums = numbers.sum(-1)
        _refuse_no_probabilities(answer, bool((numbers >= 0).all() and (abs(sums - 1) <= WITHIN).all()), numbers)
    if answer.logits:
        shifted = numbers - numbers.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    else:
        logs = np.log(np.maximum(numbers, LEAST_PROBABILITY))
    kept: np.ndarray = np.maximum(logs, np.log(LEAST_PROBABILITY)).astype(np.float32)
    return kept


def _refuse_no_probabilities(answer: Answer, are: bool, numbers: np.ndarray) -> None:
    if not are:
        raise InputError(
            "Probabilities lie in 0 to 1, and those of all classes sum to 1.",
            received=f"{answer}: numbers from {numbers.min():g} to {numbers.max():g}",
            remedy="A model that ends without softmax or sigmoid answers with logits: save it compiled with a loss "
            "that has from_logits=True, so that its file says so.",
        )


_OF_LABELS = ("labels", "predicted", "rows")
_FIELDS = ("labels", "predicted", "log_probabilities", "rows", "examples", "entity_counts")


def write_predictions(path: Path, header: PredictionsHeader, splits: dict[str, SplitPredictions]) -> None:
    """Writes predictions as an npz file, atomically. Raises StorageError where it cannot be written."""
    write_npz(path, header, splits, _FIELDS)


def read_predictions(path: Path) -> Predictions:
    """Reads what `write_predictions` wrote.

    Raises:
        SchemaError: the file is no such npz, or arrays in it do not fit together.
        FileNotFoundError: there is none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = PredictionsHeader.model_validate_json(str(file["header"]))
            arrays = {name: file[name] for name in file.files if name != "header"}
        splits = {
            split: SplitPredictions(**{f: arrays[f"{split}/{f}"] for f in _FIELDS if f"{split}/{f}" in arrays})
            for split in sorted({name.partition("/")[0] for name in arrays})
        }
        for name, split in splits.items():
            _check(name, split, len(header.label_names))
    except FileNotFoundError:
        raise
    except ValidationError as error:
        raise _damaged(path, describe_validation(error)) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)) from error
    return Predictions(header, splits, sha256_of(path))


def _check(name: str, split: SplitPredictions, classes: int) -> None:
    count = len(split.labels)
    if split.log_probabilities.shape != (count, classes) or any(
        getattr(split, f).shape != (count,) for f in _OF_LABELS
    ):
        raise ValueError(f"arrays of {name} have different lengths")
    if count and not (0 <= split.labels.min() <= split.labels.max() < classes):
        raise ValueError(f"labels of {name} name no class")
    if count and not (0 <= split.rows.min() <= split.rows.max() < len(split)):
        raise ValueError(f"rows of {name} name no example")


def _damaged(path: Path, fault: str) -> SchemaError:
    return SchemaError(
        "Stored predictions are an npz file that kcost wrote.", f"{path}: {fault}", "Delete it: kcost makes it again."
    )
