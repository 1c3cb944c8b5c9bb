"""How floats become int8, in every form that a layer takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

LARGEST = 127
SMALLEST = -128
"""What activations may be rounded to; weights leave it out, so that their range is symmetric."""


def quantized_weights(weights: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rounds float weights to int8, with one scale for each index of the axes that are not in `axes`.

    Returns:
        int8 array of the same shape, and float32 scales with the axes in `axes` removed. A channel of zeros has
        the scale 1.
    """
    largest = np.abs(weights).max(axis=axes, keepdims=True, initial=0.0).astype(np.float32)
    scale = np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1))
    rounded = np.clip(np.rint(weights / scale), -LARGEST, LARGEST).astype(np.int8)
    return rounded, np.squeeze(scale, axis=axes)


def quantized_activations(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Rounds a float tensor to int8 with scales from its own values, each over `axes`.

    Returns:
        int8 tensor of the same shape, and float32 scales with the axes in `axes` kept at size 1.
    """
    x = ops.cast(x, "float32")
    largest = ops.max(ops.abs(x), axis=axes, keepdims=True)
    # A row of zeros would divide by zero; any scale is right for it.
    scale = ops.maximum(largest, 1e-30) * np.float32(1 / LARGEST)
    return ops.cast(ops.round(x / scale), "int8"), scale


def rounded_activations(x: Any, scale: Any) -> Any:
    """Rounds a float tensor to int8 with a known scale; what lies outside is clipped."""
    return ops.cast(ops.round(ops.clip(ops.cast(x, "float32") / scale, SMALLEST, LARGEST)), "int8")
