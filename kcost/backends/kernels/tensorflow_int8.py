"""Static int8 products in TensorFlow as one operation of oneDNN, what follows a product inside it.

`_QuantizedMatMul` is an internal operation of TensorFlow built with oneDNN on x86, without gradients, and keeps a copy
of the weights that it sees first: it is used inside `constant_weights` alone. By public operations the same takes a
dozen of them: rounding, clipping, a cast, a flip of the top bit, the product, another cast, a scale and a bias.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_library, op_def_registry

from kcost.backends.encoder_block import Product
from kcost.backends.kernels.tensorflow_constants import constant_mode, host_value
from kcost.core.cpu_instructions import no_int8_cpu

QUANTIZED_MATMUL = "_QuantizedMatMul"


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


def static_product(x: Any, step: Any, kernel: Any, scale: Any) -> Any | None:
    """x (..., k), float, rounded with one step, times an int8 kernel (k, n) with a scale a column; float32 (..., n).

    None where weights are no constants of the graph, or this machine lacks the operation.
    """
    if constant_mode() != "native" or internal_unavailable(QUANTIZED_MATMUL) is not None:
        return None
    if any(tf.is_symbolic_tensor(part) for part in (step, kernel, scale)):
        return None  # values that the graph is given, as by `stateless_call`
    whole_kernel = host_value(kernel)
    terms, columns = whole_kernel.shape
    product = Product(whole_kernel, np.zeros(columns, np.float32), host_value(scale), host_value(step))
    rows = x if x.shape.rank == 2 else tf.reshape(x, (-1, terms))
    fused = ("BiasAdd", "Dequantize")
    y = quantized_matmul("dense", product, rounded(product, rows), around_0(product), fused, tf.float32)
    if x.shape.rank == 2:
        return y
    y = tf.reshape(y, tf.concat([tf.shape(x)[:-1], [columns]], axis=0))
    y.set_shape([*x.shape[:-1], columns])
    return y


def _left(product: Product) -> float:
    """The number that is left to multiply the whole numbers by: a balanced kernel holds the steps already."""
    return 1.0 if product.balanced else float(product.step)


def around_0(product: Product) -> tuple[float, float]:
    """The values of 0 and 255 in what goes into a static product."""
    return -128 * _left(product), 127 * _left(product)


def rounded(product: Product, x: Any) -> Any:
    """Rows as quint8, int8 + 128."""
    x, (smallest, largest) = tf.cast(x, tf.float32), around_0(product)
    if product.balanced:
        x *= 1 / product.step
    return tf.raw_ops.QuantizeV2(
        input=x, min_range=smallest, max_range=largest, T=tf.quint8, mode="MIN_FIRST", ensure_minimum_range=0.0
    )[0]


def quantized_matmul(
    name: str,
    product: Product,
    whole: Any,
    limits: tuple[float, float],
    fused: tuple[str, ...],
    dtype: tf.DType,
    addend: Any = None,
    out_limits: tuple[float, float] | None = None,
) -> Any:
    """`_QuantizedMatMul` of uint8 rows with a constant int8 kernel.

    Args:
        name: of the product.
        product: kernel, its scale per column, and bias are read.
        whole: quint8 (rows, inputs).
        limits: the values of 0 and 255 in the rows.
        fused: what is computed inside, in order, as the operation names it.
        dtype: of the result; quint8 with `out_limits`.
        addend: what is added inside, of the result's shape and dtype.
        out_limits: the values of 0 and 255 in the result.
    """
    kernel, largest = product.kernel, 127 * product.scale
    device = [whole, tf.bitcast(tf.constant(kernel), tf.qint8), tf.constant(product.bias)]
    host = [tf.constant(limit, tf.float32) for limit in limits]
    host += [tf.constant(-largest), tf.constant(largest)]
    if addend is not None:
        device.append(addend)
    if out_limits is not None:
        host += [tf.constant(limit, tf.float32) for limit in out_limits]
    outputs, _ = op_def_library.apply_op(
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
    return tf.reshape(outputs[0], (-1, kernel.shape[1]))
