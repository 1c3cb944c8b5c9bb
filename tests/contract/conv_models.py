"""Models with convolutions one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

LAYERS = keras.layers

CLOSE = {"float32": 1e-5, "bfloat16": 0.02, "int8_static": 0.03}
"""Relative error of a chain's outputs against those of its layers; JAX keeps 127 steps between stages."""


def normalised(**settings: Any) -> keras.layers.Layer:
    """A batch normalisation whose statistics and weights are not those that it begins with."""
    layer = LAYERS.BatchNormalization(**settings)
    layer.build((None, 8, 8, 6))
    random = np.random.default_rng(3)
    for variable in layer.variables:
        variable.assign(random.uniform(0.5, 1.5, variable.shape))
    return layer


def chain_layers() -> dict[str, list[keras.layers.Layer]]:
    conv = LAYERS.Conv2D
    return {
        "one": [conv(6, 3)],
        "as in cnn": [
            conv(6, 3, padding="same", use_bias=False),
            normalised(),
            LAYERS.ReLU(),
            conv(6, 3, padding="same"),
            normalised(scale=False),
            LAYERS.ReLU(),
            LAYERS.MaxPooling2D(2),
            conv(5, 3, padding="same", activation="relu"),
        ],
        "uneven padding": [
            conv(6, 3, strides=2, padding="same", activation="relu"),
            LAYERS.Dropout(0.5),
            LAYERS.MaxPooling2D(3, strides=2, padding="same"),
            conv(6, 2, padding="same"),
            normalised(center=False),
            LAYERS.MaxPooling2D(2, padding="same"),
        ],
        "dilated": [conv(6, 3, dilation_rate=2, activation="relu"), conv(16, (1, 2), bias_initializer="ones")],
        "relu after pooling": [conv(6, 3), LAYERS.Activation("relu"), LAYERS.MaxPooling2D(2), conv(6, 2)],
    }


def model_of(layers: Sequence[keras.layers.Layer], shape: tuple[int, ...] = (12, 13, 3)) -> keras.Model:
    # A layer that is no part of the chain keeps the name of the output.
    return keras.Sequential([keras.Input(shape), *layers, LAYERS.GlobalAveragePooling2D()])
