"""kcost's layers say when they are called in a slow way, and keep silent when they are called as they were measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

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
            if method not in ("predict", "compile"):
                driver(backend).compile_forward(model, method)({model.input.name: ROWS})

    assert warned_by(run) == []


def test_a_plain_call_says_once_what_to_call_instead(backend: str) -> None:
    model = int8_model()
    said = warned_by(lambda: [model(ROWS), model(ROWS)])
    if backend == "torch":  # it runs a plain call in the very same way
        assert said == []
    else:
        (warning,) = said
        assert f'kcost.load(FILE, backend="{backend}")' in warning


def test_predict_says_it_where_weights_become_variables_of_a_graph(backend: str) -> None:
    model = int8_model()
    said = warned_by(lambda: model.predict(ROWS, verbose=0))
    assert len(said) == (1 if backend == "tensorflow" else 0)


def test_a_block_in_float32_says_nothing(backend: str) -> None:
    x = keras.ops.ones((2, 3, block().spec.width))
    assert warned_by(lambda: block()(x)) == []
