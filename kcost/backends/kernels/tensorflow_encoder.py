"""An encoder block in TensorFlow, written so that TensorFlow without XLA (as in TensorFlow Serving) runs it fast.

Two things make the difference, both measured:

- TensorFlow's graph optimizer fuses a product with its bias, GELU or residual sum, and scores with scale and mask,
  each into one operation of oneDNN, but only where it finds them in the form that it looks for: matrices with two
  axes, constants for weights. So tokens are kept as rows of a matrix, and `constant_weights` turns weights into
  constants. All of this is public operations, with gradients, that run everywhere and that XLA compiles.
- int8 products with scales per channel and all of that fused in exist as `_QuantizedMatMul` alone, a fused layer norm
  as `_MklLayerNorm`, and fused scores in bfloat16 as `_MklFusedBatchMatMulV2`: internal operations of TensorFlow built
  with oneDNN on x86, without gradients. The first keeps a copy of the weights that it sees first. So they are used
  inside `constant_weights` only; elsewhere int8 products are the driver's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_library, op_def_registry

from kcost.backends.block_spec import BlockSpec
from kcost.backends.kernels.bfloat16_products import PROBE, clearly_faster
from kcost.backends.kernels.int8_products import LOWEST, no_int8_cpu, steps_above
from kcost.backends.kernels.tensorflow_constants import constant_mode, host_value
from kcost.backends.tensorflow import DRIVER

QUANTIZED_MATMUL = "_QuantizedMatMul"
LAYER_NORM = "_MklLayerNorm"
FUSED_BATCH_MATMUL = "_MklFusedBatchMatMulV2"

_SITES = {"qkv": "input", "out": "context", "up": "attended", "down": "hidden"}
_FUSED_ACTIVATIONS = {"gelu": "GeluExact", "gelu_tanh": "GeluApproximate", "relu": "Relu"}
_MASKED = -1e9
_LEAST = 1e-12


def unavailable(spec: BlockSpec) -> str | None:
    """Why this machine does not run such a block fast, or None where it does."""
    return internal_unavailable(QUANTIZED_MATMUL) if spec.is_int8 else None


@cache
def internal_unavailable(operation: str) -> str | None:
    """Why one of oneDNN's internal operations does not run here, or None where it does."""
    if op_def_registry.get(operation) is None or not kernels.get_registered_kernels_for_op(operation).kernel:
        return f"TensorFlow {tf.__version__} was built without {operation} of oneDNN"
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() in ("0", "false"):
        return "oneDNN is switched off (TF_ENABLE_ONEDNN_OPTS)"
    if tf.config.list_logical_devices("GPU"):
        return f"{operation} runs on CPUs, and TensorFlow sees a GPU"
    return no_int8_cpu() if operation == QUANTIZED_MATMUL else None


def encoder_block(spec: BlockSpec, parts: Mapping[str, Any], x: Any, padding_mask: Any | None) -> Any:
    """The output of a block, of the shape of x; float32, but for bfloat16 x of a float32 block's own dtype policy.

    Args:
        spec: of the block.
        parts: its variables' values, by name.
        x: (batch, time, width), any float dtype.
        padding_mask: (batch, time), 1 for what is real; None for all.
    """
    products = _products(spec, parts)
    shape = tf.shape(x)
    batch, time = shape[0], shape[1]
    rows = tf.reshape(tf.cast(x, tf.float32), (-1, spec.width))
    entered = _norm(spec, products.parts, "attention_norm", rows) if spec.norm_first else rows
    qkv = products.product("qkv", entered)
    context = _attention(spec, qkv, padding_mask, batch, time)
    middle = products.product("out", context, addend=rows)
    if spec.norm_first:
        attended = _norm(spec, products.parts, "output_norm", middle)
    else:
        middle = attended = _norm(spec, products.parts, "attention_norm", middle)
    hidden = products.activated("up", attended)
    output = products.product("down", hidden, addend=middle)
    if not spec.norm_first:
        output = _norm(spec, products.parts, "output_norm", output)
    return tf.reshape(output, (batch, time, spec.width))


