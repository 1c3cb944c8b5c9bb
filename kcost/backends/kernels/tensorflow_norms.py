"""Layer norms in TensorFlow as one operation of oneDNN, in graphs for inference.

By public operations a norm is ten of them, each of which goes through all of its input. `_MklLayerNorm` is an internal
operation of TensorFlow built with oneDNN on x86, without gradients. TensorFlow 2.21's optimizer puts it in the place of
some public forms, and forgets their epsilon.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework import op_def_library

from kcost.backends.kernels.tensorflow_constants import constant_mode
from kcost.backends.kernels.tensorflow_int8 import internal_unavailable

LAYER_NORM = "_MklLayerNorm"


def fused_norm(x: Any, gamma: Any, beta: Any, epsilon: float, name: str) -> Any | None:
    """x (..., width), float32 with two or three axes, with mean 0 and variance 1 over the last, times gamma, plus beta.

    None where the graph is not one for inference on this kind of machine, or this machine lacks the operation.
    """
    if constant_mode() != "native" or internal_unavailable(LAYER_NORM) is not None:
        return None
    y = op_def_library.apply_op(LAYER_NORM, name=name, x=x, scale=gamma, offset=beta, epsilon=epsilon)
    y.set_shape(x.shape)
    return y


@contextlib.contextmanager
def fused_layer_norms() -> Iterator[None]:
    """Has Keras's layers call `fused_norm` where they are traced inside, and it gives something."""
    kind = keras.layers.LayerNormalization
    plain = kind.call

    def call(layer: Any, inputs: Any) -> Any:
        fused = _fused(layer, inputs)
        return plain(layer, inputs) if fused is None else fused

    kind.call = call
    try:
        yield
    finally:
        kind.call = plain


def _fused(layer: Any, inputs: Any) -> Any | None:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    over_last = list(axes) in ([-1], [inputs.shape.rank - 1])
    is_plain = layer.gamma is not None and layer.beta is not None and not getattr(layer, "rms_scaling", False)
    is_float32 = inputs.dtype == tf.float32 and layer.compute_dtype == "float32"
    if not (over_last and is_plain and is_float32 and inputs.shape.rank in (2, 3)):
        return None
    gamma, beta = (tf.convert_to_tensor(weight) for weight in (layer.gamma, layer.beta))
    return fused_norm(inputs, gamma, beta, layer.epsilon, layer.name)
