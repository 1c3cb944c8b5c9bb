"""What a measured step is fed: real held-out samples where the artifact has them, else made-up ones."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kcost.backends.base import Inputs
from kcost.core.answer import Labels
from kcost.core.errors import InputError, UnavailableError

FREE_AXIS = {"int": 128, "float": 64}
"""Length given to a free axis of a made-up input, by kind of dtype: a sequence, or an image side."""

PROBE_ROWS = 32
"""Rows of the parity probe: half real, half random."""


@dataclass(frozen=True)
class Samples:
    """Inputs by name with one row a sample, and their labels where these are known."""

    inputs: Inputs
    labels: Labels | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, start: int, count: int) -> Samples:
        """`count` rows from `start` on, beginning again at the end."""
        chosen = np.arange(start, start + count) % len(self)
        labels = _taken(self.labels, chosen)
        return Samples({name: np.ascontiguousarray(a[chosen]) for name, a in self.inputs.items()}, labels)

    def batches(self, batch: int, count: int = 8) -> list[Samples]:
        """Up to `count` different batches for a step to rotate over."""
        return [self.rows(i * batch, batch) for i in range(max(1, min(count, len(self) // batch)))]


def _taken(labels: Labels | None, rows: np.ndarray) -> Labels | None:
    if labels is None or isinstance(labels, np.ndarray):
        return None if labels is None else labels[rows]
    return {name: array[rows] for name, array in labels.items()}


Signature = Mapping[str, tuple[tuple[int | None, ...], str]]
"""Of a model: name of an input -> its shape, the batch axis first, None where free, and its dtype."""

REMEDY = "Write it with numpy.savez(FILE, **{name: array of rows}, labels=labels)."


def signature_of(model: Any) -> Signature | None:
    """The signature of a Keras model or a converted one; None for a model that names no inputs."""
    if (tensors := getattr(model, "inputs", None)) is not None:
        return {t.name: (tuple(t.shape), str(t.dtype)) for t in tensors}
    conversion = getattr(model, "conversion", None)
    return None if conversion is None else {i.model_name: (i.shape, i.dtype) for i in conversion.inputs}


def read_samples(path: Path, signature: Signature | None) -> Samples:
    """Samples that a model takes: those of an artifact folder, or a user's own.

    An only array is taken for an only input, whatever its name. Numbers become those of the input's dtype where nothing
    but precision may be lost: uint8 becomes float32, float64 does too, and no float becomes a whole number.

    Raises:
        InputError: the file cannot be read, has no array for an input, or one that does not fit; labels that are not
            class numbers, one a row or one a position.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError("Samples are an npz file without objects.", f"{path}: {error}", REMEDY) from error
    labels = _labels(arrays, path)
    inputs = arrays if signature is None else _fitted(arrays, signature, path)
    every = {**inputs, **(labels if isinstance(labels, dict) else {} if labels is None else {"labels": labels})}
    rows = {len(a) if a.ndim else 0 for a in every.values()}
    if len(rows) != 1 or 0 in rows:
        received = f"{path}: {', '.join(f'{n} {a.shape}' for n, a in every.items())}"
        raise InputError("Samples have as many rows in each array, one at least.", received, REMEDY)
    return Samples(inputs, labels)


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


def _fitted(arrays: dict[str, np.ndarray], signature: Signature, path: Path) -> Inputs:
    """The arrays that the signature names, in its dtypes."""
    if len(arrays) == len(signature) == 1:
        arrays = dict(zip(signature, arrays.values(), strict=True))
    fitted: Inputs = {}
    for name, (shape, dtype) in signature.items():
        wanted = f"{name} {dtype} ({', '.join('any' if size is None else str(size) for size in shape)})"
        if name not in arrays:
            raise InputError(
                "Samples hold an array for each input of the model, by its name.",
                received=f"{path} with {', '.join(sorted(arrays)) or 'none'}, and without {wanted}",
                remedy=REMEDY,
            )
        array = arrays[name]
        fits = array.ndim == len(shape) and all(w in (None, s) for w, s in zip(shape[1:], array.shape[1:], strict=True))
        # numpy has no bfloat16: an input of that dtype takes float32 and casts by itself.
        numpy_dtype = np.dtype("float32" if dtype == "bfloat16" else dtype)
        if not fits or not np.can_cast(array.dtype, numpy_dtype, "same_kind"):
            raise InputError(
                "An array of samples has the shape of its input, but for the number of rows, and its kind of numbers.",
                received=f"{path}: {name} {array.dtype} {array.shape}, where the model wants {wanted}",
                remedy=REMEDY,
            )
        fitted[name] = array.astype(numpy_dtype, copy=False)
    return fitted


def random_like(samples: Samples, rows: int, seed: int) -> Samples:
    """Random rows in the range of each input; masks and segment numbers are those of real rows."""
    rng = np.random.default_rng(seed)
    made = dict(samples.rows(0, rows).inputs)
    for name, values in samples.inputs.items():
        shape = (rows, *values.shape[1:])
        if values.dtype.kind == "f":
            made[name] = rng.uniform(values.min(), values.max(), shape).astype(values.dtype)
        elif int(values.max()) > 1:
            made[name] = rng.integers(0, int(values.max()) + 1, shape).astype(values.dtype)
    return Samples(made, None)


def make_samples(model: Any, rows: int, seed: int) -> Samples:
    """Random inputs for anybody's model, from its signature.

    Raises:
        UnavailableError: the model has no signature to make inputs from.
    """
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise UnavailableError(
            "A bare .keras file names its inputs, so that some can be made up.",
            received=f"{type(model).__name__} without a signature",
            remedy="Call the model on data once before saving it, or build it with the functional API.",
        )
    rng = np.random.default_rng(seed)
    vocabulary = min((e.input_dim for e in model._flatten_layers() if hasattr(e, "input_dim")), default=2)
    made: Inputs = {}
    for tensor in tensors:
        kind = "int" if "int" in tensor.dtype or tensor.dtype == "bool" else "float"
        shape = (rows, *(FREE_AXIS[kind] if size is None else size for size in tensor.shape[1:]))
        if kind == "float":
            made[tensor.name] = rng.uniform(0, 1, shape).astype("float32")
        elif "mask" in tensor.name:
            made[tensor.name] = np.ones(shape, tensor.dtype)
        else:
            # `vocabulary` is the smallest table in the model: every number is a row of each
            made[tensor.name] = rng.integers(0, vocabulary, shape).astype(tensor.dtype)
    return Samples(made, None)
