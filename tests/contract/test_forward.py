"""`kcost.load`: a model in this process, as a worker has it, on each backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kcost
from kcost.backends import driver
from kcost.core.errors import InputError
from kcost.core.plan import INFERENCE_METHODS
from kcost.optimize.quantization import quantize
from testing.one_backend import BACKEND

ROWS = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)


def two_inputs() -> keras.Model:
    left, right = keras.Input((6,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([keras.layers.Dense(4, activation="relu")(left), right])
    return keras.Model(
        {"a": left, "b": right}, {"z": keras.layers.Dense(2)(joined), "y": keras.layers.Dense(1)(joined)}
    )


def saved(model: keras.Model, folder: Path) -> Path:
    model.save(folder / "model.keras")
    return folder / "model.keras"


def plain(model: keras.Model, inputs: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(inputs, training=False))


@pytest.mark.parametrize("method", [m for m in INFERENCE_METHODS[BACKEND] if m != "compile"])  # which takes minutes
def test_each_method_answers_as_the_model_does(tmp_path: Path, method: str) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, activation="gelu"), keras.layers.Dense(3)])
    ready = kcost.load(saved(model, tmp_path), method=method, batch=4)
    for rows in (ROWS, ROWS[:1], ROWS.tolist(), [ROWS]):
        np.testing.assert_allclose(ready(rows), plain(model, np.asarray(rows, np.float32).reshape(-1, 6)), atol=1e-6)
    assert ready(ROWS).dtype == np.float32


def test_int8_gives_the_outputs_of_the_worker(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(3)])
    file = saved(quantize(model, "dynamic", measure=False)[0], tmp_path)
    own = driver(BACKEND)
    method = INFERENCE_METHODS[BACKEND][0]
    measured = own.to_host(own.forward(own.load(file, "float32"), method, 4)({"x": ROWS}))[0]
    np.testing.assert_array_equal(kcost.load(file, batch=4)(ROWS), measured)


def test_inputs_come_by_name_by_key_or_in_order_and_outputs_as_the_model_gives_them(tmp_path: Path) -> None:
    model = two_inputs()
    ready = kcost.load(saved(model, tmp_path), batch=2)
    right = np.ones((4, 3), np.float32)
    expected = plain(model, {"a": ROWS, "b": right})
    for inputs in (
        {"left": ROWS, "right": right},
        {"a": ROWS, "b": right},
        [ROWS, right],
        (ROWS.astype("float64"), right),
    ):
        answer = ready(inputs)
        assert set(answer) == {"y", "z"}
        for name, array in answer.items():
            np.testing.assert_allclose(array, expected[name], atol=1e-6)


def test_tensors_of_the_backend_go_in_as_they_are(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    ready = kcost.load(saved(model, tmp_path), batch=4)
    np.testing.assert_allclose(ready(keras.ops.convert_to_tensor(ROWS)), plain(model, ROWS), atol=1e-6)


def test_what_cannot_be_had_is_refused_by_name(tmp_path: Path) -> None:
    file = saved(two_inputs(), tmp_path)
    other = next(b for b in ("jax", "torch") if b != BACKEND)
    for options, message in (
        ({"backend": other}, "A process has one backend"),
        ({"method": "jti"}, "runs a model by one of"),
        ({"threads": -1}, "counted from 0"),
    ):
        with pytest.raises(InputError, match=message):
            kcost.load(file, **options)
    ready = kcost.load(file, batch=1)
    for inputs in (
        ROWS,
        {"left": ROWS},
        [ROWS],
        {
            "left": ROWS,
            "right": np.ones((4, 5)),
        },
    ):
        with pytest.raises(InputError, match="array"):
            ready(inputs)
