"""Convolutions in TensorFlow without XLA: oneDNN's quantized operations, which are public ones.

They take the weights only as constants of the graph: so they are used inside `constant_weights` (exports, compiled
forward passes) alone. Elsewhere chains are computed by the plain operations: eagerly, by `predict`, and in XLA, whose
int8 convolutions on CPU are slower than float32 ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kcost.backends.kernels.int8_products import no_int8_cpu
from kcost.backends.kernels.tensorflow_constants import constant_mode, host_value
from kcost.backends.kernels.tensorflow_encoder import internal_unavailable
from kcost.backends.tensorflow import ONEDNN_TERMS

if TYPE_CHECKING:
    from kcost.backends.chain_spec import ChainSpec, Stage

Parts = Mapping[str, Any]

FUSED_CONVOLUTION = "QuantizedConv2DWithBiasAndReluAndRequantize"
SUMS = "QuantizedConv2D"

_ZERO_POINT = 128
_UNSIGNED_LARGEST = 255


@cache
def unavailable(spec: ChainSpec) -> str | None:
    """Why chains of this kind run the plain implementation here; None where they do not."""
    if not spec.is_int8:
        return None
    missing = (internal_unavailable(operation) for operation in (FUSED_CONVOLUTION, SUMS, "QuantizedMaxPool"))
    return next(filter(None, missing), None) or no_int8_cpu()


def convolution_chain(spec: ChainSpec, parts: Parts, x: Any) -> Any | None:
    """The output of a chain, (batch, height, width, filters), float32; None where the plain operations are to be used.

    Args:
        spec: of the chain.
        parts: its variables, as kcost.backends.chain_spec lays them out.
        x: (batch, height, width, channels), any float dtype.
    """
    if not spec.is_int8:
        return _float_chain(spec, parts if constant_mode() is None else _on_host(parts), tf.cast(x, tf.float32))
    return _integer_chain(spec, _on_host(parts), tf.cast(x, tf.float32)) if constant_mode() == "native" else None


def int8_convolution(
    x: Any, kernel: Any, strides: tuple[int, int], padding: str, dilation: tuple[int, int]
) -> Any | None:
    """The exact convolution of two int8 tensors, or None where the place of its call, or this machine, has no fast one.

    Args:
        x: int8 (batch, height, width, channels).
        kernel: int8 variable (height, width, channels, filters).
        strides: along height and width.
        padding: valid or same, as in Keras.
        dilation: along height and width.

    Returns:
        int32 (batch, height, width, filters).
    """
    exact = int(np.prod(kernel.shape[:3])) <= ONEDNN_TERMS
    if constant_mode() != "native" or not exact or internal_unavailable(SUMS) or no_int8_cpu():
        return None
    return _signed_sums(x, host_value(kernel), strides, padding, dilation)


def _signed_sums(x: Any, kernel: np.ndarray, strides: tuple[int, int], padding: str, dilation: tuple[int, int]) -> Any:
    # The operation takes unsigned bytes: flipping the top bit adds 128, also around the images.
    whole = tf.bitwise.bitwise_xor(tf.bitcast(x, tf.uint8), np.uint8(_ZERO_POINT))
    if padding == "same":
        spans = [(size - 1) * step for size, step in zip(kernel.shape[:2], dilation, strict=True)]
        whole = _padded(whole, spans, strides)
    sums = _sums(whole, kernel, strides, "VALID", dilation)
    return sums - _ZERO_POINT * kernel.astype(np.int32).sum(axis=(0, 1, 2))


def _integer_chain(spec: ChainSpec, parts: Mapping[str, np.ndarray], x: Any) -> Any:
    # Signed numbers enter the first stage, and what a ReLU gives the others.
    steps = [float(parts[f"input_scale_{i}"]) for i in range(len(spec.stages))]
    low, high = -127 * steps[0], 127 * steps[0]
    x = tf.raw_ops.QuantizeV2(
        input=x,
        min_range=low,
        max_range=high,
        T=tf.qint8,
        mode="SCALED",
        round_mode="HALF_TO_EVEN",
        narrow_range=True,
        ensure_minimum_range=0.0,
    )[0]
    last = len(spec.stages) - 1
    for i, stage in enumerate(spec.stages[:last]):
        largest, next_high = 127 * parts[f"kernel_scale_{i}"], _UNSIGNED_LARGEST * steps[i + 1]
        x = tf.raw_ops.QuantizedConv2DWithBiasAndReluAndRequantize(
            input=x,
            filter=tf.bitcast(tf.constant(parts[f"kernel_{i}"]), tf.qint8),
            bias=tf.constant(parts[f"bias_{i}"]),
            min_input=low,
            max_input=high,
            min_filter=tf.constant(-largest),
            max_filter=tf.constant(largest),
            min_freezed_output=0.0,
            max_freezed_output=next_high,
            strides=[1, *stage.strides, 1],
            padding=stage.padding.upper(),
            dilations=[1, *stage.dilation, 1],
            out_type=tf.quint8,
        )[0]
        low, high = 0.0, next_high
        if stage.pool is not None:
            x = tf.raw_ops.QuantizedMaxPool(
                input=x,
                min_input=low,
                max_input=high,
                ksize=[1, *stage.pool, 1],
                strides=[1, *stage.pool_strides, 1],
                padding=stage.pool_padding.upper(),
            )[0]
    stage, kernel = spec.stages[last], parts[f"kernel_{last}"]
    if last == 0:
        whole = tf.bitcast(x, tf.int8)
        sums = _signed_sums(whole, kernel, stage.strides, stage.padding, stage.dilation)
    else:
        sums = _sums(tf.bitcast(x, tf.uint8), kernel, stage.strides, stage.padding.upper(), stage.dilation)
    x = tf.cast(sums, tf.float32) * (np.float32(steps[last]) * parts[f"kernel_scale_{last}"])
    return _finished(stage, x, parts[f"bias_{last}"])


def _sums(whole: Any, kernel: np.ndarray, strides: tuple[int, int], padding: str, dilation: tuple[int, int]) -> Any:
    """The int32 convolution of uint8 images, to within a rounding to float32; the ranges change nothing of it."""
    sums = tf.raw_ops.QuantizedConv2D(
        input=tf.bitcast(whole, tf.quint8),
        filter=tf.bitcast(tf.constant(kernel), tf.qint8),
        min_input=0.0,
        max_input=255.0,
        min_filter=-127.0,
        max_filter=127.0,
        strides=[1, *strides, 1],
        padding=padding,
        dilations=[1, *dilation, 1],
        out_type=tf.qint32,
    )[0]
    return tf.bitcast(sums, tf.int32)


def _padded(whole: Any, spans: list[int], strides: tuple[int, int]) -> Any:
    paddings: list[Any] = [(0, 0)]
    for size, span, stride in zip(tf.unstack(tf.shape(whole)[1:3]), spans, strides, strict=True):
        total = tf.maximum((-(-size // stride) - 1) * stride + span + 1 - size, 0)
        paddings.append((total // 2, total - total // 2))
    return tf.pad(whole, [*paddings, (0, 0)], constant_values=np.uint8(_ZERO_POINT))


def _float_chain(spec: ChainSpec, parts: Parts, x: Any) -> Any:
    dtype = tf.as_dtype(spec.compute)
    x = tf.cast(x, dtype)
    for i, stage in enumerate(spec.stages):
        kernel, bias = tf.cast(parts[f"kernel_{i}"], dtype), tf.cast(parts[f"bias_{i}"], dtype)
        x = tf.nn.conv2d(x, kernel, stage.strides, stage.padding.upper(), dilations=stage.dilation)
        x = _finished(stage, x, bias)
    return tf.cast(x, tf.float32)


def _finished(stage: Stage, x: Any, bias: Any) -> Any:
    x = tf.nn.bias_add(x, bias)
    x = tf.nn.relu(x) if stage.relu else x
    if stage.pool is None:
        return x
    return tf.nn.max_pool2d(x, stage.pool, stage.pool_strides, stage.pool_padding.upper())


def _on_host(parts: Parts) -> dict[str, np.ndarray]:
    return {name: host_value(value) for name, value in parts.items()}
