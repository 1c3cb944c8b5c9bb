"""A warning where kcost's layers are called in a way that is much slower than the one that was measured."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from kcost.backends import driver
from kcost.models.keras_private import is_tracing_shapes


class SlowCallWarning(UserWarning):
    """kcost's layers run faster another way."""


_warned: set[str] = set()


def warn_of_slow_call(layer: keras.layers.Layer, inputs: Any) -> None:
    """Warns, once a process and way, where the backend runs this layer slower than `kcost.load` would.

    `docs/results.md` has what each way takes. Nothing is said while a model is built or its shapes are found out.

    Args:
        layer: one of kcost's; one in float32, which may be trained, has no weights to prepare.
        inputs: what it is called with, symbolic or a tensor of the backend.
    """
    if layer.computes_in == "float32" or isinstance(inputs, keras.KerasTensor) or is_tracing_shapes():
        return
    name = keras.backend.backend()
    way = driver(name).slow_call(inputs)
    if way is None or way in _warned:
        return
    _warned.add(way)
    warnings.warn(
        f"{layer.name!r} is one of kcost's layers, called in {way}, which is slower than what was measured. "
        f'Call kcost.load(FILE, backend="{name}") instead: it prepares the weights once.',
        SlowCallWarning,
        stacklevel=2,
    )
