"""TFMOT for models of images: in a tensorflow process only; the others say so."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest
from keras import layers

from kcost.core.errors import InputError, UnavailableError
from kcost.core.process import version_of
from kcost.core.prune_spec import parse_prune_spec
from kcost.models.cnn import cnn
from kcost.optimize.pruning.tfmot import Training, full_int8, in_tf_keras, prune_in_tfmot, train_for_int8

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TFMOT runs in a tensorflow process")
installed = pytest.mark.skipif(
    version_of("tensorflow-model-optimization") is None or version_of("tf_keras") is None,
    reason="tensorflow_model_optimization and tf_keras are not installed",
)


@pytest.fixture(scope="module")
def training() -> Training:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 96)
    x = rng.uniform(0, 0.3, (96, 12, 12, 1)).astype(np.float32)
    for i, label in enumerate(y):
        x[i, 4 * label : 4 * label + 4] += 0.7  # a bar that says which class
    return Training(x, y, epochs=4, batch_size=16, learning_rate=1e-3)


def trained(training: Training, size: str = "small") -> keras.Model:
    model = cnn((12, 12, 1), 3, size)
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(training.x, training.y, epochs=4, verbose=0)
    return model


def answers_of(tflite: bytes, x: np.ndarray) -> np.ndarray:
    """What LiteRT answers, as real numbers; and that it computes on integers alone."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    assert {np.dtype(d["dtype"]).name for d in interpreter.get_tensor_details()} <= {"int8", "int32"}
    given, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    answers = []
    for one in x:
        scale, zero = given["quantization"]
        whole = np.clip(np.round(one[None] / scale + zero), -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], whole)
        interpreter.invoke()
        scale, zero = gives["quantization"]
        answers.append((interpreter.get_tensor(gives["index"])[0].astype(np.float32) - zero) * scale)
    return np.stack(answers)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="this is a tensorflow process")
def test_other_processes_are_refused(training: Training) -> None:
    with pytest.raises(UnavailableError, match="tensorflow process"):
        full_int8(cnn((12, 12, 1), 3), training.x)


@on_tensorflow
@installed
@pytest.mark.slow
def test_a_model_pruned_in_tfmot_comes_back(training: Training) -> None:
    model = trained(training, "seed")
    before = model.get_weights()
    pruned, coverage = prune_in_tfmot(model, parse_prune_spec("magnitude:0.75,schedule=polynomial"), training)  # type: ignore[arg-type]
    assert [c.layer for c in coverage.changed] == ["conv", "probabilities"]
    assert all("sparsity 0.75" in c.what for c in coverage.changed)
    assert np.mean(np.array(pruned.get_layer("conv").kernel) == 0) == pytest.approx(0.75, abs=0.001)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    right = pruned.predict(training.x, verbose=0).argmax(-1) == training.y
    assert right.mean() > 0.9
    assert os.environ.get("TF_USE_LEGACY_KERAS") is None
    with pytest.raises(InputError, match="layer by layer"):
        prune_in_tfmot(model, parse_prune_spec("magnitude:0.5,global"), training)  # type: ignore[arg-type]


@on_tensorflow
@installed
@pytest.mark.parametrize("size", ["seed", "small"])
def test_int8_in_litert_answers_as_the_float_model(size: str, training: Training) -> None:
    model = trained(training, size)
    expected = model.predict(training.x, verbose=0)
    answers = answers_of(full_int8(model, training.x), training.x)
    assert np.abs(answers - expected).max() < 0.15
    assert np.mean(answers.argmax(-1) == expected.argmax(-1)) > 0.97


@on_tensorflow
@installed
@pytest.mark.slow
def test_a_model_trained_for_int8_comes_back_with_its_litert_file(training: Training) -> None:
    model = trained(training)  # with normalisation, which TFMOT wraps as well
    aware, tflite = train_for_int8(model, training)
    assert any((old != new).any() for old, new in zip(model.get_weights(), aware.get_weights(), strict=True))
    expected = aware.predict(training.x, verbose=0)
    assert np.abs(answers_of(tflite, training.x) - expected).max() < 0.15
    assert len(tflite) < 4 * model.count_params() / 2


@on_tensorflow
@installed
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.LayerNormalization(name="odd"), "the LayerNormalization 'odd'"),
        (layers.Conv2D(3, 1, kernel_regularizer="l2", name="odd"), "the Conv2D 'odd': it has a kernel_regularizer"),
        (layers.Conv2D(3, 1, dtype="mixed_bfloat16", name="odd"), "the Conv2D 'odd': its dtype policy"),
        (layers.Conv2D(3, 1, activation=keras.ops.square, name="odd"), "the Conv2D 'odd': "),
    ],
)
def test_what_tf_keras_does_not_have_is_refused_by_name(layer: keras.layers.Layer, message: str) -> None:
    model = keras.Sequential([keras.Input((12, 12, 1)), layers.Conv2D(4, 3), layer, layers.Flatten(), layers.Dense(3)])
    with pytest.raises(UnavailableError) as error:
        in_tf_keras(model)
    assert message in str(error.value.received)
