"""Convolutions in TensorFlow without XLA: oneDNN's quantized operations, which are public ones.

They take the weights only as constants of the graph: so they are used inside `constant_weights` (exports, compiled
forward passes) alone. Elsewhere chains are computed by the plain operations: eagerly, by `predict`, and in XLA, whose
int8 convolutions on CPU are slower than float32 ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kcost.backends.chain_spec import ChainSpec, Stage
from kcost.backends.convolution_chain import StageParts, entering_limits, run_chain, same_padding
from kcost.backends.kernels.tensorflow_constants import constant_mode, host_value
from kcost.backends.kernels.tensorflow_int8 import internal_unavailable
from kcost.backends.tensorflow import ONEDNN_TERMS
from kcost.core.cpu_instructions import may_multiply_bfloat16, no_int8_cpu

Parts = Mapping[str, Any]

FUSED_CONVOLUTION = "QuantizedConv2DWithBiasAndReluAndRequantize"
SUMS = "QuantizedConv2D"

_ZERO_POINT = 128


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
    stages = [StageParts.of(spec, parts, number) for number in range(len(spec.stages))]
    step = float(stages[0].step)
    low, high = -127 * step, 127 * step
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
        largest, next_high = 127 * stages[i].kernel_scale, entering_limits(i + 1)[1] * float(stages[i + 1].step)
        x = tf.raw_ops.QuantizedConv2DWithBiasAndReluAndRequantize(
            input=x,
            filter=tf.bitcast(tf.constant(stages[i].kernel), tf.qint8),
            bias=tf.constant(stages[i].bias),
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
    stage, (kernel, bias, kernel_scale, step) = spec.stages[last], stages[last]
    if last == 0:
        whole = tf.bitcast(x, tf.int8)
        sums = _signed_sums(whole, kernel, stage.strides, stage.padding, stage.dilation)
    else:
        sums = _sums(tf.bitcast(x, tf.uint8), kernel, stage.strides, stage.padding.upper(), stage.dilation)
    x = _biased(stage, tf.cast(sums, tf.float32) * (np.float32(step) * kernel_scale), bias)
    return x if stage.pool is None else _pooled(stage, x)


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
    sizes = zip(tf.unstack(tf.shape(whole)[1:3]), spans, strides, strict=True)
    paddings = [same_padding(size, span, stride, tf.maximum) for size, span, stride in sizes]
    return tf.pad(whole, [(0, 0), *paddings, (0, 0)], constant_values=np.uint8(_ZERO_POINT))


def _float_chain(spec: ChainSpec, parts: Parts, x: Any) -> Any:
    dtype = tf.as_dtype(spec.compute) if may_multiply_bfloat16(os.environ) else tf.float32
    return tf.cast(run_chain(spec.stages, _FloatOperations(spec, parts, dtype), tf.cast(x, dtype)), tf.float32)


class _FloatOperations(NamedTuple):
    spec: ChainSpec
    parts: Parts
    dtype: Any

    def convolved(self, number: int, stage: Stage, x: Any) -> Any:
        kernel, bias, *_ = StageParts.of(self.spec, self.parts, number)
        kernel, padding = tf.cast(kernel, self.dtype), stage.padding.upper()
        x = tf.nn.conv2d(x, kernel, stage.strides, padding, dilations=stage.dilation)
        return _biased(stage, x, tf.cast(bias, self.dtype))

    def pooled(self, stage: Stage, x: Any) -> Any:
        return _pooled(stage, x)


def _biased(stage: Stage, x: Any, bias: Any) -> Any:
    x = tf.nn.bias_add(x, bias)
    return tf.nn.relu(x) if stage.relu else x


def _pooled(stage: Stage, x: Any) -> Any:
    return tf.nn.max_pool2d(x, stage.pool, stage.pool_strides, stage.pool_padding.upper())


def _on_host(parts: Parts) -> dict[str, np.ndarray]:
    return {name: host_value(value) for name, value in parts.items()}
