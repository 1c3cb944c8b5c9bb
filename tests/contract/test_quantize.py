"""int8 products, quantized layers, models with replaced layers, and quantize itself, on each backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kcost.backends import driver
from kcost.backends.kernels.int8_products import EXACT_TERMS, float32_product
from kcost.core.errors import InputError
from kcost.models.bert import backbone, token_classifier
from kcost.models.loading import load_keras_file
from kcost.optimize import quantization
from kcost.optimize.choice import BATCHES, Timed, timed_layers
from kcost.optimize.forms import chain_choice
from kcost.optimize.forms.conv_layers import QuantizedConv2D, QuantizedDepthwiseConv2D
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.optimize.forms.layers import (
    MODES,
    QuantizedDense,
    QuantizedEinsumDense,
    QuantizedEmbedding,
)
from kcost.optimize.forms.rounding import quantized_weights
from kcost.optimize.quantization import quantize
from kcost.optimize.rewrite import RewrittenLayer, RewrittenModel, rewrite
from tests.contract.arrays import TOLERANCE, int8s, normal, on_host, relative_error
from tests.contract.inputs import token_inputs


def reloaded(model: keras.Model, tmp_path: Path) -> keras.Model:
    model.save(tmp_path / "model.keras")
    return load_keras_file(tmp_path / "model.keras")


def compiled(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function of two tensors, traced as the backend's graphs are."""
    if name == "tensorflow":
        import tensorflow as tf

        return tf.function(function)  # type: ignore[no-any-return]
    if name == "jax":
        import jax

        return jax.jit(function)
    return function


@pytest.mark.parametrize(("rows", "inner", "outer"), [(1, 1, 1), (3, 5, 7), (17, 130, 33), (2, 2 * EXACT_TERMS + 3, 3)])
def test_int8_products_are_those_of_numpy_bit_for_bit(backend: str, rows: int, inner: int, outer: int) -> None:
    extreme = np.full((rows, inner), -128, np.int8), np.full((inner, outer), -128, np.int8)
    mixed = np.where(int8s(rows, inner) > 0, np.int8(127), np.int8(-128)), extreme[1]
    multiply = driver(backend).int8_matmul
    odd = np.where(mixed[0] > 0, np.int8(127), np.int8(-127)), np.full((inner, outer), 127, np.int8)
    for x, w in ((int8s(rows, inner), int8s(inner, outer)), extreme, mixed, odd):
        expected = x.astype(np.int32) @ w.astype(np.int32)
        for product in (multiply, compiled(multiply, backend)):
            multiplied = ops.convert_to_numpy(product(ops.convert_to_tensor(x), ops.convert_to_tensor(w)))
            assert multiplied.dtype == np.int32
            np.testing.assert_array_equal(multiplied, expected)


def test_an_int8_product_has_any_number_of_axes(backend: str) -> None:
    x, w = int8s(2, 3, 4, 9), int8s(9, 5)
    product = driver(backend).int8_matmul(ops.convert_to_tensor(x), ops.convert_to_tensor(w))
    np.testing.assert_array_equal(ops.convert_to_numpy(product), x.astype(np.int32) @ w.astype(np.int32))


def test_an_int8_product_is_exact_inside_xla(backend: str) -> None:
    if backend != "tensorflow":
        pytest.skip("only TensorFlow has graphs with and without XLA")
    import tensorflow as tf

    x, w = int8s(4, 2500), int8s(2500, 3)
    product = tf.function(driver(backend).int8_matmul, jit_compile=True)(tf.constant(x), tf.constant(w))
    np.testing.assert_array_equal(product, x.astype(np.int32) @ w.astype(np.int32))


def test_the_float32_way_is_exact_too() -> None:
    x, w = np.full((2, 5000), -128, np.int8), np.full((5000, 2), -128, np.int8)
    product = float32_product(x, w, np.matmul, lambda t: t.astype(np.float32), lambda t: t.astype(np.int32))
    np.testing.assert_array_equal(product, x.astype(np.int32) @ w.astype(np.int32))


def test_weights_are_rounded_by_at_most_half_a_step() -> None:
    weights = normal(20, 6)
    weights[:, 2] = 0
    rounded, scale = quantized_weights(weights, (0,))
    assert rounded.dtype == np.int8
    assert np.abs(rounded).max() == 127
    assert scale[2] == 1
    assert (np.abs(rounded * scale - weights) <= scale / 2 + 1e-7).all()


