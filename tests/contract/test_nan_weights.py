"""A model some of whose weights are no numbers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kcost.backends import driver
from kcost.core.errors import GateError
from kcost.training.tasks import refuse_nan_weights


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_weight_that_is_no_number_is_named(dtype: str) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="relu", name="scores", dtype=dtype)])
    kernel, bias = model.get_weights()
    model.set_weights([kernel, np.array([0.0, -np.inf], "float32")])
    refuse_nan_weights(model)
    kernel[0, 1] = np.nan
    model.set_weights([kernel, bias])
    with pytest.raises(GateError, match=r"1 of 6 weights of .*scores/kernel are NaN"):
        refuse_nan_weights(model)


def test_a_cell_says_it_whatever_the_answers_are(backend: str) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="scores")])
    assert driver(backend).not_numbers(model) is None
    kernel, bias = model.get_weights()
    kernel[0, 1] = np.nan
    model.set_weights([kernel, bias])
    no_numbers = driver(backend).not_numbers(model)
    assert no_numbers is not None
    assert "1 of 6 weights of" in no_numbers
