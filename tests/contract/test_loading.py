"""Loading `.keras` files safely, and changing a model's precision."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from keras_nlp.models import BertBackbone

from kcost.core.errors import ArtifactError, InputError, UnavailableError
from kcost.models.loading import inspect_keras_file, load_keras_file
from kcost.models.precision import Precision, with_precision

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((3, 8, 8, 1), dtype=np.float32)
TOKENS = {
    "token_ids": RANDOM.integers(0, 20, (3, 6)).astype(np.int32),
    "segment_ids": np.zeros((3, 6), np.int32),
    "padding_mask": np.ones((3, 6), np.int32),
}


def encoder() -> BertBackbone:
    return BertBackbone(
        vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=8
    )


def cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def graph_of_bert() -> keras.Model:
    bert = encoder()
    return keras.Model(bert.input, layers.Dense(3, name="logits")(bert.output["sequence_output"]))


def bert_as_a_layer() -> keras.Model:
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in TOKENS}
    return keras.Model(inputs, layers.Dense(3, name="logits")(encoder()(inputs)["sequence_output"]))


def nested() -> keras.Model:
    """A model within a model, one layer used twice, two inputs in a list, two outputs."""
    inner = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(4, activation="relu")])
    a, b = keras.Input((8, 8, 1), name="a"), keras.Input((8, 8, 1), name="b")
    shared = layers.Dense(2, name="shared")
    return keras.Model([a, b], [shared(inner(a)), shared(inner(b))])


MODELS = {
    "cnn": (cnn, IMAGES),
    "graph_of_bert": (graph_of_bert, TOKENS),
    "bert_as_a_layer": (bert_as_a_layer, TOKENS),
    "nested": (nested, [IMAGES, IMAGES + 1]),
}


def outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    tensors = keras.tree.flatten(model(inputs, training=False))
    return [keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) for y in tensors]


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("name", MODELS)
def test_a_file_is_loaded_without_its_optimizer(name: str, tmp_path: Path) -> None:
    build, inputs = MODELS[name]
    made = build()
    made.compile("adam", loss=lambda y, z: keras.ops.mean(y - z))  # never looked at: it is not built
    made.save(tmp_path / "model.keras")
    loaded = load_keras_file(tmp_path / "model.keras")
    assert not loaded.compiled
    for expected, actual in zip(outputs(made, inputs), outputs(loaded, inputs), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert inspect_keras_file(tmp_path / "model.keras").needs_keras_hub == ("bert" in name)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("precision", "variables"), [("bfloat16", "bfloat16"), ("mixed_bfloat16", "float32")])
def test_precision_changes_everything_but_the_inputs(name: str, precision: Precision, variables: str) -> None:
    build, inputs = MODELS[name]
    model = build()
    changed = with_precision(model, precision)
    assert {str(w.dtype) for w in changed.weights} == {variables}
    assert {str(w.dtype) for w in model.weights} == {"float32"}
    assert [x.dtype for x in changed.inputs] == [x.dtype for x in model.inputs]
    produced = keras.tree.flatten(changed(inputs, training=False))
    assert {keras.backend.standardize_dtype(y.dtype) for y in produced} == {"bfloat16"}
    for expected, actual in zip(outputs(model, inputs), outputs(changed, inputs), strict=True):
        assert expected.std() > 0.01
        np.testing.assert_allclose(actual, expected, atol=0.05)
        assert np.abs(actual - expected).max() > 0  # bfloat16 was really used


def test_float32_is_the_model_itself() -> None:
    model = cnn()
    assert with_precision(model, "float32") is model


def test_models_that_cannot_be_rebuilt_keep_their_precision() -> None:
    class Subclassed(keras.Model):
        def __init__(self, dense: layers.Layer) -> None:
            super().__init__()
            self.dense = dense

        def call(self, x: Any) -> Any:
            return self.dense(x)

    subclassed = Subclassed(layers.Dense(2))
    subclassed(np.zeros((1, 3), np.float32))
    with pytest.raises(UnavailableError, match="Subclassed"):
        with_precision(subclassed, "bfloat16")

    x, shared = keras.Input((3,)), layers.Dense(3)
    with_a_nested_model = keras.Model(x, keras.Sequential([keras.Input((3,)), shared])(shared(x)))
    with pytest.raises(UnavailableError, match="4 weights after rebuilding, 2 before"):
        with_precision(with_a_nested_model, "bfloat16")


def test_a_lambda_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark = str(tmp_path / "it-ran")
    x = keras.Input((4,))
    layer = layers.Lambda(lambda t: (os.mkdir(mark), t)[1], output_shape=(4,), name="runs")  # noqa: PTH102
    keras.Model(x, layer(x)).save(tmp_path / "lambda.keras")
    assert not Path(mark).exists()
    with pytest.raises(ArtifactError, match="'runs' is a Lambda") as raised:
        load_keras_file(tmp_path / "lambda.keras")
    assert "safe mode" in str(raised.value)
    assert "subclass of keras.layers.Layer" in str(raised.value)
    assert not Path(mark).exists()
    model = keras.saving.load_model(tmp_path / "lambda.keras", safe_mode=False)
    model(np.zeros((1, 4), np.float32))
    assert Path(mark).exists()  # so the file could have done harm


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_code_that_is_not_keras_is_refused_by_name(tmp_path: Path) -> None:
    class Own(layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    @keras.saving.register_keras_serializable(package="own")
    class Registered(Own):
        pass

    @keras.saving.register_keras_serializable(package="own")
    def function(x: Any) -> Any:
        return x

    def unregistered(x: Any) -> Any:
        return x

    cases = {
        "the layer 'named' is a Lambda": layers.Lambda(keras.ops.relu, name="named"),
        "Could not interpret activation function": layers.Dense(2, name="end", activation=lambda t: t),
        "the layer 'mine' is of the class 'Own' from": Own(name="mine"),
        "the layer 'mine' is of the class 'Registered' from the package 'own'": Registered(name="mine"),
        "the layer 'end' is of the function 'own>function' from the package 'own'": layers.Dense(
            2, name="end", activation=function
        ),
        "Could not locate function 'unregistered'": layers.Dense(2, name="end", activation=unregistered),
    }
    for i, (message, layer) in enumerate(cases.items()):
        x = keras.Input((4,))
        keras.Model(x, keras.Sequential([layer], name="around")(x)).save(tmp_path / f"{i}.keras")
        with pytest.raises(ArtifactError, match=message):
            load_keras_file(tmp_path / f"{i}.keras")


OWN_MODULE = """
import keras


