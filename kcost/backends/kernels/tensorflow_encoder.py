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
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_library

from kcost.backends.block_spec import BlockSpec
from kcost.backends.encoder_block import LEAST, Product, int8_product, run_block
from kcost.backends.kernels.bfloat16_products import PROBE, clearly_faster
from kcost.backends.kernels.tensorflow_constants import constant_mode, host_value
from kcost.backends.kernels.tensorflow_int8 import (
    QUANTIZED_MATMUL,
    around_0,
    internal_unavailable,
    quantized_matmul,
    rounded,
)
from kcost.backends.kernels.tensorflow_norms import fused_norm
from kcost.backends.kernels.tensorflow_packing import Packing
from kcost.backends.tensorflow import DRIVER
from kcost.core.cpu_instructions import may_multiply_bfloat16

FUSED_BATCH_MATMUL = "_MklFusedBatchMatMulV2"

_FUSED_ACTIVATIONS = {"gelu": "GeluExact", "gelu_tanh": "GeluApproximate", "relu": "Relu"}
_MASKED = -1e9


def unavailable(spec: BlockSpec) -> str | None:
    """Why this machine does not run such a block fast, or None where it does."""
    return internal_unavailable(QUANTIZED_MATMUL) if spec.is_int8 else None


def encoder_block(
    spec: BlockSpec, parts: Mapping[str, Any], x: Any, padding_mask: Any | None, packing: Packing | None = None
) -> Any:
    """The output of a block, of the shape of x; float32, but for bfloat16 x of a float32 block's own dtype policy.

    Args:
        spec: of the block.
        parts: its variables' values, by name.
        x: (batch, time, width), any float dtype.
        padding_mask: (batch, time), 1 for what is real; None for all.
        packing: of rows that lie end to end in a batch of 1; None where each row of the batch is one.
    """
    products = _products(spec, parts)
    shape = tf.shape(x)
    batch, time = shape[0], shape[1]
    rows = tf.reshape(tf.cast(x, tf.float32), (-1, spec.width))
    output = run_block(spec, _Operations(products, padding_mask, batch, time, packing), rows).output
    return tf.reshape(output, (batch, time, spec.width))


class _Operations(NamedTuple):
    """Those of rows (batch * time, ...)."""

    products: _Products
    padding_mask: Any | None
    batch: Any
    time: Any
    packing: Packing | None

    def product(self, name: str, x: Any, residual: Any = None) -> Any:
        return self.products.product(name, x, residual)

    def activated(self, x: Any) -> Any:
        if isinstance(self.products, _StaticInt8):
            return self.products.activated(x)
        return _activation(self.products.spec, self.products.product("up", x))

    def attention(self, qkv: Any) -> Any:
        spec, packing = self.products.spec, self.packing
        if packing is None:
            return _attention(spec, qkv, self.padding_mask, self.batch, self.time)
        query, key, value = packing.heads(qkv, spec.heads, spec.head_width)
        context = _context(spec, query, key, value, packing.mask(self.padding_mask))
        return packing.end_to_end(context, spec.heads, spec.head_width)

    def norm(self, name: str, x: Any) -> Any:
        return _norm(self.products.spec, self.products.parts, name, x)


def _products(spec: BlockSpec, parts: Mapping[str, Any]) -> _Products:
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
        product = Product.of(self.spec, self.parts, name)
        y = tf.nn.bias_add(tf.matmul(tf.cast(x, dtype), tf.cast(product.kernel, dtype)), tf.cast(product.bias, dtype))
        return y if addend is None else tf.cast(y, addend.dtype) + addend


class _Int8(NamedTuple):
    """Exact int8 products by public operations: the driver's."""

    spec: BlockSpec
    parts: Mapping[str, Any]

    def product(self, name: str, x: Any, addend: Any = None) -> Any:
        y = int8_product(Product.of(self.spec, self.parts, name), _WholeNumbers(), tf.cast(x, tf.float32))
        return y if addend is None else y + addend


class _WholeNumbers:
    def rounded(self, x: Any) -> Any:
        return tf.cast(tf.clip_by_value(tf.round(x), -128.0, 127.0), tf.int8)

    def multiplied(self, whole: Any, kernel: Any) -> Any:
        return tf.cast(_driver().int8_matmul(whole, kernel), tf.float32)

    def row_steps(self, x: Any) -> Any:
        return tf.maximum(tf.reduce_max(tf.abs(x), axis=-1, keepdims=True), LEAST) / 127.0

    def column_sums(self, kernel: Any) -> Any:
        return tf.reduce_sum(tf.cast(kernel, tf.float32), axis=0)


