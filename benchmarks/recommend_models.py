"""The ResNet that `recommend_figures.py real` measures: 20 layers for small images, weights as Keras draws them."""

from __future__ import annotations

import keras

BLOCKS = 3
"""Of each of three widths. Source: He et al. (2016), Deep Residual Learning for Image Recognition, CVPR, section
4.2."""


def resnet20() -> keras.Model:
    """From images (batch, 32, 32, 3), float32, to probabilities (batch, 10), float32."""
    images = keras.Input((32, 32, 3), name="images")
    x = _convolution(images, 16, 1)
    x = keras.layers.ReLU()(x)
    for filters in (16, 32, 64):
        for block in range(BLOCKS):
            x = _block(x, filters, strides=2 if filters > 16 and block == 0 else 1)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(10, activation="softmax")(x), name="resnet20")


def _block(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
    inner = keras.layers.ReLU()(_convolution(x, filters, strides))
    inner = _convolution(inner, filters, 1)
    if strides > 1:
        x = _convolution(x, filters, strides, kernel=1)
    return keras.layers.ReLU()(keras.layers.Add()([x, inner]))


def _convolution(x: keras.KerasTensor, filters: int, strides: int, kernel: int = 3) -> keras.KerasTensor:
    x = keras.layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False)(x)
    return keras.layers.BatchNormalization()(x)
