"""Encoder blocks in TensorFlow: eager, in graphs with and without constant weights, compiled by XLA."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testing.one_backend import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("blocks of TensorFlow", allow_module_level=True)

import keras
import tensorflow as tf

from kcost.backends.block_spec import BlockSpec
from kcost.backends.kernels import tensorflow_encoder
from kcost.backends.kernels.tensorflow_constants import constant_weights
from kcost.backends.kernels.tensorflow_int8 import QUANTIZED_MATMUL, internal_unavailable
from kcost.backends.kernels.tensorflow_norms import LAYER_NORM
from kcost.core import environment
from kcost.core.errors import ArtifactError
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.worker.convert import saved_model

WIDTH, TIME = 32, 7
COMPUTES = ("float32", "bfloat16", "int8_dynamic", "int8_static", "balanced")
WAYS = ("eager", "graph", "constant", "portable", "xla")
SIGNATURE = (tf.TensorSpec((None, None, WIDTH)), tf.TensorSpec((None, None), tf.int32))
TYPICAL = {"float32": 1e-5, "bfloat16": 1e-2, "int8_dynamic": 5e-4, "int8_static": 5e-4, "balanced": 5e-4}
LARGEST = {"float32": 1e-5, "bfloat16": 2e-2, "int8_dynamic": 2e-2, "int8_static": 2e-2, "balanced": 2e-2}
"""Relative errors: of the median place, and in the root mean square. The second is larger for int8, where a last bit
may turn the rounding of a number that lies near a tie."""


@pytest.fixture(autouse=True)
def float32_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each machine compares the same: whether bfloat16 is faster is measured, and has tests of its own below."""
    monkeypatch.setattr(tensorflow_encoder, "_multiplies_bfloat16", lambda: False)


def block(compute: str, **fields: Any) -> EncoderBlock:
    """A block with random weights, of heads that are not as wide as the stream together."""
    made = EncoderBlock(BlockSpec(**{"width": WIDTH, "heads": 4, "head_width": 6, "inner": 40, **fields}))
    made.build()
    random = np.random.default_rng(0)
    for variable in made.parts.values():
        variable.assign(np.asarray(variable) + random.normal(0, 0.2, variable.shape))
    if compute == "float32":
        return made
    x, mask = inputs()
    ranges = {name: np.abs(np.asarray(y)).max(axis=(0, 1)) for name, y in made.sites(x, mask).items()}
    if compute == "balanced":
        return made.converted("int8_static", ranges)
    return made.converted(compute, {name: float(array.max()) for name, array in ranges.items()})


def inputs(scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    x = scale * np.random.default_rng(1).normal(size=(3, TIME, WIDTH))
    return x.astype(np.float32), (np.arange(TIME) < [[TIME], [4], [1]]).astype(np.int32)


def traced(made: EncoderBlock, way: str) -> Any:
    """The block's function of inputs and mask, as `way` runs it."""

    def call(x: Any, mask: Any) -> Any:
        if way not in ("constant", "portable"):
            return made(x, padding_mask=mask)
        with constant_weights(portable=way == "portable"):
            return made(x, padding_mask=mask)

    if way == "eager":
        return call
    return tf.function(call, input_signature=SIGNATURE, jit_compile=way == "xla", autograph=False)


def relative_error(actual: Any, expected: Any) -> float:
    return float(np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected))


def assert_close(actual: Any, expected: np.ndarray, compute: str, way: str) -> None:
    typical = np.median(np.abs(np.asarray(actual) - expected)) / np.abs(expected).mean()
    assert typical < TYPICAL[compute], way
    assert relative_error(actual, expected) < LARGEST[compute], way


def operations(function: Any) -> Counter[str]:
    return Counter(node.op for node in function.get_concrete_function().graph.as_graph_def().node)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize(
    "fields", [{}, {"norm_first": True, "activation": "gelu_tanh"}, {"activation": "relu"}], ids=str
)
def test_it_gives_what_the_plain_operations_give(compute: str, fields: dict[str, Any]) -> None:
    made = block(compute, **fields)
    x, mask = inputs()
    expected = np.asarray(made.sites(x, mask)["output"])
    for way in WAYS:
        assert_close(traced(made, way)(x, mask), expected, compute, way)