def _products(spec: BlockSpec, parts: Mapping[str, Any]) -> _Float | _Int8 | _DynamicInt8 | _StaticInt8:
    """The kind of products that the place allows in which the block is traced, and its weights."""
    mode = constant_mode()
    if mode is not None:
        parts = {name: host_value(value) for name, value in parts.items()}
        if spec.is_int8 and mode == "native" and internal_unavailable(QUANTIZED_MATMUL) is None:
            return _StaticInt8(spec, parts) if spec.compute == "int8_static" else _DynamicInt8(spec, parts)
    tensors = {name: tf.convert_to_tensor(value) for name, value in parts.items()}
    return _Int8(spec, tensors) if spec.is_int8 else _Float(spec, tensors)


class _Float(NamedTuple):
    """Products of float32, or of bfloat16 where the CPU has instructions that make them faster."""

    spec: BlockSpec
    parts: Mapping[str, Any]

    def product(self, name: str, x: Any, addend: Any = None) -> Any:
        dtype = tf.bfloat16 if self.spec.compute == "bfloat16" and _multiplies_bfloat16() else tf.float32
        kernel, bias = tf.cast(self.parts[f"{name}_kernel"], dtype), tf.cast(self.parts[f"{name}_bias"], dtype)
        y = tf.nn.bias_add(tf.matmul(tf.cast(x, dtype), kernel), bias)
        return y if addend is None else tf.cast(y, addend.dtype) + addend

    def activated(self, name: str, x: Any) -> Any:
        return _activation(self.spec, self.product(name, x))


class _Int8(NamedTuple):
    """Exact int8 products by public operations: the driver's."""

    spec: BlockSpec
    parts: Mapping[str, Any]

    def product(self, name: str, x: Any, addend: Any = None) -> Any:
        x = tf.cast(x, tf.float32)
        kernel, kernel_scale, bias = (self.parts[f"{name}_{part}"] for part in ("kernel", "scale", "bias"))
        if self.spec.compute == "int8_static" and name == "down":
            lowest = LOWEST[self.spec.activation]
            step = steps_above(lowest, 127 * self.parts["hidden_scale"])
            whole = tf.cast(tf.clip_by_value(tf.round((x - lowest) / step) - 128.0, -128.0, 127.0), tf.int8)
            sums = self.parts["down_sums"] if self.spec.balanced else tf.reduce_sum(tf.cast(kernel, tf.float32), axis=0)
            shift = (128 * step + lowest) * sums
            y = (tf.cast(_driver().int8_matmul(whole, kernel), tf.float32) * step + shift) * kernel_scale + bias
            return y if addend is None else y + addend
        scale = self.parts[f"{_SITES[name]}_scale"] if self.spec.compute == "int8_static" else _row_scale(x)
        whole = tf.cast(tf.clip_by_value(tf.round(x / scale), -127.0, 127.0), tf.int8)
        left = 1.0 if self.spec.is_balanced(name) else scale
        y = tf.cast(_driver().int8_matmul(whole, kernel), tf.float32) * (left * kernel_scale) + bias
        return y if addend is None else y + addend

    def activated(self, name: str, x: Any) -> Any:
        return _activation(self.spec, self.product(name, x))


class _StaticInt8(NamedTuple):
    """Products by `_QuantizedMatMul`: what follows a product is computed inside it.

    Activations are uint8, int8 + 128: without AMX, VNNI multiplies uint8 with int8, and 10 to 30% faster than after
    the shift that oneDNN makes itself for int8 times int8.
    """

    spec: BlockSpec
    parts: Mapping[str, np.ndarray]

    def product(self, name: str, x: Any, addend: Any = None) -> Any:
        # Attention in bfloat16 only where that is faster. Elsewhere a graph computes what the plain form does.
        whole = x if name == "down" else self._quantized(name, x)
        dtype = tf.bfloat16 if name == "qkv" and _multiplies_bfloat16() else tf.float32
        fused = ("BiasAdd", "Dequantize") if addend is None else ("BiasAdd", "Add", "Dequantize")
        limits = self._hidden_limits() if name == "down" else _around_0(self._step(name))
        return _quantized_matmul(self.parts, name, whole, limits, fused, dtype, addend)

    def activated(self, name: str, x: Any) -> Any:
        fused = ("BiasAdd", _FUSED_ACTIVATIONS[self.spec.activation], "Requantize")
        whole, limits = self._quantized(name, x), _around_0(self._step(name))
        return _quantized_matmul(self.parts, name, whole, limits, fused, tf.quint8, out_limits=self._hidden_limits())

    def _step(self, name: str) -> float:
        """The number that is left to multiply the whole numbers by."""
        return 1.0 if self.spec.is_balanced(name) else float(self.parts[f"{_SITES[name]}_scale"])

    def _hidden_limits(self) -> tuple[float, float]:
        return LOWEST[self.spec.activation], 127 * self._step("down")

    def _quantized(self, name: str, x: Any) -> Any:
        step = self._step(name)
        x = tf.cast(x, tf.float32)
        if self.spec.is_balanced(name):
            x *= 1 / self.parts[f"{_SITES[name]}_scale"]
        return tf.raw_ops.QuantizeV2(
            input=x,
            min_range=-128 * step,
            max_range=127 * step,
            T=tf.quint8,
            mode="MIN_FIRST",
            ensure_minimum_range=0.0,
        )[0]


