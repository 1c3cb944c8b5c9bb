"""Which of two forms of a layer is the faster one here: measured, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import keras
import numpy as np

from kcost.backends import driver
from kcost.core.plan import INFERENCE_METHODS

BATCHES = (1, 32)
ROUNDS = 7
UNKNOWN_SIZE = 32
"""Stands for an axis of the inputs that has no fixed size."""

_RATIOS: dict[str, float] = {}


def time_ratio(layer: keras.layers.Layer, other: keras.layers.Layer) -> float:
    """The time of `other` over that of `layer`, at batch size 1, and where that is not more, the larger of 1 and 32.

    Each is compiled as the backend's first inference method says and both take turns; the ratio is the median of the
    rounds, so that a busy machine slows both alike. Layers of the same shapes and settings are measured once.

    Args:
        layer: a built layer of one input.
        other: a built layer in its place.
    """
    input_shape = layer.get_build_config()["input_shape"]
    settings = [{**x.get_config(), "name": None} for x in (layer, other)]
    key = repr((input_shape, settings))
    if key not in _RATIOS:
        _RATIOS[key] = _measured(layer, other, input_shape)
    return _RATIOS[key]


def _measured(layer: keras.layers.Layer, other: keras.layers.Layer, input_shape: Sequence[int | None]) -> float:
    own = driver(keras.backend.backend())
    method = INFERENCE_METHODS[own.name][0]  # type: ignore[index]  # a backend that Keras has
    shape = [size or UNKNOWN_SIZE for size in input_shape[1:]]
    steps = [own.compile_forward(keras.Sequential([keras.Input(shape), x]), method) for x in (layer, other)]
    ratios = []
    for batch in BATCHES:
        images = {"x": np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)}
        rounds = []
        for number in range(ROUNDS + 2):  # the first two compile and warm up
            times = []
            for step in steps:
                start = time.perf_counter()
                own.to_host(step(images))
                times.append(time.perf_counter() - start)
            if number >= 2:
                rounds.append(times[1] / times[0])
        ratios.append(statistics.median(rounds))
        if ratios[-1] > 1:
            break  # slower is slower
    return max(ratios)
