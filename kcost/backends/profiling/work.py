"""The least that a step of a Keras model moves through memory, for backends that do not count it themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from kcost.backends.base import Inputs
from kcost.models.keras_private import layers_of

LEAST_BYTES = "weights (but not embedding tables), inputs and outputs, each once: a lower bound"
"""Activations between layers may stay in caches, and of a table only the rows that are looked up are read."""


def least_bytes(model: Any, inputs: Inputs, outputs: Iterable[Any]) -> int:
    """Bytes of a model's weights, inputs and outputs.

    Args:
        model: a built keras.Model.
        inputs: one batch, by name.
        outputs: tensors of the backend, or anything else with a shape and a dtype.
    """
    tables = {
        id(weight)
        for layer in layers_of(model)
        if isinstance(layer, keras.layers.Embedding)
        for weight in layer.weights
    }
    weights = sum(_bytes(weight) for weight in model.weights if id(weight) not in tables)
    return weights + sum(array.nbytes for array in inputs.values()) + sum(_bytes(output) for output in outputs)


def _bytes(tensor: Any) -> int:
    name = keras.backend.standardize_dtype(tensor.dtype)
    itemsize = 2 if name == "bfloat16" else np.dtype(name).itemsize
    return int(math.prod(tensor.shape)) * itemsize
