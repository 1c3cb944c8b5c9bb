"""Models at a temperature give what the maths over their stored answers says, and the logits of a softmax are seen."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kcost.core.answer import Answer, Kind
from kcost.core.conversion import OutputTemperature
from kcost.core.predictions import SplitPredictions, log_probabilities_of
from kcost.models.calibrated import at_temperature
from kcost.models.logits import before_softmax
from kcost.risk.calibration import at_temperature as maths_at_temperature
from kcost.worker.convert.endpoint import functional_model, output_names

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (40, 5)).astype(np.float32)  # so small that no probability is below the least that is kept


def model_of(last: Any, *, units: int = 4, positions: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5) if positions else (5,), name="x")
    return keras.Model(inputs, last(layers.Dense(units)(inputs)))


MODELS: dict[str, tuple[Any, Kind, bool, dict[str, Any]]] = {
    "softmax": (layers.Softmax(), "multiclass", False, {}),
    "logits": (layers.Identity(), "multiclass", True, {}),
    "sigmoid": (layers.Activation("sigmoid"), "binary", False, {"units": 1}),
    "one logit": (layers.Identity(), "binary", True, {"units": 1}),
    "two units": (layers.Softmax(), "binary", False, {"units": 2}),
    "tags": (layers.Identity(), "tags", True, {"positions": True}),
}


@pytest.mark.parametrize("which", list(MODELS))
@pytest.mark.parametrize("value", [0.5, 1.7])
def test_the_answers_at_a_temperature_are_those_of_the_maths(which: str, value: float) -> None:
    last, kind, logits, settings = MODELS[which]
    model = model_of(last, **settings)
    x = RNG.normal(0, 1, (40, 6, 5)).astype(np.float32) if settings.get("positions") else X
    answer = Answer(output="y", kind=kind, logits=logits, threshold=None, because="a test")
    plain = np.asarray(model.predict_on_batch(x))
    classes = max(2, plain.shape[-1])
    said = log_probabilities_of(answer, plain).reshape(-1, classes)
    zeros = np.zeros(len(said), np.int64)
    stored = SplitPredictions(zeros, said.argmax(1), said, np.arange(len(said)), np.arange(len(said)))
    expected = maths_at_temperature(stored, value).log_probabilities
    calibrated = at_temperature(model, OutputTemperature(value=value, place=0, kind=kind, logits=logits))
    outputs = np.asarray(calibrated.predict_on_batch(x))
    assert outputs.shape == plain.shape
    again = log_probabilities_of(answer, outputs).reshape(expected.shape)
    np.testing.assert_allclose(np.exp(again), np.exp(expected), atol=2e-6)
    assert np.array_equal(again.argmax(1), said.argmax(1)), "what is decided stays"
    assert abs(again - said).max() > 0.1


def test_names_stay_and_only_the_output_that_is_named_changes() -> None:
    inputs = keras.Input((5,), name="x")
    one, other = layers.Dense(3, "softmax", name="kind")(inputs), layers.Dense(2, "softmax", name="side")(inputs)
    temperature = OutputTemperature(value=3.0, place=1, kind="multiclass", logits=False)
    for outputs in ([one, other], {"a": one, "b": other}):
        model = keras.Model(inputs, outputs)
        calibrated = at_temperature(model, temperature)
        assert output_names(calibrated) == output_names(model)
        before, after = (keras.tree.flatten(m.predict_on_batch(X)) for m in (model, calibrated))
        assert np.array_equal(before[0], after[0])
        assert abs(np.asarray(before[1]) - np.asarray(after[1])).max() > 0.01


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("which", ["activation of a layer", "layer", "activation layer"])
def test_what_a_softmax_is_given_is_seen(which: str, sequential: bool) -> None:
    ends: dict[str, list[Any]] = {
        "activation of a layer": [layers.Dense(4, "softmax")],
        "layer": [layers.Dense(4), layers.Softmax()],
        "activation layer": [layers.Dense(4), layers.Activation("softmax")],
    }
    model = keras.Sequential([keras.Input((5,)), layers.Dense(6), *ends[which]])
    if not sequential:
        model = functional_model(model, __file__)  # type: ignore[arg-type]
    probabilities = np.asarray(model.predict_on_batch(X))
    cut = before_softmax(model, 0)
    assert cut is not None
    logits = np.asarray(cut.predict_on_batch(X)).astype(np.float64)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(exponentials / exponentials.sum(1, keepdims=True), probabilities, atol=1e-5)
    assert abs(logits.sum(1)).max() > 0.1


def test_a_model_without_a_softmax_has_none() -> None:
    assert before_softmax(model_of(layers.Activation("sigmoid")), 0) is None
    assert before_softmax(model_of(layers.Softmax(axis=1), positions=True), 0) is not None
    inputs = keras.Input((5,))
    assert before_softmax(keras.Model(inputs, keras.ops.exp(inputs)), 0) is None
