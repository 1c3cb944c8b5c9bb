"""A copy of a model is the model: copies, changed precisions and rewrites, and what is refused, on each backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from kcost.core.errors import InputError, UnavailableError
from kcost.models.comparing import DifferentError, check_copy, differences, outputs_of
from kcost.models.copying import StateError, copy_of_layer, refuse_unset, without_initializers
from kcost.models.loading import load_keras_file
from kcost.models.precision import computed_dtypes, with_precision
from kcost.optimize.forms.layers import QuantizedDense
from kcost.optimize.kernels import copy_of
from kcost.optimize.quantization import quantize
from kcost.optimize.rewrite import rewrite
from kcost.training.transfer import copy_weights

RANDOM = np.random.default_rng(3)
ROWS = RANDOM.normal(5, 3, (8, 6)).astype(np.float32)
SERIES = RANDOM.normal(size=(3, 5, 6)).astype(np.float32)


@keras.saving.register_keras_serializable(package="tests")
class Remembers(layers.Layer):  # type: ignore[misc]
    """Multiplies by a number that no variable holds: it is made when the state is loaded."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = 1.0

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1],), initializer="ones")

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["factor"] = np.float32(self.factor)

    def load_own_variables(self, store: Any) -> None:
        self.kernel.assign(store["0"])
        self.factor = float(np.asarray(store["factor"]))

    def call(self, x: Any) -> Any:
        return x * self.factor * self.kernel


@keras.saving.register_keras_serializable(package="tests")
class Forgets(Remembers):
    """As Remembers, but nothing that it saves says the number."""

    def save_own_variables(self, store: Any) -> None:
        store["0"] = self.kernel

    def load_own_variables(self, store: Any) -> None:
        self.kernel.assign(store["0"])


def of(*parts: layers.Layer, shape: tuple[int, ...] = (6,)) -> keras.Model:
    return keras.Sequential([keras.Input(shape, name="x"), *parts])


def normalization() -> keras.Model:
    layer = layers.Normalization(name="adapted")
    layer.adapt(ROWS)
    return of(layer, layers.Dense(4, name="dense"))


def discretization() -> keras.Model:
    layer = layers.Discretization(bin_boundaries=[2.0, 5.0, 8.0])
    inputs = keras.Input((6,), name="x")
    return keras.Model(inputs, [layer(inputs), layers.Dense(2, name="dense")(inputs)])


def batch_normalization() -> keras.Model:
    layer = layers.BatchNormalization()
    model = of(layer, layers.Dense(3, name="dense"))
    layer.moving_mean.assign(np.arange(6))
    layer.moving_variance.assign(np.arange(1, 7))
    return model


def shared() -> keras.Model:
    inputs, dense = keras.Input((6,), name="x"), layers.Dense(6, name="dense")
    return keras.Model(inputs, dense(dense(inputs) + 1))


def nested() -> keras.Model:
    inner = of(layers.Normalization(mean=2.0, variance=3.0), layers.Dense(6, name="dense"))
    inputs = keras.Input((6,), name="x")
    return keras.Model(inputs, inner(inner(inputs)))


def remembers() -> keras.Model:
    model = of(Remembers(name="remembers"), layers.Dense(3, name="dense"))
    model.get_layer("remembers").factor = 3.0
    return model


def spectral() -> keras.Model:
    return of(layers.SpectralNormalization(layers.Dense(4, name="dense"), name="spectral"))


class Dense(layers.Layer):  # type: ignore[misc]  # of the user's own, not registered, with a name of Keras's
    """Adds one."""

    def call(self, x: Any) -> Any:
        return x + 1.0


def namesakes() -> keras.Model:
    """Holds two classes `Add` of Keras, a layer and an operation, and two `Dense`."""
    x = keras.Input((6,), name="x")
    y = layers.Dense(6, name="dense")(x) + 3.0
    return keras.Model(x, layers.Add()([Dense(name="own")(y), x]))


def recurrent(layer: layers.Layer) -> keras.Model:
    return of(layer, layers.Dense(2, name="dense"), shape=(5, 6))


