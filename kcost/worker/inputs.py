"""What a measured step is fed: real held-out samples where the artifact has them, else made-up ones."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kcost.backends.base import Inputs
from kcost.core.answer import Labels
from kcost.core.entities import UNSEEN_LABELS
from kcost.core.errors import InputError
from kcost.core.signature import InputSpec, Signature, input_structure, match_inputs, signature_of_structure
from kcost.models.probing import recipe_of

PROBE_ROWS = 32
"""Rows of the parity probe: half real, half random."""

MADE_SAMPLES = 64
"""Made-up samples of a model, whatever the batch size: a larger batch repeats them."""

MADE_SEED = 0
"""Of made-up samples, whatever the seed of a plan is: a converted file lies beside those that it was checked on, and is
held against Keras's answers on the same."""


@dataclass(frozen=True)
class Samples:
    """Inputs by name with one row a sample, and their labels where these are known."""

    inputs: Inputs
    labels: Labels | None
    unseen_labels: np.ndarray | None = None
    """Of a tagger's samples, where known: the labels of words without a position, as `core.entities` has them; shape
    (n, words), integers."""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, start: int, count: int) -> Samples:
        """`count` rows from `start` on, beginning again at the end."""
        chosen = np.arange(start, start + count) % len(self)
        labels = _taken(self.labels, chosen)
        unseen = None if self.unseen_labels is None else self.unseen_labels[chosen]
        return Samples({name: np.ascontiguousarray(a[chosen]) for name, a in self.inputs.items()}, labels, unseen)

    def batches(self, batch: int, count: int = 8) -> list[Samples]:
        """Up to `count` different batches for a step to rotate over."""
        return [self.rows(i * batch, batch) for i in range(max(1, min(count, len(self) // batch)))]


def _taken(labels: Labels | None, rows: np.ndarray) -> Labels | None:
    if labels is None or isinstance(labels, np.ndarray):
        return None if labels is None else labels[rows]
    return {name: array[rows] for name, array in labels.items()}


REMEDY = "Write it with numpy.savez(FILE, **{name: array of rows}, labels=labels)."


def signature_of(model: Any) -> Signature | None:
    """The signature of a Keras model or a converted one; None for a model that names no inputs."""
    if getattr(model, "inputs", None) is not None:
        return signature_of_structure(input_structure(model))
    conversion = getattr(model, "conversion", None)
    return None if conversion is None else {i.model_name: InputSpec(i.shape, i.dtype, i.key) for i in conversion.inputs}


def read_samples(path: Path, signature: Signature | None) -> Samples:
    """Samples that a model takes: those of an artifact folder, or a user's own.

    Arrays are matched to inputs, and cast, as `match_inputs` says.

    Raises:
        InputError: the file cannot be read, has no array for an input, or one that does not fit; labels that are no
            numbers, one a row or one a position; labels of words without a position that are no whole numbers in rows.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError("Samples are an npz file without objects.", f"{path}: {error}", REMEDY) from error
    labels, unseen = _labels(arrays, path), _unseen_labels(arrays, path)
    inputs = arrays if signature is None else match_inputs(arrays, signature, source=str(path), remedy=REMEDY)
    every = {**inputs, **(labels if isinstance(labels, dict) else {} if labels is None else {"labels": labels})}
    every |= {} if unseen is None else {UNSEEN_LABELS: unseen}
    rows = {len(a) if a.ndim else 0 for a in every.values()}
    if len(rows) != 1 or 0 in rows:
        received = f"{path}: {', '.join(f'{n} {a.shape}' for n, a in every.items())}"
        raise InputError("Samples have as many rows in each array, one at least.", received, REMEDY)
    return Samples(inputs, labels, unseen)


def _labels(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray | dict[str, np.ndarray] | None:
    """Takes the labels out of the arrays: `labels`, or `labels/NAME` for the output of that name."""
    names = [name for name in arrays if name == "labels" or name.startswith("labels/")]
    labels = {name.partition("/")[2]: arrays.pop(name) for name in names}
    for name, array in labels.items():
        if array.dtype.kind not in "iufb":
            raise InputError(
                "Labels are numbers: of classes, yes or no, or measured.",
                received=f"{path}: labels {name} of dtype {array.dtype}".replace("  ", " "),
                remedy="Write classes as whole numbers from 0 on, or leave the labels out.",
            )
    return labels[""] if set(labels) == {""} else labels or None


def _unseen_labels(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray | None:
    """Takes what is told of words without a position out of the arrays."""
    unseen = arrays.pop(UNSEEN_LABELS, None)
    if unseen is not None and (unseen.dtype.kind not in "iu" or unseen.ndim != 2):
        raise InputError(
            "Labels of words that the model does not see are whole numbers: a row a sentence, a column a word.",
            received=f"{path}: {UNSEEN_LABELS} of dtype {unseen.dtype} and shape {unseen.shape}",
            remedy=f"Write -1 for words that it sees, or leave {UNSEEN_LABELS} out.",
        )
    return unseen


def random_like(samples: Samples, rows: int, seed: int) -> Samples:
    """Random rows in the range of each input; masks, segment numbers and texts are those of real rows."""
    rng = np.random.default_rng(seed)
    made = dict(samples.rows(0, rows).inputs)
    for name, values in samples.inputs.items():
        shape = (rows, *values.shape[1:])
        if values.dtype.kind == "f":
            made[name] = rng.uniform(values.min(), values.max(), shape).astype(values.dtype)
        elif values.dtype.kind in "iu" and int(values.max()) > 1:
            made[name] = rng.integers(0, int(values.max()) + 1, shape).astype(values.dtype)
    return Samples(made, None)


def make_samples(model: Any, rows: int, seed: int) -> Samples:
    """Random inputs that a Keras model takes, by the names of its inputs.

    Raises:
        UnavailableError: the model has no signature to make inputs from, or takes none of those that were tried.
    """
    return Samples(recipe_of(model).make(rows, seed), None)


def calibration_batches(samples: Samples, names: list[str], rows: int, batch: int) -> Iterator[Inputs]:
    """Inputs by the model's names, `batch` rows at a time, `rows` in all or as many as there are."""
    for start in range(0, min(rows, len(samples)), batch):
        taken = samples.rows(start, min(batch, len(samples) - start)).inputs
        yield {name: taken[name] for name in names}