DENSE = {
    "gelu": (lambda: keras.layers.Dense(24, activation="gelu"), (7, 16)),
    "no bias": (lambda: keras.layers.Dense(3, use_bias=False), (16,)),
}
EINSUM = {
    "query": (lambda: keras.layers.EinsumDense("abc,cde->abde", (None, 4, 6), bias_axes="de"), (7, 16)),
    "output": (lambda: keras.layers.EinsumDense("abcd,cde->abe", (None, 16), bias_axes="e"), (7, 4, 6)),
    "ellipsis": (lambda: keras.layers.EinsumDense("...x,xy->...y", 8), (7, 16)),
    "moved": (lambda: keras.layers.EinsumDense("abc,cd->adb", (5, None)), (7, 16)),
}
CONVOLUTION = {
    "valid": (lambda: keras.layers.Conv2D(6, 3, activation="relu"), (9, 10, 4)),
    "same": (lambda: keras.layers.Conv2D(6, (2, 3), padding="same", use_bias=False), (9, 10, 4)),
    "strides": (lambda: keras.layers.Conv2D(6, 3, strides=2, padding="same"), (9, 10, 4)),
    "dilation": (lambda: keras.layers.Conv2D(6, 3, dilation_rate=2, padding="same"), (9, 10, 4)),
    "1 x 1": (lambda: keras.layers.Conv2D(6, 1), (9, 10, 4)),
}
FORMS = [
    *((QuantizedDense, *case) for case in DENSE.values()),
    *((QuantizedEinsumDense, *case) for case in EINSUM.values()),
    *((QuantizedConv2D, *case) for case in CONVOLUTION.values()),
]


@pytest.mark.parametrize(("form", "make", "shape"), FORMS)
@pytest.mark.parametrize("mode", MODES)
def test_a_quantized_layer_is_close_to_the_float_one(
    form: Any, make: Callable[[], keras.layers.Layer], shape: tuple[int, ...], mode: str, tmp_path: Path
) -> None:
    layer, x = make(), normal(3, *shape)
    expected = layer(x)
    new = form.of(layer, mode, float(np.abs(x).max()))
    inputs = keras.Input(shape)
    model = keras.Model(inputs, new(inputs))
    assert new.name == layer.name
    assert not new.trainable_variables
    assert model.output.shape[1:] == expected.shape[1:]
    assert relative_error(model(x), expected) < TOLERANCE
    np.testing.assert_array_equal(on_host(reloaded(model, tmp_path)(x)), on_host(model(x)))


def test_a_quantized_embedding_looks_rows_up_and_back(tmp_path: Path) -> None:
    layer = keras.layers.ReversibleEmbedding(11, 8, mask_zero=True)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 5))
    expected = layer(tokens)
    inputs = keras.Input((5,), dtype="int32")
    new = QuantizedEmbedding.of(layer)
    rows = new(inputs)
    model = reloaded(keras.Model(inputs, [rows, new(rows, reverse=True)]), tmp_path)
    assert relative_error(model(tokens)[0], expected) < TOLERANCE
    assert relative_error(model(tokens)[1], layer(expected, reverse=True)) < TOLERANCE
    np.testing.assert_array_equal(ops.convert_to_numpy(new.compute_mask(ops.convert_to_tensor(tokens))), tokens != 0)


def test_a_quantized_depthwise_convolution_is_close(tmp_path: Path) -> None:
    layer, x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), normal(2, 9, 9, 4)
    expected = layer(x)
    inputs = keras.Input((9, 9, 4))
    model = reloaded(keras.Model(inputs, QuantizedDepthwiseConv2D.of(layer)(inputs)), tmp_path)
    assert relative_error(model(x), expected) < TOLERANCE


@pytest.mark.parametrize("groups", [2, 4])
def test_a_quantized_convolution_of_groups_is_close(groups: int, tmp_path: Path) -> None:
    layer, x = keras.layers.Conv2D(8, 3, groups=groups, strides=2, padding="same"), normal(2, 9, 9, 4)
    expected = layer(x)
    inputs = keras.Input((9, 9, 4))
    model = reloaded(keras.Model(inputs, QuantizedConv2D.of(layer, "weight-only")(inputs)), tmp_path)
    assert model.output.shape[1:] == expected.shape[1:]
    assert relative_error(model(x), expected) < TOLERANCE


