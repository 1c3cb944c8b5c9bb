from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import keras
import keras_nlp
import numpy as np
import pytest

from kcost.backends import driver
from kcost.backends.block_spec import BlockSpec
from kcost.core.errors import InputError
from kcost.models.loading import load_keras_file
from kcost.models.precision import with_precision
from kcost.optimize.forms.encoder_block import EncoderBlock, forward
from kcost.optimize.forms.recognise_blocks import encoder_block_of
from tests.contract.blocks import HEADS, INNER, WIDTH, block, inputs, numpy

INFERENCE = ("bfloat16", "int8_dynamic", "int8_static")
TOLERANCE = {"bfloat16": 0.03, "int8_dynamic": 0.04, "int8_static": 0.06}
"""Of the root mean square of the difference, as a part of that of the float32 output's."""


def gelu_tanh(x: Any) -> Any:
    return keras.ops.gelu(x, approximate=True)


def encoder(*, norm_first: bool = False, activation: Any = "gelu", dropout: float = 0.1) -> Any:
    layer = keras_nlp.layers.TransformerEncoder(
        INNER, HEADS, activation=activation, normalize_first=norm_first, dropout=dropout, bias_initializer="normal"
    )
    layer.build((None, None, WIDTH))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        if "norm" in weight.path:
            weight.assign(rng.normal(1, 0.1, weight.shape))
    return layer


def ranges(of: EncoderBlock, x: np.ndarray, mask: np.ndarray | None) -> dict[str, float]:
    return {site: float(np.abs(numpy(value)).max()) for site, value in of.sites(x, mask).items() if site != "output"}


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.square(actual - expected).mean() / np.square(expected).mean()))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["gelu", gelu_tanh, "relu"])
def test_a_block_answers_as_the_encoder_layer_does(norm_first: bool, activation: Any) -> None:
    layer = encoder(norm_first=norm_first, activation=activation)
    replacement = encoder_block_of(layer)
    assert isinstance(replacement, EncoderBlock)
    assert replacement.fallback_reason is None
    x, mask = inputs()
    for padding in (None, mask):
        expected = numpy(layer(x, padding_mask=padding, training=False))
        np.testing.assert_allclose(numpy(replacement(x, padding_mask=padding)), expected, atol=1e-4)
    np.testing.assert_allclose(numpy(replacement(x, padding_mask=mask.astype(bool))), expected, atol=1e-4)
    np.testing.assert_allclose(numpy(replacement.sites(x, mask)["output"]), expected, atol=1e-4)
    looking_back = np.tril(np.ones((3, 9, 9), "int32"))
    expected = numpy(layer(x, padding_mask=mask, attention_mask=looking_back, training=False))
    np.testing.assert_allclose(
        numpy(replacement(x, padding_mask=mask, attention_mask=looking_back)), expected, atol=1e-4
    )


def test_the_mask_of_an_embedding_is_followed_in_compiled_code() -> None:
    """On jax no attribute of the tensor has it there."""
    ids = keras.Input((None,), dtype="int32")
    table, made = keras.layers.Embedding(9, WIDTH, mask_zero=True), block()
    model = keras.Model(ids, made(table(ids)))
    model.compile(jit_compile=keras.backend.backend() == "jax")
    rows = np.array([[5, 1, 0, 0], [2, 3, 4, 5]], np.int32)
    expected = numpy(made(numpy(table(rows)), padding_mask=rows != 0))
    np.testing.assert_allclose(model.predict(rows, verbose=0), expected, atol=1e-4)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("compute", INFERENCE)
def test_each_arithmetic_stays_near_float32(compute: Any, norm_first: bool) -> None:
    original = encoder_block_of(encoder(norm_first=norm_first, activation=gelu_tanh))
    assert isinstance(original, EncoderBlock)
    for batch, time, output_dtype in ((1, 2, "float32"), (5, 17, "bfloat16")):
        x, mask = inputs(batch, time)
        expected = numpy(original(x, padding_mask=mask))
        made = original.converted(compute, ranges(original, x, mask), output_dtype)
        outputs = made(x, padding_mask=mask)
        assert keras.backend.standardize_dtype(outputs.dtype) == output_dtype
        assert 0 < difference(numpy(outputs), expected) < TOLERANCE[compute]


