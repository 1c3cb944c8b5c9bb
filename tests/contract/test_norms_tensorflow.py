"""Norms for inference in TensorFlow: one operation where weights are constants of a graph, Keras's own elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.one_backend import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("norms of TensorFlow", allow_module_level=True)

import keras
import tensorflow as tf

from kcost.backends.kernels.tensorflow_constants import constant_weights
from kcost.backends.kernels.tensorflow_int8 import internal_unavailable
from kcost.backends.kernels.tensorflow_norms import LAYER_NORM, fused_layer_norm
from kcost.optimize.forms.norm import InferenceLayerNormalization

WIDTH = 16
FREE = (None, None, WIDTH)


def norm(**fields: Any) -> keras.layers.LayerNormalization:
    """Of Keras, with weights of its own."""
    layer = keras.layers.LayerNormalization(epsilon=1e-6, **fields)
    layer.build((None, None, WIDTH))
    random = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(random.normal(1, 0.2, variable.shape))
    return layer


def form(layer: keras.layers.LayerNormalization) -> InferenceLayerNormalization:
    made = InferenceLayerNormalization.of(layer)
    assert made is not None
    return made


def graph_of(
    layer: Any, shape: tuple[int | None, ...] = FREE, *, portable: bool = False, dtype: Any = tf.float32
) -> Any:
    def call(x: Any) -> Any:
        with constant_weights(portable=portable):
            return layer(x)

    return tf.function(call, autograph=False).get_concrete_function(tf.TensorSpec(shape, dtype))


def fused(graph: Any) -> int:
    return [operation.type for operation in graph.graph.get_operations()].count(LAYER_NORM)


@pytest.mark.parametrize(
    "shape", [(6, WIDTH), (2, 3, WIDTH), (2, 3, 5, WIDTH), (0, WIDTH), (2, 0, WIDTH), (0, 3, WIDTH)]
)
def test_it_gives_what_keras_gives_also_for_a_variance_near_the_epsilon(shape: tuple[int, ...]) -> None:
    layer = norm()
    graph = graph_of(form(layer), (*[None] * (len(shape) - 1), WIDTH))
    if internal_unavailable(LAYER_NORM) is None:
        assert fused(graph) == (len(shape) < 4)
    for scale in (1.0, 1e-3):
        x = (5 + scale * np.random.default_rng(1).normal(size=shape)).astype(np.float32)
        np.testing.assert_allclose(np.asarray(graph(tf.constant(x))), np.asarray(layer(x)), rtol=2e-3, atol=2e-3)
    assert graph.structured_outputs.shape[-1] == WIDTH


@pytest.mark.parametrize("shape", [(None, None), (None, None, None), (None, 8), (None, None, 17), None])
def test_no_other_width_and_none_that_is_not_known(shape: tuple[int | None, ...] | None) -> None:
    """The operation would read beyond the end of gamma and beta."""
    layer = norm()

    def call(x: Any) -> Any:
        with constant_weights():
            assert fused_layer_norm(x, layer.gamma.value, layer.beta.value, 1e-6) is None
        return x

    tf.function(call, autograph=False).get_concrete_function(tf.TensorSpec(shape))


@pytest.mark.parametrize("fields", [{"axis": 1}, {"axis": (1, 2)}, {"center": False}, {"scale": False}])
def test_other_norms_have_no_form(fields: dict[str, Any]) -> None:
    layer = keras.layers.LayerNormalization(**fields)
    layer.build((2, 3, WIDTH))
    assert InferenceLayerNormalization.of(layer) is None


def test_another_dtype_has_no_form_and_one_that_comes_in_is_computed_by_keras() -> None:
    assert InferenceLayerNormalization.of(norm(dtype="mixed_bfloat16")) is None
    layer = form(norm())
    graph = graph_of(layer, dtype=tf.float64)
    assert fused(graph) == 0
    x = np.random.default_rng(1).normal(size=(2, 3, WIDTH))
    assert graph(tf.constant(x)).dtype == tf.float32
    np.testing.assert_allclose(np.asarray(graph(tf.constant(x))), np.asarray(layer(x)), rtol=1e-5, atol=1e-5)


def test_elsewhere_and_in_portable_graphs_the_operations_are_public() -> None:
    layer = form(norm())
    assert fused(graph_of(layer, portable=True)) == 0
    outside = tf.function(lambda x: layer(x), autograph=False).get_concrete_function(tf.TensorSpec(FREE))
    assert fused(outside) == 0


def test_weights_that_the_graph_is_given_stay_such() -> None:
    layer = form(norm())

    def call(x: Any, *weights: Any) -> Any:
        with constant_weights():
            return layer.stateless_call([], list(weights), x)[0]

    values = [tf.convert_to_tensor(weight) for weight in layer.non_trainable_variables]
    assert len(values) == 2
    specs = [tf.TensorSpec(value.shape, value.dtype) for value in values]
    graph = tf.function(call).get_concrete_function(tf.TensorSpec(FREE), *specs)
    x = tf.random.normal((2, 3, WIDTH))
    np.testing.assert_allclose(np.asarray(graph(x, *values)), np.asarray(layer(x)), rtol=1e-5, atol=1e-5)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    x = keras.Input((3, WIDTH))
    model = keras.Model(x, form(norm())(x))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    rows = np.random.default_rng(1).normal(size=(2, 3, WIDTH)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(again(rows)), np.asarray(model(rows)))
    assert not again.trainable_variables


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_another_precision_it_is_kerass(policy: str, dtype: str) -> None:
    config = form(norm()).get_config()
    layer = InferenceLayerNormalization.from_config({**config, "dtype": policy})
    layer.build((None, None, WIDTH))
    graph = graph_of(layer, dtype=tf.as_dtype(dtype))
    assert fused(graph) == 0
    x = tf.cast(np.random.default_rng(1).normal(size=(2, 3, WIDTH)), dtype)
    assert graph(x).dtype == tf.bfloat16
