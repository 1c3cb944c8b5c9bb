"""Layer norms in TensorFlow as one operation of oneDNN, in graphs for inference.

By public operations a norm is ten of them, each of which goes through all of its input. `_MklLayerNorm` is an internal
operation of TensorFlow built with oneDNN on x86, without gradients: it is used inside `constant_weights` alone.
TensorFlow 2.21's optimizer puts it in the place of some public forms, and forgets their epsilon.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_library

from kcost.backends.kernels.tensorflow_constants import constant_mode, host_value
from kcost.backends.kernels.tensorflow_int8 import internal_unavailable

LAYER_NORM = "_MklLayerNorm"


def fused_layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any | None:
    """As `Driver.fused_layer_norm`."""
    if constant_mode() != "native" or any(tf.is_symbolic_tensor(part) for part in (gamma, beta)):
        return None  # the second are values that the graph is given, as by `stateless_call`
    return fused_norm(x, host_value(gamma), host_value(beta), epsilon, "norm")


def fused_norm(x: Any, gamma: Any, beta: Any, epsilon: float, name: str) -> Any | None:
    """A norm with constants for gamma and beta, arrays or tensors; None where there is no such operation for it.

    The operation reads as many numbers of gamma and beta as its input has columns, whether they are there or not: it
    is used only where both are known to be the same. It takes two or three axes.
    """
    if constant_mode() != "native" or internal_unavailable(LAYER_NORM) is not None:
        return None
    columns = x.shape[-1] if x.shape.rank in (2, 3) else None
    if x.dtype != tf.float32 or gamma.shape != (columns,) or beta.shape != (columns,):
        return None
    y = op_def_library.apply_op(LAYER_NORM, name=name, x=x, scale=gamma, offset=beta, epsilon=epsilon)
    y.set_shape(x.shape)
    return y
