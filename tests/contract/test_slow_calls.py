"""kcost's layers say when they are called in a slow way, and keep silent when they are called as they were measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kcost
from kcost.backends import driver
from kcost.core.plan import INFERENCE_METHODS
from kcost.optimize.forms import slow_calls
from kcost.optimize.forms.layers import QuantizedDense
from kcost.optimize.forms.slow_calls import SlowCallWarning
from tests.contract.blocks import block

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_calls, "_warned", set[str]())


def int8_model() -> keras.Model:
    dense = keras.layers.Dense(2)
    dense.build((None, 4))
    inputs = keras.Input((4,))
    return keras.Model(inputs, QuantizedDense.of(dense, "dynamic")(inputs))


def warned_by(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if issubclass(w.category, SlowCallWarning)]


def test_building_copying_and_measured_ways_say_nothing(backend: str) -> None:
    def run() -> None:
        model = keras.models.clone_model(int8_model())
        for method in INFERENCE_METHODS[backend]:
            if method != "compile":  # which takes minutes
                driver(backend).forward(model, method, len(ROWS))({model.input.name: ROWS})

    assert warned_by(run) == []


class Around(keras.layers.Layer):  # type: ignore[misc]
    """Somebody's layer around kcost's, which hands no `training` on."""

    def __init__(self, inner: keras.layers.Layer) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x)


def test_kcosts_layers_in_a_layer_of_somebodys_own_say_nothing_where_they_are_measured(backend: str) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Around(int8_model())(inputs))
    forward = driver(backend).forward(model, INFERENCE_METHODS[backend][0], len(ROWS))
    assert warned_by(lambda: forward({inputs.name: ROWS})) == []


@pytest.mark.parametrize("method", ["predict", None])
def test_what_kcost_loads_says_nothing(tmp_path: Path, method: str | None) -> None:
    int8_model().save(tmp_path / "int8.keras")
    assert warned_by(lambda: kcost.load(tmp_path / "int8.keras", method=method, batch=3)(ROWS)) == []


def test_a_plain_call_says_once_what_to_call_instead(backend: str) -> None:
    model = int8_model()
    (warning,) = warned_by(lambda: [model(ROWS), model(ROWS)])
    assert f'kcost.load(FILE, backend="{backend}")' in warning
    assert ("training=False" in warning) == (backend == "torch")


def test_predict_says_it_and_the_way_that_torch_runs_fast_does_not(backend: str) -> None:
    model = int8_model()
    (warning,) = warned_by(lambda: [model.predict(ROWS, verbose=0), model.predict_on_batch(ROWS)])
    assert "runs by predict here" in warning
    if backend == "torch":
        assert warned_by(lambda: model(ROWS, training=False)) == []


def test_a_block_in_float32_says_nothing(backend: str) -> None:
    x = keras.ops.ones((2, 3, block().spec.width))
    assert warned_by(lambda: block()(x)) == []
