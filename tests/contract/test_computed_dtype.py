"""What a cell computes in is read from the layers of the model that was loaded, whatever its file was saved under."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from kcost.backends import driver
from kcost.backends.base import LoadedPrecision
from kcost.core.request import SIZES
from kcost.core.saved_policy import saved_policy
from kcost.models import bert, cnn

X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def saved_under(policy: str, path: Path) -> Path:
    """A model as Keras advises to make a mixed one: its last layer in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((6,), name="x")
        hidden = layers.Dense(8, activation="relu")(inputs)
        keras.Model(inputs, layers.Dense(3, dtype="float32")(hidden)).save(path)
    finally:
        keras.config.set_dtype_policy(before)
    return path


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("float32", None), ("mixed_bfloat16", "mixed_bfloat16"), ("mixed_float16", "mixed_float16")],
)
def test_the_policy_of_a_file_is_read_without_keras(tmp_path: Path, policy: str, expected: str | None) -> None:
    assert saved_policy(saved_under(policy, tmp_path / "m.keras")) == expected


@pytest.mark.parametrize(
    ("policy", "precision", "computed"),
    [
        ("float32", "float32", "float32"),
        ("float32", "bfloat16", "bfloat16"),
        ("mixed_bfloat16", "float32", "float32"),
        ("mixed_bfloat16", "bfloat16", "bfloat16"),
        ("mixed_bfloat16", "saved", "bfloat16 and float32"),
        ("mixed_float16", "float32", "float32"),
        ("mixed_float16", "saved", "float16 and float32"),
    ],
)
def test_a_cell_computes_in_what_it_says(
    tmp_path: Path, policy: str, precision: LoadedPrecision, computed: str
) -> None:
    path = saved_under(policy, tmp_path / "m.keras")
    backend = driver(os.environ["KERAS_BACKEND"])
    model = backend.load(path, precision)
    assert backend.computed_dtype(model) == computed
    plain = keras.saving.load_model(path)
    kernel, bias, last_kernel, last_bias = (np.asarray(keras.ops.convert_to_numpy(v), float) for v in plain.weights)
    exact = np.maximum(X @ kernel + bias, 0) @ last_kernel + last_bias
    (outputs,) = backend.to_host(model(X))
    difference = np.abs(outputs - exact).max()
    assert (difference < 1e-5) == (computed == "float32"), difference


def test_the_sizes_that_a_request_knows_are_those_of_the_models() -> None:
    assert {"cnn": tuple(cnn.SIZES), "bert": tuple(bert.SIZES)} == SIZES
