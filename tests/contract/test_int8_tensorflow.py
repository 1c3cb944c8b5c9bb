"""Static int8 layers in TensorFlow: one operation where weights are constants of a graph, public ones elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.one_backend import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("int8 layers of TensorFlow", allow_module_level=True)

import keras
import tensorflow as tf

from kcost.backends.kernels.tensorflow_constants import constant_weights
from kcost.backends.kernels.tensorflow_convolution import FUSED_CONVOLUTION, SUMS
from kcost.backends.kernels.tensorflow_int8 import QUANTIZED_MATMUL, internal_unavailable
from kcost.backends.tensorflow import TensorFlowDriver
from kcost.core.cpu_instructions import INT8_OPERATIONS, ONEDNN_LIMITS
from kcost.core.errors import ArtifactError
from kcost.optimize.forms.layers import QuantizedDense, QuantizedEinsumDense
from kcost.worker.convert import saved_model

LARGEST = 3.0
STEP = LARGEST / 127


def dense() -> QuantizedDense:
    layer = keras.layers.Dense(7, activation="relu", bias_initializer="normal")
    layer.build((None, 600))
    return QuantizedDense.of(layer, "static", LARGEST)


def einsum() -> QuantizedEinsumDense:
    layer = keras.layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 5), bias_axes="de")
    layer.build((None, None, 600))
    return QuantizedEinsumDense.of(layer, "static", LARGEST)


def graph_of(layer: Any, axes: int, *, portable: bool = False) -> Any:
    """The layer's function of inputs whose axes but the last are free, its weights constants."""

    def call(x: Any) -> Any:
        with constant_weights(portable=portable):
            return layer(x)

    return tf.function(call).get_concrete_function(tf.TensorSpec((*[None] * (axes - 1), 600)))


def constant_call(layer: Any, x: Any) -> Any:
    """The layer's answer, its weights constants of the graph that is made."""
    with constant_weights():
        return layer(x)


def operations(graph: Any) -> Counter[str]:
    return Counter(operation.type for operation in graph.graph.get_operations())


@pytest.mark.parametrize(("make", "shape"), [(dense, (4, 600)), (dense, (2, 3, 600)), (einsum, (2, 3, 600))])
def test_one_operation_gives_what_the_exact_sums_give(make: Any, shape: tuple[int, ...]) -> None:
    if reason := internal_unavailable(QUANTIZED_MATMUL):
        pytest.skip(reason)
    layer = make()
    # Multiples of the step, some of them beyond what was calibrated: nothing lies near a tie of the rounding.
    whole = np.random.default_rng(0).integers(-160, 160, shape)
    x = (whole * np.float32(STEP)).astype(np.float32)
    graph = graph_of(layer, len(shape))
    assert operations(graph)[QUANTIZED_MATMUL] == 1
    assert operations(graph)["QuantizedMatMulWithBias"] == 0
    exact = np.asarray(layer(x))
    np.testing.assert_allclose(np.asarray(graph(tf.constant(x))), exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())


def test_many_terms_of_one_sign_are_right_to_the_precision_of_float32() -> None:
    """Each activation is rounded to int8 + 128: what that adds to a sum is largest where a kernel has one sign."""
    if reason := internal_unavailable(QUANTIZED_MATMUL):
        pytest.skip(reason)
    layer = keras.layers.Dense(3, use_bias=False, kernel_initializer=keras.initializers.RandomUniform(0.5, 1.0))
    layer.build((None, 3072))
    static = QuantizedDense.of(layer, "static", LARGEST)
    x = (np.random.default_rng(0).integers(-127, 128, (5, 3072)) * np.float32(STEP)).astype(np.float32)
    exact = np.asarray(static(x))
    whole = np.abs(x) @ np.abs(np.asarray(layer.kernel))
    graph = tf.function(lambda x: constant_call(static, x)).get_concrete_function(tf.TensorSpec((None, 3072)))
    assert operations(graph)[QUANTIZED_MATMUL] == 1
    assert np.all(np.abs(np.asarray(graph(tf.constant(x))) - exact) <= 3072 * np.finfo(np.float32).eps * whole)


