"""Made-up inputs are ones that a Keras model takes, the same on each backend."""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kcost.backends import driver
from kcost.backends.base import arrange
from kcost.core.errors import UnavailableError
from kcost.models.bert import BertBackbone, token_classifier
from kcost.models.loading import load_keras_file
from kcost.models.probing import probes, recipe_of
from kcost.models.watched_forward import RefusedInputsError, WatchedForward
from kcost.optimize.quantization import quantize
from kcost.worker.inputs import make_samples, random_like, read_samples, signature_of


def tokens(name: str = "tokens", **options: Any) -> Any:
    return keras.Input((None,), dtype="int32", name=name, **options)


def tagger() -> keras.Model:
    ids, features = tokens(), keras.Input((None, 5), name="features")
    return keras.Model([ids, features], layers.Concatenate()([layers.Embedding(20, 3)(ids), features]))


def strided() -> keras.Model:
    image = x = keras.Input((None, None, 1), name="image")
    for _ in range(6):
        x = layers.Conv2D(2, 3, strides=2)(x)
    return keras.Model(image, layers.GlobalAveragePooling2D()(x))


def positions() -> keras.Model:
    """Whose positions are numbers that are looked up: jax gives other rows, or none, beyond the table's end."""
    ids = tokens()
    places = keras.ops.cumsum(keras.ops.ones_like(ids), axis=1) - 1
    return keras.Model(ids, layers.Embedding(500, 2)(ids) + layers.Embedding(50, 2)(places))


@functools.cache  # building one takes seconds on jax
def encoder() -> keras.Model:
    sizes = {"num_layers": 1, "num_heads": 1, "hidden_dim": 4, "intermediate_dim": 4}
    return token_classifier(BertBackbone(vocabulary_size=60, max_sequence_length=32, **sizes), 2)


def nested() -> keras.Model:
    """A table inside a model inside a Sequential one, under a float mask."""
    inner = keras.Sequential([tokens(), layers.Embedding(7, 2, mask_zero=True)], name="inner")
    return keras.Sequential([tokens("words"), inner, layers.GlobalAveragePooling1D()])


@pytest.mark.parametrize(
    ("make", "shapes", "most"),
    [
        (tagger, {"tokens": (128,), "features": (128, 5)}, {"tokens": 20}),
        (strided, {"image": (128, 128, 1)}, {}),
        (positions, {"tokens": (32,)}, {"tokens": 500}),
        (
            encoder,
            dict.fromkeys(("token_ids", "segment_ids", "padding_mask"), (32,)),
            {"token_ids": 60, "segment_ids": 2, "padding_mask": 2},
        ),
        (nested, {"words": (128,)}, {"words": 7}),
    ],
)
def test_lengths_and_numbers_are_ones_that_the_model_takes(
    make: Any, shapes: dict[str, tuple[int, ...]], most: dict[str, int]
) -> None:
    model = make()
    recipe = recipe_of(model)
    assert (dict(recipe.shapes), dict(recipe.values)) == (shapes, most)
    assert recipe_of(model) is recipe, "it is found once"
    given = make_samples(model, 3, 0).inputs
    for name, below in most.items():
        assert given[name].max() == (1 if "mask" in name else below - 1) or given[name].size < 10 * below


def test_numbers_that_no_table_holds_are_refused_on_every_backend() -> None:
    forward = WatchedForward(positions())
    with pytest.raises(RefusedInputsError, match="has 50 rows, and is asked for row 63"):
        forward({"tokens": np.zeros((1, 64), np.int32)})
    with pytest.raises(RefusedInputsError, match="has 500 rows, and is asked for row 500"):
        forward({"tokens": np.full((1, 8), 500, np.int32)})
    assert forward({"tokens": np.zeros((1, 8), np.int32)})[0].shape == (1, 8, 2)


def test_a_table_that_keras_made_int8_is_watched_too() -> None:
    ids = tokens()
    model = keras.Model(ids, layers.Embedding(20, 3)(ids))
    model.quantize("int8")
    with pytest.raises(RefusedInputsError, match="has 20 rows, and is asked for row 20"):
        WatchedForward(model)({"tokens": np.array([[3, 20]], "int32")})


def test_what_reads_nothing_is_refused() -> None:
    signal = keras.Input((None, 2), name="signal")
    model = keras.Model(signal, layers.GlobalAveragePooling1D()(signal[:, 64:]))
    with pytest.raises(RefusedInputsError, match=r"is given an empty tensor \(1, 0, 2\)"):
        WatchedForward(model)({"signal": np.zeros((1, 64, 2), np.float32)})
    assert recipe_of(model).shapes["signal"] == (128, 2)