MODELS: dict[str, tuple[Callable[[], keras.Model], np.ndarray]] = {
    "normalization": (normalization, ROWS),
    "discretization": (discretization, ROWS),
    "batch_normalization": (batch_normalization, ROWS),
    "shared": (shared, ROWS),
    "nested": (nested, ROWS),
    "remembers": (remembers, ROWS),
    "spectral": (spectral, ROWS),
    "lstm": (lambda: recurrent(layers.LSTM(4)), SERIES),
    "gru": (lambda: recurrent(layers.GRU(4)), SERIES),
    "bidirectional": (lambda: recurrent(layers.Bidirectional(layers.LSTM(3))), SERIES),
    "namesakes": (namesakes, ROWS),
    "dropout": (lambda: of(layers.Dropout(0.5), layers.Dense(3, name="dense")), ROWS),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_gives_the_outputs_in_each_way_of_copying(name: str, tmp_path: Path) -> None:
    make, x = MODELS[name]
    model = make()
    expected = outputs_of(model, x)
    for copied in (copy_of_layer(model), copy_of(model), copy_weights(model, model)):
        assert differences(expected, outputs_of(copied, x)) == 0
        assert not {id(v) for v in model.variables} & {id(v) for v in copied.variables}
    low = with_precision(model, "bfloat16", {"x": x})
    assert {(layer.variables, layer.compute) for layer in computed_dtypes(low) if layer.variables} == {
        ("bfloat16",) * 2
    }
    floats = [(a, b) for a, b in zip(*map(keras.tree.flatten, (expected, outputs_of(low, x))), strict=True)]
    assert all(differences(a, b) < 0.05 for a, b in floats if a.dtype.kind == "f")
    new, coverage = quantize(model, "dynamic", measure=False)
    assert "dense" in {change.layer.rpartition("/")[2] for change in (*coverage.changed, *coverage.skipped)}
    assert differences(expected, outputs_of(new, x)) < 0.05
    new.save(tmp_path / "new.keras")
    if name == "namesakes":
        return  # Keras itself cannot tell them apart in a file
    load = load_keras_file if name != "remembers" else keras.saving.load_model
    check_copy(new, load(tmp_path / "new.keras"), {"x": x})


def test_a_wrapper_that_makes_its_state_from_an_inner_kernel_is_skipped_with_its_reason() -> None:
    _, coverage = quantize(spectral(), "weight-only")
    skipped = {change.layer: change.what for change in coverage.skipped}
    assert not coverage.changed
    assert "would become int8" in skipped["spectral/dense"]


def test_an_optimizer_without_a_config_is_in_no_one_s_way() -> None:
    class Falling(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: Any) -> Any:
            return 1 / (1 + step)

    model = shared()
    model.compile(keras.optimizers.SGD(Falling()), "mse")
    copied = copy_weights(model, model)
    assert not copied.compiled
    assert model.compiled
    assert type(model).get_compile_config is keras.Model.get_compile_config
    assert "get_compile_config" not in vars(model)


def test_seeds_of_random_layers_go_with_a_copy() -> None:
    model = of(layers.Dropout(0.5))
    model(ROWS, training=True)
    copied = copy_of_layer(model)
    # What is drawn is not compared: torch draws from a generator of its own.
    states = [ops.convert_to_numpy(m.layers[0].seed_generator.state) for m in (model, copied)]
    np.testing.assert_array_equal(*states)
    assert model.layers[0].seed_generator.state is not copied.layers[0].seed_generator.state


def test_vocabularies_go_with_a_copy(backend: str) -> None:
    if backend != "tensorflow":
        pytest.skip("lookups are TensorFlow's")
    words, numbers = keras.Input((2,), dtype="string", name="words"), keras.Input((2,), dtype="int64", name="numbers")
    by_word, by_number = layers.StringLookup(), layers.IntegerLookup()
    bins = layers.Discretization(num_bins=3)
    bins.adapt(ROWS)
    np.testing.assert_array_equal(bins(ROWS), copy_of_layer(bins)(ROWS))
    by_word.adapt(np.array([["b", "a"], ["b", "c"]]))
    by_number.adapt(np.array([[7, 5], [5, 9]]))
    table = layers.Embedding(8, 3, name="table")
    model = keras.Model([words, numbers], [table(by_word(words)), table(by_number(numbers))])
    rows = [ops.convert_to_tensor([["a", "z"]]), ops.convert_to_tensor([[5, 1]])]
    expected = outputs_of(model, rows)
    for copied in (copy_of_layer(model), copy_of(model), with_precision(model, "bfloat16")):
        assert differences(expected, outputs_of(copied, rows)) < 0.01
    new, coverage = quantize(model, "weight-only")
    assert [change.layer for change in coverage.changed] == ["table"]
    assert differences(expected, outputs_of(new, rows)) < 0.02


def test_a_layer_that_saves_less_than_it_is_made_of_is_refused_by_name() -> None:
    model = of(layers.Dense(6, name="before"), Forgets(name="forgets"), layers.Dense(3, name="after"))
    model.get_layer("forgets").factor = 3.0
    for change in (
        lambda: with_precision(model, "bfloat16"),
        lambda: copy_of(model),
        lambda: copy_weights(model, model),
        lambda: quantize(model, "dynamic"),
    ):
        with pytest.raises(UnavailableError, match=r"'(forgets|after|sequential.*)'"):
            change()
    with pytest.raises(DifferentError, match="'forgets'"):
        check_copy(model, copy_of_layer(model))


@keras.saving.register_keras_serializable(package="tests")
class Insists(layers.Layer):  # type: ignore[misc]
    """Has no form in a small float type, as some layers of each framework."""

    def call(self, x: Any) -> Any:
        if self.compute_dtype != "float32":
            raise TypeError(f"no kernel for {self.compute_dtype}")
        return x * 2


def test_a_layer_that_cannot_run_at_a_precision_is_refused_by_name() -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), Insists(name="stiff")])
    for make in (lambda: with_precision(model, "bfloat16"), lambda: quantize(model, "bfloat16")):
        with pytest.raises(UnavailableError, match=r"the layer '(.*/)?stiff': TypeError: no kernel for bfloat16"):
            make()


