"""A warning where kcost's layers are called in a way that is slower than the one that was measured."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import keras

from kcost.backends import driver
from kcost.backends.base import Driver
from kcost.models.keras_private import is_tracing_shapes, training_of_call
from kcost.models.ways_of_call import is_own_call


class SlowCallWarning(UserWarning):
    """kcost's layers run faster another way."""


_warned: set[str] = set()


def warn_of_slow_call(layer: keras.layers.Layer, inputs: Any, training: bool | None) -> None:
    """Warns, once a process and way, where the backend runs this layer slower than `kcost.load` would.

    `docs/results.md` has what each way takes. Nothing is said while a model is built or its shapes are found out, and
    nothing of kcost's own calls.

    Args:
        layer: one of kcost's; one in float32, which may be trained, has no weights to prepare.
        inputs: what it is called with, symbolic or a tensor of the backend.
        training: what the layer was told of training; None for nothing.
    """
    # The cheap questions first: eager steps of torch come here with each layer.
    if training is True or is_own_call():
        return
    way = _driver().slow_call(inputs, training_of_call() if training is None else training)
    if way is None or way in _warned:
        return
    if (
        getattr(layer, "computes_in", "float32") == "float32"
        or isinstance(inputs, keras.KerasTensor)
        or is_tracing_shapes()
    ):
        return
    _warned.add(way)
    warnings.warn(
        f"{layer.name!r} is one of kcost's layers. It runs by {way} here, which is slower than what was measured. "
        f'Call kcost.load(FILE, backend="{keras.backend.backend()}") instead.',
        SlowCallWarning,
        stacklevel=2,
    )


@cache
def _driver() -> Driver:
    return driver(keras.backend.backend())