@keras.saving.register_keras_serializable(package="towers")
class Tower(keras.Model):
    def __init__(self, width, **settings):
        super().__init__(**settings)
        self.width = width
        self.hidden = keras.layers.Dense(width, activation="relu")
        self.end = keras.layers.Dense(3)

    def call(self, x):
        return self.end(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width}
"""


def test_classes_of_a_module_that_the_user_names_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_towers.py").write_text(OWN_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import my_towers  # type: ignore[import-not-found]

    model, x = my_towers.Tower(5, name="tower"), np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(x))
    model.save(tmp_path / "tower.keras")
    with pytest.raises(ArtifactError, match="--classes MODULE"):
        load_keras_file(tmp_path / "tower.keras")
    monkeypatch.setenv("KCOST_CLASSES", "my_other_towers")
    with pytest.raises(ArtifactError, match="the class 'Tower'"):
        load_keras_file(tmp_path / "tower.keras")
    monkeypatch.setenv("KCOST_CLASSES", "my_towers, my_other_towers")
    with pytest.raises(InputError, match="there is no module 'my_other_towers'"):
        load_keras_file(tmp_path / "tower.keras")

    monkeypatch.setenv("KCOST_CLASSES", "my_towers")
    loaded = load_keras_file(tmp_path / "tower.keras")
    assert [tuple(tensor.shape) for tensor in loaded.inputs] == [(None, 4)]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loaded(x)), expected, atol=1e-6)
    # The layers that it makes itself change with it, though no config names them.
    low = with_precision(loaded, "bfloat16")
    assert {layer.compute_dtype for layer in low._flatten_layers() if layer.weights} == {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"
    np.testing.assert_allclose(outputs(low, x)[0], expected, atol=0.1)


def test_a_model_whose_own_layers_insist_on_float32_is_not_called_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insisting = OWN_MODULE.replace("Dense(3)", 'Dense(3, dtype="float32")').replace('"towers"', '"insisting"')
    (tmp_path / "my_insisting_towers.py").write_text(insisting)
    monkeypatch.syspath_prepend(tmp_path)
    import my_insisting_towers  # type: ignore[import-not-found]

    model = my_insisting_towers.Tower(5, name="tower")
    model(np.zeros((1, 4), np.float32))
    model.save(tmp_path / "tower.keras")
    monkeypatch.setenv("KCOST_CLASSES", "my_insisting_towers")
    with pytest.raises(UnavailableError, match=r"the layer '.*dense_\d+' stays at float32"):
        with_precision(load_keras_file(tmp_path / "tower.keras"), "bfloat16")


def test_what_keras_cannot_build_is_told_in_a_line(tmp_path: Path) -> None:
    import zipfile

    cnn().save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as whole, zipfile.ZipFile(tmp_path / "m.keras", "w") as changed:
        for name in whole.namelist():
            content = whole.read(name).replace(b'"filters": 4', b'"filters": 5')
            changed.writestr(name, content)
    with pytest.raises(ArtifactError, match=f"saved with Keras {keras.__version__}") as raised:
        load_keras_file(tmp_path / "m.keras")
    assert "\n" not in str(raised.value.received)


def test_the_layer_that_keras_cannot_make_is_named(tmp_path: Path) -> None:
    import zipfile

    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="tanh", name="odd")], name="inner")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), inner]).save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as whole, zipfile.ZipFile(tmp_path / "m.keras", "w") as changed:
        for name in whole.namelist():
            changed.writestr(name, whole.read(name).replace(b'"tanh"', b'"nonesuch"'))
    with pytest.raises(ArtifactError, match=r"m\.keras: the layer 'odd': .*nonesuch"):
        load_keras_file(tmp_path / "m.keras")
