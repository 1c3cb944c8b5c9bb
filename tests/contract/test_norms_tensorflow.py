"""Layer norms of Keras in TensorFlow: one operation in graphs for inference, public ones elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from testing.one_backend import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("layer norms of TensorFlow", allow_module_level=True)

import keras
import tensorflow as tf

from kcost.backends.kernels.tensorflow_constants import constant_weights
from kcost.backends.kernels.tensorflow_int8 import internal_unavailable
from kcost.backends.kernels.tensorflow_norms import LAYER_NORM

SHAPES = ((6, 16), (2, 3, 16), (2, 3, 5, 16))


def norm(shape: tuple[int, ...], **fields: Any) -> keras.layers.LayerNormalization:
    layer = keras.layers.LayerNormalization(epsilon=1e-6, **fields)
    layer.build((None, *shape[1:]))
    random = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(random.normal(1, 0.2, variable.shape))
    return layer


def graph_of(layer: Any, shape: tuple[int, ...], *, portable: bool = False, dtype: Any = tf.float32) -> Any:
    """The layer's function with free axes but the last."""

    def call(x: Any) -> Any:
        with constant_weights(portable=portable):
            return layer(x)

    return tf.function(call, autograph=False).get_concrete_function(
        tf.TensorSpec((*[None] * (len(shape) - 1), shape[-1]), dtype)
    )


def fused(graph: Any) -> int:
    return [operation.type for operation in graph.graph.get_operations()].count(LAYER_NORM)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_gives_what_keras_gives_also_for_a_variance_near_the_epsilon(shape: tuple[int, ...]) -> None:
    layer = norm(shape)
    graph = graph_of(layer, shape)
    if internal_unavailable(LAYER_NORM) is None:
        assert fused(graph) == (len(shape) < 4)
    for scale in (1.0, 1e-3):
        x = (5 + scale * np.random.default_rng(1).normal(size=shape)).astype(np.float32)
        np.testing.assert_allclose(np.asarray(graph(tf.constant(x))), np.asarray(layer(x)), rtol=2e-3, atol=2e-3)
    assert graph.structured_outputs.shape[-1] == shape[-1]


@pytest.mark.parametrize("fields", [{"axis": 1}, {"axis": (1, 2)}, {"center": False}, {"scale": False}])
def test_other_norms_stay_what_they_are(fields: dict[str, Any]) -> None:
    shape = (2, 3, 16)
    layer = keras.layers.LayerNormalization(**fields)
    layer.build(shape)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def call(x: Any) -> Any:
        with constant_weights():
            return layer(x)

    graph = tf.function(call, autograph=False).get_concrete_function(tf.TensorSpec(shape))
    assert fused(graph) == 0
    np.testing.assert_allclose(np.asarray(graph(tf.constant(x))), np.asarray(layer(x)), rtol=1e-5, atol=1e-5)


def test_elsewhere_and_in_portable_graphs_the_operations_are_public() -> None:
    plain = keras.layers.LayerNormalization.call
    layer = norm((2, 3, 16))
    assert fused(graph_of(layer, (2, 3, 16), portable=True)) == 0
    outside = tf.function(lambda x: layer(x), autograph=False).get_concrete_function(tf.TensorSpec((None, None, 16)))
    assert fused(outside) == 0
    assert keras.layers.LayerNormalization.call is plain, "Keras's class is as it was"


def test_gradients_are_those_of_keras() -> None:
    """Outside of graphs for inference, where the operation has none."""
    layer = norm((2, 3, 16))
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 3, 16)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(layer(x) ** 2)
    assert np.abs(np.asarray(tape.gradient(y, x))).max() > 0