class _DynamicInt8(NamedTuple):
    """Products by `_QuantizedMatMul`, with one scale a row that is found at run time and applied outside."""

    spec: BlockSpec
    parts: Mapping[str, np.ndarray]

    def product(self, name: str, x: Any, addend: Any = None) -> Any:
        x = tf.cast(x, tf.float32)
        scale = _row_scale(x)
        whole = tf.bitcast(tf.cast(tf.round(x / scale) + 128.0, tf.uint8), tf.quint8)
        bare = {**self.parts, f"{name}_bias": np.zeros_like(self.parts[f"{name}_bias"])}
        y = _quantized_matmul(bare, name, whole, _around_0(1.0), ("BiasAdd", "Dequantize"), tf.float32)
        y = y * scale + self.parts[f"{name}_bias"]
        return y if addend is None else y + addend

    def activated(self, name: str, x: Any) -> Any:
        return _activation(self.spec, self.product(name, x))


def _around_0(step: float) -> tuple[float, float]:
    return -128 * step, 127 * step


def _quantized_matmul(
    parts: Mapping[str, np.ndarray],
    name: str,
    whole: Any,
    limits: tuple[float, float],
    fused: tuple[str, ...],
    dtype: tf.DType,
    addend: Any = None,
    out_limits: tuple[float, float] | None = None,
) -> Any:
    """`_QuantizedMatMul` of uint8 rows with a constant int8 kernel.

    Args:
        parts: of the block: kernel, its scale per channel, and bias are read.
        name: of the product.
        whole: quint8 (rows, inputs).
        limits: the values of 0 and 255 in the rows.
        fused: what is computed inside, in order, as the operation names it.
        dtype: of the result; quint8 with `out_limits`.
        addend: what is added inside, of the result's shape and dtype.
        out_limits: the values of 0 and 255 in the result.
    """
    kernel, largest = parts[f"{name}_kernel"], 127 * parts[f"{name}_scale"]
    device = [whole, tf.bitcast(tf.constant(kernel), tf.qint8), tf.constant(parts[f"{name}_bias"])]
    host = [tf.constant(limit, tf.float32) for limit in limits]
    host += [tf.constant(-largest), tf.constant(largest)]
    if addend is not None:
        device.append(addend)
    if out_limits is not None:
        host += [tf.constant(limit, tf.float32) for limit in out_limits]
    found, _ = op_def_library.apply_op(
        QUANTIZED_MATMUL,
        name=f"{name}_int8_product",
        device_inputs=device,
        host_inputs=host,
        Tdevice_outputs=[dtype],
        Thost_outputs=[] if out_limits is None else [tf.float32, tf.float32],
        T1=tf.quint8,
        T2=tf.qint8,
        Tbias=tf.float32,
        U=tf.float32,
        Tout=dtype,
        fused_ops=list(fused),
        is_weight_const=True,
        is_bias_const=True,
        transpose_a=False,
        transpose_b=False,
        input_quant_mode="MIN_FIRST",
        output_quant_mode="MIN_FIRST",
        leakyrelu_alpha=0.2,
    )
    # TensorFlow knows no shape of what this operation gives, and fuses what follows only with one.
    return tf.reshape(found[0], (-1, kernel.shape[1]))


