"""Models on rows that lie end to end, in TensorFlow: each row has the answers that it has alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from testing.one_backend import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("rows end to end are TensorFlow's", allow_module_level=True)

import keras
import tensorflow as tf
from hypothesis import given, settings, strategies as st

from kcost.backends.kernels.tensorflow_constants import constant_weights
from kcost.backends.kernels.tensorflow_packing import Packing
from kcost.models.bert import backbone, sequence_classifier, token_classifier
from kcost.optimize.forms.recognise_blocks import encoder_block_of
from kcost.optimize.quantization import quantize
from kcost.optimize.rewrite import rewrite
from kcost.worker.convert.packed import packed_call, unpacked_because
from tests.contract.inputs import token_inputs

NAMES = ("padding_mask", "segment_ids", "token_ids")
"""In the order of a flattened dictionary."""
LENGTHS = (5, 1, 16, 9)


def with_blocks(model: keras.Model) -> keras.Model:
    """The model with its encoder layers as float32 blocks."""

    def block(layer: Any, _: str) -> Any:
        known = encoder_block_of(layer)
        return None if isinstance(known, str) else known

    return rewrite(model, block)


@pytest.fixture(scope="module")
def tagger() -> keras.Model:
    return with_blocks(token_classifier(backbone(50, "tiny", max_length=20), 5))


def lines(rows: list[dict[str, np.ndarray]], behind: int = 0) -> list[Any]:
    flat = {name: np.concatenate([*(row[name] for row in rows), np.zeros(behind, np.int32)]) for name in NAMES}
    return [tf.constant(flat[name]) for name in NAMES]


def sentences(lengths: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    """Rows with zeros at the end of some masks: places that somebody else has padded."""
    inputs = token_inputs(len(lengths), max(lengths))
    return [{name: inputs[name][i, :length] for name in NAMES} for i, length in enumerate(lengths)]


def called(model: keras.Model, way: str) -> Callable[..., Any]:
    """`packed_call` as an export traces it: of inputs and lengths."""

    def call(*values: Any) -> Any:
        with constant_weights(portable=way == "portable"):
            return packed_call(model, list(values[: len(NAMES)]), values[-1])[0]

    free = [tf.TensorSpec((None,), tf.int32)] * (len(NAMES) + 1)
    return tf.function(call, input_signature=free, autograph=False)


@pytest.mark.parametrize("way", ["native", "portable"])
@pytest.mark.parametrize("mode", ["float32", "static", "dynamic", "bfloat16"])
def test_each_row_has_the_answers_that_it_has_alone(mode: str, way: str, tagger: keras.Model) -> None:
    model = tagger
    if mode != "float32":
        calibration = token_inputs(8, 16) if mode == "static" else None
        model, _ = quantize(tagger, mode, calibration)  # type: ignore[arg-type]
    reason = unpacked_because(model)
    if reason is not None and "transformer_layer_0" in reason and mode in ("static", "dynamic"):
        pytest.skip(reason)  # the machine runs int8 blocks in their plain form
    assert reason is None
    rows, behind = sentences(LENGTHS), 3
    packed = called(model, way)
    answer = np.asarray(packed(*lines(rows, behind), tf.constant(LENGTHS)), np.float32)
    assert answer.shape == (sum(LENGTHS) + behind, 5)
    at = 0
    for row, length in zip(rows, LENGTHS, strict=True):
        alone = packed(*lines([row]), tf.constant([length]))
        np.testing.assert_allclose(
            answer[at : at + length], np.asarray(alone, np.float32), atol=2e-2 if mode == "bfloat16" else 1e-5
        )
        if mode == "float32":
            wanted = model({name: array[None] for name, array in row.items()}, training=False)[0]
            np.testing.assert_allclose(answer[at : at + length], np.asarray(wanted), atol=1e-5)
        at += length


@pytest.mark.parametrize("lengths", [(), (0,), (0, 3, 0)])
def test_no_rows_and_rows_of_no_places(lengths: tuple[int, ...], tagger: keras.Model) -> None:
    packed = called(tagger, "native")
    rows = sentences((3,)) if 3 in lengths else [dict.fromkeys(NAMES, np.zeros(0, np.int32))]
    answer = packed(*lines(rows), tf.constant(lengths, tf.int32))
    assert answer.shape == (sum(lengths), 5)
    if 3 in lengths:
        alone = packed(*lines(rows), tf.constant([3]))
        np.testing.assert_allclose(np.asarray(answer), np.asarray(alone), atol=1e-6)


def test_a_block_without_a_mask_runs_end_to_end() -> None:
    """Also one that is told that nobody trains."""
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    x = _block()(keras.layers.Embedding(50, 128)(ids), training=False)
    model = keras.Model(ids, keras.layers.Dense(3, "softmax")(x))
    assert unpacked_because(model) is None
    rows = [np.arange(1, length + 1, dtype=np.int32) for length in (4, 1, 9)]
    with constant_weights():
        packed = tf.function(lambda ids, lengths: packed_call(model, [ids], lengths)[0], autograph=False)
        answer = np.asarray(packed(tf.constant(np.concatenate(rows)), tf.constant([4, 1, 9])))
    at = 0
    for row in rows:
        np.testing.assert_allclose(answer[at : at + len(row)], np.asarray(model(row[None]))[0], atol=1e-5)
        at += len(row)


def test_neighbours_change_nothing_not_even_what_is_no_number_or_masked_out(tagger: keras.Model) -> None:
    """A row with nothing but padding looks at its own places alone, as by itself; NaN stays with its own row."""
    packed = called(tagger, "native")
    good, masked, other = sentences((6, 5, 7))
    masked["padding_mask"] = np.zeros(5, np.int32)
    alone = np.asarray(packed(*lines([masked]), tf.constant([5])))
    wanted = tagger({name: array[None] for name, array in masked.items()}, training=False)[0]
    np.testing.assert_allclose(alone, np.asarray(wanted), atol=1e-5)
    together = np.asarray(packed(*lines([good, masked, other]), tf.constant([6, 5, 7])))
    np.testing.assert_allclose(together[6:11], alone, atol=1e-6)

    table = tagger.get_layer("token_embedding")
    kept = table.get_weights()
    try:
        spoilt = [array.copy() for array in kept]
        spoilt[0][49] = np.nan
        table.set_weights(spoilt)
        bad = {**other, "token_ids": np.full(7, 49, np.int32)}
        clean = {**good, "token_ids": np.minimum(good["token_ids"], 48)}
        answer = np.asarray(called(tagger, "native")(*lines([clean, bad]), tf.constant([6, 7])))
    finally:
        table.set_weights(kept)
    assert np.isfinite(answer[:6]).all()
    assert np.isnan(answer[6:]).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 4))
def test_lines_and_back(lengths: list[int], behind: int) -> None:
    """Heads of each place lie in the line of its row, at its place, and come back as they were."""
    heads, width, places = 2, 3, sum(lengths)
    packing = Packing.of(tf.constant(lengths), tf.constant(places + behind))
    rows = np.arange((places + behind) * 3 * heads * width, dtype=np.float32).reshape(places + behind, -1)
    query, key, value = (np.asarray(x) for x in packing.heads(tf.constant(rows), heads, width))
    at = 0
    for row, length in enumerate(lengths):
        of_row = rows[at : at + length].reshape(length, 3, heads, width)
        for which, lines in enumerate((query, key, value)):
            np.testing.assert_array_equal(lines[row, :, :length].transpose(1, 0, 2), of_row[:, which])
        assert np.asarray(packing.is_real)[row].sum() == length
        np.testing.assert_array_equal(np.asarray(packing.place)[at : at + length], range(length))
        at += length
    back = np.asarray(packing.end_to_end(tf.constant(value), heads, width))
    np.testing.assert_array_equal(back[:places], rows[:places].reshape(places, 3, -1)[:, 2])


@pytest.mark.parametrize("lengths", [[4], [3, 1], [-1, 2], [2**31 - 1, 2**31 - 1], [], [0, 0]])
def test_rows_with_more_places_than_there_are_and_places_of_no_row_are_refused(
    lengths: list[int], tagger: keras.Model
) -> None:
    packed = called(tagger, "native")
    with pytest.raises(tf.errors.InvalidArgumentError):
        packed(*lines(sentences((3,))), tf.constant(lengths, tf.int32))


def _inputs() -> dict[str, Any]:
    return {name: keras.Input((None,), dtype="int32", name=name) for name in NAMES}


def _ended(end: Callable[[Any, dict[str, Any]], Any], **table: Any) -> keras.Model:
    """A small encoder with one block, and what `end` makes of it."""
    inputs = _inputs()
    x = keras.layers.Embedding(50, 128, **table)(inputs["token_ids"])
    block = _block()
    return keras.Model(inputs, end(block(x, padding_mask=inputs["padding_mask"]), inputs))


@keras.saving.register_keras_serializable(package="tests")
class OwnDense(keras.layers.Dense):  # type: ignore[misc]
    """May do anything."""


REFUSED: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "another axis is softmaxed": (lambda: _ended(lambda x, i: keras.layers.Softmax(axis=1)(x)), "Softmax"),
    "places are pooled": (
        lambda: _ended(lambda x, i: keras.layers.GlobalAveragePooling1D()(x)),
        "GlobalAveragePooling1D",
    ),
    "neighbours are mixed": (lambda: _ended(lambda x, i: keras.layers.Conv1D(4, 3, padding="same")(x)), "Conv1D"),
    "an operation": (lambda: _ended(lambda x, i: keras.ops.flip(x, axis=1)), "Flip"),
    "a class of somebody's own": (lambda: _ended(lambda x, i: OwnDense(3)(x)), "OwnDense"),
    "an activation of somebody's own": (
        lambda: _ended(lambda x, i: keras.layers.Dense(3, activation=lambda y: keras.ops.cumsum(y, axis=1))(x)),
        "none of keras.activations",
    ),
    "a mask of attention": (
        lambda: _ended(lambda x, i: _layer(x, attention_mask=keras.ops.ones((1, 4, 4)))),
        "a value of its own",
    ),
    "a mask of a table": (lambda: _ended(lambda x, i: x, mask_zero=True), "it makes a mask"),
    "softmax over places": (
        lambda: _ended(lambda x, i: [x, keras.layers.Activation("softmax")(keras.layers.Dropout(0.1)(i["token_ids"]))]),
        "something else than (rows, length, width)",
    ),
    "softmax over places, as an activation": (
        lambda: _ended(lambda x, i: keras.layers.Dense(5, activation=keras.layers.Softmax(axis=1))(x)),
        "none of keras.activations",
    ),
    "an operation as an activation": (
        lambda: _ended(lambda x, i: keras.layers.Activation(keras.ops.flip)(x)),
        "none of keras.activations",
    ),
    "a norm over places": (
        lambda: _ended(lambda x, i: keras.layers.LayerNormalization(axis=1, center=False, scale=False)(x)),
        "normalizes over places",
    ),
    "a block in training": (lambda: _ended(lambda x, i: _layer(x, training=True)), "in training"),
    "inputs of several lengths": (lambda: _two_towers(), "rows of several lengths"),
    "an output of a row": (lambda: with_blocks(sequence_classifier(backbone(50, "tiny"), 3)), "get_item"),
    "no block": (lambda: token_classifier(backbone(50, "tiny"), 5), "TransformerEncoder"),
    "nothing with attention": (
        lambda: keras.Model(i := _inputs(), keras.layers.Embedding(9, 4)(i["token_ids"])),
        "no encoder block",
    ),
    "fixed rows": (
        lambda: keras.Model(x := keras.Input((8,), dtype="int32"), keras.layers.Embedding(9, 4)(x)),
        "(rows, length)",
    ),
}


def _block() -> Any:
    layers = with_blocks(token_classifier(backbone(50, "tiny"), 5)).layers
    return next(layer for layer in layers if "transformer" in layer.name)


def _layer(x: Any, **masks: Any) -> Any:
    block = _block()
    return type(block).from_config({**block.get_config(), "name": "second"})(x, **masks)


def _two_towers() -> keras.Model:
    """Questions and documents through one block, each of a length of its own."""
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("question", "document")}
    table = keras.layers.Embedding(50, 128)
    block = _block()
    return keras.Model(inputs, {name: block(table(ids)) for name, ids in inputs.items()})


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_that_may_mix_places_is_refused(what: str) -> None:
    make, reason = REFUSED[what]
    refusal = unpacked_because(make())
    assert refusal is not None
    assert reason in refusal
