"""Which of several forms of a model, or of a part of it, is the fastest one here: measured, in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np

from kcost.backends import driver
from kcost.backends.base import Inputs, Step
from kcost.core.plan import INFERENCE_METHODS
from kcost.optimize.rewrite import copy_layer

BATCHES = (1, 32, 256)
ROUNDS = 9
TURN_S = 0.004
"""How long a turn takes at least: a step of less is made several times."""
WARM_UP_STEPS = 3
"""The first compile, and prepare what the later ones use."""
LONGEST_STEP_S = 1.0
"""A batch size is left out where a step of the first form is expected to take longer."""
UNKNOWN_SIZE = 32
"""Stands for an axis of the inputs that has no fixed size."""


class Timed(NamedTuple):
    """The time of a form over that of the first one, at some batch sizes: up to the first at which it is slower."""

    ratios: dict[int, float]

    @property
    def worst(self) -> float:
        """The largest ratio of all batch sizes."""
        return max(self.ratios.values())

    @property
    def mean(self) -> float:
        """The geometric mean over the batch sizes."""
        return math.exp(statistics.fmean(map(math.log, self.ratios.values())))

    def __str__(self) -> str:
        return ", ".join(f"{ratio:.2f} at batch {batch}" for batch, ratio in self.ratios.items())


_TIMED: dict[str, list[Timed]] = {}


def timed_layers(layers: Sequence[keras.layers.Layer], others: Sequence[keras.layers.Layer]) -> list[Timed]:
    """The time of each of `others` over that of `layers`, one after the other, in whose place it may stand.

    Layers of the same shapes and settings are measured once.

    Args:
        layers: built layers of one input; they are copied.
        others: built layers.
    """
    input_shape = layers[0].get_build_config()["input_shape"]
    settings = [[{**layer.get_config(), "name": None} for layer in group] for group in (layers, others)]
    key = repr((input_shape, settings))
    if key not in _TIMED:
        shape = [size or UNKNOWN_SIZE for size in input_shape[1:]]
        forms = [[copy_layer(layer) for layer in layers], *([other] for other in others)]
        _TIMED[key] = timed([keras.Sequential([keras.Input(shape), *form]) for form in forms])
    return _TIMED[key]


def timed(models: Sequence[keras.Model]) -> list[Timed]:
    """The time of each model but the first over that of the first, at batch sizes 1, 32 and 256, or till it is slower.

    Each is compiled as the backend's first inference method says, warmed up at every batch size, and all take turns; a
    ratio is the median of those of the rounds, so that a busy machine slows all alike.

    Args:
        models: built models of the same inputs.
    """
    own = driver(keras.backend.backend())
    method = method_timed()
    steps = [own.compile_forward(model, method) for model in models]
    timings = [Timed({}) for _ in models[1:]]
    image_s = 0.0
    for batch in BATCHES:
        left = [i for i, times in enumerate(timings) if all(ratio <= 1 for ratio in times.ratios.values())]
        if not left or image_s * batch > LONGEST_STEP_S:
            break
        inputs = _inputs(models[0], batch)
        step_s, ratios = _turns([_waiting(steps[i], inputs, own.to_host) for i in (0, *(i + 1 for i in left))])
        image_s = step_s / batch
        for i, ratio in zip(left, ratios, strict=True):
            timings[i].ratios[batch] = ratio
    return timings


def method_timed() -> str:
    """The way of running a forward pass that forms are timed in: the backend's first one."""
    return INFERENCE_METHODS[driver(keras.backend.backend()).name][0]  # type: ignore[index]  # one that Keras has


def _turns(calls: Sequence[Callable[[], object]]) -> tuple[float, list[float]]:
    """Seconds of a call of the first, and the median ratio of each other one to it."""
    # The quickest warm-up call says how many fill a turn: one that another process held up would say too few.
    quickest_s = [min(_seconds(call, 1) for _ in range(WARM_UP_STEPS)) for call in calls]
    repeats = [max(1, math.ceil(TURN_S / max(seconds, 1e-9))) for seconds in quickest_s]
    first: list[float] = []
    rounds: list[list[float]] = []
    for number in range(ROUNDS):
        order = range(len(calls)) if number % 2 == 0 else reversed(range(len(calls)))
        taken = dict.fromkeys(range(len(calls)), 0.0)
        for i in order:
            taken[i] = _seconds(calls[i], repeats[i])
        first.append(taken[0])
        rounds.append([taken[i] / taken[0] for i in range(1, len(calls))])
    return statistics.median(first), [statistics.median(ratios) for ratios in zip(*rounds, strict=True)]


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _waiting(step: Step, inputs: Inputs, to_host: Callable[[object], object]) -> Callable[[], object]:
    return lambda: to_host(step(inputs))


def _inputs(model: keras.Model, batch: int) -> Inputs:
    """Made-up inputs of a model, the same in each call: normal numbers, and zeros where these are whole."""
    random = np.random.default_rng(0)
    made_up = {}
    for tensor in model.inputs:
        shape = (batch, *(size or UNKNOWN_SIZE for size in tensor.shape[1:]))
        is_float = keras.backend.is_float_dtype(tensor.dtype)
        numbers = random.normal(size=shape).astype(np.float32) if is_float else np.zeros(shape, tensor.dtype)
        made_up[tensor.name] = numbers
    return made_up
