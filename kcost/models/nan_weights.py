"""Weights that are no numbers, which the answers of a model do not always show."""

from __future__ import annotations

import keras
import numpy as np


def nan_weights(model: keras.Model) -> str | None:
    """How many weights of a model are NaN, in words that name the first variable that has some; None where none are.

    TensorFlow's oneDNN turns NaN into 0 in a ReLU on some CPUs, so that the answers alone do not show it. Infinite
    numbers pass: masks are made of them.
    """
    for variable in model.variables:
        if keras.backend.standardize_dtype(variable.dtype).startswith(("float", "bfloat")):
            values = np.asarray(keras.ops.convert_to_numpy(variable.value))
            count = int(np.isnan(values.astype(np.float32)).sum())
            if count:
                return f"{count:,} of {values.size:,} weights of {variable.path} are NaN"
    return None