class _StaticInt8(NamedTuple):
    """Products by `_QuantizedMatMul`: what follows a product is computed inside it.

    Activations are uint8, int8 + 128: without AMX, VNNI multiplies uint8 with int8, and 10 to 30% faster than after
    the shift that oneDNN makes itself for int8 times int8.
    """

    spec: BlockSpec
    parts: Mapping[str, np.ndarray]

    def product(self, name: str, x: Any, addend: Any = None) -> Any:
        product = self._product(name)
        # Attention in bfloat16 only where that is faster. Elsewhere a graph computes what the plain form does.
        dtype = tf.bfloat16 if name == "qkv" and _multiplies_bfloat16() else tf.float32
        fused = ("BiasAdd", "Dequantize") if addend is None else ("BiasAdd", "Add", "Dequantize")
        if product.lowest is None:
            return quantized_matmul(name, product, rounded(product, x), around_0(product), fused, dtype, addend)
        return quantized_matmul(name, product, x, _above_lowest(product), fused, dtype, addend)

    def activated(self, x: Any) -> Any:
        product, inside = self._product("up"), _above_lowest(self._product("down"))
        fused = ("BiasAdd", _FUSED_ACTIVATIONS[self.spec.activation], "Requantize")
        whole, limits = rounded(product, x), around_0(product)
        return quantized_matmul("up", product, whole, limits, fused, tf.quint8, out_limits=inside)

    def _product(self, name: str) -> Product:
        return Product.of(self.spec, self.parts, name)


class _DynamicInt8(NamedTuple):
    """Products by `_QuantizedMatMul`, with one scale a row that is found at run time and applied outside."""

    spec: BlockSpec
    parts: Mapping[str, np.ndarray]

    def product(self, name: str, x: Any, addend: Any = None) -> Any:
        x, product = tf.cast(x, tf.float32), Product.of(self.spec, self.parts, name)
        steps = _WholeNumbers().row_steps(x)
        whole = tf.bitcast(tf.cast(tf.round(x / steps) + 128.0, tf.uint8), tf.quint8)
        bare = product._replace(bias=np.zeros_like(product.bias))
        y = quantized_matmul(name, bare, whole, (-128.0, 127.0), ("BiasAdd", "Dequantize"), tf.float32)
        y = y * steps + product.bias
        return y if addend is None else y + addend


_Products: TypeAlias = _Float | _Int8 | _DynamicInt8 | _StaticInt8


def _above_lowest(product: Product) -> tuple[float, float]:
    """The values of 0 and 255 in what goes into a static product, where it comes from an activation."""
    assert product.lowest is not None
    return product.lowest, 127 * float(product.step)


def _attention(spec: BlockSpec, qkv: Any, padding_mask: Any | None, batch: Any, time: Any) -> Any:
    """The heads' outputs (batch * time, heads * head_width) from query, key and value, in the dtype of `qkv`."""
    split = tf.reshape(qkv, (batch, time, 3, spec.heads, spec.head_width))
    query, key, value = tf.unstack(tf.transpose(split, (2, 0, 3, 1, 4)), num=3)
    real = None if padding_mask is None else tf.cast(tf.cast(padding_mask, tf.bool), tf.float32)
    context = _context(spec, query, key, value, real)
    return tf.reshape(tf.transpose(context, (0, 2, 1, 3)), (-1, spec.projected))


def _context(spec: BlockSpec, query: Any, key: Any, value: Any, real: Any | None) -> Any:
    """What each place of each head takes from the others, of the shape of each (batch, heads, time, head_width).

    Args:
        real: float32 (batch, time), 1 for what is real, less for what is not, the less the later; None for all.
    """
    scores = _scores(spec, query, key, real)
    return tf.matmul(tf.nn.softmax(scores), value)


def _scores(spec: BlockSpec, query: Any, key: Any, real: Any | None) -> Any:
    """What each place (third axis) makes of each other one (last axis), before softmax."""
    if real is None:
        return tf.matmul(query, key, transpose_b=True) * spec.query_scale
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
    fused = fused_norm(x, gamma, beta, spec.epsilon, name)
    if fused is not None:
        return tf.reshape(fused, (-1, spec.width))  # what follows is fused only with a shape that the optimizer knows
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


@cache
def _driver() -> Any:
    return DRIVER()


@cache
def _multiplies_bfloat16() -> bool:
    """Whether bfloat16 products are clearly faster than float32 ones here."""
    if not may_multiply_bfloat16(os.environ):
        return False
    with tf.init_scope():  # eager, whatever is traced around it
        narrow, wide = (tf.cast(tf.ones(PROBE), dtype) for dtype in (tf.bfloat16, tf.float32))
        return clearly_faster(*(lambda x=x: tf.matmul(x, x, transpose_b=True).numpy() for x in (narrow, wide)))
