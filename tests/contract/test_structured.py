"""Removing whole units: what is left computes what the model would with those units' outgoing weights at zero."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kcost.core.errors import InputError
from kcost.core.prune_spec import parse_prune_spec
from kcost.models.bert import backbone, token_classifier
from kcost.models.cnn import cnn
from kcost.models.loading import load_keras_file
from kcost.optimize.forms.recognise_blocks import encoder_block_of
from kcost.optimize.pruning.importance import Labelled
from kcost.optimize.pruning.pruning import prune

TOLERANCE = 1e-5


def chain() -> keras.Model:
    images = keras.Input((8, 8, 3), name="images")
    x = layers.Conv2D(8, 3, use_bias=False, name="conv1")(images)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="sigmoid", name="depthwise")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(6, 1, activation="tanh", name="conv2")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(10, activation="gelu", name="hidden")(x)
    x = layers.Dropout(0.5)(x)
    model = keras.Model(images, layers.Dense(3, name="logits")(x), name="chain")
    return with_random_weights(model)


def with_random_weights(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.2, 1.0, w.shape) * rng.choice([-1, 1], w.shape) for w in model.get_weights()])
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(np.abs(np.array(layer.moving_variance)))
    return model


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)


def weakest(kernel: Any, count: int) -> np.ndarray:
    """The output units with the smallest norm."""
    return np.argsort(np.sqrt(np.square(np.array(kernel)).reshape(-1, kernel.shape[-1]).sum(0)))[:count]


def zero_inputs(layer: keras.layers.Layer, units: np.ndarray, of: int) -> None:
    kernel = np.array(layer.kernel)
    flat = np.moveaxis(kernel, -2, 0).reshape(-1, of, kernel.size // kernel.shape[-2])
    flat[:, units] = 0
    moved = flat.reshape(kernel.shape[-2], *np.delete(kernel.shape, -2))
    layer.kernel.assign(np.moveaxis(moved, 0, -2))


@pytest.mark.slow
def test_what_is_left_equals_the_model_with_the_units_zeroed(tmp_path: Path) -> None:
    model = chain()
    before = [np.array(w) for w in model.get_weights()]
    pruned, coverage = prune(model, parse_prune_spec("structured:filters=0.5,neurons=0.3"))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert {c.layer: c.what for c in coverage.changed} == {
        "conv1": "Conv2D -> 4 of 8 filters",
        "conv2": "Conv2D -> 3 of 6 filters",
        "hidden": "Dense -> 7 of 10 neurons",
    }
    assert {c.layer: c.what for c in coverage.skipped} == {"logits": "its units are an output"}
    for name, after, of, count in [("conv1", "conv2", 8, 4), ("conv2", "hidden", 6, 3), ("hidden", "logits", 10, 3)]:
        # Norms of the model as it was: zeroing inputs of a later layer must not change which of its units are weak.
        kernel = before[[v.path for v in model.weights].index(model.get_layer(name).kernel.path)]
        zero_inputs(model.get_layer(after), weakest(kernel, count), of)
    np.testing.assert_allclose(
        pruned.predict(images(), verbose=0), model.predict(images(), verbose=0), atol=TOLERANCE, rtol=TOLERANCE
    )
    model.save(tmp_path / "whole.keras")
    pruned.save(tmp_path / "pruned.keras")
    assert (tmp_path / "pruned.keras").stat().st_size < (tmp_path / "whole.keras").stat().st_size
    with zipfile.ZipFile(tmp_path / "pruned.keras") as archive:
        assert "kcost" not in json.dumps(json.loads(archive.read("config.json")))
    loaded = load_keras_file(tmp_path / "pruned.keras")
    np.testing.assert_array_equal(loaded.predict(images(), verbose=0), pruned.predict(images(), verbose=0))


def test_a_cnn_with_normalisation_loses_filters_and_learns_on() -> None:
    model = cnn((12, 12, 1), 4, "small")
    pruned, coverage = prune(model, parse_prune_spec("structured:filters=0.5"))
    filters = (32, 32, 64, 64, 48)
    assert [c.what for c in coverage.changed] == [f"Conv2D -> {n // 2} of {n} filters" for n in filters]
    assert pruned.count_params() < model.count_params() / 3
    x, y = np.zeros((8, 12, 12, 1), np.float32), np.zeros(8, np.int32)
    pruned.compile("adam", "sparse_categorical_crossentropy")
    before = model.predict(x, verbose=0)
    pruned.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_models_in_models_are_pruned(kind: str) -> None:
    parts = [layers.Conv2D(4, 3, name="inner1"), layers.Conv2D(4, 3, name="inner2")]
    inner: keras.Model = keras.Sequential([keras.Input((8, 8, 3)), *parts], name="inner")
    if kind == "functional":
        x = keras.Input((8, 8, 3))
        inner = keras.Model(x, parts[1](parts[0](x)), name="inner")
    outer = keras.Sequential([keras.Input((8, 8, 3)), inner, layers.Flatten(), layers.Dense(2)])
    pruned, coverage = prune(outer, parse_prune_spec("structured:filters=0.5"))
    assert [(c.layer, c.what) for c in coverage.changed] == [("inner/inner1", "Conv2D -> 2 of 4 filters")]
    assert {c.layer: c.what for c in coverage.skipped} == {"inner/inner2": "its units are an output"}
    assert pruned.predict(images(), verbose=0).shape == (5, 2)


def refused(build: Any) -> str:
    x = keras.Input((8, 8, 4))
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    y = build(x, conv)
    model = keras.Model(x, layers.Conv2D(2, 1, name="last")(y))
    with pytest.raises(InputError) as error:
        prune(model, parse_prune_spec("structured:filters=0.5"))
    return next(part for part in str(error.value.received).split("; ") if part.startswith("conv: "))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda x, conv: layers.Add(name="residual")([x, conv(x)]), "'residual' (Add) does not pass on single units"),
        (lambda x, conv: conv(conv(x)), "'conv' is used 2 times"),
        (lambda x, conv: layers.Softmax(name="soft")(conv(x)), "'soft' (Softmax) does not pass on single units"),
        (lambda x, conv: layers.Activation("softmax", name="act")(conv(x)), "the activation softmax of 'act'"),
        (lambda x, conv: layers.LayerNormalization(name="ln")(conv(x)), "'ln' (LayerNormalization) does not"),
        (lambda x, conv: layers.Add()([layers.ReLU(name="r")(y := conv(x)), y]), "its output goes to 2 layers"),
        (lambda x, conv: layers.DepthwiseConv2D(3, depth_multiplier=2, name="dw")(conv(x)), "'dw' makes several"),
    ],
)
def test_what_mixes_units_is_refused_with_the_reason(build: Any, reason: str) -> None:
    assert reason in refused(build)


def tagger() -> tuple[keras.Model, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50, (4, 12)).astype(np.int32)
    mask = (np.arange(12) < np.array([[12], [5], [9], [1]])).astype(np.int32)
    inputs = {"token_ids": ids, "segment_ids": ids * 0, "padding_mask": mask}
    return token_classifier(backbone(50, "tiny"), 4), inputs, rng.integers(0, 4, (4, 12))


def test_heads_and_neurons_of_encoder_blocks_go(tmp_path: Path) -> None:
    model, inputs, _ = tagger()
    whole = tmp_path / "whole.keras"
    model.save(whole)
    pruned, coverage = prune(model, parse_prune_spec("structured:ffn=0.5,heads=0.5"))
    assert [(c.layer, c.what) for c in coverage.changed] == [
        (f"transformer_layer_{i}", "EncoderBlock -> 1 of 2 heads, 256 of 512 feed-forward neurons") for i in (0, 1)
    ]
    for name in ("transformer_layer_0", "transformer_layer_1"):
        layer = model.get_layer(name)
        block = encoder_block_of(layer)
        assert not isinstance(block, str)
        parts = {key: np.array(v) for key, v in block.parts.items()}
        qkv, out = parts["qkv_kernel"].reshape(128, 3, 2, 64), parts["out_kernel"].reshape(2, 64, 128)
        norms = np.square(qkv).sum((0, 1, 3)) + np.square(out).sum((1, 2))
        attention = layer._self_attention_layer.output_dense.kernel
        kernel = np.array(attention)
        kernel[norms.argmin()] = 0
        attention.assign(kernel)
        sizes = np.square(parts["up_kernel"]).sum(0) + np.square(parts["down_kernel"]).sum(1)
        down = np.array(layer._feedforward_output_dense.kernel)
        down[np.argsort(sizes)[:256]] = 0
        layer._feedforward_output_dense.kernel.assign(down)
    np.testing.assert_allclose(pruned.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=TOLERANCE)
    pruned.save(tmp_path / "pruned.keras")
    assert (tmp_path / "pruned.keras").stat().st_size < whole.stat().st_size
    loaded = load_keras_file(tmp_path / "pruned.keras")
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), pruned.predict(inputs, verbose=0), atol=1e-6)


def test_taylor_removes_the_units_that_the_loss_does_not_depend_on() -> None:
    model = chain()
    dead = np.array([1, 4, 6, 7])
    # Large weights of its own, but nothing comes of them.
    conv1, conv2 = model.get_layer("conv1"), model.get_layer("conv2")
    kernel = np.array(conv1.kernel)
    kernel[..., dead] *= 10
    conv1.kernel.assign(kernel)
    zero_inputs(conv2, dead, 8)
    labelled = Labelled([(images(), np.array([0, 1, 2, 0, 1]))], keras.losses.SparseCategoricalCrossentropy(True))
    expected = model.predict(images(), verbose=0)
    pruned, _ = prune(model, parse_prune_spec("structured:filters=0.5,importance=taylor"), labelled=labelled)
    np.testing.assert_array_equal(
        np.array(pruned.get_layer("conv1").kernel), np.delete(np.array(conv1.kernel), dead, axis=-1)
    )
    assert pruned.predict(images(), verbose=0).shape == expected.shape


def test_taylor_scores_heads_by_their_gradient() -> None:
    model, inputs, labels = tagger()
    layer = model.get_layer("transformer_layer_0")
    out = layer._self_attention_layer.output_dense.kernel
    kernel = np.array(out)
    kernel[1] = 0  # the second head says nothing, however large its queries
    out.assign(kernel)
    query = layer._self_attention_layer.query_dense.kernel
    query.assign(np.array(query) * np.array([1, 9])[:, None])
    labelled = Labelled([(inputs, labels)], keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruned, _ = prune(model, parse_prune_spec("structured:heads=0.5,importance=taylor"), labelled=labelled)
    kept = np.array(pruned.get_layer("transformer_layer_0").parts["out_kernel"])
    np.testing.assert_array_equal(kept, kernel[0])
