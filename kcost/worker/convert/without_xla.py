"""Traces a model for a server that has no XLA: TensorFlow Serving, or LiteRT's converter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_xla() -> Iterator[None]:
    """Inside, what a layer compiles while it is called is traced as it is, and convolutions have no groups.

    Keras compiles a convolution with groups by XLA on a CPU: TensorFlow's own one is right until the graph's optimizer
    fuses it with its bias, and then it is refused. One group a channel is a depthwise convolution; other groups are
    convolutions beside each other. What comes out is held against the model's outputs by the check of an export.
    """
    import tensorflow as tf

    function, convolution = tf.function, tf.nn.convolution

    def plain(*args: Any, jit_compile: bool | None = None, **options: Any) -> Any:
        return function(*args, **options)

    def ungrouped(inputs: Any, kernel: Any, strides: Any, padding: str, data_format: str, dilations: Any) -> Any:
        channels, each = inputs.shape[-1], kernel.shape[-2]
        if data_format.startswith("NC") or channels in (None, each):
            return convolution(inputs, kernel, strides, padding, data_format=data_format, dilations=dilations)
        rank = len(inputs.shape) - 2
        steps, rates = _of_axes(strides, rank), _of_axes(dilations, rank)
        if each == 1 and rank == 2 and steps[0] == steps[1] and (steps[0] == 1 or rates == (1, 1)):
            size = kernel.shape[:2]
            filters = tf.reshape(kernel, (*size, channels, kernel.shape[-1] // channels))
            return tf.nn.depthwise_conv2d(inputs, filters, (1, *steps, 1), padding, dilations=rates)
        groups = channels // each
        parts = zip(tf.split(inputs, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
        settings = {"data_format": data_format, "dilations": dilations}
        return tf.concat([convolution(x, k, strides, padding, **settings) for x, k in parts], axis=-1)

    tf.function, tf.nn.convolution = plain, ungrouped
    try:
        yield
    finally:
        tf.function, tf.nn.convolution = function, convolution


def _of_axes(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