def test_probes_of_an_encoder_keep_below_its_positions() -> None:
    model = encoder()
    recipe = recipe_of(model)
    made = probes(WatchedForward(model), recipe.signature, lambda n, s: recipe.scaled(s).make(n, 0), (1, 3, 8))
    assert [p.inputs["token_ids"].shape for p in made] == [(1, 32), (3, 16), (8, 8)]
    assert all(np.isfinite(p.outputs[0]).all() for p in made)
    assert recipe.scaled(Fraction(1, 64)).make(1, 0)["token_ids"].shape == (1, 1)


def test_fixed_numbers_of_no_table_are_made_without_a_call() -> None:
    mask, image = keras.Input((3,), dtype="bool", name="mask"), keras.Input((4, 4, 1), dtype="uint8", name="image")
    pixels = layers.Flatten()(keras.ops.cast(image, "float32"))
    model = keras.Model([mask, image], pixels * keras.ops.cast(mask, "float32")[:, :1])
    given = make_samples(model, 50, 0).inputs
    assert given["mask"].all()
    assert given["mask"].dtype == bool
    assert given["image"].max() > 200


def crossed() -> keras.Model:
    """A dictionary whose keys are not the inputs' names, nor in their order."""
    a, b = keras.Input((2,), name="z_input"), keras.Input((2,), name="a_input")
    return keras.Model({"first": a, "second": b}, a - 2 * b)


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@pytest.mark.parametrize("names", [("first", "second"), ("z_input", "a_input")])
def test_keys_and_names_of_inputs_mean_the_same(tmp_path: Path, backend: str, names: tuple[str, str]) -> None:
    model = crossed()
    one, two = np.ones((3, 2), np.float32), np.full((3, 2), 5, np.float32)
    np.savez(tmp_path / "mine.npz", **{names[1]: two, names[0]: one})
    given = read_samples(tmp_path / "mine.npz", signature_of(model)).inputs
    expected = np.asarray(keras.ops.convert_to_numpy(model({"first": one, "second": two})))
    assert expected[0, 0] == -9
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(arrange(model, dict(zip(names, (one, two), strict=True))))), expected
    )
    own = driver(backend)  # type: ignore[arg-type]
    for method in ("predict", {"tensorflow": "graph", "jax": "jit", "torch": "eager"}[backend]):
        step = own.predict_step(model, 3) if method == "predict" else own.compile_forward(model, method)
        np.testing.assert_array_equal(own.to_host(step(given))[0], expected, err_msg=method)


def text_classifier() -> keras.Model:
    """Reads a text and a category; only tensorflow has strings."""
    words = layers.TextVectorization()
    words.adapt(["the cat sat", "on the mat"])
    kinds = layers.StringLookup(vocabulary=["red", "blue"])
    text, kind = keras.Input((), dtype="string", name="text"), keras.Input((1,), dtype="string", name="kind")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(9, 3)(words(text)))
    y = layers.Flatten()(layers.Embedding(3, 2)(kinds(kind)))
    return keras.Model([text, kind], layers.Dense(2)(layers.Concatenate()([x, y])))


def test_texts_are_made_of_words_that_the_model_knows_or_refused_by_name(tmp_path: Path, backend: str) -> None:
    if backend != "tensorflow":
        text = keras.Input((1,), dtype="string", name="headline")
        keras.Model(text, layers.Identity()(text)).save(tmp_path / "m.keras")
        with pytest.raises(UnavailableError, match=f"m.keras with headline, on {backend}"):
            load_keras_file(tmp_path / "m.keras")
        return
    model = text_classifier()
    samples = make_samples(model, 40, 0)
    assert set(" ".join(samples.inputs["text"]).split()) == {"the", "cat", "sat", "on", "mat"}
    assert set(samples.inputs["kind"].ravel().tolist()) == {"red", "blue"}
    assert random_like(samples, 4, 0).inputs["text"].shape == (4,)
    np.savez(tmp_path / "mine.npz", **samples.inputs)
    given = read_samples(tmp_path / "mine.npz", signature_of(model)).rows(0, 4).inputs
    own = driver(backend)  # type: ignore[arg-type]
    expected = own.to_host(own.compile_forward(model, "graph")(given))[0]
    np.testing.assert_allclose(own.to_host(own.predict_step(model, 2)(given))[0], expected, atol=1e-6)
    assert expected.std() > 0


def test_a_layer_with_a_call_of_its_own_is_left_with_it() -> None:
    """Layers around replaced ones have theirs in an attribute, not in the class."""
    x = keras.Input((None, 4))
    model, _ = quantize(keras.Model(x, layers.MultiHeadAttention(1, 4)(x, x)), "weight-only")
    inputs = recipe_of(model).make(2, 0)
    assert model(arrange(model, inputs), training=False).shape[0] == 2