@pytest.mark.parametrize("compute", INFERENCE)
@pytest.mark.parametrize("fast_bfloat16", [False, True])
def test_the_backends_code_agrees_with_the_plain_one(
    compute: Any, fast_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closer than to float32: the same roundings, but for attention's, the form of GELU and the order of sums."""
    original = encoder_block_of(encoder())
    assert isinstance(original, EncoderBlock)
    monkeypatch.setattr(original._backend, "_multiplies_bfloat16", lambda: fast_bfloat16)
    if keras.backend.backend() == "jax":
        importlib.import_module("jax").clear_caches()  # programs traced with the other answer
    x, mask = inputs()
    made = original.converted(compute, ranges(original, x, mask))
    values = {name: variable.value for name, variable in made.parts.items()}
    shown = keras.ops.cast(mask, "bool")[:, None, None, :]
    plain = numpy(forward(made.spec, values, keras.ops.convert_to_tensor(x), shown).output)
    assert difference(numpy(made(x, padding_mask=mask)), plain) < 0.01


@pytest.mark.parametrize("norm_first", [False, True])
def test_balanced_scales_lose_less_where_a_place_is_large(norm_first: bool, tmp_path: Path) -> None:
    original = encoder_block_of(encoder(norm_first=norm_first))
    assert isinstance(original, EncoderBlock)
    for name in ("attention_norm_gamma", "output_norm_gamma"):
        gamma = numpy(original.parts[name])
        gamma[3] = 30  # as trained encoders have it
        original.parts[name].assign(gamma)
    x, mask = inputs()
    x[..., 5] *= 20
    places = {site: np.abs(numpy(y)).max(axis=(0, 1)) for site, y in original.sites(x, mask).items()}
    one, balanced = (
        original.converted("int8_static", sizes)
        for sizes in ({site: float(largest.max()) for site, largest in places.items()}, places)
    )
    assert balanced.spec.balanced
    assert not one.spec.balanced
    expected = numpy(original(x, padding_mask=mask))
    errors = [difference(numpy(made(x, padding_mask=mask)), expected) for made in (one, balanced)]
    assert errors[1] < 0.6 * errors[0]
    values = {name: variable.value for name, variable in balanced.parts.items()}
    shown = keras.ops.cast(mask, "bool")[:, None, None, :]
    plain = numpy(forward(balanced.spec, values, keras.ops.convert_to_tensor(x), shown).output)
    assert difference(numpy(balanced(x, padding_mask=mask)), plain) < 0.01
    embedded, padding = keras.Input((None, WIDTH)), keras.Input((None,), dtype="int32")
    keras.Model([embedded, padding], balanced(embedded, padding_mask=padding)).save(tmp_path / "model.keras")
    again = load_keras_file(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(again([x, mask])), numpy(balanced(x, padding_mask=mask)))


@pytest.mark.parametrize("compute", ["float32", *INFERENCE])
@pytest.mark.parametrize("batch", [8, 9])  # more than 512 rows: jax takes them in pieces, the last one smaller
def test_a_large_batch_answers_as_its_sentences_do(compute: Any, batch: int) -> None:
    original = encoder_block_of(encoder())
    assert isinstance(original, EncoderBlock)
    x, mask = inputs(batch, 130)
    made = original.converted(compute, ranges(original, x, mask))
    for padding in (None, mask):
        whole = numpy(made(x, padding_mask=padding))
        alone = [made(x[i : i + 1], padding_mask=None if padding is None else mask[i : i + 1]) for i in range(batch)]
        assert difference(whole, np.concatenate([numpy(y) for y in alone])) < (1e-6 if compute == "float32" else 5e-3)


def test_integer_products_are_of_these_integers() -> None:
    """Scales of 1 and whole numbers: nothing is rounded, so every backend gives the same."""
    spec = BlockSpec(8, 2, 4, 16, "relu", compute="int8_static")
    made = block(spec)
    rng = np.random.default_rng(0)
    for name, variable in made.parts.items():
        if name.endswith("kernel"):
            variable.assign(rng.integers(-127, 128, variable.shape).astype("int8"))
        if name == "qkv_kernel":  # no attention but the mean of the values
            variable.assign(np.where(np.arange(24) < 16, 0, keras.ops.convert_to_numpy(variable)))
    x = np.repeat(rng.integers(-127, 128, (2, 1, 8)), 3, axis=1).astype("float32")
    kernels = {n: np.asarray(keras.ops.convert_to_numpy(made.parts[f"{n}_kernel"]), np.int64) for n in ("qkv", "out")}
    context = np.clip(x @ kernels["qkv"][:, 16:], -128, 127)
    middle = x + context @ kernels["out"]
    expected = (middle - middle.mean(-1, keepdims=True)) / np.sqrt(middle.var(-1, keepdims=True) + spec.epsilon)
    made.parts["down_kernel"].assign(np.zeros((16, 8), "int8"))
    np.testing.assert_allclose(numpy(made(x)), expected, atol=1e-4)


@pytest.mark.parametrize("compute", ["float32", *INFERENCE])
def test_rows_with_nothing_but_padding_stay_finite(compute: Any) -> None:
    original = encoder_block_of(encoder())
    assert isinstance(original, EncoderBlock)
    x, mask = inputs()
    mask[1] = 0
    made = original.converted(compute, ranges(original, x, mask))
    outputs = numpy(made(x, padding_mask=mask))
    assert np.isfinite(outputs).all()
    alone = numpy(made(x[:1], padding_mask=mask[:1]))
    np.testing.assert_allclose(outputs[:1], alone, atol=1e-4 if compute == "float32" else 0.05)


@pytest.mark.parametrize("compute", ["float32", *INFERENCE])
def test_what_stands_behind_padding_changes_nothing(compute: Any) -> None:
    original = encoder_block_of(encoder())
    assert isinstance(original, EncoderBlock)
    x, mask = inputs()
    made = original.converted(compute, ranges(original, x, mask))
    expected = numpy(made(x, padding_mask=mask))
    changed = np.where(mask[..., None] == 1, x, 0.7).astype("float32")
    real = mask.astype(bool)
    np.testing.assert_allclose(numpy(made(changed, padding_mask=mask))[real], expected[real], atol=1e-4)


@pytest.mark.parametrize("compute", ["float32", *INFERENCE])
def test_a_saved_block_answers_the_same(compute: Any, tmp_path: Path) -> None:
    # Heads removed: heads * head_width is not width. A part of the inner layer removed.
    original = block(BlockSpec(WIDTH, 3, 16, 40, "gelu_tanh", 1e-12, dropout=0.1))
    x, mask = inputs()
    made = original.converted(compute, ranges(original, x, mask))
    embedded, shown = keras.Input((None, WIDTH)), keras.Input((None,), dtype="int32")
    model = keras.Model([embedded, shown], made(embedded, padding_mask=shown))
    expected = numpy(model([x, mask]))
    path = tmp_path / "model.keras"
    model.save(path)
    again = load_keras_file(path)
    assert {w.dtype for w in again.layers[-1].weights} == {w.dtype for w in made.weights}
    np.testing.assert_array_equal(numpy(again([x, mask])), expected)


@pytest.mark.parametrize("compute", INFERENCE)
def test_new_weights_are_not_answered_with_old_ones(compute: Any) -> None:
    x, mask = inputs()
    first, second = block(), block()
    made, other = (b.converted(compute, ranges(b, x, mask)) for b in (first, second))
    before = numpy(made(x, padding_mask=mask))
    made.set_weights(other.get_weights())
    after = numpy(made(x, padding_mask=mask))
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after, numpy(other(x, padding_mask=mask)), atol=1e-5)