def _attention(spec: BlockSpec, qkv: Any, padding_mask: Any | None, batch: Any, time: Any) -> Any:
    """The heads' outputs (batch * time, heads * head_width) from query, key and value, in the dtype of `qkv`."""
    split = tf.reshape(qkv, (batch, time, 3, spec.heads, spec.head_width))
    query, key, value = tf.unstack(tf.transpose(split, (2, 0, 3, 1, 4)), num=3)
    scores = _scores(spec, query, key, padding_mask)
    context = tf.matmul(tf.nn.softmax(scores), value)
    return tf.reshape(tf.transpose(context, (0, 2, 1, 3)), (-1, spec.projected))


def _scores(spec: BlockSpec, query: Any, key: Any, padding_mask: Any | None) -> Any:
    """What each place (third axis) makes of each other one (last axis), before softmax."""
    if padding_mask is None:
        return tf.matmul(query, key, transpose_b=True) * spec.query_scale
    real = tf.cast(tf.cast(padding_mask, tf.bool), tf.float32)
    mask = tf.cast((1.0 - real) * _MASKED, query.dtype)[:, None, None, :]
    if constant_mode() == "native" and internal_unavailable(FUSED_BATCH_MATMUL) is None:
        # TensorFlow's optimizer fuses these itself in float32, but not in bfloat16.
        fused = op_def_library.apply_op(
            FUSED_BATCH_MATMUL,
            name="scores",
            x=query,
            y=key,
            args=[tf.constant(spec.query_scale, query.dtype), mask],
            adj_x=False,
            adj_y=True,
            fused_ops=["Mul", "Add"],
            epsilon=1e-4,
            leakyrelu_alpha=0.2,
        )
        shape = tf.shape(query)
        return tf.reshape(fused, (shape[0], spec.heads, shape[2], shape[2]))
    # A product that is scaled and added to is fused; a constant 1 would be optimized away, and the fusion with it.
    scale = spec.query_scale if spec.query_scale != 1 else tf.cast(tf.minimum(tf.shape(query)[2], 1), query.dtype)
    return tf.matmul(query, key, transpose_b=True) * scale + mask


def _norm(spec: BlockSpec, parts: Mapping[str, Any], name: str, x: Any) -> Any:
    """A layer norm of rows.

    The public form is none of those that TensorFlow 2.21's optimizer replaces by `_MklLayerNorm`: it forgets their
    epsilon, and the operation's default is 1e-3.
    """
    gamma, beta = parts[f"{name}_gamma"], parts[f"{name}_beta"]
    if constant_mode() == "native" and internal_unavailable(LAYER_NORM) is None:
        norm = op_def_library.apply_op(LAYER_NORM, name=name, x=x, scale=gamma, offset=beta, epsilon=spec.epsilon)
        return tf.reshape(norm, (-1, spec.width))
    mean = tf.reduce_mean(x, axis=1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axis=1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + spec.epsilon) * gamma + beta


def _activation(spec: BlockSpec, x: Any) -> Any:
    if spec.activation == "relu":
        return tf.nn.relu(x)
    if spec.activation == "gelu_tanh":
        return tf.nn.gelu(x, approximate=True)
    # With erf: where nothing is fused, TensorFlow's erf is several times as fast as the erfc of tf.nn.gelu.
    return x * (0.5 * (1.0 + tf.math.erf(x * float(np.sqrt(0.5)))))


def _row_scale(x: Any) -> Any:
    """What takes the largest of each row to 127; (rows, 1)."""
    return tf.maximum(tf.reduce_max(tf.abs(x), axis=-1, keepdims=True), _LEAST) / 127.0


@cache
def _driver() -> Any:
    return DRIVER()


@cache
def _multiplies_bfloat16() -> bool:
    """Whether bfloat16 products are clearly faster than float32 ones here."""
    with tf.init_scope():  # eager, whatever is traced around it
        narrow, wide = (tf.cast(tf.ones(PROBE), dtype) for dtype in (tf.bfloat16, tf.float32))
        return clearly_faster(*(lambda x=x: tf.matmul(x, x, transpose_b=True).numpy() for x in (narrow, wide)))
