from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from kcost.backends.block_spec import BlockSpec
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.optimize.forms.layers import QuantizedDense, QuantizedEmbedding
from tests.contract.blocks import INNER, WIDTH, block, inputs, numpy


def slow_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the layers that Keras's own call ran, from now on."""
    names: list[str] = []
    original = keras.layers.Layer.__call__

    def counted(self: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        names.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(keras.layers.Layer, "__call__", counted)
    return names


def text_model() -> keras.Model:
    ids, shown = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="shown")
    rows = keras.layers.Embedding(9, WIDTH, name="rows")
    rows.build()
    dense = keras.layers.Dense(3, name="head")
    dense.build((None, WIDTH))
    made = block(BlockSpec(WIDTH, 4, 16, INNER)).converted("int8_dynamic")
    x = made(QuantizedEmbedding.of(rows)(ids), padding_mask=shown)
    return keras.Model([ids, shown], QuantizedDense.of(dense, "dynamic")(x))


IDS = np.array([[4, 5, 1, 2], [1, 2, 3, 4]])


def test_a_model_that_predicts_skips_what_has_nothing_to_do(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = text_model()
    given = [keras.ops.convert_to_tensor(IDS, dtype="int32"), keras.ops.ones((2, 4), dtype="int32")]
    expected = numpy(model(given))  # says nothing of training: each layer is called as Keras does it
    called = slow_calls(monkeypatch)
    np.testing.assert_array_equal(numpy(model(given, training=False)), expected)
    inner = [name for name in called if name != model.name]
    assert inner == ([] if backend == "torch" else [layer.name for layer in model.layers[1:] if layer.name != "shown"])


def test_a_listener_a_mask_and_a_training_are_not_skipped(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = block()
    x, mask = inputs()
    tensor = keras.ops.convert_to_tensor(x)
    expected = numpy(made(tensor, padding_mask=mask))
    called = slow_calls(monkeypatch)

    def carried() -> Any:
        carrying = keras.ops.convert_to_tensor(x)
        carrying._keras_mask = keras.ops.convert_to_tensor(mask, dtype="bool")
        return carrying

    made(tensor, training=True)
    made(tensor)
    if backend != "jax":  # its arrays carry no attributes
        output = made(carried(), training=False)
        np.testing.assert_allclose(numpy(output), expected, atol=1e-5)
        np.testing.assert_array_equal(numpy(output._keras_mask), mask)
    assert len(called) == (2 if backend == "jax" else 3)
    if backend == "torch":
        heard: list[Any] = []
        made.register_forward_hook(lambda layer, args, output: heard.append(output))
        made(tensor, training=False)
        assert len(heard) == 1


def test_a_mask_that_a_layer_makes_reaches_the_next(backend: str) -> None:
    rows = keras.layers.Embedding(9, WIDTH, mask_zero=True)
    rows.build()
    embedding, made = QuantizedEmbedding.of(rows), block()
    ids = keras.ops.convert_to_tensor([[4, 5, 0, 0], [1, 2, 3, 4]], dtype="int32")
    given = keras.Input((None,), dtype="int32")
    outputs = numpy(keras.Model(given, made(embedding(given)))(ids, training=False))
    expected = numpy(made(keras.ops.convert_to_tensor(numpy(embedding(ids))), padding_mask=ids != 0))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_another_dtype_is_cast_as_keras_does_it(backend: str) -> None:
    dense = keras.layers.Dense(3)
    dense.build((None, 4))
    made = QuantizedDense.of(dense, "dynamic")
    x = keras.ops.cast(np.ones((2, 4)), "bfloat16")
    assert keras.backend.standardize_dtype(made(x, training=False).dtype) == "float32"


def test_symbolic_inputs_make_a_graph() -> None:
    made = EncoderBlock(BlockSpec(WIDTH, 4, 16, INNER))
    embedded = keras.Input((None, WIDTH))
    model = keras.Model(embedded, made(embedded, training=False))
    assert model.layers[-1] is made