def test_calibration_data_are_matched_to_inputs_as_samples_are() -> None:
    model, x = sequential()
    by_name = quantize(model, "static", {model.inputs[0].name: x}, measure=False)[0]
    for calibration in (x, {"another name": x}, {"rows": x.astype(np.float64)}):
        new, _ = quantize(model, "static", calibration, measure=False)
        np.testing.assert_array_equal(on_host(new(x)), on_host(by_name(x)))


def test_a_row_of_zeros_stays_zero_and_large_numbers_are_clipped() -> None:
    layer = keras.layers.Dense(4, use_bias=False)
    layer.build((None, 8))
    assert not on_host(QuantizedDense.of(layer, "dynamic")(np.zeros((2, 8), np.float32))).any()
    static = QuantizedDense.of(layer, "static", 1.0)
    np.testing.assert_array_equal(on_host(static(np.full((1, 8), 5.0))), on_host(static(np.ones((1, 8)))))


def functional() -> tuple[keras.Model, Any]:
    inputs = keras.Input((6, 16))
    shared = keras.layers.Dense(16, name="shared")
    x = shared(keras.layers.Dense(16, "relu", name="first")(inputs)) + shared(inputs)
    attention = keras.layers.MultiHeadAttention(2, 8, name="attention")
    x = keras.layers.LayerNormalization(name="norm")(attention(x, value=x, use_causal_mask=True))
    x = keras.Sequential([keras.Input((6, 16)), keras.layers.Dense(8, name="deep")], name="nested")(x)
    return keras.Model(inputs, keras.layers.TimeDistributed(keras.layers.Dense(3, name="each"))(x)), normal(3, 6, 16)