@pytest.mark.parametrize("compute", ["int8_dynamic", "int8_static"])
def test_torch_compile_takes_a_block_whole(backend: str, compute: Any) -> None:
    if backend != "torch":
        return
    import torch

    x, mask = inputs()
    original = block()
    made = original.converted(compute, ranges(original, x, mask))
    if made.fallback_reason is not None:  # it then runs its plain form, and what is compiled here would be inexact
        pytest.skip(made.fallback_reason)
    expected = numpy(made(x, padding_mask=mask))
    values = {name: variable.value for name, variable in made.parts.items()}
    # aot_eager: all of torch.compile but the C++ compiler, which takes a minute.
    whole = torch.compile(made._backend.encoder_block, backend="aot_eager", fullgraph=True)
    with torch.inference_mode():
        outputs = whole(made.spec, values, torch.from_numpy(x), torch.from_numpy(mask))
    np.testing.assert_allclose(outputs.numpy(), expected, atol=0.05)
    assert difference(outputs.numpy(), expected) < 1e-2


@pytest.mark.slow
@pytest.mark.filterwarnings("error:torch.compile takes this model")
def test_the_method_compile_takes_blocks_of_each_arithmetic(backend: str) -> None:
    if backend != "torch":
        return
    x, mask = inputs()
    embedded, shown = keras.Input((None, WIDTH), name="x"), keras.Input((None,), dtype="int32", name="mask")
    stream = embedded
    for compute in ("float32", *INFERENCE):
        original = block(BlockSpec(WIDTH, HEADS, 16, INNER, "gelu", norm_first=compute == "int8_static"))
        places = {site: np.abs(numpy(y)).max(axis=(0, 1)) for site, y in original.sites(x, mask).items()}
        made = original.converted(compute, places if compute == "int8_static" else None)  # type: ignore[arg-type]
        stream = made(stream, padding_mask=shown)
    model = keras.Model([embedded, shown], stream)
    expected = numpy(model([x, mask], training=False))
    step = driver(backend).compile_forward(model, "compile")
    for _ in range(2):
        outputs = numpy(step({"x": x, "mask": mask}))
        assert difference(outputs, expected) < 0.03
    # It holds the weights of that time, as a program that is shipped does.
    model.layers[-1].parts["output_norm_beta"].assign(np.ones(WIDTH))
    np.testing.assert_array_equal(numpy(step({"x": x, "mask": mask})), outputs)


