"""What a measured step is fed: real held-out samples where the artifact has them, else made-up ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kcost.backends.base import Inputs
from kcost.core.errors import UnavailableError

FREE_AXIS = {"int": 128, "float": 64}
"""Length given to a free axis of a made-up input, by kind of dtype: a sequence, or an image side."""

PROBE_ROWS = 32
"""Rows of the parity probe: half real, half random."""


@dataclass(frozen=True)
class Samples:
    """Inputs by name with one row a sample, and their labels where these are known."""

    inputs: Inputs
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, start: int, count: int) -> Samples:
        """`count` rows from `start` on, beginning again at the end."""
        chosen = np.arange(start, start + count) % len(self)
        labels = None if self.labels is None else self.labels[chosen]
        return Samples({name: np.ascontiguousarray(a[chosen]) for name, a in self.inputs.items()}, labels)

    def batches(self, batch: int, count: int = 8) -> list[Samples]:
        """Up to `count` different batches for a step to rotate over."""
        return [self.rows(i * batch, batch) for i in range(max(1, min(count, len(self) // batch)))]


def read_samples(path: Path) -> Samples:
    """The samples of an artifact folder."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return Samples(inputs={k: v for k, v in arrays.items() if k != "labels"}, labels=arrays.get("labels"))


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