def test_a_replacement_that_is_gone_past_is_refused_by_name() -> None:
    """TimeDistributed calls its layer by a way of its own, on which Keras's int8 is not met."""
    model = keras.Sequential([keras.Input((5, 6)), layers.TimeDistributed(layers.Dense(4, name="inner"), name="each")])
    with pytest.raises(UnavailableError, match="the layer 'each/inner': its replacement is not called where it was"):
        quantize(model, "keras")


def test_keras_int8_leaves_what_it_has_no_form_of() -> None:
    """The cell of a ConvLSTM2D is of a class that cannot be made again by itself."""
    model = keras.Sequential([keras.Input((2, 4, 4, 1)), layers.ConvLSTM2D(2, 2), layers.Flatten(), layers.Dense(2)])
    _, coverage = quantize(model, "keras")
    assert [change.what for change in coverage.changed] == ["Dense -> Keras's int8"]
    assert "no int8 form of ConvLSTMCell" in " ".join(change.what for change in coverage.skipped)


def test_a_wrong_replacement_is_refused_by_name() -> None:
    model = of(layers.Dense(6, name="one"), layers.Dense(6, name="two"), layers.Dense(3, name="three"))

    def replace(layer: layers.Layer, path: str) -> layers.Layer | None:
        if not isinstance(layer, layers.Dense):
            return None
        new = QuantizedDense.of(layer, "dynamic")
        if path == "two":
            new.kernel.assign(ops.convert_to_numpy(new.kernel)[::-1])
        return new

    with pytest.raises(UnavailableError, match="the layer 'two'"):
        rewrite(model, replace, loss=0.1)


def test_a_model_saved_under_mixed_precision_becomes_float32() -> None:
    usual = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = of(layers.Dense(4), layers.BatchNormalization(), layers.Softmax(dtype="float32"))
    finally:
        keras.config.set_dtype_policy(usual)
    assert [layer.compute for layer in computed_dtypes(model)] == ["float16", "float16", "float32"]
    assert with_precision(model, "saved") is model
    new = with_precision(model, "float32")
    assert {layer.compute for layer in computed_dtypes(new)} == {"float32"}
    assert differences(outputs_of(model, ROWS), outputs_of(new, ROWS)) < 0.01
    assert with_precision(new, "float32") is new


def test_no_random_initializer_runs_and_a_weight_without_a_value_is_refused() -> None:
    with without_initializers() as unset:
        dense = layers.Dense(3)
        dense.build((None, 2))
        seeded = layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=1))
        seeded.build((None, 2))
        cell = layers.LSTMCell(2, dtype="bfloat16")  # orthogonal has no bfloat16 form on some backends
        cell.build((None, 2))
    assert not ops.convert_to_numpy(dense.kernel).any()
    assert ops.convert_to_numpy(seeded.kernel).all()
    with pytest.raises(StateError, match="no value for its variable"):
        refuse_unset(unset, dense)
    refuse_unset(unset, seeded)
    again = layers.Dense(3)
    again.build((None, 2))
    assert ops.convert_to_numpy(again.kernel).any()


def test_a_model_that_is_not_built_is_not_rewritten() -> None:
    with pytest.raises(InputError, match="once it is built"):
        copy_of(keras.Sequential([layers.Dense(2)]))