def test_a_block_learns_through_fit() -> None:
    x, mask = inputs(16, 5)
    embedded, shown = keras.Input((None, WIDTH)), keras.Input((None,), dtype="int32")
    trained = block(BlockSpec(WIDTH, 3, 16, 40, dropout=0.1))
    model = keras.Model([embedded, shown], keras.layers.Dense(1)(trained(embedded, padding_mask=shown)))
    before = {name: numpy(variable) for name, variable in trained.parts.items()}
    model.compile("adam", "mse")
    history = model.fit([x, mask], x[..., :1] * 2, epochs=12, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < history[0]
    # A key's bias adds the same to all scores of a query, so its gradient is zero: told by the whole qkv_bias.
    assert {name for name, value in before.items() if np.array_equal(value, numpy(trained.parts[name]))} == set()


def test_dropout_changes_training_only() -> None:
    made = block(BlockSpec(WIDTH, HEADS, 16, INNER, dropout=0.5))
    x, _ = inputs()
    np.testing.assert_array_equal(numpy(made(x)), numpy(made(x)))
    assert np.abs(numpy(made(x, training=True)) - numpy(made(x, training=True))).max() > 0.1


def test_a_mask_that_keras_carries_is_used() -> None:
    ids = np.array([[4, 5, 0, 0], [1, 2, 3, 4]])
    embedding, made = keras.layers.Embedding(9, WIDTH, mask_zero=True), block()
    expected = numpy(made(keras.ops.convert_to_tensor(numpy(embedding(ids))), padding_mask=(ids != 0)))
    np.testing.assert_allclose(numpy(made(embedding(ids))), expected, atol=1e-5)


def test_a_float32_block_follows_a_precision() -> None:
    embedded = keras.Input((None, WIDTH))
    model = keras.Model(embedded, block()(embedded))
    x, _ = inputs()
    changed = with_precision(model, "bfloat16")
    assert {w.dtype for w in changed.weights} == {"bfloat16"}
    outputs = changed(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert 0 < difference(numpy(outputs), numpy(model(x))) < 0.03


def test_what_is_not_recognised_says_why() -> None:
    class Other(keras_nlp.layers.TransformerEncoder):
        pass

    def reason(layer: keras.layers.Layer) -> str:
        recognised = encoder_block_of(layer)
        assert isinstance(recognised, str)
        return recognised

    assert "no encoder layer" in reason(keras.layers.Dense(3))
    assert "no encoder layer" in reason(Other(8, 2))
    assert "not built" in reason(keras_nlp.layers.TransformerEncoder(8, 2))
    assert "activation" in reason(encoder(activation="tanh"))
    half = keras_nlp.layers.TransformerEncoder(8, 2, dtype="bfloat16")
    half.build((None, None, 4))
    assert "bfloat16" in reason(half)
    made = block()
    assert encoder_block_of(made) is made
    assert "bfloat16 already" in reason(made.converted("bfloat16"))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"heads": 0}, "above 0"), ({"activation": "swish"}, "activation"), ({"compute": "int4"}, "compute")],
)
def test_an_impossible_spec_is_refused(change: dict[str, Any], said: str) -> None:
    fields: dict[str, Any] = {"width": 4, "heads": 2, "head_width": 2, "inner": 8}
    with pytest.raises(InputError, match=said):
        BlockSpec(**{**fields, **change})


def test_a_conversion_without_ranges_is_refused() -> None:
    with pytest.raises(InputError, match="'hidden'"):
        block().converted("int8_static", {"input": 1, "context": 1, "attended": 1})
    with pytest.raises(InputError, match="from float32"):
        block().converted("int8_dynamic").converted("bfloat16")
