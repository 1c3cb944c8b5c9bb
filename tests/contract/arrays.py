"""Random arrays, and how far two are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

TOLERANCE = 0.02
"""Relative error of one layer's outputs: int8 rounds each number by up to 1/254 of the largest around it."""


def on_host(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def relative_error(actual: Any, expected: Any) -> float:
    actual, expected = on_host(actual), on_host(expected)
    assert actual.shape == expected.shape
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def int8s(*shape: int) -> np.ndarray:
    return np.random.default_rng(8).integers(-128, 128, shape).astype(np.int8)