def test_weights_that_the_graph_is_given_stay_such() -> None:
    layer = dense()

    def call(x: Any, *weights: Any) -> Any:
        with constant_weights():
            return layer.stateless_call([], list(weights), x)[0]

    values = [tf.convert_to_tensor(weight) for weight in layer.non_trainable_variables]
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in values]
    graph = tf.function(call).get_concrete_function(tf.TensorSpec((None, 600)), *specs)
    x = tf.ones((2, 600))
    np.testing.assert_allclose(np.asarray(graph(x, *values)), np.asarray(layer(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 600), (2, 0, 600)])
def test_no_rows_give_no_rows(shape: tuple[int, ...]) -> None:
    graph = graph_of(dense(), len(shape))
    assert np.asarray(graph(tf.zeros(shape))).shape == (*shape[:-1], 7)


def test_a_portable_graph_has_public_operations_alone() -> None:
    names = operations(graph_of(dense(), 2, portable=True))
    assert not [name for name in names if name.startswith("_")], names


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_a_portable_graph_has_no_products_that_are_exact_on_some_cpus_alone(mode: str) -> None:
    layer = keras.layers.Dense(7)
    layer.build((None, 600))
    form = QuantizedDense.of(layer, mode, LARGEST if mode == "static" else None)  # type: ignore[arg-type]
    assert not INT8_OPERATIONS & set(operations(graph_of(form, 2, portable=True)))


def test_the_operations_that_are_looked_for_are_those_that_are_used() -> None:
    assert {QUANTIZED_MATMUL, FUSED_CONVOLUTION, SUMS} <= INT8_OPERATIONS
    x = tf.TensorSpec((None, 64), tf.int8)
    weights = tf.ones((64, 2), tf.int8)
    graph = tf.function(lambda x: TensorFlowDriver().int8_matmul(x, weights)).get_concrete_function(x)
    if TensorFlowDriver().int8_unavailable() is None:
        assert INT8_OPERATIONS & set(operations(graph))


HELD = """
import numpy as np
from testing import one_backend
from kcost.backends.kernels.tensorflow_encoder import _multiplies_bfloat16
from kcost.backends.tensorflow import TensorFlowDriver
largest = np.full((64, 1), 127, np.int8)
print(np.asarray(TensorFlowDriver().int8_matmul(largest.T, largest)).item(), _multiplies_bfloat16())
"""


@pytest.mark.parametrize("name", ONEDNN_LIMITS)
def test_where_onednn_is_held_to_fewer_instructions_products_are_exact_and_none_is_of_bfloat16(name: str) -> None:
    """Sums of pairs saturate there, and TensorFlow crashes at a product of bfloat16."""
    command = [sys.executable, "-c", HELD]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", name: "AVX2"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(64 * 127**2), "False"]


def test_more_constants_than_a_graph_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = keras.Input((600,))
    model = keras.Model(x, dense()(x))
    monkeypatch.setattr(saved_model, "CONSTANTS_LIMIT_BYTES", 4_000)
    with pytest.raises(ArtifactError, match=r"holds 4,000 bytes.*\n.*4,2\d\d bytes in 1 such layers"):
        saved_model.write_saved_model(model, tmp_path / "model.keras", tmp_path / "out", portable=False)
    saved_model.write_saved_model(model, tmp_path / "model.keras", tmp_path / "portable", portable=True)
    assert (tmp_path / "portable" / "saved_model.pb").is_file(), "there the weights are variables"


def test_elsewhere_the_weights_are_variables() -> None:
    layer = dense()
    graph = tf.function(lambda x: layer(x)).get_concrete_function(tf.TensorSpec((None, 600)))
    assert operations(graph)[QUANTIZED_MATMUL] == 0
    before = np.asarray(graph(tf.ones((1, 600))))
    layer.kernel.assign(-layer.kernel)
    assert not np.array_equal(before, np.asarray(graph(tf.ones((1, 600)))))