@pytest.mark.parametrize("compute", ["bfloat16", "int8_static", "balanced"])
def test_where_bfloat16_is_faster_attention_takes_it(compute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "avx512f" not in environment.collect().cpu_features:
        pytest.skip("oneDNN has no bfloat16 products on a CPU without AVX512: its kernels end the process there")
    monkeypatch.setattr(tensorflow_encoder, "_multiplies_bfloat16", lambda: True)
    made = block(compute)
    x, mask = inputs()
    expected = np.asarray(made.sites(x, mask)["output"])
    if made.spec.is_int8 and (reason := internal_unavailable(QUANTIZED_MATMUL)):
        pytest.skip(reason)
    function = traced(made, "constant")
    assert_close(function(x, mask), expected, "bfloat16", "constant")
    nodes = function.get_concrete_function().graph.as_graph_def().node
    assert {node.attr["T"].type for node in nodes if node.op == "Softmax"} == {tf.bfloat16.as_datatype_enum}


@pytest.mark.parametrize("way", ["constant", "portable"])
def test_a_small_variance_keeps_its_epsilon(way: str) -> None:
    """TensorFlow's optimizer replaces some forms of a layer norm by one with an epsilon of its own."""
    made = block("float32", epsilon=1e-12, norm_first=True)
    x, mask = inputs(scale=1e-3)
    assert relative_error(traced(made, way)(x, mask), np.asarray(made.sites(x, mask)["output"])) < 1e-4


def test_no_mask_and_lengths_of_any_kind() -> None:
    made = block("int8_static")
    function = traced(made, "constant")
    for shape in ((1, 1), (2, 13), (5, 3)):
        # Half of what was calibrated on: what is clipped ends at -128 in the graph, and at -127 elsewhere.
        x = np.resize(inputs(0.5)[0], (*shape, WIDTH))
        ones = np.ones(shape, np.int32)
        unmasked = np.asarray(made.sites(x)["output"])
        assert_close(function(x, ones), unmasked, "int8_static", "constant")
        assert_close(made(x), unmasked, "int8_static", "eager")


@pytest.mark.parametrize("shape", [(2, 0), (0, 5), (0, 0)])
def test_no_rows_and_no_places_keep_their_shape(shape: tuple[int, int]) -> None:
    made = block("int8_static")
    for function in (traced(made, "constant"), made):
        assert function(tf.zeros((*shape, WIDTH)), tf.ones(shape, tf.int32)).shape == (*shape, WIDTH)


def test_internal_operations_are_used_only_where_weights_are_constant() -> None:
    if reason := internal_unavailable(QUANTIZED_MATMUL):
        pytest.skip(reason)
    made = block("int8_static")
    assert operations(traced(made, "constant"))[QUANTIZED_MATMUL] == 4
    assert operations(traced(made, "constant"))[LAYER_NORM] == 2
    for way in ("portable", "graph"):
        assert not [name for name in operations(traced(made, way)) if name.startswith("_")]
    for way, variables in (("constant", 0), ("graph", len(made.parts))):
        assert len(traced(made, way).get_concrete_function().captured_inputs) == variables


def test_a_graph_of_variables_follows_them_and_one_of_constants_does_not() -> None:
    made = block("int8_static")
    if made.fallback_reason is not None:  # the plain form has no constants
        pytest.skip(made.fallback_reason)
    x, mask = inputs()
    graph, constant = traced(made, "graph"), traced(made, "constant")
    before = np.asarray(constant(x, mask))
    made.parts["up_kernel"].assign(np.asarray(made.parts["up_kernel"])[:, ::-1])
    assert relative_error(graph(x, mask), before) > 0.1
    np.testing.assert_array_equal(constant(x, mask), before)


def test_float32_has_gradients_in_every_form_but_constants() -> None:
    made = block("float32")
    x, mask = (tf.constant(array) for array in inputs())
    gradients = []
    for way in ("eager", "graph", "xla"):
        function = traced(made, way)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(function(x, mask) ** 2)
        gradients.append(tape.gradient(loss, x).numpy())
    assert np.abs(gradients[0]).max() > 1e-3
    for gradient in gradients[1:]:
        np.testing.assert_allclose(gradient, gradients[0], atol=1e-3 * np.abs(gradients[0]).max())


def test_without_onednn_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    internal_unavailable.cache_clear()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        assert "TF_ENABLE_ONEDNN_OPTS" in str(tensorflow_encoder.unavailable(block("int8_static").spec))
        assert tensorflow_encoder.unavailable(block("float32").spec) is None
        made = block("int8_static")
        assert made.fallback_reason is not None
        x, mask = inputs()
        assert not [name for name in operations(traced(made, "constant")) if name.startswith("_")]
        outputs = traced(made, "constant")(x, mask)
        assert_close(outputs, np.asarray(made.sites(x, mask)["output"]), "int8_static", "constant")
    finally:
        internal_unavailable.cache_clear()


def test_an_unknown_operation_is_unavailable() -> None:
    assert "was built without _NoSuchProduct" in str(internal_unavailable("_NoSuchProduct"))


def test_more_constants_than_a_graph_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = keras.Input((None, WIDTH))
    model = keras.Model(x, block("int8_dynamic")(x))
    monkeypatch.setattr(saved_model, "CONSTANTS_LIMIT_BYTES", 4_000)
    with pytest.raises(ArtifactError, match=r"holds 4,000 bytes.*\n.*[5-9],\d{3} bytes in 1 such layers"):
        saved_model.write_saved_model(model, tmp_path / "model.keras", tmp_path / "out", portable=False)
    assert not (tmp_path / "out").exists()
