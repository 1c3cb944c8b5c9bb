"""Weights as constants of a TensorFlow graph: oneDNN's operations keep prepared weights only of constants."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util

_constants: ContextVar[str | None] = ContextVar("constant weights", default=None)


@contextlib.contextmanager
def constant_weights(portable: bool = False) -> Iterator[None]:
    """Makes the fused layers that are traced inside constants of the graph, with the values that they have now.

    For graphs whose weights never change again and that need no gradients: an export, a compiled forward pass.
    Nothing is done to what is called eagerly or compiled by XLA.

    Args:
        portable: public operations that each build of TensorFlow has, and that are exact on each CPU.
    """
    token = _constants.set("portable" if portable else "native")
    try:
        yield
    finally:
        _constants.reset(token)


def constant_mode() -> str | None:
    """`native` or `portable` where weights are to be constants, None elsewhere: eagerly, in XLA, in other graphs."""
    if tf.executing_eagerly() or control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph()):
        return None
    return _constants.get()


def host_value(value: Any) -> np.ndarray:
    """The value that a variable has now, read so that a function in the making does not count it as used."""
    with tf.init_scope():
        if isinstance(value, tf.Variable):
            value = tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype)
        return np.asarray(value)