def sequential() -> tuple[keras.Model, Any]:
    layers = [keras.layers.Dense(8, name="one"), keras.layers.Dropout(0.5), keras.layers.Dense(3, name="two")]
    return keras.Sequential([keras.Input((16,)), *layers]), normal(5, 16)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.listed = [keras.layers.Dense(units, name=f"listed{i}") for i in range(2)]
        self.attention = keras.layers.MultiHeadAttention(2, 4, name="attention")

    def call(self, x: Any, training: bool = False) -> Any:
        for layer in self.listed:
            x = layer(x)
        return self.attention(x, x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def subclassed() -> tuple[keras.Model, Any]:
    model, x = Subclassed(12), normal(2, 5, 9)
    model(x)
    return model, x


ATTENTION = {f"attention/{name}" for name in ("query", "key", "value", "attention_output")}
CHANGED = {
    functional: {"first", "shared", "nested/deep", "time_distributed/each", *ATTENTION},
    sequential: {"one", "two"},
    subclassed: {"listed0", "listed1", *ATTENTION},
}


@pytest.mark.parametrize("make", CHANGED)
@pytest.mark.parametrize("mode", ["dynamic", "static", "weight-only", "keras"])
def test_a_model_of_any_kind_is_quantized_saved_and_loaded(make: Any, mode: str, tmp_path: Path) -> None:
    model, x = make()
    before, weights = on_host(model(x)), [on_host(w) for w in model.weights]
    expected = CHANGED[make]
    skip = []
    if mode == "keras" and make is functional:
        # Keras's own int8 Dense answers hundreds of times too large inside TimeDistributed on jax.
        skip, expected = ["time_distributed"], expected - {"time_distributed/each"}
    if mode == "dynamic" and make is functional:
        expected = expected | {"norm"}
    new, coverage = quantize(model, mode, x if mode == "static" else None, skip)  # type: ignore[arg-type]
    assert relative_error(new(x), before) < 3 * TOLERANCE
    assert relative_error(new(x), before) > 0
    if mode != "static":  # calibration on a backend may not see inside TimeDistributed
        assert {change.layer for change in coverage.changed} == expected
        assert len(coverage.skipped) == len(skip)
        assert (coverage.share == 1) == (not skip)
    assert coverage.changed_parameters == sum(change.parameters for change in coverage.changed) > 0
    # The model that was given is as it was.
    np.testing.assert_array_equal(on_host(model(x)), before)
    assert all((a == on_host(b)).all() for a, b in zip(weights, model.weights, strict=True))
    new.save(tmp_path / "model.keras")
    load = keras.saving.load_model if make is subclassed else load_keras_file  # kcost loads no class of tests
    np.testing.assert_array_equal(on_host(load(tmp_path / "model.keras")(x)), on_host(new(x)))


def test_norms_alone_stay_as_they_are() -> None:
    inputs = keras.Input((4, 16))
    model = keras.Model(inputs, keras.layers.LayerNormalization(name="norm")(inputs))
    new, coverage = quantize(model, "dynamic")
    assert type(new.get_layer("norm")) is keras.layers.LayerNormalization
    assert not coverage.changed
    assert [(change.layer, change.what) for change in coverage.skipped] == [
        ("norm", "nothing but norms could be changed")
    ]


def text_model() -> tuple[keras.Model, dict[str, np.ndarray]]:
    return token_classifier(backbone(50, "tiny"), 5), token_inputs(3, 16)


@pytest.mark.parametrize("mode", ["dynamic", "static", "bfloat16"])
def test_known_encoder_blocks_become_one_layer_each(mode: str, tmp_path: Path) -> None:
    model, inputs = text_model()
    new, coverage = quantize(model, mode, inputs if mode == "static" else None)  # type: ignore[arg-type]
    blocks = [layer for layer in new.layers if isinstance(layer, EncoderBlock)]
    assert [block.name for block in blocks] == ["transformer_layer_0", "transformer_layer_1"]
    assert {c.layer for c in coverage.changed} >= {block.name for block in blocks}
    assert relative_error(new(inputs), model(inputs)) < 3 * TOLERANCE
    np.testing.assert_allclose(on_host(reloaded(new, tmp_path)(inputs)), on_host(new(inputs)), atol=1e-6)


def test_an_encoder_layer_by_layer_where_no_block_is_known(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(quantization, "encoder_block_of", lambda layer: "not known")
    model, inputs = text_model()
    new, coverage = quantize(model, "dynamic")
    names = {change.layer for change in coverage.changed}
    assert "transformer_layer_1/self_attention_layer/query" in names
    assert "transformer_layer_0/feedforward_output_dense" in names
    assert [change.layer for change in coverage.skipped] == ["position_embedding"]
    assert isinstance(new.get_layer("transformer_layer_0"), RewrittenLayer)
    assert relative_error(new(inputs), model(inputs)) < 3 * TOLERANCE
    np.testing.assert_array_equal(on_host(reloaded(new, tmp_path)(inputs)), on_host(new(inputs)))
    # No float kernel stays behind a replaced layer.
    assert sum(np.prod(w.shape) for w in new.weights if w.dtype != "int8") < 0.2 * model.count_params()


def test_every_compiled_forward_runs_quantized_models(backend: str) -> None:
    from kcost.core.plan import INFERENCE_METHODS

    model, x = functional()
    new, _ = quantize(model, "dynamic")
    own = driver(backend)
    for method in INFERENCE_METHODS[backend]:  # type: ignore[index]
        if method != "compile":  # takes minutes
            step = own.predict_step(new, 3) if method == "predict" else own.compile_forward(new, method)
            product = own.to_host(step({"x": x}))[0]
            assert relative_error(product, new(x)) < 1e-4, method


def test_a_convolution_stays_float_where_int8_is_slower(monkeypatch: Any) -> None:
    layers = [keras.layers.Conv2D(4, 3, name="slow"), keras.layers.Conv2D(4, 3, name="fast"), keras.layers.Flatten()]
    model, x = keras.Sequential([keras.Input((8, 8, 1)), *layers]), np.abs(normal(4, 8, 8, 1))
    slow = {"slow": Timed({1: 0.5, 32: 1.5})}
    times = lambda layers, others: [slow.get(layers[0].name, Timed({1: 0.5})) for _ in others]  # noqa: E731
    monkeypatch.setattr(chain_choice, "timed_layers", times)
    monkeypatch.setattr(chain_choice, "timed", lambda models: [Timed({1: 0.5})])
    new, coverage = quantize(model, "dynamic")
    (skipped,) = coverage.skipped
    assert skipped.layer == "slow"
    assert "int8 dynamic is slower here" in skipped.what
    assert "1.50 at batch 32" in skipped.what
    assert [c.layer for c in coverage.changed] == ["fast"]
    everything, coverage = quantize(model, "dynamic", measure=False)
    assert coverage.skipped == ()
    for changed in (new, everything):
        assert relative_error(changed(x), model(x)) < TOLERANCE


def test_a_convolution_is_timed() -> None:
    layer = keras.layers.Conv2D(4, 3)
    layer.build((None, 8, 8, 2))
    (times,) = timed_layers([layer], [QuantizedConv2D.of(layer, "dynamic")])
    assert times.worst >= times.mean > 0
    assert set(times.ratios) <= set(BATCHES)
    assert not layer._inbound_nodes


def test_skipped_layers_stay_as_they_are() -> None:
    model, _ = functional()
    new, coverage = quantize(model, "dynamic", skip=["attention", "nested/*"])
    assert {c.layer for c in coverage.changed} == {"first", "shared", "norm", "time_distributed/each"}
    assert {(c.layer, c.what) for c in coverage.skipped} == {
        (name, "named in skip") for name in (*ATTENTION, "nested/deep")
    }
    assert type(new.get_layer("attention")) is keras.layers.MultiHeadAttention
    with pytest.raises(InputError, match="Each pattern in skip"):
        quantize(model, "dynamic", skip=["no_such_layer"])


@keras.saving.register_keras_serializable(package="tests")
class ReadsKernel(keras.layers.Layer):  # type: ignore[misc]
    """Does more with its sublayer than call it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4, name="dense")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.dense.kernel) * self.dense.kernel_constraint_factor()


def test_a_layer_that_reads_its_sublayers_kernels_is_left_and_named(monkeypatch: Any) -> None:
    monkeypatch.setattr(keras.layers.Dense, "kernel_constraint_factor", lambda self: 1.0, raising=False)
    inputs = keras.Input((9,))
    model = keras.Model(inputs, ReadsKernel(name="odd")(inputs))
    new, coverage = quantize(model, "dynamic")
    assert coverage.changed == ()
    assert [change.layer for change in coverage.skipped] == ["odd/dense"]
    assert "cannot be replaced" in coverage.skipped[0].what
    x = normal(2, 9)
    np.testing.assert_array_equal(on_host(new(x)), on_host(model(x)))


def test_a_layer_without_an_int8_form_is_named() -> None:
    model = keras.Sequential([keras.Input((8, 3)), keras.layers.Conv1D(4, 2, name="conv"), keras.layers.LSTM(5)])
    _, coverage = quantize(model, "weight-only")
    assert coverage.changed == ()
    assert [c.what for c in coverage.skipped] == ["no int8 form of Conv1D", "no int8 form of LSTMCell"]
    assert coverage.share == 0


def test_places_are_the_same_on_each_backend() -> None:
    """A file names them, and another backend loads it: TensorFlow, say, lists sublayers in attributes of its own."""
    model, _ = subclassed()
    new, _ = quantize(model, "dynamic")
    attention = [["attention", f"_{name}_dense"] for name in ("key", "output", "query", "value")]
    assert sorted(new.places, key=str) == sorted([*attention, ["listed", 0], ["listed", 1]], key=str)


def test_a_rewritten_model_shares_nothing_with_the_given_one() -> None:
    model, x = subclassed()
    replace = lambda layer, path: QuantizedDense.of(layer, "dynamic") if path == "listed1" else None  # noqa: E731
    new = rewrite(model, replace, loss=TOLERANCE)
    assert isinstance(new, RewrittenModel)
    assert isinstance(new.layer.listed[1], QuantizedDense)
    assert isinstance(model.listed[1], keras.layers.Dense)
    assert not {id(v) for v in model.variables} & {id(v) for v in new.variables}
    before = on_host(new(x))
    for variable in model.variables:
        variable.assign(np.zeros(variable.shape))
    np.testing.assert_array_equal(on_host(new(x)), before)


def test_bfloat16_changes_every_layer_of_a_model_without_known_blocks() -> None:
    model, x = sequential()
    new, coverage = quantize(model, "bfloat16")
    assert {c.layer for c in coverage.changed} == {"one", "two"}
    assert all("bfloat16" in str(w.dtype) for w in new.weights if "seed" not in w.path)
    assert relative_error(new(x), model(x)) < TOLERANCE
    with pytest.raises(InputError, match="changes every layer"):
        quantize(model, "bfloat16", skip=["one"])


@pytest.mark.parametrize(
    ("mode", "calibration", "message"),
    [
        ("int4", None, "one of the modes"),
        ("static", None, "needs data to calibrate on"),
        ("static", np.zeros((2, 15), np.float32), "An array has the shape of its input"),
        ("static", np.zeros((0, 16), np.float32), "one at least"),
        ("static", {"a": np.zeros((2, 16)), "b": np.zeros((2, 16))}, "an array for each input of the model"),
    ],
)
def test_what_cannot_be_quantized_is_refused(mode: Any, calibration: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize(sequential()[0], mode, calibration)


def test_a_model_that_was_not_built_is_refused() -> None:
    with pytest.raises(InputError, match="once it is built"):
        quantize(keras.Sequential([keras.layers.Dense(3)]), "dynamic")
